"""Finds what goes into a model position by position, and where it comes out again.

A stream is words, patches, frames or regions; which argument makes which stream is known by the argument's name, how many positions it
has is seen in what comes out. Tokens that a model adds (a class token, a separator) come before the stream's own and are taken off.
How a position is replaced is said in `replacing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe import samples
from ptmkb.probe.numerics import tensors_in
from ptmkb.probe.replacing import Region, own_positions, replacer
from ptmkb.probe.subject import Inputs, Stream

_KINDS: Mapping[str, tuple[str, str]] = {  # argument -> the stream it feeds, and what a position of it is
    "input_ids": ("text", "token"),
    "character_ids": ("text", "characters"),
    "pixel_values": ("image", "patch"),
    "pixel_values_videos": ("video", "patch"),
    "input_values": ("audio", "wave"),
    "input_features": ("audio", "frame"),
    "visual_feats": ("image", "vector"),
    "visual_pos": ("image", "box"),
    "visual_embeds": ("image", "vector"),
    "region_features": ("image", "vector"),
    "region_boxes": ("image", "box"),
    "past_values": ("series", "step"),
    "decoder_input_ids": ("decoder", "token"),
    "decoder_input_values": ("decoder", "vector"),
}
_NAMES: Mapping[
    str, tuple[str, ...]
] = {  # what a model's classes call a stream in the names of their outputs
    "text": ("text", "language"),
    "image": ("image", "vision", "visual", "region"),
    "video": ("video", "vision"),
    "audio": ("audio", "speech"),
}
_JOINT = ("last_hidden_state", "hidden_states.-1", "language_model_outputs.hidden_states.-1")


@dataclass(frozen=True)
class Source:
    """One argument of the forward pass that feeds a stream.

    Attributes:
        argument: Its name.
        kind: What a position of it is: `token`, `characters`, `vector` (`column` where the features come first), `box`, `patch`, `wave`,
            `frame` or `step` (of a series).
    """

    argument: str
    kind: str


def sources(
    inputs: Inputs, further: Mapping[str, Sequence[str]] | None = None
) -> dict[str, tuple[Source, ...]]:
    """Which arguments feed which stream; an encoder-decoder's streams are `encoder` and `decoder`.

    Args:
        inputs: The arguments of the forward pass.
        further: Arguments whose names do not tell, each with its stream and its kind.
    """
    found: dict[str, list[Source]] = {}
    kinds = {**_KINDS, **{name: (row[0], row[1]) for name, row in (further or {}).items()}}
    two_sided = any(kinds[name][0] == "decoder" for name in inputs if name in kinds)
    for name in inputs:
        if name not in kinds:
            continue
        stream, kind = kinds[name]
        value = inputs[name]
        if (
            kind == "wave" and value.dim() == 3 and value.shape[1] > 1
        ):  # features, not the only channel of a sound
            kind = "vector"
        found.setdefault("encoder" if two_sided and stream != "decoder" else stream, []).append(
            Source(name, kind)
        )
    return {stream: tuple(rows) for stream, rows in found.items()}


# --- where a stream comes out ---------------------------------------------------------------------------------------------------------


def reader(
    stream_sources: Mapping[str, Sequence[Source]],
    inputs: Inputs,
    returned: Any,
    read: Mapping[str, str],
    places: Mapping[str, Sequence[int]],
) -> Callable[[Any], dict[str, Tensor]]:
    """How to read every stream's output from what a forward pass returns; tokens that the model added are still there.

    A stream that comes out nowhere (a picture that a text only attends to) has no output.

    Args:
        stream_sources: What feeds which stream.
        inputs: The arguments of the forward pass.
        returned: What it returned once.
        read: Where to look, by output name, for what the usual names do not say.
        places: Where each stream's positions are in the one sequence of all, where a text holds places for the others.

    Raises:
        LookupError: No stream's output is found.
    """
    counts = {stream: _count(rows[0], inputs[rows[0].argument]) for stream, rows in stream_sources.items()}
    if read:
        return lambda outputs: {name: _at(outputs, place, counts.get(name)) for name, place in read.items()}
    joint = next((place for place in _JOINT if _tensor(returned, place) is not None), None)
    if places and joint is not None:
        rows = {stream: torch.tensor(list(own)) for stream, own in places.items()}
        return lambda outputs: {stream: _at(outputs, joint)[:, own] for stream, own in rows.items()}
    candidates = {stream: _candidates(stream, len(counts)) for stream in counts}
    found = {
        stream: next((place for place in candidates[stream] if _tensor(returned, place) is not None), None)
        for stream in counts
    }
    if len(counts) > 1 and not any(found.values()) and joint is not None:
        return lambda outputs: _split(_at(outputs, joint), counts)
    kept = {stream: place for stream, place in found.items() if place is not None}
    if list(counts) == ["image"] and _tensor(returned, "encoder_last_hidden_state") is not None:
        # A detector: its decoder's positions are those of queries of its own.
        own = kept.pop("image", None)
        kept = {"image": "encoder_last_hidden_state", **({"query": own} if own in _JOINT else {})}
    if not kept:
        raise LookupError(_no_positions(list(counts), returned))
    return lambda outputs: {stream: _at(outputs, place) for stream, place in kept.items()}


def _no_positions(wanted: Sequence[str], returned: Any) -> str:
    """Why nothing can be said position by position."""
    shapes = [f"{name} {tuple(value.shape)}" for name, value in tensors_in(returned)]
    of = " and ".join(wanted)
    if not of:
        return "what goes in has no positions that could be replaced one by one"
    return f"what comes out has no place for each position of {of}: {', '.join(shapes[:3]) or 'no tensors'}"


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
            f"{name}_output.last_hidden_state",
            f"{name}_outputs.last_hidden_state",
            f"{name}_features",
            f"{name}_encoder_hidden_states.-1",
            f"encoder_last_hidden_state_{name}",
        )
    ]
    if streams > 1:
        return tuple(named)
    encoder = ("encoder_last_hidden_state", "encoder_hidden_states.-1")
    return ("last_hidden_state", "hidden_states.-1", *named, *encoder)


def _tensor(returned: Any, place: str) -> Tensor | None:
    try:
        value = _at(returned, place)
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    return value if isinstance(value, Tensor) and value.dim() >= 3 else None


def _at(returned: Any, place: str, count: int | None = None) -> Tensor:
    """A tensor of what was returned, (batch, positions, features).

    Args:
        returned: What a forward pass returned.
        place: Names and numbers on the way to it, and then what is to be done with it: `0:12` takes these positions, `first_half` half
            of the features, `axis2` says that the positions are on the third axis, `pieces` cuts all that belongs to a sample into as
            many pieces as the stream has positions.
        count: How many positions the stream has by itself.
    """
    value: Any = returned
    for step in place.split("."):
        if step.lstrip("-").isdigit():
            if isinstance(value, Tensor):
                raise TypeError(f"`{place}`: a tensor stands where a list of them was expected")
            value = value[int(step)]
        elif ":" in step:  # positions
            value = value[:, slice(*(int(bound) if bound else None for bound in step.split(":")))]
        elif step in ("first_half", "second_half"):
            value = value.chunk(2, dim=-1)[step == "second_half"]
        elif step == "axis2":
            value = value.transpose(1, 2).flatten(2)
        elif step == "pieces":
            whole, pieces = value.flatten(1), count or 1
            value = whole[:, : whole.shape[1] // pieces * pieces].unflatten(1, (pieces, -1))
        else:
            value = _named(value, step)
    if isinstance(value, Tensor) and value.dim() == 4:
        # A feature map: (batch, channels, height, width), or with the channels last; samples are square.
        _, *sizes = value.shape
        last = sizes[0] == sizes[1] != sizes[2]
        value = value.flatten(1, 2) if last else value.flatten(2).transpose(1, 2)
    if isinstance(value, Tensor) and value.dim() == 2 and len(value) > samples.BATCH:
        both = len(value) % samples.BATCH == 0  # the patches of both samples in one row
        value = value.view(samples.BATCH, -1, value.shape[1]) if both else value
    return value  # type: ignore[no-any-return]


def _named(value: Any, name: str) -> Any:
    return value[name] if isinstance(value, Mapping) else getattr(value, name)


def _count(source: Source, value: Tensor) -> int | None:
    """How many positions an argument has by itself; None where the model decides (patches, frames)."""
    if source.kind == "column":
        return int(value.shape[-1])
    return None if source.kind in ("patch", "wave", "frame", "step") else int(value.shape[1])


def _split(output: Tensor, counts: Mapping[str, int | None]) -> dict[str, Tensor]:
    """Streams that run in one sequence, in the order of the arguments; what is left over belongs to the one without a count, or the last.

    A stream for which nothing is left has no output.
    """
    left = output.shape[1] - sum(count for count in counts.values() if count is not None)
    pieces, start = {}, 0
    for order, (stream, count) in enumerate(counts.items()):
        length = left if count is None else count
        if count is not None and order == len(counts) - 1 and left > 0 and None not in counts.values():
            start += left
        if 0 < length <= output.shape[1] - start:
            pieces[stream] = output[:, start : start + length]
        start += length
    return pieces


# --- what goes in ---------------------------------------------------------------------------------------------------------------------


def stream(
    name: str,
    rows: Sequence[Source],
    model: nn.Module,
    inputs: Inputs,
    output: Tensor | None,
    places: Sequence[int] | None = None,
    held: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Stream, int]:
    """A stream that can be replaced position by position.

    Args:
        name: Its name.
        rows: The arguments that feed it.
        model: The model.
        inputs: Its inputs.
        output: The stream's output, (batch, positions, features); None where it has none.
        places: Where its positions are in the text that holds places for it, where one does.
        held: By kind, which positions of a text are held for others; an encoder's stream has words and pictures in one.

    Returns:
        The stream; how many leading positions of the output belong to tokens that the model added.
    """
    positions = None if output is None else int(output.shape[1])
    first = inputs[rows[0].argument]
    own = own_positions(rows[0].kind, model, first, positions) if places is None else len(places)
    others = sorted(place for row in (held or {}).values() for place in row) if places is None else []
    taken = others if rows[0].kind == "token" and len(rows) > 1 else []
    replacers = []
    for row in rows:
        token = row.kind == "token"
        count = len(taken) if taken and not token else own
        region = Region(row.argument, row.kind, count, tuple(places) if token and places else None)
        replacers.append((replacer(region, model, inputs), token))

    def replaced(given: Inputs, position: int, generator: torch.Generator) -> Inputs:
        changed = dict(given)
        for replace, token in replacers:
            if not taken:
                changed.update(replace(changed, position, generator))
            elif token != (position in taken):  # a word, or the piece of the picture that has its place here
                changed.update(replace(changed, position if token else taken.index(position), generator))
        return changed

    return Stream(name, own, replaced), 0 if positions is None else positions - own
