"""Makes the inputs that a model's forward pass wants, from its signature, its main input and its configuration.

Each argument that the field's models share (`input_ids`, `pixel_values`, `visual_feats`, …) has one maker here. A model gets the arguments
that it cannot do without, and everything that carries content; masks, positions and caches are left to their defaults.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe import samples
from ptmkb.probe.shrinking import FIRST_SPECIAL, RESERVED

TOKENS = 12
DECODER_TOKENS = 10
"""Not as many as go into the encoder, so that the two cannot be mixed up."""
REGIONS = 6
GRID = 4
"""Rows and columns of patches, where a model wants patches rather than pictures."""
MEL_FRAMES = 24
CONTENT = (
    "input_ids", "character_ids", "pixel_values", "input_values", "input_features", "visual_feats", "visual_pos", "visual_embeds",
    "region_features", "region_boxes",
)  # fmt: skip
DECODER_CONTENT = ("decoder_input_ids", "decoder_input_values")
SETTINGS: Mapping[str, Any] = {"output_hidden_states": True, "use_cache": False}
"""Given to every model that takes them: all hidden states are wanted, and nothing may be remembered from one run to the next."""


@dataclass(frozen=True)
class Wanted:
    """What a maker may look at.

    Attributes:
        model: The model that the inputs are for.
        names: The arguments that its forward pass has.
        made: The inputs made so far.
    """

    model: nn.Module
    names: tuple[str, ...] = ()
    made: dict[str, Any] = field(default_factory=dict)

    def setting(self, *names: str, default: Any = None) -> Any:
        """The first of these configuration fields that is there, nested configurations included."""
        for config in configurations(self.model.config):
            for name in names:
                if (value := getattr(config, name, None)) is not None and not isinstance(value, property):
                    return value
        return default


def configurations(config: Any) -> list[Any]:
    """A configuration and those nested in it, outermost first."""
    nested = [
        value for value in vars(config).values() if hasattr(value, "model_type") and hasattr(value, "to_dict")
    ]
    return [config, *(inner for value in nested for inner in configurations(value))]


def ordinary_words(model: nn.Module) -> tuple[int, ...]:
    """Ids of words without a special meaning: neither the first few, nor padding and the like, nor out of the vocabulary."""
    vocabularies: list[int] = []
    special: set[Any] = set()
    for config in configurations(model.config):
        if isinstance(size := getattr(config, "vocab_size", None), int):
            vocabularies.append(size)
        for name, value in vars(config).items():
            if name.endswith(("token_id", "token_index", "token_ids")):
                special.update(value if isinstance(value, list | tuple) else [value])
    limit = min([FIRST_SPECIAL, *vocabularies])
    return tuple(i for i in range(min(RESERVED, limit // 2), limit) if i not in special)


def _tokens(count: int) -> Callable[[Wanted], Tensor]:
    return lambda wanted: samples.tokens(count, ordinary_words(wanted.model))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[-2]), int(value[-1]))


def _pixel_values(wanted: Wanted) -> Tensor:
    """Pictures, or their patches in one row where the model wants grids beside them."""
    if any(name in wanted.names for name in ("image_grid_thw", "grid_thw")):
        return _patches(wanted)
    height, width = _pair(wanted.setting("image_size", default=64))
    first = next((m for m in wanted.model.modules() if isinstance(m, nn.Conv2d)), None)
    declared = wanted.setting("num_channels", default=3)
    channels = first.in_channels if first is not None and first.in_channels in (1, 3) else declared
    return samples.images(channels, height, width)


def _patches(wanted: Wanted) -> Tensor:
    """(patches of both samples, channels × time × height × width of a patch)."""
    height, width = _pair(wanted.setting("patch_size", default=4))
    time = wanted.setting("temporal_patch_size", "patch_temporal", default=1)
    channels = wanted.setting("in_channels", "num_channels", default=3)
    return samples.vectors(GRID * GRID, channels * time * height * width).flatten(0, 1)


def _grids(wanted: Wanted) -> Tensor:
    return torch.tensor([[1, GRID, GRID]] * samples.BATCH)


def _with_image(model: nn.Module, made: dict[str, Any]) -> Tensor:
    """The tokens, with as many placeholders for the image before the last of them as the model makes of it."""
    tokens: Tensor = made["input_ids"]
    token = Wanted(model).setting("image_token_id", "image_token_index")
    features = getattr(model, "get_image_features", None)
    if not isinstance(token, int) or features is None or "pixel_values" not in made:
        return tokens
    given = {name: made[name] for name in ("pixel_values", "image_grid_thw") if name in made}
    with torch.no_grad():
        found = features(**given)
    found = getattr(found, "pooler_output", found)
    pieces = [found] if isinstance(found, Tensor) else [piece for piece in found if isinstance(piece, Tensor)]
    count = sum(piece.numel() // piece.shape[-1] for piece in pieces) // samples.BATCH
    held = torch.full((samples.BATCH, count), token)
    return torch.cat([tokens[:, :2], held, tokens[:, 2:]], dim=1)


def _input_values(wanted: Wanted) -> Tensor:
    strides, kernels = wanted.setting("conv_stride"), wanted.setting("conv_kernel")
    if not strides:
        return samples.waveforms(16_000)
    length, reach, step = TOKENS, 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        reach, step = reach + (kernel - 1) * step, step * stride
    return samples.waveforms((length - 1) * step + reach, wanted.setting("sampling_rate", default=16_000))


def _input_features(wanted: Wanted) -> Tensor:
    frames = 2 * wanted.setting("max_source_positions", default=MEL_FRAMES // 2)
    bins = wanted.setting(
        "num_mel_bins",
        "feature_projection_input_dim",
        "input_feat_size",
        "feature_size",
        "input_dim",
        default=80,
    )
    mel = samples.spectrograms(bins, frames)
    first = next((m for m in wanted.model.modules() if isinstance(m, nn.Conv1d)), None)
    return mel.transpose(1, 2).contiguous() if first is not None and first.in_channels == bins else mel


_MAKERS: Mapping[str, Callable[[Wanted], Any]] = {
    "input_ids": _tokens(TOKENS),
    "decoder_input_ids": _tokens(DECODER_TOKENS),
    "attention_mask": lambda wanted: torch.ones(samples.BATCH, TOKENS, dtype=torch.long),
    "visual_attention_mask": lambda wanted: torch.ones(samples.BATCH, REGIONS, dtype=torch.long),
    "pixel_values": _pixel_values,
    "input_values": _input_values,
    "input_features": _input_features,
    "image_grid_thw": _grids,
    "grid_thw": _grids,
    "hidden_states": _patches,
    "bbox": lambda wanted: (1000 * samples.boxes(TOKENS)).long(),
    "decoder_input_values": lambda wanted: samples.spectrograms(
        wanted.setting("num_mel_bins", default=80), DECODER_TOKENS
    ),
    "visual_feats": lambda wanted: samples.vectors(REGIONS, wanted.setting("visual_feat_dim")),
    "visual_pos": lambda wanted: samples.boxes(REGIONS, wanted.setting("visual_pos_dim", default=4)),
    "visual_embeds": lambda wanted: samples.vectors(REGIONS, wanted.setting("visual_embedding_dim")),
}


def sample_inputs(
    model: nn.Module,
    extra: Mapping[str, Any] | None = None,
    transposed: Sequence[str] = (),
    unsqueezed: Sequence[str] = (),
) -> dict[str, Any]:
    """Inputs of a forward pass, without labels; a batch of 2, on the CPU (for a model on `meta` too: see `meta`).

    Args:
        model: A model of `transformers`.
        extra: What the signature does not tell: names of further arguments (value None: made as usual), or shapes in numbers and names
            of configuration fields.
        transposed: Arguments whose last two axes are the other way round in this model.
        unsqueezed: Arguments that want one more axis after the batch (one of several pictures, the only channel).

    Raises:
        ValueError: The model cannot do without an argument that nothing here knows how to make.
    """
    signature = inspect.signature(model.forward).parameters
    named = {n: p for n, p in signature.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    main = getattr(model, "main_input_name", "input_ids")
    wanted = Wanted(model, tuple(named))
    demanded = [name for name, parameter in named.items() if parameter.default is parameter.empty]
    content = [name for name in CONTENT if name in named]
    if main in content and "pixel_values" in content and not _sees(model):
        content.remove("pixel_values")
    if any(name in named for name in DECODER_CONTENT) and getattr(model.config, "is_encoder_decoder", False):
        content += [name for name in DECODER_CONTENT if name in named]
    if "pixel_values" in content and "image_grid_thw" in named:
        content.append("image_grid_thw")
    extra = dict(extra or {})
    for name in dict.fromkeys([*content, *demanded, *extra]):
        if (shape := extra.get(name)) is not None:
            sizes = [getattr(model.config, size) if isinstance(size, str) else size for size in shape]
            wanted.made[name] = samples.vectors(*sizes)
        elif name in _MAKERS:
            wanted.made[name] = _MAKERS[name](wanted)
        else:
            raise ValueError(
                f"{type(model).__name__} wants `{name}`, which has no maker in ptmkb/probe/inputs.py"
            )
    for name in transposed:
        wanted.made[name] = wanted.made[name].transpose(-1, -2).contiguous()
    for name in set(unsqueezed) & set(wanted.made):
        wanted.made[name] = wanted.made[name].unsqueeze(1)
    if "input_ids" in wanted.made:
        wanted.made["input_ids"] = _with_image(model, wanted.made)
    return wanted.made | {
        name: value
        for name, value in SETTINGS.items()
        if name in named or (takes_any and name == "output_hidden_states")
    }


def _sees(model: nn.Module) -> bool:
    return any(getattr(config, "image_size", None) is not None for config in configurations(model.config))


def frame_length(total: int, positions: int, strides: list[int] | tuple[int, ...] | None) -> int:
    """How many samples, frames or columns of an input belong to one position of the output."""
    return math.prod(strides) if strides and math.prod(strides) * positions <= total else total // positions
