"""Finds what goes into a model position by position, and where it comes out again.

A stream is words, patches, frames or regions; which argument makes which stream is known by the argument's name, how many positions it
has is seen in what comes out. Tokens that a model adds (a class token, a separator) come before the stream's own and are taken off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe.inputs import configurations, frame_length, ordinary_words
from ptmkb.probe.subject import Inputs, Stream

_KINDS: Mapping[str, tuple[str, str]] = {  # argument -> the stream it feeds, and what a position of it is
    "input_ids": ("text", "token"),
    "character_ids": ("text", "characters"),
    "pixel_values": ("image", "patch"),
    "input_values": ("audio", "wave"),
    "input_features": ("audio", "frame"),
    "visual_feats": ("image", "vector"),
    "visual_pos": ("image", "box"),
    "visual_embeds": ("image", "vector"),
    "region_features": ("image", "vector"),
    "region_boxes": ("image", "box"),
    "decoder_input_ids": ("decoder", "token"),
    "decoder_input_values": ("decoder", "vector"),
}
_NAMES: Mapping[
    str, tuple[str, ...]
] = {  # what a model's classes call a stream in the names of their outputs
    "text": ("text", "language"),
    "image": ("image", "vision", "visual", "region"),
    "audio": ("audio", "speech"),
}


@dataclass(frozen=True)
class Source:
    """One argument of the forward pass that feeds a stream.

    Attributes:
        argument: Its name.
        kind: What a position of it is: `token`, `characters`, `vector`, `box`, `patch`, `wave` or `frame`.
    """

    argument: str
    kind: str


def sources(model: nn.Module, inputs: Inputs) -> dict[str, tuple[Source, ...]]:
    """Which arguments feed which stream; an encoder-decoder's streams are `encoder` and `decoder`."""
    found: dict[str, list[Source]] = {}
    two_sided = any(_KINDS[name][0] == "decoder" for name in inputs if name in _KINDS)
    for name in inputs:
        if name not in _KINDS:
            continue
        stream, kind = _KINDS[name]
        value = inputs[name]
        if kind == "wave" and value.dim() == 3:
            kind = "vector"
        found.setdefault("encoder" if two_sided and stream != "decoder" else stream, []).append(
            Source(name, kind)
        )
    return {stream: tuple(rows) for stream, rows in found.items()}


# --- where a stream comes out ---------------------------------------------------------------------------------------------------------


def reader(
    stream_sources: Mapping[str, Sequence[Source]], inputs: Inputs, returned: Any, places: Mapping[str, str]
) -> Callable[[Any], dict[str, Tensor]]:
    """How to read every stream's output from what a forward pass returns; tokens that the model added are still there.

    Args:
        stream_sources: What feeds which stream.
        inputs: The arguments of the forward pass.
        returned: What it returned once.
        places: Where to look, by output name, for what the usual names do not say.

    Raises:
        LookupError: A stream's output is not found.
    """
    if places:
        return lambda outputs: {name: _at(outputs, place) for name, place in places.items()}
    counts = {stream: _count(rows[0], inputs[rows[0].argument]) for stream, rows in stream_sources.items()}
    candidates = {stream: _candidates(stream, len(counts)) for stream in counts}
    found = {
        stream: next((place for place in candidates[stream] if _tensor(returned, place) is not None), None)
        for stream in counts
    }
    if len(counts) > 1 and None in found.values():
        joint = next(
            (p for p in ("last_hidden_state", "hidden_states.-1") if _tensor(returned, p) is not None), None
        )
        if joint is None:
            raise LookupError(
                f"no output for {' and '.join(s for s, place in found.items() if place is None)}"
            )
        return lambda outputs: _split(_at(outputs, joint), counts)
    missing = [stream for stream, place in found.items() if place is None]
    if missing:
        raise LookupError(
            f"no output for {' and '.join(missing) or 'any stream'} in {type(returned).__name__}"
        )
    kept = {stream: str(place) for stream, place in found.items()}
    return lambda outputs: {stream: _at(outputs, place) for stream, place in kept.items()}


def _candidates(stream: str, streams: int) -> tuple[str, ...]:
    if stream == "encoder":
        return ("encoder_last_hidden_state", "encoder_hidden_states.-1")
    if stream == "decoder":
        return ("decoder_hidden_states.-1", "last_hidden_state", "hidden_states.-1")
    named = [
        place
        for name in _NAMES.get(stream, (stream,))
        for place in (
            f"{name}_last_hidden_state",
            f"{name}_hidden_states.-1",
            f"{name}_model_output.last_hidden_state",
            f"{name}_output",
        )
    ]
    return tuple(named) if streams > 1 else ("last_hidden_state", "hidden_states.-1", *named)


def _tensor(returned: Any, place: str) -> Tensor | None:
    try:
        value = _at(returned, place)
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    return value if isinstance(value, Tensor) and value.dim() >= 3 else None


def _at(returned: Any, place: str) -> Tensor:
    value: Any = returned
    for step in place.split("."):
        if step.lstrip("-").isdigit():
            value = value[int(step)]
        elif ":" in step:  # positions
            first, _, last = step.partition(":")
            value = value[:, int(first) : int(last)]
        elif step in ("first_half", "second_half"):
            value = value.chunk(2, dim=-1)[step == "second_half"]
        else:
            value = value[step] if isinstance(value, Mapping) else getattr(value, step)
    if isinstance(value, Tensor) and value.dim() == 4:  # a feature map: (batch, channels, height, width)
        value = value.flatten(2).transpose(1, 2)
    return value  # type: ignore[no-any-return]


