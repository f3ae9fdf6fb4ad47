"""What a stretch of the path does: attention, feed-forward, experts, convolution, state space, recurrence; told by what ran in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ptmkb.probe import patterns
from ptmkb.probe.dataflow import NORM, Recorder
from ptmkb.probe.experts import expert_sets
from ptmkb.probe.regions import ADDITIONS, PRODUCTS, Graph, Stretch

Element = dict[str, Any]
"""One box of a diagram: its `kind` and what is known of it, made of JSON types."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "quick-gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu-squared": lambda x: F.relu(x).square(),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "mish": F.mish,
    "elu": F.elu,
}
_CLOSE = 2e-3  # of the largest value: the tanh form of the GELU is as near to the exact one
_HIDDEN = -1e4  # scores below are those of a mask
_MATRIX_PRODUCTS = {"matmul", "__matmul__", "bmm", "einsum", "baddbmm"}
_SCANS = {"cumsum", "cumprod", "logcumsumexp"}
_NETWORKS = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell"}
_TRANSFORMS = {"fft_fft", "fft_fft2", "fft_fftn", "fft_rfft", "fft_rfft2", "fft_irfft2", "fft_rfftn"}
_POOLS = {
    "avg_pool1d",
    "avg_pool2d",
    "max_pool1d",
    "max_pool2d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool1d",
}


