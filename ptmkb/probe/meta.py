"""Runs models at full size on the `meta` device, where tensors have shapes but no numbers.

Most forward passes need no numbers. Some look at one ("is any token padding?") or mix in a tensor that was made on the CPU; here such a
look gets an answer and such a tensor is moved. The answers are those of a batch without padding, which is what probes feed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as fake_tensors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_map_only


class _WithoutNumbers(TorchDispatchMode):
    """Answers what cannot be known on `meta`, and takes other devices' tensors there."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = (args, dict(kwargs or {}))
        if tree_any(lambda leaf: isinstance(leaf, Tensor) and leaf.is_meta, given):
            if func is torch.ops.aten._local_scalar_dense.default:
                return True if args[0].dtype is torch.bool else args[0].new_ones((), device="cpu").item()
            given = tree_map_only(Tensor, lambda tensor: tensor.to("meta") if tensor.dim() else tensor, given)
        return func(*given[0], **given[1])


def runnable(model: nn.Module) -> nn.Module:
    """Make a model on `meta` run there as far as its architecture permits; the model itself is returned."""
    forward: Callable[..., Any] = model.forward

    @functools.wraps(forward)
    def without_numbers(*args: Any, **kwargs: Any) -> Any:
        with fake_tensors.patch("meta_nonzero_assume_all_nonzero", True), _WithoutNumbers():
            return forward(*args, **kwargs)

    model.forward = without_numbers
    return model
