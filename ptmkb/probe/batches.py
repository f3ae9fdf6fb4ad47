"""Batches of batches: many variants of a subject's inputs in one run, which costs little more than one of them alone.

Every tensor holds its samples one after another on its first axis: a row a sample, or as many rows for each (the patches of all
pictures, packed). Whether a model takes what is put together so, and keeps the variants apart, is for the caller to check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ptmkb.probe.numerics import tensors_in
from ptmkb.probe.subject import Inputs


def joinable(inputs: Inputs, batch: int) -> bool:
    """Whether batches of these inputs can be put together.

    Args:
        inputs: Arguments of a forward pass.
        batch: How many samples they hold.
    """
    return all(
        rows_each(value, batch) is not None
        if isinstance(value, Tensor)
        else not any(True for _ in tensors_in(value))
        for value in inputs.values()
    )


def packed(inputs: Inputs, batch: int) -> bool:
    """Whether a tensor has several rows for each sample."""
    return any((rows_each(value, batch) or 1) > 1 for _, value in tensors_in(inputs))


def rows_each(value: Tensor, batch: int) -> int | None:
    """How many rows of the first axis belong to each sample; None where the axis cannot be that of samples."""
    rows, left = divmod(value.shape[0], batch) if value.ndim else (0, 0)
    return rows if rows and not left else None


def joined(variants: Sequence[Inputs]) -> dict[str, Any]:
    """Several batches as one."""
    return {
        name: torch.cat([variant[name] for variant in variants]) if isinstance(value, Tensor) else value
        for name, value in variants[0].items()
    }


def reversed_samples(value: Any, batch: int) -> Any:
    """The same samples in reverse order, in every tensor of a value; the rows of each keep their order."""
    if isinstance(value, Tensor):
        return (
            value.reshape(batch, len(value) // batch, *value.shape[1:]).flip(0).flatten(0, 1)
            if value.ndim
            else value
        )
    if isinstance(value, Mapping):
        return {name: reversed_samples(item, batch) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(reversed_samples(item, batch) for item in value)
    return value
