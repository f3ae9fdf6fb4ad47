"""How positions enter a model before its layers: from a trained table, as sinusoids, by a convolution.

The same content is put at every position, and what goes into the first layer is compared from place to place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ptmkb.probe.batches import joinable, joined
from ptmkb.probe.numerics import in_float64, seeded, tensors_in
from ptmkb.probe.pinning import Enough, LayerRun, pinned
from ptmkb.probe.stacks import JOINT
from ptmkb.probe.subject import Inputs, Stream, Subject

SAME = 1e-9  # relative difference up to which float64 numbers of the same making are equal
_CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}


@dataclass(frozen=True)
class Entering:
    """How the positions of one stream enter its layers.

    Attributes:
        kinds: Of `absolute-learned`, `absolute-sinusoidal`, `absolute-fixed`, `convolution`, `other`.
        tables: Shapes of the parameters of which each position has a row of its own.
        seen: Whether positions could be followed into the layers; where not, `kinds` may lack some.
    """

    kinds: tuple[str, ...]
    tables: tuple[tuple[int, ...], ...] = ()
    seen: bool = True


def entering(doubled: Subject) -> dict[str, dict[str, Entering]]:
    """By stack and stream, how positions are told apart before the first layer.

    Args:
        doubled: In float64 (`Subject.doubled`).
    """
    found: dict[str, dict[str, Entering]] = {}
    with in_float64():
        for name, stream in doubled.streams.items():
            stacks = [stack for stack in (name, JOINT) if stack in doubled.blocks][:1]
            if not stacks and len(doubled.streams) == 1:  # one stream that goes into all of them
                stacks = [stack for stack, blocks in doubled.blocks.items() if blocks]
            for stack in stacks if stream.positions > 2 else ():
                try:
                    found.setdefault(stack, {})[name] = _entering(doubled, stream, stack)
                except (RuntimeError, ValueError, IndexError):
                    # Its content is not free: placeholders in a text must be as many as a picture's features.
                    found.setdefault(stack, {})[name] = Entering((), seen=False)
    return found


def _entering(subject: Subject, stream: Stream, stack: str) -> Entering:
    with torch.no_grad(), _overlapping() as overlaps:
        plain = _first_input(subject, stack, subject.inputs)
    rows = _rows(subject, stream, stack, plain)
    kinds: list[str] = []
    tables: tuple[tuple[int, ...], ...] = ()
    if rows.mixed:
        kinds.append("convolution" if overlaps else "other")  # `other`: layers that the subject does not know
    if len(rows.own) > 2 and "other" not in kinds:
        same = _same_everywhere(subject.inputs, stream)
        hidden = _first_input(subject, stack, same)[:1, rows.own]  # each sample may have an order of its own
        if rows.mixed:  # what a convolution sees beyond the ends differs too
            hidden = hidden[:, len(rows.own) // 4 : len(rows.own) - len(rows.own) // 4]
        steps = (hidden[:, 1:] - hidden[:, :-1]).abs().amax(dim=(0, 2))
        if bool((steps > SAME * hidden.abs().max()).all()):
            tables = _tables(subject, hidden)
            spaced = hidden.shape[1] > 2 and _by_distance(hidden)  # two are always one distance apart
            kind = "learned" if tables else "sinusoidal" if spaced else "fixed"
            # A convolution as wide as the sample sees an end from everywhere, which looks like positions that are fixed.
            kinds += [] if rows.mixed and kind == "fixed" else [f"absolute-{kind}"]
    return Entering(tuple(kinds), tables, bool(rows.own))


def _first_input(subject: Subject, stack: str, inputs: Inputs) -> Tensor:
    """What goes into a stack's first layer: (batch, positions, features)."""
    batch = next((value.shape[0] for _, value in tensors_in(inputs) if value.ndim), 1)
    seen: list[Tensor] = []

    def into(run: LayerRun, hidden: Tensor) -> None:
        if stack in run.stacks:
            seen.append(hidden)
            raise Enough

    with pinned(subject.blocks, into), seeded():
        subject.model(**dict(inputs))
    return seen[0] if seen[0].shape[0] == batch else seen[0].transpose(0, 1)


@dataclass(frozen=True)
class _Rows:
    """Where a stream's positions are in a stack's first input: `own` by position, and whether one moves the row of another."""

    own: list[int]
    mixed: bool


