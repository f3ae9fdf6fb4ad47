"""Where two streams of positions meet, layer by layer: for `measures/streams.py`.

Every repeated layer is watched while one stream's inputs are replaced as a whole. A position of a layer's hidden
states belongs to the stream whose inputs moved it when it first came to such a layer; from then on, what else moves
it is the other stream's doing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe import stacks
from ptmkb.probe.influence import hidden_states_in
from ptmkb.probe.measures import Unmeasurable
from ptmkb.probe.numerics import in_float64, seeded
from ptmkb.probe.subject import Inputs, Stream, Subject

NOISE_FACTOR = 100.0  # a change is this many times what identical runs differ by, or more
RELATIVE_FLOOR = 1e-12  # and this much of the largest value


@dataclass(frozen=True)
class Passage:
    """One stream's way through one run of one layer.

    Attributes:
        stack: The list of modules that the layer is in, by its path.
        order: Which layer of all that ran.
        stream: Whose positions these are.
        joint: Whether another stream's positions are in the same sequence.
        changed_by: The streams that had changed these positions when they came out.
    """

    stack: str
    order: int
    stream: str
    joint: bool
    changed_by: frozenset[str]


@dataclass
class _Call:
    """What went into a layer and came out of it, in one run."""

    stack: str
    given: list[Tensor]
    gave: list[Tensor] = field(default_factory=list)

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """The hidden states that it took, each with what it made of them."""
        left, found = list(self.given), []
        for out in self.gave:
            at = next((i for i, into in enumerate(left) if into.shape == out.shape), None)
            if at is not None:
                found.append((left.pop(at), out))
        return found


def passages(subject: Subject) -> list[Passage]:
    """Every stream's way through every layer, in the order of running.

    Args:
        subject: In float64 (`Subject.doubled`).

    Raises:
        Unmeasurable: No layer keeps the shape of what it takes, or which layers run depends on the inputs.
    """
    with in_float64(), seeded():
        layers = _layers(subject)
        base = _run(subject, subject.inputs, layers)
        again = _run(subject, subject.inputs, layers)
        moved = {}
        for name, stream in subject.streams.items():
            moved[name] = _moved(base, again, _run(subject, _replaced(subject, stream), layers))
    return _followed(base, moved)


def _layers(subject: Subject) -> dict[nn.Module, str]:
    """The outermost members of lists of modules that keep the shape of what they take, with their lists' paths."""
    with stacks.watched(subject.model) as ran:
        subject.outputs()
    paths = {row.path for row in ran}
    return {
        row.module: row.path.rpartition(".")[0]
        for row in ran
        if not any(row.path.startswith(f"{path}.") for path in paths)
    }


def _replaced(subject: Subject, stream: Stream) -> Inputs:
    """New values at all of a stream's positions, or at those before and behind the places that are held for another stream."""
    generator = torch.Generator().manual_seed(0)
    places = range(max(1, stream.positions))
    changed: Inputs = subject.inputs
    for position in places:
        changed = stream.replaced(changed, position, generator)
    if _runs(subject, changed):
        return changed
    changed = subject.inputs
    for order in (places, reversed(places)):
        for position in order:
            candidate = stream.replaced(changed, position, generator)
            if not _runs(subject, candidate):
                break
            changed = candidate
    if changed is subject.inputs:
        raise Unmeasurable(f"no position of {stream.name} can be replaced")
    return changed


def _runs(subject: Subject, inputs: Inputs) -> bool:
    try:
        subject.outputs(inputs)
    except (ValueError, RuntimeError, IndexError):
        return False
    return True


def _run(subject: Subject, inputs: Inputs, layers: Mapping[nn.Module, str]) -> list[_Call]:
    calls: list[_Call] = []
    hooks = []
    for layer, stack in layers.items():

        def enter(_: nn.Module, args: Any, kwargs: Any, stack: str = stack) -> None:
            calls.append(_Call(stack, [value.detach().clone() for value in hidden_states_in((args, kwargs))]))

        def leave(_: nn.Module, args: Any, output: Any) -> None:
            calls[-1].gave = [value.detach().clone() for value in hidden_states_in(output)]

        hooks += [
            layer.register_forward_pre_hook(enter, with_kwargs=True),
            layer.register_forward_hook(leave),
        ]
    try:
        with seeded():
            subject.outputs(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


Masks = list[list[tuple[Tensor, Tensor]]]
"""By call and pair, which positions (all but the features) were moved on the way in and on the way out."""


def _moved(base: list[_Call], again: list[_Call], changed: list[_Call]) -> Masks:
    if [call.stack for call in base] != [call.stack for call in changed]:
        raise Unmeasurable("which layers run depends on the values of the inputs")
    return [
        [
            (_differs(*into), _differs(*out))
            for into, out in (
                zip(one, two, three, strict=True)
                for one, two, three in zip(call.pairs(), second.pairs(), other.pairs(), strict=True)
            )
        ]
        for call, second, other in zip(base, again, changed, strict=True)
    ]


def _differs(base: Tensor, again: Tensor, changed: Tensor) -> Tensor:
    """(positions,): which positions any sample's changed by more than noise."""
    if base.shape != changed.shape:
        raise Unmeasurable("the shape of hidden states depends on the values of the inputs")
    noise = float((again - base).abs().max())
    threshold = max(NOISE_FACTOR * noise, RELATIVE_FLOOR * float(base.abs().max()))
    return ((changed - base).abs() > threshold).any(dim=-1)


def _followed(base: list[_Call], moved: Mapping[str, Masks]) -> list[Passage]:
    """Follow each stream's positions from layer to layer."""
    owners: dict[tuple[str, int], dict[str, Tensor]] = {}  # by list of layers and which of its tensors
    by_shape: dict[torch.Size, dict[str, Tensor]] = {}  # for a list that begins where streams have met
    found = []
    for order, call in enumerate(base):
        for which, (into, _) in enumerate(call.pairs()):
            masks = {name: moved[name][order][which] for name in moved}
            own = owners.get((call.stack, which))
            if own is None or any(mask.shape != into.shape[:2] for mask in own.values()):
                own = _owned({name: mask[0] for name, mask in masks.items()}) or by_shape.get(into.shape, {})
                owners[call.stack, which] = own
            by_shape.setdefault(into.shape, own)
            for stream, mine in own.items():
                changed_by = frozenset(
                    other for other in moved if other != stream and bool((masks[other][1] & mine).any())
                )
                found.append(Passage(call.stack, order, stream, len(own) > 1, changed_by))
    return found


def _owned(moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By stream, the positions that it moves and no other does."""
    found = {}
    for stream, mask in moved.items():
        others = [other for name, other in moved.items() if name != stream]
        own = mask & ~torch.stack(others).any(dim=0)
        if bool(own.any()):
            found[stream] = own
    return found
