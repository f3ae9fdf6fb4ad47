"""What the layers of a mixture of experts did with each token: for `measures/routing.py`, from one traced run and its gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe.dataflow import plain_run
from ptmkb.probe.experts import Experts, expert_sets
from ptmkb.probe.numerics import seeded, tensors_in
from ptmkb.probe.subject import Subject
from ptmkb.probe.trace import Trace
from ptmkb.probe.tracing import Tracer

_SCORINGS = ("softmax", "sigmoid")
_SAME_SIZE = 0.02  # share by which weights may miss a whole multiple of an expert's (biases, gates)


@dataclass(frozen=True)
class Scored:
    """A softmax or sigmoid of what comes from products with weights.

    Attributes:
        name: `softmax` or `sigmoid`.
        calls: The products whose results it saw.
        among: How many numbers there are a token.
        layer: Index of the layer it ran in, None outside of layers.
    """

    name: str
    calls: frozenset[int]
    among: int
    layer: int | None


@dataclass(frozen=True)
class Routed:
    """One layer with experts.

    Attributes:
        experts: How many there are.
        per_token: The most that a token goes through.
        shared: Those that every token goes through beside these.
        scored: How the router's logits were scored; None where that was not seen.
        used: By token, sample after sample, the experts it went through; None at full size.
    """

    experts: int
    per_token: int
    shared: int
    scored: Scored | None
    used: tuple[tuple[int, ...], ...] | None

    def shown(self) -> dict[str, Any]:
        """As JSON types, without what was not seen."""
        found: dict[str, Any] = {
            "experts": self.experts,
            "per_token": self.per_token,
            "shared": self.shared,
        }
        if self.scored is not None:
            found |= {
                "scoring": self.scored.name,
                "scored": "all" if self.scored.among == self.experts else "chosen",
            }
        if self.used is not None:
            found["used"] = [list(experts) for experts in self.used]
        return found


class _RoutingTracer(Tracer):
    """A tracer that notes scores too."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.scored: list[Scored] = []

    def _record(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        if name in _SCORINGS:
            given = args[0] if args else kwargs["input"]
            calls = self.source(given).calls
            self.scored.append(Scored(name, calls, given.shape[-1] if given.ndim else 1, self._layer))
        super()._record(name, func, args, kwargs, result)


def may_have_experts(model: nn.Module) -> bool:
    """Whether there are several lists of modules or a weight of three dimensions; models without need not run."""
    lists = sum(
        isinstance(module, nn.ModuleList | nn.ModuleDict) and len(module) > 1 for module in model.modules()
    )
    return lists > 1 or any(parameter.ndim == 3 for parameter in model.parameters())


def routed_layers(subject: Subject) -> dict[int, Routed]:
    """The layers that choose between experts, by their place in the order of running."""
    scored: list[Scored] = []
    outputs: list[Tensor] = []
    trace = plain_run(subject).trace
    if subject.scale == "tiny" and any(expert_sets(trace, index) for index in range(len(trace.layers))):
        tracer, outputs = _traced(subject)
        scored = tracer.scored
        trace = tracer.trace
    found = {}
    for index in range(len(trace.layers)):
        experts = expert_sets(trace, index)
        if experts is None:
            continue
        routers = _routers(trace, index, experts)
        used = _used(outputs[index], experts) if outputs else None
        found[index] = Routed(
            experts=experts.among,
            per_token=max(map(len, used)) if used else experts.chosen,
            shared=_shared(trace, index, experts, routers),
            scored=_score(scored, index, experts, routers),
            used=used,
        )
    return found


def _traced(subject: Subject) -> tuple[_RoutingTracer, list[Tensor]]:
    """A traced run with gradients, and what each layer gave, by the order of running."""
    inputs = dict(subject.inputs)
    batch = next((value.shape[0] for _, value in tensors_in(inputs) if value.ndim), 1)
    tracer = _RoutingTracer(subject.model, subject.blocks, batch)
    outputs: list[Tensor] = []

    def keep(_: nn.Module, args: Any, output: Any) -> None:
        outputs.append(hidden_states_of(output))

    modules = dict.fromkeys(block for blocks in subject.blocks.values() for block in blocks)
    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        with torch.enable_grad(), seeded(), tracer:
            subject.model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return tracer, outputs


def hidden_states_of(output: Any) -> Tensor:
    """What a layer gave for each token: (batch, positions, features).

    Hyper-connections keep several residual streams side by side, (batch, positions, streams, features): they are one row of features here.

    Raises:
        LookupError: It gave nothing with a place for each token.
    """
    found = [
        tensor for _, tensor in tensors_in(output) if tensor.is_floating_point() and tensor.ndim in (3, 4)
    ]
    if not found:
        raise LookupError("a layer gives nothing with a place for each token")
    return min(found, key=lambda tensor: tensor.ndim).flatten(2)


def _routers(trace: Trace, layer: int, experts: Experts) -> frozenset[int]:
    """The products that give one number an expert."""
    own = _storages(experts)
    return frozenset(
        call
        for call, product in enumerate(trace.products)
        if product.layer == layer
        and product.outputs == experts.among
        and product.weight.ndim == 2
        and _storage(product.weight) not in own
    )


def _shared(trace: Trace, layer: int, experts: Experts, routers: frozenset[int]) -> int:
    """How many experts' worth of weights every token goes through beside the chosen ones."""
    own = _storages(experts)
    read = {trace.products[call].source.calls for call in routers} - {frozenset()}
    # Experts that run in one batched product come as weights of three dimensions, gathered anew.
    others = {
        call: product
        for call, product in enumerate(trace.products)
        if product.layer == layer
        and call not in routers
        and product.weight.ndim == 2
        and _storage(product.weight) not in own
    }
    first = {call for call, product in others.items() if product.source.calls in read}
    second = {
        call
        for call, product in others.items()
        if product.source.calls and product.source.calls <= first and product.source.context is None
    }
    if not second:
        return 0
    inner = second | {call for at in second for call in others[at].source.calls}
    one = sum(parameter.numel() for parameter in experts.parameters[0] if parameter.ndim > 1)
    times = sum(others[call].weight.numel() for call in inner) / one
    return round(times) if round(times) and abs(times - round(times)) <= _SAME_SIZE * times else 1


def _score(scored: list[Scored], layer: int, experts: Experts, routers: frozenset[int]) -> Scored | None:
    """The last score that saw a router's logits and nothing else."""
    fitting = [
        score
        for score in scored
        if score.layer == layer
        and score.calls
        and score.calls <= routers
        and score.among in (experts.among, experts.chosen)
    ]
    return fitting[-1] if fitting else None


def _used(output: Tensor, experts: Experts) -> tuple[tuple[int, ...], ...]:
    """By token, the experts that the output (batch, positions, features) at its place depends on."""
    return tuple(experts_behind(token, experts) for token in output.flatten(0, 1))


def experts_behind(token: Tensor, experts: Experts) -> tuple[int, ...]:
    """The experts whose weights one token's output has a gradient for.

    Args:
        token: (features,), with its graph.
        experts: Those of the layer that gave it.

    Returns:
        Their numbers.
    """
    weights = [p._base if p._base is not None else p for one in experts.parameters for p in one]
    distinct = list({id(weight): weight for weight in weights}.values())
    # A plain sum has no gradient behind a norm that takes the mean away.
    towards = torch.randn(token.shape, generator=torch.Generator().manual_seed(0)).to(token)
    gradients = torch.autograd.grad(token @ towards, distinct, retain_graph=True, allow_unused=True)
    by_weight = {id(weight): gradient for weight, gradient in zip(distinct, gradients, strict=True)}
    return tuple(
        number
        for number, one in enumerate(experts.parameters)
        if any(_reaches(by_weight, parameter, number) for parameter in one)
    )


def _reaches(gradients: Mapping[int, Tensor | None], parameter: Tensor, number: int) -> bool:
    """Whether an expert's parameter (its own, or its slice of one for all) has a gradient."""
    base = parameter._base
    gradient = gradients[id(parameter if base is None else base)]
    return gradient is not None and bool((gradient if base is None else gradient[number]).any())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _storages(experts: Experts) -> frozenset[int]:
    return frozenset(_storage(parameter) for one in experts.parameters for parameter in one)
