"""A model whose results have no place for each position of what goes in (a class, a box, a waveform): it is measured without its streams.

Whatever asks for an output position by position gets the reason; what looks at weights, layers and gradients goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe import samples, stacks, subjects
from ptmkb.probe.measures import Unmeasurable
from ptmkb.probe.numerics import seeded, tensors_in
from ptmkb.probe.subject import Subject


def subject_without_streams(model: nn.Module, name: str, why: Exception) -> Subject:
    """A live model of `transformers` as a subject without streams.

    Args:
        model: In `eval` mode.
        name: For messages.
        why: What went wrong when its streams were looked for.

    Raises:
        Exception: The model does not even run; whatever its forward pass raises.
    """
    reason = f"its output is not read position by position ({' '.join(str(why).split())[:200]})"

    def read(returned: Any) -> Mapping[str, Tensor]:
        raise Unmeasurable(reason)

    return with_layers(Subject(name, model, subjects.ready_inputs(model), {}, read))


def with_layers(subject: Subject) -> Subject:
    """A subject without streams with its layers, which need no stream to be found; seen in one run.

    Where a batch is not of as many samples as usual (one video), positions and samples cannot be told apart, and no layers are found.
    """
    batch = next((value.shape[0] for _, value in tensors_in(subject.inputs) if value.ndim), samples.BATCH)
    if any(subject.blocks.values()) or batch % samples.BATCH:
        return subject
    with torch.no_grad(), seeded(), stacks.watched(subject.model) as ran:
        subject.model(**dict(subject.inputs))
    return replace(subject, blocks=blocks(ran))


def blocks(ran: Sequence[stacks.Ran]) -> dict[str, tuple[nn.Module, ...]]:
    """The members of each outermost list of modules that ran, by the list's path; by `stacks.JOINT` where there is one list."""
    paths = {row.path for row in ran}
    found: dict[str, list[nn.Module]] = {}
    for row in ran:
        if not any(row.path.startswith(f"{path}.") for path in paths):
            found.setdefault(row.path.rpartition(".")[0], []).append(row.module)
    if len(found) == 1:
        found = {stacks.JOINT: next(iter(found.values()))}
    return {path: tuple(modules) for path, modules in found.items()}
