"""What really runs in a forward pass: products with weights, attention, gates, choices of experts, layers.

A `Tracer` sees every torch function that the model's Python code calls, and remembers of every tensor where
it comes from since the last product with a weight. It needs shapes only, so that it works on the `meta`
device at full size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ptmkb.probe.measures import Unmeasurable
from ptmkb.probe.numerics import run_experts, seeded, tensors_in
from ptmkb.probe.operands import einsum_batch, product_sizes
from ptmkb.probe.subject import Subject
from ptmkb.probe.trace import Attention, Choice, LayerCall, Lookup, Product, Source, Trace

_PRODUCTS = {
    "linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum", "conv1d", "conv2d", "conv3d",
    "grouped_mm", "_grouped_mm",
}  # fmt: skip
_FIRST_IS_ADDED = {"addmm", "baddbmm"}
_ELEMENTWISE_PRODUCTS = {"mul", "__mul__", "__rmul__", "__imul__", "mul_", "multiply"}
_CHOICES = {"topk": -1, "max": -1, "argmax": -1}


@dataclass
class _Scores:
    query: Source
    key: Source
    heads: int
    key_heads: int
    head_size: int


class Tracer(TorchFunctionMode):
    """Watches a model while it is entered.

    Args:
        model: The model to run.
        blocks: Its layers, by stack.
        batch: How many samples there are, to tell heads from samples where both share a dimension.
    """

    def __init__(self, model: nn.Module, blocks: Mapping[str, Sequence[nn.Module]], batch: int = 2) -> None:
        super().__init__()
        self.trace = Trace()
        self.output: Any = None
        self.batch = batch
        self._sources: dict[int, tuple[Tensor, Source]] = {}
        for parameter in model.parameters():
            self._sources[id(parameter)] = (parameter, Source(parameter=True))
        self._scores: list[_Scores] = []
        self._open: list[int] = []
        self._around: list[int | None] = []  # of each call of a layer, the call that it ran in
        self._blocks = blocks
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Tracer:
        layers = {id(module): module for modules in self._blocks.values() for module in modules}
        for layer in layers.values():
            stacks = tuple(
                stack for stack, modules in self._blocks.items() if any(module is layer for module in modules)
            )
            self._hooks += [
                layer.register_forward_pre_hook(
                    lambda module, args, kwargs, stacks=stacks: self._enter_layer(
                        stacks, module, args, kwargs
                    ),
                    with_kwargs=True,
                ),
                layer.register_forward_hook(lambda *_: self._leave_layer()),
            ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def source(self, tensor: Any) -> Source:
        """Where a tensor comes from; nothing known of tensors that the model was given."""
        found = self._sources.get(id(tensor))
        return found[1] if found else Source()

    def _enter_layer(self, stacks: tuple[str, ...], module: nn.Module, args: Any, kwargs: Any) -> None:
        hidden = next(
            (
                value
                for _, value in tensors_in((args, kwargs))
                if value.is_floating_point() and value.ndim >= 3
            ),
            None,
        )
        self._around.append(self._layer)
        self._open.append(len(self.trace.layers))
        self.trace.layers.append(LayerCall(stacks, module, None if hidden is None else hidden.shape[-1]))

    def settle(self, blocks: Mapping[str, Sequence[nn.Module]]) -> None:
        """Say afterwards which of the modules that were watched are the layers: what ran in others belongs to the layer around them."""
        stacks: dict[int, list[str]] = {}
        for stack, modules in blocks.items():
            for module in {id(module): module for module in modules}.values():
                stacks.setdefault(id(module), []).append(stack)
        layers: list[LayerCall] = []
        inside: list[int | None] = []  # by call, the layer that it is or lies in
        for call, around in zip(self.trace.layers, self._around, strict=True):
            if id(call.module) in stacks:
                inside.append(len(layers))
                layers.append(replace(call, stacks=tuple(stacks[id(call.module)])))
            else:
                inside.append(None if around is None else inside[around])

        def moved(seen: list[Any]) -> list[Any]:
            return [one if one.layer is None else replace(one, layer=inside[one.layer]) for one in seen]

        trace = self.trace
        self.trace = Trace(
            moved(trace.products), moved(trace.attentions), trace.lookups, moved(trace.choices), layers
        )

    def _leave_layer(self) -> None:
        self._open.pop()

    @property
    def _layer(self) -> int | None:
        return self._open[-1] if self._open else None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # attributes: `.shape` and `.device` are no tensors, `.T` and `.data` are views
            result = func(*args, **kwargs)
            if isinstance(result, Tensor) and result is not args[0]:
                self._keep(result, self.source(args[0]))
            return result
        result = func(*args, **kwargs)
        self._record(name, func, args, kwargs, result)
        return result

    def _record(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        if func is F.scaled_dot_product_attention:
            query, key, value = (
                _argument(args, kwargs, at, name) for at, name in enumerate(("query", "key", "value"))
            )
            heads, key_heads = self._heads(query.shape), self._heads(key.shape)
            scores = _Scores(self.source(query), self.source(key), heads, key_heads, query.shape[-1])
            self._attend(scores, self.source(value), result)
        elif func is F.multi_head_attention_forward:
            self._fused_attention(args, kwargs, result)
        elif func is F.embedding:
            indices, table = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
            self.trace.lookups.append(Lookup(indices, table))
            self._keep(result, Source())
        elif name in _PRODUCTS and isinstance(result, Tensor):
            self._product(name, args, kwargs, result)
        else:
            if name in _CHOICES and args and isinstance(args[0], Tensor) and args[0].ndim > 1:
                self._choose(name, args, kwargs)
            self._flow(name, args, kwargs, result)

    def _product(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor) -> None:
        operands = [value for _, value in tensors_in((args, kwargs)) if value.ndim]
        left, right = operands[1:3] if name in _FIRST_IS_ADDED else operands[:2]
        sources = self.source(left), self.source(right)
        if sources[0].parameter == sources[1].parameter:
            if not sources[0].parameter:
                self._activations(name, args, left, right, sources, result)
            return
        weight, source = (left, sources[1]) if sources[0].parameter else (right, sources[0])
        inputs, outputs = product_sizes(name, args, left, right, weight is left)
        self.trace.products.append(Product(weight, inputs, outputs, source, self._layer))
        self._keep(result, Source(products=frozenset({(len(self.trace.products) - 1, 0)})))

    def _activations(
        self,
        name: str,
        args: tuple[Any, ...],
        left: Tensor,
        right: Tensor,
        sources: tuple[Source, Source],
        result: Tensor,
    ) -> None:
        """A product of two activations: queries and keys, or attention weights and values."""
        for weights, value in (sources, sources[::-1]):
            if weights.weights is not None:
                self._attend(self._scores[weights.weights], value, result)
                return
        if sources == (Source(), Source()):
            return  # tables of positions and the like
        shared, _ = product_sizes(name, args, left, right, False)
        added = self.source(args[0]).scores if name in _FIRST_IS_ADDED else None
        if added is None:
            heads, key_heads = self._heads(result.shape), self._heads(right.shape)
            if name == "einsum":
                heads = key_heads = einsum_batch(str(args[0]), left) // self.batch
            self._scores.append(_Scores(*sources, heads, key_heads, shared))
        self._keep(result, Source(scores=len(self._scores) - 1 if added is None else added))

    def _attend(self, scores: _Scores, value: Source, result: Any) -> None:
        query, key, key_heads = scores.query, scores.key, scores.key_heads
        if len(key.calls) == 1:
            # Keys may have been repeated to the number of queries' heads on the way; their projection's width tells. A fused
            # projection makes queries, keys and values at once, or keys and values.
            (call,) = key.calls
            shares = 1 + (call in value.calls)
            width = self.trace.products[call].outputs / scores.head_size
            projected = (width - scores.heads * (call in query.calls)) / shares
            if projected >= 1 and projected.is_integer() and scores.heads % projected == 0:
                key_heads = int(projected)
        self.trace.attentions.append(
            Attention(scores.heads, key_heads, scores.head_size, query, key, value, self._layer)
        )
        for _, tensor in tensors_in(result):
            self._keep(tensor, Source(context=len(self.trace.attentions) - 1))

    def _heads(self, shape: torch.Size) -> int:
        """Of queries or scores: (batch, heads…, positions, features), or (batch · heads, positions, features)."""
        return math.prod(shape[1:-2]) if len(shape) > 3 else max(1, shape[0] // self.batch)

    def _fused_attention(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        width, heads = (
            int(_argument(args, kwargs, 3, "embed_dim_to_check")),
            int(_argument(args, kwargs, 4, "num_heads")),
        )
        query, key, value = (
            self.source(_argument(args, kwargs, at, name))
            for at, name in enumerate(("query", "key", "value"))
        )
        self.trace.attentions.append(Attention(heads, heads, width // heads, query, key, value, self._layer))
        for _, tensor in tensors_in(result):
            self._keep(tensor, Source())  # its output projection ran inside

    def _choose(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        chosen = _argument(args, kwargs, 1, "k") if name == "topk" else 1
        if isinstance(chosen, int):
            self.trace.choices.append(Choice(args[0].shape[-1], chosen, self._layer))

    def _flow(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """All that is neither product nor attention passes on where its operands come from."""
        operands = [value for _, value in tensors_in((args, kwargs)) if value.is_floating_point()]
        sources = [self.source(value) for value in operands]
        known = [source for source in sources if source != Source()]
        if not known:
            return
        source = known[0]
        if len(known) > 1:
            source = Source(
                products=frozenset().union(*(other.products for other in known)),
                scores=_first(other.scores for other in known),
                weights=_first(other.weights for other in known),
                context=_first(other.context for other in known),
                gated=any(other.gated for other in known),
            )
        source = replace(source, parameter=bool(sources) and all(other.parameter for other in sources))
        if name == "softmax" and source.scores is not None:
            source = Source(weights=source.scores)
        if name in _ELEMENTWISE_PRODUCTS and len(sources) == 2 and all(other.products for other in sources):
            apart = not sources[0].products & sources[1].products
            source = replace(
                source, gated=source.gated or (apart and operands[0].shape[-1:] == operands[1].shape[-1:])
            )
        if name == "glu":
            source = replace(source, gated=True)
        if name == "__setitem__":
            self._keep(args[0], source)
        for _, tensor in tensors_in(result):
            piece = source
            if (
                len(source.products) == 1
                and tensor.ndim
                and operands[0].ndim
                and tensor.shape[-1] < operands[0].shape[-1]
            ):
                ((call, _),) = (
                    source.products
                )  # a slice of a product's result is another projection than the next slice
                piece = replace(source, products=frozenset({(call, int(tensor.storage_offset()))}))
            self._keep(tensor, piece)

    def _keep(self, tensor: Tensor, source: Source) -> None:
        """Remember where a tensor comes from; the tensor is held, so that no other gets its identity."""
        self._sources[id(tensor)] = (tensor, source)


def _argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], at: int, name: str) -> Any:
    return args[at] if len(args) > at else kwargs.get(name)


def _first(values: Iterator[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)


# A model without numbers cannot be changed between two measures, and a full-size one is worth running only once.
_ON_META: WeakKeyDictionary[nn.Module, Tracer] = WeakKeyDictionary()


def first_run(model: nn.Module, members: Sequence[nn.Module], inputs: Mapping[str, Any]) -> Tracer:
    """Run a model on `meta` for the first time, when nobody knows yet which modules are its layers.

    Args:
        model: The model.
        members: All that may be layers.
        inputs: Arguments of the forward pass.

    Returns:
        The tracer, with what the model returned as its `output`; `remember` wants it once the layers are known.
    """
    run_experts(model, "batched_mm")
    batch = next((value.shape[0] for _, value in tensors_in(dict(inputs)) if value.ndim), 1)
    with torch.no_grad(), seeded(), Tracer(model, {"": members}, batch) as tracer:
        tracer.output = model(**inputs)
    return tracer


def remember(subject: Subject, tracer: Tracer) -> None:
    """Have `run_subject` give what the first run saw."""
    tracer.settle(subject.blocks)
    _ON_META[subject.model] = tracer


def run_subject(subject: Subject, inputs: Mapping[str, Any] | None = None) -> Tracer:
    """Run a subject once under a tracer; on `meta` with experts whose sizes do not depend on the routing.

    Args:
        subject: The subject.
        inputs: Arguments of the forward pass, the subject's own where None.

    Returns:
        The tracer, with what the model returned as its `output`.

    Raises:
        Unmeasurable: The forward pass does not run on `meta`.
    """
    on_meta = any(parameter.is_meta for parameter in subject.model.parameters())
    if on_meta and inputs is None and subject.model in _ON_META:
        return _ON_META[subject.model]
    given = dict(subject.inputs if inputs is None else inputs)
    batch = next((value.shape[0] for _, value in tensors_in(given) if value.ndim), 1)
    if on_meta:
        run_experts(subject.model, "batched_mm")
    try:
        with torch.no_grad(), seeded(), Tracer(subject.model, subject.blocks, batch) as tracer:
            tracer.output = subject.model(**given)
    except Exception as error:
        if not on_meta:
            raise
        reason = str(error).strip().partition("\n")[0][:200]
        raise Unmeasurable(f"its forward pass does not run on `meta`: {reason}") from error
    if on_meta and inputs is None:
        _ON_META[subject.model] = tracer
    return tracer