class Classifier:
    """Names stretches of one recorded run.

    Args:
        recorder: The run.
        graph: Its graph.
        made_by: For a node, the stack whose output it comes from, if any: whose states a cross-attention reads.
    """

    def __init__(self, recorder: Recorder, graph: Graph, made_by: Callable[[int], str | None]) -> None:
        self.recorder, self.graph, self.made_by = recorder, graph, made_by
        self.nodes = recorder.nodes

    def elements(self, stretch: Stretch, positions: int, layer: int | None) -> list[Element]:
        """What runs in a stretch, in order; nothing where all that it does is pass on.

        Args:
            stretch: Of the graph.
            positions: How long the sequence is.
            layer: In which of the trace's layers it ran, None outside of layers.
        """
        inside = sorted(stretch.nodes)
        attentions = [at for at in inside if self.nodes[at].attention is not None]
        if attentions:
            return [self._attention(attentions[0], stretch, positions)]
        products = [at for at in inside if self.nodes[at].product is not None]
        ops = {self.nodes[at].op for at in inside}
        if ops & _NETWORKS:
            return [{"kind": "recurrence"}]
        if ops & {"topk", "argmax"} and (experts := self._experts(inside, products, layer)):
            return [experts]
        if scan := self._scan(inside, products, positions, ops):
            return [scan]
        kernels = [kernel for at in products if (kernel := self._kernel(at)) > 1]
        if kernels:
            gated = any(self.nodes[at].op == "glu" for at in inside)
            return [{"kind": "convolution", "kernel": max(kernels), **({"gated": True} if gated else {})}]
        if ops & _TRANSFORMS:
            return [{"kind": "fourier"}]
        if ops & _POOLS:
            return [{"kind": "pooling"}]
        if any(self._mixes(at) for at in inside):
            return [{"kind": "linear-attention"}]
        return self._feed_forward(inside, products)

    # ---- attention

    def _attention(self, at: int, stretch: Stretch, positions: int) -> Element:
        node = self.nodes[at]
        assert node.attention is not None
        trace = self.recorder.trace.attentions[node.attention]
        element: Element = {"kind": "attention", "heads": trace.heads, "key_value_heads": trace.key_heads}
        seen, extra, query, key = self._scores(at)
        own = key is None or bool(self.graph.between(stretch.start, key))
        if key is not None and not own:
            element["cross"] = self.made_by(key)
        elif seen is not None:
            element["sees"] = patterns.classify(seen).value
            shape = self.nodes[query].tensor.shape if query is not None else ()
            if len(shape) == 4 and shape[0] > self.recorder.batch and 1 < shape[-2] < positions:
                element["sees"] = {"kind": "chunked", "chunk": int(shape[-2])}
        turned, normed = self._queries(query, stretch) if query is not None else (False, None)
        if turned or extra:
            element["positions"] = [*(["rotary"] if turned else []), *extra]
        if normed:
            element["query_key_norm"] = normed
        if key is not None and own:
            path = self.graph.between(stretch.start, key)[1:]
            made = [self.nodes[n].product for n in path if self.nodes[n].product is not None]
            rows = [self.recorder.trace.products[n] for n in made if n is not None]
            if len(rows) > 1 and rows[-1].source.calls & set(made):
                element["latent"] = rows[-1].inputs
        return element

    def _scores(self, at: int) -> tuple[list[list[bool]] | None, list[str], int | None, int | None]:
        """Who sees whom, what is added to the scores beside queries and keys, and the nodes of queries and keys."""
        node = self.nodes[at]
        if node.op == "scaled_dot_product_attention":
            args, kwargs = node.about["arguments"]
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            query, key = given["query"], given["key"]
            mask = given.get("attn_mask")
            shape = (query.shape[-2], key.shape[-2])
            seen, extra = torch.ones(shape, dtype=torch.bool), []
            if given.get("is_causal"):
                seen = torch.ones(shape, dtype=torch.bool).tril()
            if mask is not None:
                visible = mask if mask.dtype == torch.bool else mask > _HIDDEN
                seen = seen & _any(visible, shape)
                extra = self._bias(self.recorder.node(mask))
            return seen.tolist(), extra, self.recorder.node(query), self.recorder.node(key)
        if node.op == "multi_head_attention_forward":
            args, kwargs = node.about["arguments"]
            return None, [], None, self.recorder.node(args[1])
        return self._written_out(at)

    def _written_out(self, at: int) -> tuple[list[list[bool]] | None, list[str], int | None, int | None]:
        above = self.graph.above([at])
        softmaxes = [n for n in above if self.nodes[n].op == "softmax" and self.nodes[n].tensor.ndim >= 3]
        if not softmaxes:
            return None, [], None, None
        softmax = max(softmaxes)
        weights = self.nodes[softmax].tensor
        stops = [n for n in above if self.nodes[n].product is not None and n < softmax]
        below = sorted(self.graph.above([softmax], stops))
        scores = [n for n in below if self._mixes(n)]
        others = [n for n in below if self._scored_by_place(n)]
        extra = ["relative"] if len(scores) + len(others) > 1 else []
        if not scores:
            return None, extra, None, None
        pair = self._pair(scores[0])
        keys = self.nodes[scores[0]].tensor.shape[-1]
        for n in below:
            if (self.nodes[n].op in ADDITIONS and n > scores[0]) or self.nodes[n].op == "baddbmm":
                for other in self.nodes[n].inputs:
                    if self._placed(other) and self.nodes[other].tensor.shape[-1:] == (keys,) and not extra:
                        extra += self._bias(other)
        seen = _any(weights[..., :keys] > 0, (weights.shape[-2], keys))
        return seen.tolist(), extra, *pair

    def _placed(self, at: int) -> bool:
        """Whether no weighted product went into a tensor: it is made of positions and masks alone."""
        return self.nodes[at].fixed or all(self.nodes[n].product is None for n in self.graph.above([at]))

    def _scored_by_place(self, at: int) -> bool:
        """Whether a node is a product of an activation with what was made of positions alone."""
        node = self.nodes[at]
        if node.op not in _MATRIX_PRODUCTS or node.product is not None or node.fixed:
            return False
        sides = [other for other in node.inputs if self.nodes[other].tensor.ndim > 1]
        return len(sides) == 2 and sum(self.nodes[other].fixed for other in sides) == 1

    def _pair(self, at: int) -> tuple[int | None, int | None]:
        moving = [
            n for n in self.nodes[at].inputs if not self.nodes[n].fixed and self.nodes[n].tensor.ndim > 1
        ]
        return (moving[-2], moving[-1]) if len(moving) > 1 else (None, None)

    def _bias(self, at: int) -> list[str]:
        """What a tensor that is added to the scores brings beside a mask."""
        values = self.nodes[at].tensor
        if not values.is_floating_point() or values.ndim < 2 or values.shape[-1] < 2:
            return []
        kept = values[values > _HIDDEN]
        if not kept.numel() or float(kept.std(unbiased=False)) == 0:
            return []
        return ["bias" if self.nodes[at].learned else "fixed-bias"]

    def _queries(self, query: int, stretch: Stretch) -> tuple[bool, str | None]:
        """Whether queries were turned on their way from their projection, and the norm that they went through."""
        after = self.nodes[query].tensor
        turned, normed = False, None
        for at in reversed(self.graph.gates(stretch.start, query)[:-1]):
            node = self.nodes[at]
            turned = turned or (
                normed is None and node.tensor.numel() == after.numel() and _turns(node.tensor, after)
            )
            if node.op == NORM and at != stretch.start:
                normed = normed or str(node.about["kind"])
            if node.product is not None or at == stretch.start:
                break
        return turned, normed

    # ---- other kinds

    def _experts(self, inside: list[int], products: list[int], layer: int | None) -> Element | None:
        found = expert_sets(self.recorder.trace, layer) if layer is not None else None
        if found is None:
            return None
        chosen = {at for at in inside if self.nodes[at].op in ("topk", "argmax", "max")}
        after, before = set(chosen), self.graph.above(chosen)
        for at in inside:
            if not after.isdisjoint(self.nodes[at].inputs):
                after.add(at)
        own = [at for at in products if at in after]
        shared = [at for at in products if at not in after and at not in before]
        element: Element = {"kind": "experts", "experts": found.among, "chosen": found.chosen}
        element |= self._widths([at for at in inside if at in after], own)
        if len(shared) > 1:
            element["shared"] = self._widths(inside, shared).get("width", True)
        return element

    def _scan(self, inside: list[int], products: list[int], positions: int, ops: set[str]) -> Element | None:
        """A state that is carried along the sequence: as many steps in a row as there are positions, or a sum over what came before."""
        steps: dict[int, int] = {}
        for at in inside:
            node = self.nodes[at]
            longest = max((steps.get(other, 0) for other in node.inputs), default=0)
            steps[at] = longest + (node.op in ADDITIONS | PRODUCTS and positions not in node.tensor.shape)
        by_weight: dict[int, int] = {}
        for at in products:
            weight = self.recorder.trace.products[self.nodes[at].product or 0].weight
            by_weight[id(weight)] = by_weight.get(id(weight), 0) + 1
        if positions > 2 and max(by_weight.values(), default=0) >= positions:
            return {"kind": "recurrence"}
        looped = positions > 4 and max(steps.values(), default=0) >= 2 * positions - 2
        if not looped and not (ops & _SCANS and any(self._mixes(at) for at in inside)):
            return None
        kernels = [kernel for at in products if (kernel := self._kernel(at)) > 1]
        gated = any(self._gate(at) for at in inside)
        return {
            "kind": "state-space",
            **({"convolution": max(kernels)} if kernels else {}),
            **({"gated": True} if gated else {}),
            **(
                {"width": self.recorder.trace.products[self.nodes[products[-1]].product or 0].inputs}
                if products
                else {}
            ),
        }

    def _gate(self, at: int) -> bool:
        node = self.nodes[at]
        moving = [n for n in node.inputs if not self.nodes[n].fixed]
        return (
            node.op in PRODUCTS
            and len(moving) == 2
            and any(self.nodes[n].op in ("silu", "sigmoid") for n in moving)
        )

    def _kernel(self, at: int) -> int:
        """How many positions a convolution spans; 0 for other products."""
        node = self.nodes[at]
        if not node.op.startswith("conv") or "arguments" not in node.about:
            return 0
        args, kwargs = node.about["arguments"]
        weight: Tensor = args[1] if len(args) > 1 else kwargs["weight"]
        return max(int(size) for size in weight.shape[2:])

    def _mixes(self, at: int) -> bool:
        """Whether a node is a product of two activations that share more than a feature."""
        node = self.nodes[at]
        if node.op not in _MATRIX_PRODUCTS or node.product is not None or node.fixed:
            return False
        return (
            sum(not self.nodes[other].fixed and self.nodes[other].tensor.ndim > 2 for other in node.inputs)
            >= 2
        )

    def _feed_forward(self, inside: list[int], products: list[int]) -> list[Element]:
        if not products:
            return []
        if len(products) == 1:
            last = self.recorder.trace.products[self.nodes[products[0]].product or 0]
            return [{"kind": "linear", "width": last.outputs}]
        return [{"kind": "feed-forward", **self._widths(inside, products)}]

    def _widths(self, inside: Iterable[int], products: list[int]) -> Element:
        """The widest value between two products, whether it is gated, and which function is in between."""
        trace = self.recorder.trace
        rows = [trace.products[self.nodes[at].product or 0] for at in products]
        own = {self.nodes[at].product for at in products}
        inner = [row for row in rows if row.source.calls & own]
        if not inner:
            return {}
        widest = max(inner, key=lambda row: row.inputs)
        found: Element = {"width": widest.inputs, "gated": widest.source.gated}
        if name := self._activation(list(inside), products):
            found["activation"] = name
        return found

    def _activation(self, inside: list[int], products: list[int]) -> str | None:
        """The elementwise function that makes a later value out of a product's result, found by trying known ones."""
        for product in products:
            start = self.nodes[product].tensor.float()
            made = {product}
            for at in inside:
                node = self.nodes[at]
                if at <= product or made.isdisjoint(node.inputs):
                    continue
                if node.product is not None or node.op == NORM:
                    continue
                made.add(at)
                for source in self._halves(start, node.tensor):
                    if name := _named(source, node.tensor.float()):
                        return name
        return None

    def _halves(self, start: Tensor, result: Tensor) -> list[Tensor]:
        """The part of a product's result that may have gone into a value: all of it, or one half of its features."""
        if not result.ndim or not start.ndim:
            return []
        if start.numel() == result.numel():
            return [start.reshape(result.shape)] if start.shape[-1] == result.shape[-1] else []
        if start.shape[-1] == 2 * result.shape[-1] and start.shape[:-1] == result.shape[:-1]:
            width = result.shape[-1]
            return [start[..., :width], start[..., width:], start[..., ::2], start[..., 1::2]]
        return []


