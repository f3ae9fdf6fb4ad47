"""What every layer of a model depends on, found by giving each layer, alone, an input of its own.

All layers are studied in one run of the whole model on a batch of many copies: in each copy every layer gets the input that it had in
the plain run, but for one position (or two positions exchanged). So a layer's own reach is seen, whatever the layers before it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptmkb.probe.batches import joinable, joined
from ptmkb.probe.memory import shared
from ptmkb.probe.numerics import in_float64, seeded, tensors_in
from ptmkb.probe.pinning import Enough, LayerRun, pinned
from ptmkb.probe.stacks import CROSS, JOINT
from ptmkb.probe.subject import Inputs, Subject

NOISE_FACTOR = 100.0  # as in `influence`
RELATIVE_FLOOR = 1e-11  # of the largest output
WIDEST_NOISE = 1e-9  # share of the largest output by which copies in one batch may disturb each other
SWAPS = ((1, 2), (0, 3))  # positions that are exchanged to see whether a layer knows places


@dataclass
class Reach:
    """What one run of one layer depends on.

    Attributes:
        index: How many layers ran before it.
        stacks: The stacks that it belongs to.
        matrix: (outputs, inputs): which positions of its input move which of its output; None where it cannot be seen.
        others: Streams that change it by another way than its input: those that it attends to.
        knows_places: Whether exchanging two positions that an output sees changes that output; None where none sees two.
    """

    index: int
    stacks: tuple[str, ...]
    matrix: list[list[bool]] | None = None
    others: tuple[str, ...] = ()
    knows_places: bool | None = None


@dataclass(frozen=True)
class _Copy:
    """What is different in one copy of the batch: a position replaced, two exchanged, or all of a stream of the model's inputs."""

    position: int | None = None
    swap: tuple[int, int] | None = None
    stream: str | None = None


@dataclass
class _Seen:
    """A layer in the plain run; `axis` is that of the positions."""

    run: LayerRun
    into: Tensor
    axis: int
    out: Tensor | None = None

    @property
    def positions(self) -> int:
        return int(self.into.shape[self.axis])


Outputs = dict[int, list[Tensor]]


@shared
def reaches(doubled: Subject) -> list[Reach]:
    """What every layer depends on, in order of running.

    Args:
        doubled: In float64 (`Subject.doubled`).
    """
    with in_float64():
        batch = next((value.shape[0] for _, value in tensors_in(doubled.inputs) if value.ndim), 1)
        seen = _plain(doubled, batch)
        if not seen:
            return []
        copies = [_Copy(), *(_Copy(position=at) for at in range(max(s.positions for s in seen.values())))]
        copies += [_Copy(swap=pair) for pair in SWAPS]
        if len(doubled.streams) > 1 and JOINT not in doubled.blocks:
            copies += [_Copy(stream=name) for name in doubled.streams]
        copies.append(_Copy())
        outputs = _at_once(doubled, seen, copies, batch) or _outputs(
            doubled, seen, [[copy] for copy in copies], batch
        )
    return [_reach(row, outputs.get(index, []), copies) for index, row in seen.items()]


def _run(subject: Subject, inputs: Inputs) -> None:
    with torch.no_grad(), seeded():
        subject.model(**dict(inputs))


def _plain(subject: Subject, batch: int) -> dict[int, _Seen]:
    """What goes into every layer, and comes out, in a plain run."""
    seen: dict[int, _Seen] = {}

    def into(run: LayerRun, hidden: Tensor) -> None:
        if batch in hidden.shape[:2]:
            seen[run.index] = _Seen(run, hidden.detach().clone(), 1 if hidden.shape[0] == batch else 0)

    def out(run: LayerRun, hidden: Tensor) -> None:
        if run.index in seen:
            seen[run.index].out = hidden.detach().clone()

    with pinned(subject.blocks, into, out):
        _run(subject, subject.inputs)
    return {index: row for index, row in seen.items() if row.out is not None}


def _with_stream(subject: Subject, name: str | None) -> Inputs:
    """The inputs with all positions of a stream replaced."""
    inputs: Inputs = subject.inputs
    if name is not None:
        generator = torch.Generator().manual_seed(0)
        for position in range(subject.streams[name].positions):
            inputs = subject.streams[name].replaced(inputs, position, generator)
    return inputs


