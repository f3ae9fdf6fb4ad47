"""Further ways to run a model that has several, as `subject.Mode`s; `data/subjects.yaml` says which class has which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ptmkb.probe import samples
from ptmkb.probe.subject import Inputs, Mode


def make(kind: str, inputs: Inputs, names: Sequence[str] = ()) -> tuple[Mode, ...]:
    """The modes of one kind.

    Args:
        kind: A name that `data/subjects.yaml` uses.
        inputs: The inputs that the modes are added to.
        names: The names of the modes, where the model takes a mode by its name.
    """
    return _MAKERS[kind](inputs, names)


def _named(inputs: Inputs, names: Sequence[str]) -> tuple[Mode, ...]:
    """The forward pass takes `mode`."""
    return tuple(Mode(name, {"mode": name}) for name in names)


def _permuted(inputs: Inputs, names: Sequence[str]) -> tuple[Mode, ...]:
    """XLNet's two streams under one factorisation order: `content` sees itself, `query` (the target mapping's) does not."""
    length = inputs["input_ids"].shape[1]
    order = torch.tensor(
        [(5 * place + 3) % length for place in range(length)]
    )  # neither the identity nor its reverse: 5 and 12 are coprime
    rank = order.argsort()
    hidden = (rank[None, :] >= rank[:, None]).float().expand(samples.BATCH, length, length).contiguous()
    target = torch.eye(length).expand(samples.BATCH, length, length).contiguous()
    content = {"perm_mask": hidden}
    return Mode("content", content), Mode("query", {**content, "target_mapping": target})


_MAKERS: Mapping[str, Callable[[Inputs, Sequence[str]], tuple[Mode, ...]]] = {
    "named": _named,
    "permuted": _permuted,
}
