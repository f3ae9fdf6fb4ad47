"""How far attention reaches in a model at full size, read from the masks that the model makes for a long input.

On `meta` no number can be changed to see what moves. But masks are made from places alone, so that they can be real while everything else has
shapes only: a layer runs up to its first attention, the mask that comes there is read, and the next layer follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ptmkb.probe.influence import hidden_states_in
from ptmkb.probe.meta import real_places
from ptmkb.probe.numerics import seeded
from ptmkb.probe.subject import Subject

LENGTHS = (
    4200,
    512,
)  # positions: more than the windows of 4,096 that many models have (a mask takes 18 MB); what a table of places may end at
_MASKED = -1e3  # what is added to scores that are to vanish lies below
_ADDS = {"add", "__add__", "__radd__", "__iadd__", "add_"}

Span = dict[str, Any]
"""A mixer with its numbers, as in `measures/layers.py`."""


class _Seen(Exception):
    """A layer's first attention has been seen."""


class _Watch(TorchFunctionMode):
    """Ends a layer at its first attention, and keeps the mask that it was given."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.span: Span | None = None
        self._mask: Tensor | None = None
        self._named: list[tuple[Tensor, Span | None]] = []

    def begin(self) -> None:
        """A layer begins."""
        self.span, self._mask = None, None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is F.scaled_dot_product_attention:
            mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
            self._end(args[0].shape[-2], args[1].shape[-2], mask, mask is None)
        elif name in _ADDS:
            for value in args[:2]:
                if isinstance(value, Tensor) and value.ndim > 2 and not value.is_meta and self._square(value):
                    self._mask = value
        elif name == "softmax" and args[0].ndim > 2 and self.length == args[0].shape[-2] <= args[0].shape[-1]:
            self._end(self.length, self.length, self._mask, False)  # some add columns that are no keys: sinks
        return func(*args, **kwargs)

    def _end(self, queries: int, keys: int, mask: Tensor | None, unmasked: bool) -> None:
        if queries == keys == self.length:
            if unmasked:
                self.span = {"mixer": "full"}
            elif mask is not None and not mask.is_meta and self._square(mask):
                self.span = self._name(mask)
            raise _Seen

    def _name(self, mask: Tensor) -> Span | None:
        known = next((row for row in self._named if row[0] is mask), None)
        if known is None:  # layers of a kind share one mask
            pairs = mask.reshape(-1, self.length, self.length)[0]
            known = (mask, named(pairs if pairs.dtype is torch.bool else pairs > _MASKED))
            self._named.append(known)
        return known[1]

    def _square(self, value: Tensor) -> bool:
        return value.shape[-2:] == (self.length, self.length)


def named(visible: Tensor) -> Span | None:
    """What a mask leaves of attention.

    Args:
        visible: (queries, keys), True where a query sees a key; many more than a window is wide.

    Returns:
        `full` (causal or not), `sliding-window` or `chunked` with their sizes; None where it is none of these.
    """
    size = len(visible)
    far = torch.arange(size, dtype=torch.int32)[:, None] - torch.arange(size, dtype=torch.int32)
    if bool(visible.all()) or torch.equal(visible, far >= 0):
        return {"mixer": "full"}
    back, ahead = (int(row.sum()) - 1 for row in (visible[-1], visible[0]))
    if torch.equal(visible, (far <= back) & (far >= -ahead)):
        return {"mixer": "sliding-window", "window": back + ahead + 1, **({"ahead": ahead} if ahead else {})}
    chunk = int(visible[:, 0].sum())
    pieces = torch.arange(size) // chunk
    same = pieces[:, None] == pieces
    if torch.equal(visible, same) or torch.equal(visible, same & (far >= 0)):
        return {"mixer": "chunked", "chunk": chunk}
    return None


def spans(subject: Subject, attends: Sequence[bool]) -> list[Span | None]:
    """How far the attention of each layer reaches, in order of running; None for a layer where that is not seen.

    Args:
        subject: At full size on `meta`; one that reads words and nothing else.
        attends: Whether an attention runs in a layer, in order of running; others are not run (a recurrence takes a step a position).

    Returns:
        One span a layer; empty where the model does not run so.
    """
    words = subject.inputs.get("input_ids")
    if not any(attends) or len(subject.streams) > 1 or not isinstance(words, Tensor) or words.ndim != 2:
        return []
    others = {name: value for name, value in subject.inputs.items() if not isinstance(value, Tensor)}
    for length in LENGTHS:
        inputs = {**others, "input_ids": words[:1, :1].expand(1, length).contiguous()}
        for answer in (lambda hidden: hidden, lambda hidden: (hidden,)):
            # A layer gives a tensor or a tuple, and is not asked which; a table of places may be shorter than the input.
            with suppress(Exception):
                return _run(subject, inputs, attends, _Watch(length), answer)
    return []


def _run(
    subject: Subject,
    inputs: Mapping[str, Any],
    attends: Sequence[bool],
    watch: _Watch,
    answer: Callable[[Tensor], Any],
) -> list[Span | None]:
    found: list[Span | None] = []

    def layer(plain: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = next(hidden_states_in((args, kwargs)))
        watch.begin()
        if attends[len(found)]:
            with suppress(_Seen), watch:
                plain(*args, **kwargs)
        found.append(watch.span)
        return answer(hidden)

    layers = [block for blocks in subject.blocks.values() for block in blocks]
    with _exchanged(layers, layer), real_places(), torch.no_grad(), seeded():
        subject.model(**inputs)
    return found


@contextmanager
def _exchanged(modules: Sequence[nn.Module], run: Callable[..., Any]) -> Iterator[None]:
    """While open, forward passes of these modules go through `run(forward, args, kwargs)`."""
    changed = list({id(module): module for module in modules}.values())
    for module in changed:
        plain = module.forward
        module.forward = lambda *args, plain=plain, **kwargs: run(plain, args, kwargs)
    try:
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]