def _changed(seen: _Seen, copy: _Copy) -> Tensor:
    """A layer's input in one copy."""
    hidden = seen.into.clone()
    if copy.position is not None and copy.position < seen.positions:
        generator = torch.Generator().manual_seed(copy.position)
        target = hidden.select(seen.axis, copy.position)
        spread = float(seen.into.std()) or 1.0
        target += spread * torch.randn(target.shape, generator=generator, dtype=target.dtype)
    if copy.swap is not None and max(copy.swap) < seen.positions:
        order = list(range(seen.positions))
        first, second = copy.swap
        order[first], order[second] = second, first
        hidden = hidden.index_select(seen.axis, torch.tensor(order))
    return hidden


def _stays(run: LayerRun, copy: _Copy) -> bool:
    """Whether a layer's input is held in a copy; not in the stacks of a stream that is replaced, which must reach the others."""
    return copy.stream is None or not {copy.stream, CROSS} & set(run.stacks)


def _outputs(
    subject: Subject, seen: Mapping[int, _Seen], groups: Sequence[Sequence[_Copy]], batch: int
) -> Outputs:
    """By layer what comes out in every copy; the copies of a group run in one batch."""
    found: Outputs = {index: [] for index in seen}
    last = max(seen)
    for group in groups:

        def into(run: LayerRun, hidden: Tensor, group: Sequence[_Copy] = group) -> Tensor | None:
            row = seen.get(run.index)
            if row is None:
                return None
            pieces = torch.split(hidden, hidden.shape[1 - row.axis] // len(group), dim=1 - row.axis)
            held = [
                _changed(row, copy) if _stays(run, copy) else piece
                for copy, piece in zip(group, pieces, strict=True)
            ]
            return torch.cat(held, dim=1 - row.axis)

        def out(run: LayerRun, hidden: Tensor, group: Sequence[_Copy] = group) -> Tensor | None:
            row = seen.get(run.index)
            if row is None or row.out is None:
                return None
            over = 1 - row.axis
            pieces = torch.split(hidden.detach(), hidden.shape[over] // len(group), dim=over)
            found[run.index] += pieces
            if run.index == last:
                raise Enough
            # What a changed input does must not reach other layers by way of the last one's output (an encoder's, in a decoder).
            if row.out.shape != pieces[0].shape:
                return None
            held = [
                row.out if _stays(run, copy) else piece for copy, piece in zip(group, pieces, strict=True)
            ]
            return torch.cat(held, dim=over)

        variants = [_with_stream(subject, copy.stream) for copy in group]
        with pinned(subject.blocks, into, out):
            _run(subject, variants[0] if len(group) == 1 else joined(variants))
    return found


def _at_once(
    subject: Subject, seen: Mapping[int, _Seen], copies: Sequence[_Copy], batch: int
) -> Outputs | None:
    """All copies in one batch; None where the model cannot take them so, or where they disturb each other."""
    if not joinable(subject.inputs, batch):
        return None
    try:
        found = _outputs(subject, seen, [copies], batch)
    except (RuntimeError, ValueError, IndexError):
        return None
    for index, row in seen.items():
        outputs = found[index]
        if row.out is None or len(outputs) != len(copies) or outputs[0].shape != row.out.shape:
            return None
        # Unchanged copies at both ends show whether the place in the batch matters (positions of pictures that count on, say).
        apart = max(float((plain - row.out).abs().max()) for plain in (outputs[0], outputs[-1]))
        if apart > WIDEST_NOISE * float(row.out.abs().max()):
            return None
    return found


def _reach(seen: _Seen, outputs: Sequence[Tensor], copies: Sequence[_Copy]) -> Reach:
    reach = Reach(seen.run.index, seen.run.stacks)
    if seen.out is None or len(outputs) != len(copies):
        return reach
    if any(value.shape != seen.out.shape for value in outputs):
        return reach
    over = (1 - seen.axis, 2)
    noise = max(float((value - outputs[0]).abs().max()) for value in (outputs[-1], seen.out))
    threshold = max(NOISE_FACTOR * noise, RELATIVE_FLOOR * float(seen.out.abs().max()))
    moved = [((value - outputs[0]).abs().amax(dim=over) > threshold).tolist() for value in outputs]
    positions = range(seen.positions)
    columns = {copy.position: at for at, copy in enumerate(copies) if copy.position is not None}
    matrix = [[bool(moved[columns[column]][row]) for column in positions] for row in positions]
    reach.matrix = matrix
    for at, copy in enumerate(copies):
        if copy.stream is not None and _stays(seen.run, copy) and any(moved[at]):
            reach.others += (copy.stream,)
        if copy.swap is not None and max(copy.swap) < seen.positions:
            first, second = copy.swap
            both = [
                row
                for row in positions
                if row not in copy.swap and matrix[row][first] and matrix[row][second]
            ]
            if both:
                reach.knows_places = bool(reach.knows_places) or any(moved[at][row] for row in both)
    return reach
