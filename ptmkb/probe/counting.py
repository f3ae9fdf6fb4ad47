"""Counts the operations of a forward pass, and those of them that its attention masks do not throw away: for `measures/cost.py`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.hooks import RemovableHandle

from ptmkb.probe.numerics import seeded
from ptmkb.probe.subject import Inputs, Stream, Subject

_FUSED = "scaled_dot_product"  # attention in one kernel; its names end in what it runs on
_MASKED = (
    -1e3
)  # scores that masks lowered lie at -1e4 and far below; others may come out as zero by their size alone
_SOFTMAXES = ("_softmax", "_safe_softmax")
_BATCHED = ("bmm", "baddbmm")  # products of activations: queries and keys, weights and values
_MOVES = {
    "clone",
    "_to_copy",
    "copy_",
    "copy",
    "fill",
    "fill_",
    "lift_fresh_copy",
    "alias",
}  # pointwise, but no arithmetic
_PASS_ON = _MOVES | {"cat", "constant_pad_nd", "index_select", "slice_scatter"}


@dataclass(slots=True)
class _Event:
    """One counted operation.

    Attributes:
        operations: How many it takes.
        scores: Of how many attention scores or weights, or other numbers.
        masked: How many of these a mask took away.
    """

    operations: int
    scores: int
    masked: int = 0

    @property
    def needed(self) -> int:
        return self.operations * (self.scores - self.masked) // self.scores if self.scores else 0


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a tensor was made of since the last product.

    Attributes:
        events: The operations that made these scores.
        masked: As attention weights: how many are zero; 0 before a softmax.
    """

    events: frozenset[int]
    masked: int = 0


