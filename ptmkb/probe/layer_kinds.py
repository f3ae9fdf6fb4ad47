"""What kind every layer of a model is: what mixes its positions, how far, with which heads, and what feeds forward.

The reach of a layer is measured (`reach`); which operation mixes the positions is read from a traced run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ptmkb.probe.experts import expert_sets
from ptmkb.probe.memory import shared
from ptmkb.probe.norms import LayerNorms, layer_norms
from ptmkb.probe.numerics import seeded, tensors_in
from ptmkb.probe.patterns import classify
from ptmkb.probe.pinning import layer_runs, layers_only
from ptmkb.probe.reach import Reach, reaches
from ptmkb.probe.spans import spans
from ptmkb.probe.stacks import CROSS
from ptmkb.probe.subject import Subject
from ptmkb.probe.trace import Attention, Product, Trace
from ptmkb.probe.tracing import Tracer, run_subject

_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
_FOURIER = {"fft_fft", "fft_fft2", "fft_fftn", "fft_rfft", "fft_rfft2", "fft_rfftn"}


class MixingTracer(Tracer):
    """A `Tracer` that also notes what else than attention mixes positions in each layer."""

    def __init__(self, subject: Subject, batch: int) -> None:
        super().__init__(subject.model, subject.blocks, batch)
        self.mixing: dict[int | None, set[str]] = {}

    def _record(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        found = None
        if name in _RECURRENT:
            found = "recurrence"
        elif name in _FOURIER:
            found = "fourier"
        elif name in _CONVOLUTIONS and any(
            size > 1 for size in (args[1:] or [kwargs["weight"]])[0].shape[2:]
        ):
            found = "convolution"
        if found:
            self.mixing.setdefault(self._layer, set()).add(found)
        super()._record(name, func, args, kwargs, result)

    def _activations(
        self, name: str, args: tuple[Any, ...], left: Tensor, right: Tensor, sources: Any, result: Tensor
    ) -> None:
        if result.ndim > 2 and result.shape[-1] == result.shape[-2] > 1:
            self.mixing.setdefault(self._layer, set()).add("products")
        super()._activations(name, args, left, right, sources, result)


@dataclass(frozen=True)
class LayerKind:
    """One run of one layer.

    Attributes:
        stacks: The stacks that it belongs to.
        value: `mixer` and its numbers, `heads`, `feed_forward`, `cross`: the layer's part of the measure's value.
        reach: What it depends on.
        convolves: Whether a convolution over several positions runs in it.
        attends: Whether an attention runs in it.
    """

    stacks: tuple[str, ...]
    value: dict[str, Any]
    reach: Reach
    convolves: bool
    attends: bool

    def order(self) -> set[str]:
        """What tells its positions apart beside what attention's scores show: `recurrence`, `convolution`."""
        found = {"convolution"} if self.convolves and self.value["mixer"] != "none" else set()
        if self.value["mixer"] in ("recurrence", "state-space", "linear-attention"):
            found.add("recurrence")
        return found


@shared
def layer_kinds(subject: Subject, doubled: Subject | None = None) -> list[LayerKind]:
    """The kind of every layer, in order of running.

    Args:
        subject: The subject.
        doubled: The same in float64, where there is one already.
    """
    batch = next((value.shape[0] for _, value in tensors_in(subject.inputs) if value.ndim), 1)
    tracer = MixingTracer(subject, batch)
    runs = layer_runs(subject)
    with torch.no_grad(), seeded(), tracer, layers_only(subject, runs):
        subject.model(**dict(subject.inputs))
    norms = layer_norms(subject)
    found = {reach.index: reach for reach in reaches(doubled or subject.doubled())}
    return [
        _kind(tracer, index, found.get(index, Reach(index, call.stacks)), norms[index])
        for index, call in enumerate(tracer.trace.layers)
    ]


def kinds_at_full_size(subject: Subject) -> list[LayerKind]:
    """The kind of every layer of a model on `meta`, in order of running, without what takes numbers.

    How far attention reaches is read from the masks that a long input gets (`spans`). A layer without attention is named where the operation that
    runs says what it is; `mixer` is left out where nothing does.
    """
    trace = run_subject(subject).trace
    attentions = {
        index: [a for a in trace.attentions if a.layer == index] for index in range(len(trace.layers))
    }
    found = spans(subject, [bool(rows) for rows in attentions.values()])
    kinds = []
    for index, call in enumerate(trace.layers):
        first = attentions[index][0] if attentions[index] else None
        span = found[index] if first and len(found) == len(trace.layers) else None
        value: dict[str, Any] = dict(span or ({"mixer": "attention"} if first else {}))
        if first is not None:
            value["heads"] = _heads(trace, first)
        value["feed_forward"] = _feed_forward_of(trace, index, first is not None)
        kinds.append(
            LayerKind(
                call.stacks,
                {k: v for k, v in value.items() if v is not None},
                Reach(index, call.stacks),
                False,
                first is not None,
            )
        )
    return kinds


