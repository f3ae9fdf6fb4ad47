"""Runs models at full size on the `meta` device, where tensors have shapes but no numbers.

Only the weights are on `meta`: inputs stay real on the CPU, so that positions, masks and indices that are computed from them are real
too, and what meets a weight goes over to `meta`. Where a forward pass still asks for a number that nobody has ("is any of these true?"),
it gets the answer of a batch without padding, which is what probes feed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_PLACES = {"arange", "linspace"}  # what positions, and masks of them, are made from
_FILLED = {"zeros", "ones", "full"}  # and counts of padding, which are few numbers
_FEW = 1 << 14
_real_places = False
_ANSWERS: Any = _config  # patches itself in as a module of settings, which its type does not tell


class _WithoutNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers what cannot be known on `meta`, and takes other devices' tensors there."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if _real_places and kwargs and _of_places(func._overloadpacket.__name__, args):
            return func(*args, **{**kwargs, "device": torch.device("cpu")})
        on_meta, elsewhere = _devices((*args, *kwargs.values()) if kwargs else args)
        if on_meta and func is torch.ops.aten._local_scalar_dense.default:
            return True if args[0].dtype is torch.bool else torch.ones((), dtype=args[0].dtype).item()
        if on_meta and kwargs and kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("meta")}  # there is no way back from `meta`
        if on_meta and elsewhere:
            args, kwargs = tree_map_only(
                Tensor, lambda tensor: tensor.to("meta") if tensor.dim() else tensor, (args, kwargs)
            )
        return func(*args, **(kwargs or {}))


def _of_places(name: str, args: tuple[Any, ...]) -> bool:
    return name in _PLACES or (name in _FILLED and math.prod(args[0]) <= _FEW)


@contextmanager
def real_places() -> Iterator[None]:
    """While open, forward passes on `meta` count places in real numbers, so that masks of places are real too."""
    global _real_places
    before, _real_places = _real_places, True
    try:
        yield
    finally:
        _real_places = before


def _devices(values: Iterable[Any]) -> tuple[bool, bool]:
    """Whether there are tensors on `meta` among these, and tensors with positions elsewhere."""
    on_meta = elsewhere = False
    for value in values:
        if isinstance(value, Tensor):
            on_meta |= value.is_meta
            elsewhere |= not value.is_meta and value.dim() > 0
        elif isinstance(value, list | tuple):
            meta, other = _devices(value)
            on_meta, elsewhere = on_meta or meta, elsewhere or other
    return on_meta, elsewhere


def runnable(model: nn.Module) -> nn.Module:
    """Make a model on `meta` run there as far as its architecture permits; the model itself is returned."""
    forward: Callable[..., Any] = model.forward

    @functools.wraps(forward)
    def without_numbers(*args: Any, **kwargs: Any) -> Any:
        with _ANSWERS.patch(meta_nonzero_assume_all_nonzero=True), _WithoutNumbers():  # type: ignore[no-untyped-call]
            return forward(*args, **kwargs)

    model.forward = without_numbers
    return model