def _named(given: Tensor, made: Tensor) -> str | None:
    errors = {
        name: float((function(given) - made).abs().max()) / (float(made.abs().max()) or 1.0)
        for name, function in _ACTIVATIONS.items()
    }
    best = min(errors, key=lambda name: errors[name])
    return best if errors[best] < _CLOSE else None


def _turns(before: Tensor, after: Tensor) -> bool:
    """Whether vectors are others than before, but as long, or all longer by the same factor."""
    first, second = before.float(), after.float()
    if first.shape == second.shape:
        lengths, now = first.norm(dim=-1), second.norm(dim=-1)
        factors = now / lengths.clamp_min(1e-12)
        factor = factors.mean()
        if float((factors - factor).abs().max()) > 1e-3 * float(factor):
            return False
        return float((first * factor - second).abs().max()) > 1e-3 * float(second.abs().max())
    one, other = first.flatten(), second.flatten()
    if abs(float(one.norm()) - float(other.norm())) > 1e-4 * float(one.norm()):
        return False
    return not torch.allclose(one.sort().values, other.sort().values, rtol=1e-3, atol=1e-5)


def _any(visible: Tensor, shape: tuple[int, int]) -> Tensor:
    """Whether any head of any sample sees, (queries, keys)."""
    if visible.ndim < 2:
        return torch.ones(shape, dtype=torch.bool)
    while visible.ndim > 2:
        visible = visible.any(dim=0)
    return visible.expand(shape)
