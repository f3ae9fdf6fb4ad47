"""Finds how many tokens of a text stand for a picture, a video or a sound: the model's own methods that make features of these tell."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe import samples
from ptmkb.probe.wanted import CONTENT, Wanted

MADE_LAST = ("mm_token_type_ids",)
"""Known only when the placeholders are in the text."""
_SUFFIX = 4
"""Words behind the prompt, where a model tells these apart."""
_MASK = "image_embeds_position_mask"
"""Says where a picture's features go, in a model without a placeholder."""
_MEDIA: tuple[tuple[tuple[str, ...], str, str], ...] = (
    # The fields that name the placeholder, the method that makes what takes its place, and what that is.
    (("image_token_id", "image_token_index", "image_patch_id"), "get_image_features", "image"),
    (("video_token_id", "video_token_index"), "get_video_features", "video"),
    (("audio_token_id", "audio_token_index"), "get_audio_features", "audio"),
)


def _features(model: nn.Module, method: str, made: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The method that makes features of pictures or sounds, of the module that takes most of the inputs; and what it takes of them."""
    best: tuple[Any, dict[str, Any]] = (None, {})
    for module in model.modules():
        if features := getattr(module, method, None):
            given = {name: made[name] for name in inspect.signature(features).parameters if name in made}
            if len(given) > len(best[1]) and set(given) & set(CONTENT) - {"input_ids"}:
                best = (features, given)
    return best


def needed(model: nn.Module, content: Sequence[str]) -> list[str]:
    """What the methods that make features of pictures and sounds cannot do without."""
    wants = [
        inspect.signature(features).parameters
        for module in model.modules()
        for _, method, _ in _MEDIA
        if (features := getattr(module, method, None))
    ]
    return [
        name
        for parameters in wants
        if set(parameters) & set(content) - {"input_ids"}
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
    ]


def held_places(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, list[int]]:
    """Which positions of a text are held for pictures and sounds.

    Args:
        model: The model.
        inputs: Its inputs, the text with its placeholders.

    Returns:
        By kind (`image`, `video`, `audio`) the positions that hold its placeholder in every sample.
    """
    tokens = inputs.get("input_ids")
    if not isinstance(tokens, Tensor) or tokens.dim() != 2:
        return {}
    found = {}
    for tokens_of, _, kind in _MEDIA:
        token = Wanted(model).setting(*tokens_of)
        if isinstance(token, int) and (held := (tokens == token).all(0)).any():
            found[kind] = held.nonzero().flatten().tolist()
    mask = inputs.get(_MASK)
    if isinstance(mask, Tensor) and mask.shape == tokens.shape:
        found["image"] = mask.bool().all(0).nonzero().flatten().tolist()
    return found


def with_placeholders(
    model: nn.Module,
    made: Mapping[str, Any],
    named: Mapping[str, inspect.Parameter],
    placeholders: Mapping[str, int],
    token_types: str | None = None,
) -> dict[str, Any]:
    """The inputs, the text now with as many placeholders for pictures and sounds before its last words as the model makes of them.

    Args:
        model: The model.
        made: Its inputs, the text without placeholders.
        named: The arguments of its forward pass.
        placeholders: How many of each kind, where the model cannot be asked.
        token_types: What `token_type_ids` number: `media` (1 for a picture's place), `suffix` (1 for what is to be written behind the
            prompt); not given where None.
    """
    inputs = dict(made)
    tokens: Tensor = inputs["input_ids"]
    for tokens_of, method, kind in _MEDIA:
        token = Wanted(model).setting(*tokens_of)
        if not isinstance(token, int):
            continue
        features, given = _features(model, method, {**made, "input_ids": tokens})
        if features is None and kind not in placeholders:
            continue
        if kind in placeholders:
            held = torch.full((samples.BATCH, placeholders[kind]), token)
            tokens = torch.cat([tokens[:, :2], held, tokens[:, 2:]], dim=1)
            continue
        with torch.no_grad():
            found = features(**given)
        pooled = getattr(found, "pooler_output", None)
        found = getattr(found, "last_hidden_state", found) if pooled is None else pooled
        pieces = [found] if isinstance(found, Tensor) else [p for p in found if isinstance(p, Tensor)]
        count = sum(piece.numel() // piece.shape[-1] for piece in pieces) // samples.BATCH
        held = torch.full((samples.BATCH, count), token)
        tokens = torch.cat([tokens[:, :2], held, tokens[:, 2:]], dim=1)
    inputs["input_ids"] = tokens
    types = torch.zeros_like(tokens)
    for number, (tokens_of, _, _) in enumerate(_MEDIA, start=1):
        if isinstance(token := Wanted(model).setting(*tokens_of), int):
            types[tokens == token] = number
    if "mm_token_type_ids" in named:
        inputs["mm_token_type_ids"] = types
    if token_types == "media":
        inputs["token_type_ids"] = types
    if token_types == "suffix":
        inputs["token_type_ids"] = torch.zeros_like(tokens)
        inputs["token_type_ids"][:, -_SUFFIX:] = 1
    if isinstance(mask := inputs.get("attention_mask"), Tensor) and mask.shape != tokens.shape:
        inputs["attention_mask"] = torch.ones_like(tokens)
    return inputs
