"""Changes to every attention of a model, and who sees whom in it, found by gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks.mutations.patches import under
from ptmkb.probe.numerics import in_float64, seeded
from ptmkb.probe.subject import Subject

MASKED = -1e3  # what is added to scores that are to vanish lies below
MOST_HEADS = 5  # of a tiny model; heads beside a window that is one wider look like positions beside a sink
_ADDITIONS = {"add", "__add__", "__radd__", "__iadd__", "add_"}
_SUBTRACTIONS = {"sub", "__sub__", "__isub__", "sub_"}


Keep = Callable[[int], Tensor]
"""For a number of positions, (queries, keys): which keys a query keeps."""


@dataclass(frozen=True)
class Change:
    """What is to happen to every attention.

    Attributes:
        drop: Nothing is masked.
        keep: These keys only, where there are as many queries as keys.
        alone: Every query sees the key at its own place only.
        values: Attention gives its values as they are, at no cost of scores (PyTorch's own function only).
        blind: Nothing is seen where there are other numbers of queries than of keys (another sequence is looked at).
        normalise: Queries and keys go through an RMSNorm.
    """

    drop: bool = False
    keep: Keep | None = None
    alone: bool = False
    values: bool = False
    blind: bool = False
    normalise: bool = False


class Attention(TorchFunctionMode):
    """Changes every attention that runs: in PyTorch's own function, or written out with a softmax.

    Args:
        change: What is to happen.
        hits: Grows by one for each time that something did.
    """

    def __init__(self, change: Change, hits: list[int]) -> None:
        super().__init__()
        self.change, self.hits = change, hits

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            return self._fused(func, *args, **kwargs)
        name = getattr(func, "__name__", "")
        if self.change.drop and (unmasked := self._without_mask(name, args)) is not None:
            self.hits.append(1)
            return unmasked
        if name == "softmax" and isinstance(args[0], Tensor) and args[0].ndim > 2:
            return self._written_out(func, args, kwargs)
        return func(*args, **kwargs)

    def _fused(
        self, func: Any, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, **more: Any,
    ) -> Tensor:  # fmt: skip
        change, size = self.change, key.shape[-2]
        square = query.shape[-2] == size
        if change.blind and not square:
            self.hits.append(1)
            return torch.zeros_like(func(query, key, value, **more))
        if change.values and square:
            self.hits.append(1)
            return (
                value.repeat_interleave(query.shape[1] // value.shape[1], dim=1) if query.ndim > 3 else value
            )
        if change.normalise:
            self.hits.append(1)
            query, key = (F.rms_norm(one, one.shape[-1:]) for one in (query, key))
        if change.drop and (is_causal or (attn_mask is not None and bool(_hidden(attn_mask).any()))):
            self.hits.append(1)
            is_causal = False
            if attn_mask is not None:
                whole = attn_mask.dtype is torch.bool
                attn_mask = None if whole else attn_mask.masked_fill(_hidden(attn_mask), 0.0)
        keep = self._kept(size) if square else None
        if keep is not None:
            self.hits.append(1)
            if is_causal:
                keep, is_causal = keep & torch.ones(size, size, dtype=torch.bool).tril(), False
            if attn_mask is None or attn_mask.dtype is torch.bool:
                attn_mask = keep if attn_mask is None else attn_mask & keep
            else:
                attn_mask = attn_mask.masked_fill(~keep, torch.finfo(attn_mask.dtype).min)
        return func(query, key, value, attn_mask, dropout_p, is_causal, **more)

    def _written_out(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        scores = args[0]
        sinks = scores.shape[-1] - scores.shape[-2]  # a column that is no key
        square = sinks == 0 or (sinks == 1 and scores.shape[-2] > MOST_HEADS)
        if self.change.blind and not square:
            self.hits.append(1)
            return torch.zeros_like(func(*args, **kwargs))
        keep = self._kept(scores.shape[-2]) if square else None
        if keep is not None:
            self.hits.append(1)
            keep = F.pad(keep, (0, sinks), value=True)
            scores = scores.masked_fill(~keep, torch.finfo(scores.dtype).min)
        return func(scores, *args[1:], **kwargs)

    def _kept(self, size: int) -> Tensor | None:
        if self.change.alone:
            return torch.eye(size, dtype=torch.bool)
        return None if self.change.keep is None else self.change.keep(size)

    def _without_mask(self, name: str, args: tuple[Any, ...]) -> Tensor | None:
        """The scores where a mask is about to be put on them, else None."""
        if len(args) < 2 or not isinstance(args[0], Tensor):
            return None
        first, second = args[:2]
        if name in _ADDITIONS and isinstance(second, Tensor):
            for scores, mask in ((first, second), (second, first)):
                if _is_scores(scores) and not _is_mask(scores) and _is_mask(mask):
                    return scores
        if name in _SUBTRACTIONS and isinstance(second, Tensor) and _is_scores(first) and _is_mask(-second):
            return first
        if name in ("masked_fill", "masked_fill_") and _is_scores(first) and not _is_mask(first):
            return first
        if name == "where" and len(args) > 2 and isinstance(args[1], Tensor) and _is_scores(args[1]):
            return args[1] if not _is_mask(args[1]) else None
        return None


def _hidden(mask: Tensor) -> Tensor:
    return ~mask if mask.dtype is torch.bool else mask < MASKED


def _is_scores(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim > 2
        and min(value.shape[-2:]) > 1
    )


def _is_mask(value: Tensor) -> bool:
    return value.is_floating_point() and value.ndim > 1 and bool((value < MASKED).any())


def attend(modules: Sequence[nn.Module], change: Change) -> list[int]:
    """Change every attention inside of modules.

    Returns:
        A list that grows whenever one is changed.
    """
    hits: list[int] = []
    for module in modules:
        under(module, lambda: Attention(change, hits))
    return hits


def sees(subject: Subject, name: str, place: int, other: int) -> bool:
    """Whether a stream's output at one place moves when its input at another is replaced."""
    doubled = subject.doubled()
    with in_float64():
        with seeded():
            before = doubled.outputs()
        with seeded():
            after = doubled.outputs(
                doubled.streams[name].replaced(doubled.inputs, other, torch.Generator().manual_seed(0))
            )
    if name not in before or before[name].shape != after[name].shape or before[name].shape[1] <= place:
        return False
    return float((before[name] - after[name])[:, place].abs().max()) > 1e-10 * float(before[name].abs().max())


def reached(subject: Subject) -> list[Tensor]:
    """By gradients: for every output position of every stream, which numbers of the inputs (word by word for tokens) it depends on."""
    doubled = subject.doubled()
    leaves: list[Tensor] = [
        value.requires_grad_()
        for value in doubled.inputs.values()
        if isinstance(value, Tensor) and value.is_floating_point()
    ]
    words = [
        value
        for value in doubled.inputs.values()
        if isinstance(value, Tensor) and not value.is_floating_point()
    ]

    class Words(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            if func is F.embedding and any(
                args[0].shape == ids.shape and torch.equal(args[0], ids) for ids in words
            ):
                found = found.detach().requires_grad_()
                leaves.append(found)
            return found

    with in_float64(), torch.enable_grad(), seeded(), Words():
        outputs = doubled.read(doubled.model(**dict(doubled.inputs)))
    masks = []
    for output in outputs.values():
        weights = torch.randn(
            output.shape[2:], dtype=output.dtype, generator=torch.Generator().manual_seed(0)
        )
        for place in range(output.shape[1]):
            value = (output[:, place] * weights).sum()
            gradients = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
            for leaf, gradient in zip(leaves, gradients, strict=True):
                at = torch.zeros_like(leaf) if gradient is None else gradient.abs()
                masks.append((at > 1e-14 * (at.max() + 1e-300)).any(-1) if leaf.ndim == 3 else at > 0)
    return masks


def window(back: int, ahead: int = 0) -> Keep:
    """So many positions back and ahead."""

    def keep(size: int) -> Tensor:
        far = torch.arange(size)[:, None] - torch.arange(size)
        return (far <= back) & (far >= -ahead)

    return keep


def causal(size: int) -> Tensor:
    """Nothing that comes later."""
    return torch.ones(size, size, dtype=torch.bool).tril()


def apart(first: int) -> Keep:
    """Two pieces of a sequence that do not see each other; the first has so many positions."""

    def keep(size: int) -> Tensor:
        early = torch.arange(size) < first
        return early[:, None] == early

    return keep