def _count(source: Source, value: Tensor) -> int | None:
    """How many positions an argument has by itself; None where the model decides (patches, frames)."""
    return None if source.kind in ("patch", "wave", "frame") else int(value.shape[1])


def _split(output: Tensor, counts: Mapping[str, int | None]) -> dict[str, Tensor]:
    """Streams that run in one sequence, in the order of the arguments; what is left over belongs to the one without a count, or the last."""
    left = output.shape[1] - sum(count for count in counts.values() if count is not None)
    pieces, start = {}, 0
    for order, (stream, count) in enumerate(counts.items()):
        length = left if count is None else count
        if count is not None and order == len(counts) - 1 and left > 0 and None not in counts.values():
            start += left
        pieces[stream] = output[:, start : start + length]
        start += length
    return pieces


# --- what goes in ---------------------------------------------------------------------------------------------------------------------


def stream(
    name: str, rows: Sequence[Source], model: nn.Module, inputs: Inputs, output: Tensor
) -> tuple[Stream, int]:
    """A stream that can be replaced position by position.

    Args:
        name: Its name.
        rows: The arguments that feed it.
        model: The model.
        inputs: Its inputs.
        output: The stream's output, (batch, positions, features).

    Returns:
        The stream; how many leading positions of the output belong to tokens that the model added.
    """
    positions = int(output.shape[1])
    grid = _grid(model, inputs[rows[0].argument]) if rows[0].kind == "patch" else None
    if grid is not None and grid[0] * grid[1] <= positions:
        own = grid[0] * grid[1]
    elif rows[0].kind in ("patch", "wave", "frame"):
        own = positions
    else:
        own = int(inputs[rows[0].argument].shape[1])
    replacers = [_replacer(row, model, inputs, own, grid) for row in rows]

    def replaced(given: Inputs, position: int, generator: torch.Generator) -> Inputs:
        changed = dict(given)
        for replace in replacers:
            changed.update(replace(changed, position, generator))
        return changed

    return Stream(name, own, replaced), positions - own


def _grid(model: nn.Module, pixels: Tensor) -> tuple[int, int] | None:
    for config in configurations(model.config):
        patch = getattr(config, "patch_size", None)
        if isinstance(patch, int) or (isinstance(patch, list | tuple) and len(patch) == 2):
            height, width = (patch, patch) if isinstance(patch, int) else patch
            return pixels.shape[-2] // height, pixels.shape[-1] // width
    return None


Replacer = Callable[[Inputs, int, torch.Generator], dict[str, Tensor]]


def _replacer(
    source: Source, model: nn.Module, inputs: Inputs, positions: int, grid: tuple[int, int] | None
) -> Replacer:
    name, value = source.argument, inputs[source.argument]
    if source.kind in ("token", "characters"):
        words = torch.tensor(ordinary_words(model))

        def token(given: Inputs, position: int, generator: torch.Generator) -> dict[str, Tensor]:
            old: Tensor = given[name].clone()
            shape = old[:, position].shape
            # A step of 1 to len - 1 through the list of words never ends where it began.
            step = torch.randint(1, len(words), shape, generator=generator)
            here = (words[:, None] == old[:, position].reshape(1, -1)).int().argmax(0).reshape(shape)
            old[:, position] = words[(here + step) % len(words)]
            return {name: old}

        return token

    def piece(tensor: Tensor, position: int) -> Tensor:
        if source.kind in ("vector", "box"):
            return tensor[:, position]
        if source.kind == "patch":
            if (
                grid is None or grid[0] * grid[1] != positions
            ):  # a pyramid: the output's own grid over the picture
                side = max(1, round(positions**0.5))
                rows, columns = side, max(1, positions // side)
            else:
                rows, columns = grid
            height, width = tensor.shape[-2] // rows, tensor.shape[-1] // columns
            top, left = position // columns * height, position % columns * width
            return tensor[..., top : top + height, left : left + width]
        if source.kind == "wave":
            strides = next(
                (s for c in configurations(model.config) if (s := getattr(c, "conv_stride", None))), None
            )
            step = frame_length(tensor.shape[-1], positions, strides)
            return tensor[..., position * step : (position + 1) * step]
        axis = 1 if tensor.shape[-1] == _bins(model) else 2
        step = tensor.shape[axis] // positions
        return tensor.narrow(axis, position * step, max(step, 1))

    def value_of(given: Inputs, position: int, generator: torch.Generator) -> dict[str, Tensor]:
        changed: Tensor = given[name].clone()
        target = piece(changed, position)
        new = torch.rand(target.shape, generator=generator, dtype=torch.float64)
        if source.kind == "box":
            target.copy_(new.sort(dim=-1).values.to(target.dtype))
        else:
            scale = float(value.std()) or 1.0
            target.copy_((2 * new - 1).mul(1.7 * scale).to(target.dtype))
        return {name: changed}

    return value_of


def _bins(model: nn.Module) -> int | None:
    return next(
        (
            b
            for c in configurations(model.config)
            for n in ("num_mel_bins", "feature_size")
            if (b := getattr(c, n, None))
        ),
        None,
    )
