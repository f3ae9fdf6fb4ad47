"""Where several streams have their places in one sequence: a text that holds places for the features of a picture or a sound.

A replaced patch reaches all places of its picture by way of the picture's own encoder. What the layers of the sequence do with a single
place is seen when what enters the first of them is changed there, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe.influence import hidden_states_in
from ptmkb.probe.numerics import in_float64, seeded
from ptmkb.probe.pinning import Enough, LayerRun, pinned
from ptmkb.probe.stacks import JOINT
from ptmkb.probe.subject import Inputs, Stream, Subject

SEQUENCE = "sequence"
"""The name of the stream of all positions, and of what is measured of it."""
_NUDGE = "nudge"


class Nudged(nn.Module):
    """A model that adds a tensor of the caller's to what enters one of its layers.

    Args:
        model: The model.
        layer: One of its layers; what enters it is hidden states (batch, positions, features).
    """

    def __init__(self, model: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.model, self.layer = model, layer

    def forward(self, nudge: Tensor, **inputs: Any) -> Any:
        """Run the model.

        Args:
            nudge: What is added, (batch, positions, features).
            inputs: The model's own arguments.
        """

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            old = next(hidden_states_in((args, kwargs)))
            return tuple(old + nudge if value is old else value for value in args), {
                name: old + nudge if value is old else value for name, value in kwargs.items()
            }

        hook = self.layer.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)
        try:
            return self.model(**inputs)
        finally:
            hook.remove()


def sequence_of(doubled: Subject) -> Subject | None:
    """The one sequence of a subject as a subject of its own, each position of which can be changed by itself.

    Args:
        doubled: In float64 (`Subject.doubled`).

    Returns:
        None where the streams have no places in one sequence, or its first layer does not take it as hidden states.
    """
    if not doubled.places or not (stack := doubled.blocks.get(JOINT)):
        return None
    count = sum(len(places) for places in doubled.places.values())
    hidden = _entering(doubled)
    if hidden is None or hidden.shape[1] != count:
        return None

    def replaced(inputs: Inputs, position: int, generator: torch.Generator) -> Inputs:
        nudge: Tensor = inputs[_NUDGE].clone()
        nudge[:, position] += torch.randn(nudge[:, position].shape, generator=generator, dtype=nudge.dtype)
        return {**inputs, _NUDGE: nudge}

    def read(returned: Any) -> Mapping[str, Tensor]:
        outputs = doubled.read(returned)
        first = next(iter(outputs.values()))
        whole = first.new_zeros(first.shape[0], count, first.shape[2])
        for name, places in doubled.places.items():
            whole[:, list(places)] = outputs[name]
        return {SEQUENCE: whole}

    return replace(
        doubled,
        model=Nudged(doubled.model, stack[0]),
        inputs={**doubled.inputs, _NUDGE: torch.zeros_like(hidden)},
        streams={SEQUENCE: Stream(SEQUENCE, count, replaced)},
        read=read,
        modes=(),
        losses=(),
        blocks={SEQUENCE: stack},
        places={},
    )


def _entering(subject: Subject) -> Tensor | None:
    """What goes into the first layer of the sequence."""
    seen: list[Tensor] = []

    def into(run: LayerRun, hidden: Tensor) -> None:
        if JOINT in run.stacks:
            seen.append(hidden.detach())
            raise Enough

    with in_float64(), pinned(subject.blocks, into), seeded(), torch.no_grad():
        subject.model(**dict(subject.inputs))
    return seen[0] if seen else None
