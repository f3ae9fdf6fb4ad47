"""What attention's scores know of positions, inside of each layer.

Every layer is given one and the same vector at every position, so that all that its attention's scores still differ by is position. Two
such runs with different vectors tell what depends on content and what does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ptmkb.probe.numerics import in_float64, seeded, tensors_in
from ptmkb.probe.pinning import LayerRun, layer_runs, layers_only, pinned
from ptmkb.probe.positions import SAME
from ptmkb.probe.subject import Subject

MASKED = -1e3  # scores below are masks: additive masks lie at -1e4 and far beyond
_PRODUCTS = {"matmul", "__matmul__", "bmm", "baddbmm", "einsum"}


@dataclass
class _Scores:
    """One attention on constant content.

    Attributes:
        run: Index of the layer's run.
        values: (…, queries, keys), before the softmax.
        visible: The same shape: not masked.
        rotated: Queries and keys both change from position to position, and keep their lengths.
        placed: Queries or keys change from position to position in whichever way.
    """

    run: int
    values: Tensor
    visible: Tensor
    rotated: bool
    placed: bool


class _ScoreMode(TorchFunctionMode):
    """Notes the scores of every attention that runs in a layer, and whether its queries and keys were turned."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.scores: list[_Scores] = []
        self.run: int | None = None
        self._weights = {p.untyped_storage().data_ptr() for p in subject.model.parameters()}
        # Of activations: the last two sizes, whether both were turned, and whether one differs from place to place.
        self._products: list[tuple[torch.Size, bool, bool]] = []

    def enter(self, run: LayerRun) -> None:
        """A layer begins."""
        self.run, self._products = run.index, []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.run is not None:
            name = getattr(func, "__name__", "")
            if func is F.scaled_dot_product_attention:
                self._fused(*args, **kwargs)
            elif name in _PRODUCTS and isinstance(result, Tensor):
                self._product(name, args, kwargs, result)
            elif name == "softmax" and args[0].ndim > 2:
                self._keep(args[0])
        return result

    def _fused(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> None:  # fmt: skip
        if enable_gqa:
            key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None and attn_mask.is_floating_point():
            scores = scores + attn_mask
        elif attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        if is_causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        self._products = [_described(scores, query, key)]
        self._keep(scores)

    def _product(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor) -> None:
        operands = [value for _, value in tensors_in((args, kwargs)) if value.ndim > 2]
        operands = operands[-2:]  # what `baddbmm` adds comes first
        if len(operands) < 2 or any(self._is_weight(value) for value in operands):
            return
        left, right = operands
        if name == "einsum":
            pair = _by_letters(str(args[0]), left, right)
            if pair is None:
                return
            left, right = pair
        else:
            right = right.transpose(-1, -2)
        self._products.append(_described(result, left, right))

    def _is_weight(self, value: Tensor) -> bool:
        return value.untyped_storage().data_ptr() in self._weights

    def _keep(self, scores: Tensor) -> None:
        visible = scores.detach() > MASKED
        own = [row for row in self._products if row[0] == scores.shape[-2:]]
        if own and min(scores.shape[-2:]) > 1 and self.run is not None:
            rotated, placed = any(row[1] for row in own), any(row[2] for row in own)
            self.scores.append(_Scores(self.run, scores, visible, rotated, placed))
        self._products = []


def _by_letters(equation: str, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor] | None:
    """Both operands of an einsum with positions and features as their last two axes, None where it is no product of this kind."""
    terms, _, result = equation.replace(" ", "").partition("->")
    names = terms.split(",")
    if len(names) != 2 or "." in equation or len(names[0]) != left.ndim or len(names[1]) != right.ndim:
        return None
    shared = [letter for letter in names[0] if letter in names[1] and letter not in result]
    moved = []
    for name, other, tensor in ((names[0], names[1], left), (names[1], names[0], right)):
        own = [letter for letter in name if letter in result and letter not in other]
        if len(own) != 1 or len(shared) != 1:
            return None
        moved.append(tensor.movedim((name.index(own[0]), name.index(shared[0])), (-2, -1)))
    return moved[0], moved[1]


def _described(product: Tensor, left: Tensor, right: Tensor) -> tuple[torch.Size, bool, bool]:
    """A product's last two sizes, whether both operands were turned, and whether one differs from place to place."""
    placed = [_placed(vectors.detach()) for vectors in (left, right)]
    return product.shape[-2:], all(turned for _, turned in placed), any(differs for differs, _ in placed)


def _placed(vectors: Tensor) -> tuple[bool, bool]:
    """Whether vectors (…, positions, features) of the same content differ from place to place, and whether they do but for their length."""
    if vectors.shape[-2] < 2:
        return False, False
    lengths = vectors.norm(dim=-1)
    most = float(lengths.max())
    differs = float((vectors[..., 1:, :] - vectors[..., :-1, :]).abs().max()) > SAME * most
    return differs, differs and float((lengths - lengths[..., :1]).abs().max()) < 1e-6 * most


@dataclass
class Inside:
    """What position does inside of one run of one layer.

    Attributes:
        kinds: Of `rotary`, `relative`, `bias-learned`, `bias-linear`, `bias-fixed`, `absolute-fixed`.
    """

    kinds: set[str] = field(default_factory=set)


def inside(doubled: Subject) -> dict[int, Inside]:
    """By index of a layer's run, what its attention's scores know of positions.

    Args:
        doubled: In float64 (`Subject.doubled`).
    """
    with in_float64():
        runs = layer_runs(doubled)
        first, second = (_on_constant_content(doubled, seed, runs) for seed in (1, 2))
        found: dict[int, Inside] = {}
        for one, other in zip(first, second, strict=False):
            kind = _kind(doubled, one, other)
            if kind is not None:
                found.setdefault(one.run, Inside()).kinds.add(kind)
    return found


def _on_constant_content(subject: Subject, seed: int, runs: int) -> list[_Scores]:
    """Run with one vector at every position of every layer, before and behind it."""
    mode = _ScoreMode(subject)

    def constant(hidden: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        vector = torch.randn(hidden.shape[-1], generator=generator, dtype=hidden.dtype)
        return vector.expand(hidden.shape).contiguous()

    def into(run: LayerRun, hidden: Tensor) -> Tensor:
        mode.enter(run)
        return constant(hidden)

    def out(run: LayerRun, hidden: Tensor) -> Tensor:
        mode.run = None
        return constant(hidden)

    with pinned(subject.blocks, into, out), layers_only(subject, runs), seeded(), mode:
        subject.model(**dict(subject.inputs))
    return mode.scores


def _kind(subject: Subject, one: _Scores, other: _Scores) -> str | None:
    if one.values.shape != other.values.shape or not bool(one.visible.any()):
        return None
    if one.rotated:
        return "rotary"
    by_place, elsewhere = _by_place(one), _by_place(other)
    most = float(one.values.detach()[one.visible].abs().max()) or 1.0
    if float(by_place.abs().max()) < SAME * most and float(elsewhere.abs().max()) < SAME * most:
        return None
    if float((by_place - elsewhere).abs().max()) < SAME * max(most, float(by_place.abs().max())):
        if _learned(subject, one):
            return "bias-learned"
        return "bias-linear" if _linear(by_place, one.visible) else "bias-fixed"
    return "absolute-fixed" if one.placed and not _of_distance(by_place, one.visible) else "relative"


def _by_place(scores: _Scores) -> Tensor:
    """Scores less their head's mean over what is visible; 0 where masked."""
    values, visible = scores.values.detach(), scores.visible
    kept = values.masked_fill(~visible, 0.0)
    mean = kept.sum(dim=(-1, -2), keepdim=True) / visible.sum(dim=(-1, -2), keepdim=True).clamp(min=1)
    return (values - mean).masked_fill(~visible, 0.0)


def _learned(subject: Subject, scores: _Scores) -> bool:
    """Whether a parameter moves what scores of the same content differ by."""
    if not scores.values.requires_grad:
        return False
    weight = _by_place(scores)
    parameters = [p for p in subject.model.parameters() if p.requires_grad]
    kept = scores.values.masked_fill(~scores.visible, 0.0)
    gradients = torch.autograd.grad((kept * weight).sum(), parameters, retain_graph=True, allow_unused=True)
    scale = float(weight.abs().max()) or 1.0
    return any(g is not None and float(g.abs().max()) > 1e-6 * scale for g in gradients)


def _diagonals(values: Tensor, visible: Tensor) -> Iterator[tuple[int, Tensor]]:
    """By distance (query less key), the visible values; (heads, places) at a time where all heads see the same."""
    for offset in range(1 - values.shape[-2], values.shape[-1]):
        seen = visible.diagonal(offset, dim1=-2, dim2=-1)
        places = seen.reshape(-1, seen.shape[-1]).all(dim=0)
        if bool(places.any()):
            flat = values.diagonal(offset, dim1=-2, dim2=-1)
            yield -offset, flat.reshape(-1, flat.shape[-1])[:, places]


def _of_distance(values: Tensor, visible: Tensor) -> bool:
    most = float(values.abs().max())
    return all(float((row - row[:, :1]).abs().max()) < 1e-6 * most for _, row in _diagonals(values, visible))


def _linear(values: Tensor, visible: Tensor) -> bool:
    """Whether values fall in proportion to the distance, as with ALiBi (keys to both sides, or to one); per head, up to what softmax ignores."""
    visible = visible.expand(values.shape)
    queries = values.reshape(-1, *values.shape[-2:])
    seen = visible.reshape(-1, *values.shape[-2:])
    keys = torch.arange(values.shape[-1], dtype=values.dtype)
    most = float(values.abs().max())
    for row_values, row_seen, query in (
        (queries[head, at], seen[head, at], at)
        for head in range(len(queries))
        for at in range(queries.shape[1])
    ):
        if int(row_seen.sum()) < 3:
            continue
        kept = row_values[row_seen]
        for distance in ((keys - query).abs()[row_seen], keys[row_seen]):
            steps = (kept[1:] - kept[:1]) * (distance[-1] - distance[0]) - (kept[-1] - kept[0]) * (
                distance[1:] - distance[0]
            )
            if float(steps.abs().max()) < 1e-6 * most * len(keys):
                break
        else:
            return False
    return True