def _rows(subject: Subject, stream: Stream, stack: str, plain: Tensor) -> _Rows:
    generator = torch.Generator().manual_seed(0)
    variants = [stream.replaced(subject.inputs, at, generator) for at in range(stream.positions)]
    inputs: list[Tensor] = []
    with torch.no_grad():
        if joinable(subject.inputs, len(plain)):
            whole = _first_input(subject, stack, joined([*variants, subject.inputs]))
            *inputs, same = torch.split(whole, len(plain))
            if same.shape != plain.shape or float((same - plain).abs().max()) > SAME * float(
                plain.abs().max()
            ):
                inputs = []  # draws by sample, such as ViLT's order of patches, depend on the batch
        inputs = inputs or [_first_input(subject, stack, variant) for variant in variants]
    if any(changed.shape != plain.shape for changed in inputs):
        return _Rows([], False)
    moves = torch.stack([(changed - plain)[0].abs().amax(dim=1) for changed in inputs])
    moved = moves > SAME * plain.abs().max()
    if not bool(moved.any(dim=1).all()):
        return _Rows([], False)
    own = [int(row) for row in moves.argmax(dim=1)]
    if len(set(own)) < len(own):  # neighbours flow together
        own = list(range(len(own))) if len(own) == plain.shape[1] else []
    among = moved[:, own]  # rows of no position, such as a mean of all, do not count
    return _Rows(own, bool((among.sum(dim=1) > 1).any()) if own else bool((moved.sum(dim=1) > 1).any()))


def _same_everywhere(inputs: Inputs, stream: Stream) -> Inputs:
    """The inputs with the same content at all positions of a stream."""
    changed = inputs
    for position in range(stream.positions):
        changed = stream.replaced(changed, position, torch.Generator().manual_seed(0))
    same = dict(changed)
    for name, value in changed.items():
        if isinstance(value, Tensor) and value is not inputs.get(name) and not value.is_floating_point():
            # A token is replaced by one that is drawn relative to it: the second's (the first is often special) goes everywhere.
            same[name] = value[:, 1:2].expand_as(value).contiguous()
    return same


def _tables(subject: Subject, hidden: Tensor) -> tuple[tuple[int, ...], ...]:
    """The shapes of parameters of which two positions with the same content use different entries."""
    parameters = [p for p in subject.model.parameters() if p.requires_grad]
    if not hidden.requires_grad or hidden.shape[1] < 3:
        return ()
    weight = torch.linspace(0.5, 1.5, hidden.shape[-1], dtype=hidden.dtype)
    used = []
    for position in (1, 2):
        value = (
            (hidden[:, position] * weight).sin().sum()
        )  # not a plain sum, which a layer norm makes constant
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        used.append([None if g is None else g != 0 for g in gradients])
    return tuple(
        tuple(parameter.shape)
        for parameter, first, second in zip(parameters, *used, strict=True)
        if first is not None and second is not None and _apart(first, second)
    )


def _apart(first: Tensor, second: Tensor) -> bool:
    """Whether along some axis two masks have no row in common."""
    for axis in range(first.ndim if first.ndim > 1 else 0):
        others = [other for other in range(first.ndim) if other != axis]
        one, two = first.any(dim=others), second.any(dim=others)
        if bool(one.any()) and bool(two.any()) and not bool((one & two).any()):
            return True
    return False


def _by_distance(hidden: Tensor) -> bool:
    """Whether how far two positions' vectors lie apart depends on their distance alone, as it does for sinusoids."""
    vectors = hidden[0].detach()
    apart = torch.cdist(vectors, vectors)
    return all(
        float(diagonal.max() - diagonal.min()) < 1e-6 * float(apart.max())
        for diagonal in (apart.diagonal(offset) for offset in range(1, len(vectors)))
    )


class _Overlaps(TorchFunctionMode):
    """Notes convolutions whose windows overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _CONVOLUTIONS:
            given = dict(zip(("input", "weight", "bias", "stride"), args, strict=False)) | dict(kwargs or {})
            stride = given.get("stride", 1)
            strides = [stride] * _CONVOLUTIONS[name] if isinstance(stride, int) else list(stride)
            strides *= _CONVOLUTIONS[name] if len(strides) == 1 else 1
            kernel = given["weight"].shape[2:]
            if any(size > step for size, step in zip(kernel, strides, strict=True)):
                self.found.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def _overlapping() -> Iterator[list[str]]:
    with _Overlaps() as mode:
        yield mode.found