def _feed_forward_of(trace: Trace, layer: int, attends: bool) -> str | None:
    """`experts`, `dense` or `none`; None where, without attention, the mixer's products cannot be told from a feed-forward network's."""
    if expert_sets(trace, layer) is not None:
        return "experts"
    if not attends:
        return None
    return "dense" if any(_is_between(trace, p) for p in trace.products if p.layer == layer) else "none"


def _kind(tracer: MixingTracer, index: int, reach: Reach, norms: LayerNorms) -> LayerKind:
    trace = tracer.trace
    attentions = [attention for attention in trace.attentions if attention.layer == index]
    operations = tracer.mixing.get(index, set()) | ({"recurrence"} if _recurs(trace, index) else set())
    value = _mixer(reach, attentions, operations)
    if attentions:
        value["heads"] = _heads(trace, attentions[0])
    if reach.others or CROSS in reach.stacks:
        value["cross"] = True
    value["feed_forward"] = _feed_forward(trace, index, bool(attentions), value["mixer"], norms)
    return LayerKind(reach.stacks, value, reach, "convolution" in operations, bool(attentions))


def _mixer(reach: Reach, attentions: Sequence[Attention], operations: set[str]) -> dict[str, Any]:
    """What mixes the positions, and how far it reaches."""
    if reach.matrix is None:
        return {"mixer": "other"}
    pattern = classify(reach.matrix)
    if pattern.kind == "pointwise":
        return {
            "mixer": "cross-attention" if attentions and (reach.others or CROSS in reach.stacks) else "none"
        }
    if attentions:
        if pattern.kind == "causal-with-bidirectional-spans" and "window" in pattern.value:
            return {
                "mixer": "sliding-window",
                "window": pattern.value["window"],
            }  # the pictures are no layer's doing
        span = {
            "sliding-window": {"mixer": "sliding-window", **_numbers(pattern.value, "window", "ahead")},
            "chunked": {"mixer": "chunked", **_numbers(pattern.value, "chunk")},
            "other": {"mixer": "other"},
        }
        return span.get(pattern.kind, {"mixer": "full"})
    for name in ("recurrence", "fourier"):
        if name in operations:
            return {"mixer": name}
    if pattern.kind == "sliding-window":
        return {"mixer": "convolution", **_numbers(pattern.value, "window", "ahead")}
    if "products" in operations:
        return {"mixer": "linear-attention"}
    return {"mixer": "state-space" if pattern.kind in ("causal", "anti-causal") else "other"}


def _recurs(trace: Trace, layer: int) -> bool:
    """Whether a weight is applied to what it made itself one step before: a recurrent network that is written out."""
    last: dict[int, int] = {}
    for call, product in enumerate(trace.products):
        if product.layer != layer:
            continue
        before = last.get(id(product.weight))
        if before is not None:
            reached, below = set(), set(product.source.calls)
            while below and before not in reached:
                reached |= below
                below = {c for at in below if at > before for c in trace.products[at].source.calls} - reached
            if before in reached:
                return True
        last[id(product.weight)] = call
    return False


def _numbers(value: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value[name] for name in names if name in value}


def _heads(trace: Trace, attention: Attention) -> str:
    """How queries' heads share keys and values."""
    if _latent(trace, attention):
        return "latent"
    query, key = (
        {trace.products[call].outputs for call in s.calls} for s in (attention.query, attention.key)
    )
    if attention.key_heads == attention.heads or (
        query == key and not attention.query.calls & attention.key.calls
    ):
        return "multi-head"  # heads that are cut into pieces (bands of a window) may be counted wrongly, widths not
    return "multi-query" if attention.key_heads == 1 else "grouped-query"


def _latent(trace: Trace, attention: Attention) -> bool:
    """Whether keys and values are both unfolded from one narrow projection of the layer's input."""

    def folded(calls: frozenset[int]) -> set[int]:
        below = set()
        for call in calls:
            product = trace.products[call]
            if len(product.source.calls) == 1:
                (source,) = product.source.calls
                if trace.products[source].layer == attention.layer and product.source.context is None:
                    below.add(source)
        return below

    return bool(folded(attention.value.calls) & folded(attention.key.calls))


def _feed_forward(trace: Trace, layer: int, attends: bool, mixer: str, norms: LayerNorms) -> str:
    """`experts`, `dense` or `none`."""
    if expert_sets(trace, layer) is not None:
        return "experts"
    if attends:
        return "dense" if any(_is_between(trace, p) for p in trace.products if p.layer == layer) else "none"
    # Without attention nothing tells the mixer's products from the feed-forward network's, but that each has a sum of its own.
    return "dense" if len(norms.residuals) > (mixer != "none") else "none"


def _is_between(trace: Trace, product: Product) -> bool:
    """Whether what goes into a product comes from products of the same layer only, and not by way of attention."""
    around = {
        call
        for a in trace.attentions
        if a.layer == product.layer
        for source in (a.query, a.key, a.value)
        for call in source.calls
    }
    below = set(around)  # and what the projections around attention are themselves made from
    for call in around:
        below |= set(trace.products[call].source.calls)
    if product.source.context is not None or not product.source.calls or product.source.calls & below:
        return False
    sources = [trace.products[call] for call in product.source.calls]
    return all(other.layer == product.layer and other.source.context is None for other in sources)