class Counter(TorchDispatchMode):
    """Counts while it is entered.

    Products are counted by PyTorch's own formulas (a multiplication and an addition are two); elementwise
    arithmetic on floats and softmax inside of layers as one an element. An attention weight of zero is one that
    a mask took away: what was spent on its score and its value is counted, but not needed.

    Args:
        layers: Elementwise arithmetic counts inside of these only (masks and positions are made outside).
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and guarding against it would cost as much as counting does

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._layers = list(dict.fromkeys(layers))
        self._depth = 0 if self._layers else 1
        self._events: list[_Event] = []
        self._origins: dict[
            int, tuple[Tensor, _Origin]
        ] = {}  # by storage; the tensor is held, so that it stays its own
        self._hooks: list[RemovableHandle] = []

    @property
    def counted(self) -> int:
        """All operations."""
        return sum(event.operations for event in self._events)

    @property
    def needed(self) -> int:
        """Those that are not thrown away."""
        return sum(event.needed for event in self._events)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **kwargs) if kwargs else func(*args)
        about = _about(func)
        if about is None:
            return out
        if about.fused:
            self._fused(args, kwargs or {})
        elif about.formula is not None:
            self._product(about, args, kwargs or {}, out)
        elif isinstance(out, Tensor) and out.is_floating_point():
            given = _floats(args)
            origin = self._origin(given)
            if about.arithmetic and given and self._depth:
                event = self._add(out.numel(), out.numel(), origin.masked if origin else 0)
                origin = _Origin(origin.events | {event}, origin.masked) if origin else None
            if origin and about.softmax:
                self._masked(origin, args[0], out)
            elif origin:
                self._keep(out, origin)
        return out

    def _add(self, operations: int, scores: int, masked: int = 0) -> int:
        self._events.append(_Event(operations, scores, masked))
        return len(self._events) - 1

    def _keep(self, tensor: Tensor, origin: _Origin) -> None:
        self._origins[tensor.untyped_storage()._cdata] = (tensor, origin)

    def _origin(self, given: Sequence[Tensor]) -> _Origin | None:
        found = [
            self._origins[key][1]
            for key in [value.untyped_storage()._cdata for value in given]
            if key in self._origins
        ]
        if len(found) < 2:
            return found[0] if found else None
        return _Origin(
            frozenset().union(*(origin.events for origin in found)), max(origin.masked for origin in found)
        )

    def _product(self, about: _About, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        shapes = [value.shape if isinstance(value, Tensor) else value for value in args]
        operations = int(about.formula(*shapes, **kwargs, out_shape=out.shape))
        if not about.batched:
            self._add(operations, 1)
            return
        left = args[-2]  # `baddbmm` adds to what comes first
        origin = self._origin([left])
        if origin and origin.masked:
            event = self._add(operations, left.numel(), origin.masked)
        else:
            event = self._add(operations, out.numel())
        self._keep(out, _Origin(frozenset({event})))

    def _masked(self, origin: _Origin, scores: Tensor, weights: Tensor) -> None:
        """A softmax: where it gives zero to a score that a mask had lowered, this was not needed, and the value will not be."""
        masked = int(((weights == 0) & (scores < _MASKED)).sum())
        for index in origin.events:
            self._events[index].masked = masked
        self._keep(weights, _Origin(frozenset(), masked))

    def _fused(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        query, key, value = args[:3]
        rows, columns = query.shape[-2], key.shape[-2]
        operations = 2 * query.shape[:-1].numel() * columns * (query.shape[-1] + value.shape[-1])
        mask = kwargs.get("attn_mask")
        if isinstance(mask, Tensor):
            seen = mask if mask.dtype is torch.bool else mask > torch.finfo(mask.dtype).min
            self._add(operations, mask.numel(), mask.numel() - int(seen.sum()))
        else:
            causal = kwargs.get("is_causal", args[4] if len(args) > 4 else False)
            self._add(
                operations, rows * columns, sum(max(0, columns - row - 1) for row in range(rows)) * causal
            )

    def __enter__(self) -> Counter:
        for layer in self._layers:
            self._hooks += [
                layer.register_forward_pre_hook(lambda *_: self._step(1)),
                layer.register_forward_hook(lambda *_: self._step(-1)),
            ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def _step(self, step: int) -> None:
        self._depth += step


@dataclass(frozen=True)
class _About:
    """What is to be done about an operation.

    Attributes:
        fused: It is attention in one kernel.
        formula: PyTorch's own for what it takes, from the shapes of what goes in and comes out; None where it is no product.
        batched: It is a product of activations.
        arithmetic: It counts, one operation an element.
        softmax: It makes weights of scores.
    """

    fused: bool
    formula: Any
    batched: bool
    arithmetic: bool
    softmax: bool


@cache
def _about(func: Any) -> _About | None:
    """What is to be done about an operation; None where nothing is, as for views."""
    packet = func._overloadpacket
    name = packet.__name__
    formula = flop_registry.get(packet)
    softmax = name in _SOFTMAXES
    arithmetic = softmax or (torch.Tag.pointwise in func.tags and name not in _MOVES)
    fused = _FUSED in name
    if not (fused or formula is not None or arithmetic or name in _PASS_ON):
        return None
    # The formula in the registry looks for tensors in nested arguments, which takes longer than many a product of a tiny model.
    return _About(
        fused, None if formula is None else inspect.unwrap(formula), name in _BATCHED, arithmetic, softmax
    )


def _floats(values: Iterable[Any]) -> list[Tensor]:
    """The floating tensors of an operation's arguments that have axes."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            if value.is_floating_point() and value.ndim:
                found.append(value)
        elif isinstance(value, list | tuple):
            found += _floats(value)
    return found


def at_length(inputs: Inputs, stream: Stream, length: int) -> dict[str, Any] | None:
    """The inputs with one stream cut, or drawn out by repeating its last position; None where nothing has its length.

    Args:
        inputs: Arguments of a forward pass.
        stream: The stream to change.
        length: Positions that it shall have.
    """
    index = torch.arange(length).clamp(max=stream.positions - 1)
    changed: dict[str, Any] = {}
    for name, value in inputs.items():
        if not isinstance(value, Tensor) or name.startswith("decoder_") != (stream.name == "decoder"):
            continue
        axes = range(1, 2 if value.is_floating_point() else value.ndim)
        for axis in axes:
            if value.ndim > axis and value.shape[axis] == stream.positions:
                value = changed[name] = value.index_select(axis, index)
    return {**inputs, **changed} if changed else None


def run_counted(subject: Subject, inputs: Inputs) -> tuple[int, int]:
    """Operations of one forward pass a sample: all, and those that are needed."""
    layers = [layer for blocks in subject.blocks.values() for layer in blocks]
    batch = next(value.shape[0] for value in inputs.values() if isinstance(value, Tensor) and value.ndim)
    with seeded(), torch.no_grad(), Counter(layers) as counter:
        subject.model(**dict(inputs))
    return counter.counted // batch, counter.needed // batch
