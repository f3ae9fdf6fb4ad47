"""The path of the data through one forward pass, as a graph of tensors: what was made from what, by which function.

A `Recorder` is a `Tracer` that also keeps every result as a node. Norms are found by what they do (a norm gives the same for its input
times two), whatever class computes them, and stand in the graph as one node each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe.memory import shared
from ptmkb.probe.numerics import seeded, tensors_in
from ptmkb.probe.subject import Subject
from ptmkb.probe.tracing import Tracer, run_subject

NORM, INPUT, FIXED = "<norm>", "<input>", "<fixed>"  # names that no function has
_FUNCTIONS = {
    "layer_norm": "layer",
    "rms_norm": "rms",
    "group_norm": "group",
    "batch_norm": "batch",
    "instance_norm": "instance",
}
_SCALE = 10.0  # of probe vectors: far above any epsilon, too small to saturate an activation
_SAME = 1e-3  # of the largest value: two results that differ by less are the same


@dataclass
class Node:
    """One tensor of the run.

    Attributes:
        op: The function that made it; `NORM`, `INPUT` (what the model was given), `FIXED` (parameters and other leaves).
        inputs: The nodes of the tensors that went in.
        tensor: The tensor, held so that no other gets its identity.
        fixed: Nothing that the model was given went into it.
        learned: A parameter that can be trained went into it.
        attention: Which of the trace's attentions this is the result of.
        product: Which of the trace's products with a weight this is.
        about: A norm's `kind`; an input's `name`; the `arguments` of a call to an attention function; which `slices` it cuts out.
    """

    op: str
    inputs: tuple[int, ...]
    tensor: Tensor
    fixed: bool = False
    learned: bool = False
    attention: int | None = None
    product: int | None = None
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Call:
    """One run of one block: the nodes of the sequences that it took and gave.

    `packed` are those of what it took that is (positions, features), all samples one behind the other: its sequences where it gives
    nothing of more dimensions. `opened` is the first node that it made.
    """

    stacks: tuple[str, ...]
    module: nn.Module
    taken: list[int]
    given: list[int] = field(default_factory=list)
    packed: list[int] = field(default_factory=list)
    opened: int = 0


class Recorder(Tracer):
    """Records the graph of a forward pass while it is entered."""

    def __init__(self, subject: Subject) -> None:
        batch = next((value.shape[0] for _, value in tensors_in(subject.inputs) if value.ndim), 1)
        super().__init__(subject.model, subject.blocks, batch)
        self.model = subject.model
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self._at: dict[int, int] = {}
        self._resting = False
        self._running: list[Call] = []
        for parameter in subject.model.parameters():
            self._leaf(parameter, FIXED, parameter.requires_grad)
        for name, value in tensors_in(subject.inputs):
            self._leaf(value, INPUT, False, name=name)

    def __enter__(self) -> Recorder:
        super().__enter__()
        blocks = {id(block): block for stack in self._blocks.values() for block in stack}
        for block in blocks.values():
            stacks = tuple(name for name, stack in self._blocks.items() if any(one is block for one in stack))
            self._hooks += [
                block.register_forward_pre_hook(
                    lambda module, args, kwargs, stacks=stacks: self._open_call(stacks, module, args, kwargs),
                    with_kwargs=True,
                ),
                block.register_forward_hook(lambda module, args, output: self._close_call(output)),
            ]
        self._hooks += [
            module.register_forward_hook(self._maybe_norm, with_kwargs=True)
            for module in self.model.modules()
            if id(module) not in blocks
            and all(p.numel() == max(p.shape, default=1) for p in module.parameters())
        ]
        return self

    def node(self, tensor: Tensor) -> int:
        """The node of a tensor; a new one, fixed, for a tensor that no recorded function made."""
        at = self._at.get(id(tensor))
        return self._leaf(tensor, FIXED, False) if at is None else at

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self._resting:
            return func(*args, **(kwargs or {}))
        before = len(self.trace.attentions), len(self.trace.products)
        result = super().__torch_function__(func, types, args, kwargs)
        attention = before[0] if len(self.trace.attentions) > before[0] else None
        product = before[1] if len(self.trace.products) > before[1] else None
        self._note(getattr(func, "__name__", ""), args, kwargs or {}, result, attention, product)
        return result

    def _note(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Any,
        attention: int | None,
        product: int | None,
    ) -> None:
        in_place = (
            name == "__setitem__"
            or (name.endswith("_") and not name.endswith("__"))
            or name.startswith("__i")
        )
        results = [args[0]] if name == "__setitem__" else [tensor for _, tensor in tensors_in(result)]
        given = [tensor for _, tensor in tensors_in((args, kwargs))]
        results = [r for r in results if in_place or not any(r is one for one in given)]
        if not results:
            return
        operands = tuple(self.node(tensor) for tensor in given)
        about: dict[str, Any] = {}
        op = NORM if name in _FUNCTIONS else name
        if op == NORM:
            about["kind"] = _FUNCTIONS[name]
        elif attention is not None or name in ("softmax", "embedding") or name.startswith("conv"):
            about["arguments"] = (args, kwargs)
        elif name == "__getitem__":
            about["slices"] = args[1]
        for tensor in results:
            at = self._add(op, operands, tensor, about)
            self.nodes[at].attention, self.nodes[at].product = attention, product
            if in_place and tensor._base is not None and id(tensor._base) in self._at:
                self._add(op, (at, self._at[id(tensor._base)]), tensor._base, {})

    def _add(self, op: str, inputs: tuple[int, ...], tensor: Tensor, about: dict[str, Any]) -> int:
        fixed = all(self.nodes[at].fixed for at in inputs)
        learned = any(self.nodes[at].learned for at in inputs)
        self.nodes.append(Node(op, inputs, tensor, fixed, learned, about=about))
        self._at[id(tensor)] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def _leaf(self, tensor: Tensor, op: str, learned: bool, **about: Any) -> int:
        self.nodes.append(Node(op, (), tensor, op == FIXED, learned, about=about))
        self._at[id(tensor)] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def _open_call(self, stacks: tuple[str, ...], module: nn.Module, args: Any, kwargs: Any) -> None:
        taken = [self.node(tensor) for tensor in _sequences((args, kwargs))]
        call = Call(stacks, module, taken, opened=len(self.nodes))
        call.packed = [
            self._at[id(t)] for _, t in tensors_in((args, kwargs)) if t.ndim == 2 and id(t) in self._at
        ]
        self.calls.append(call)
        self._running.append(call)

    def _close_call(self, output: Any) -> None:
        call = self._running.pop()
        call.given = [self.node(tensor) for tensor in _sequences(output)]
        if not call.given:
            call.taken = call.packed
            call.given = [
                self.node(t) for _, t in tensors_in(output) if t.ndim == 2 and t.is_floating_point()
            ]

    def _maybe_norm(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        given = args[0] if args else next(iter(kwargs.values()), None)
        if (
            self._resting
            or not isinstance(output, Tensor)
            or not isinstance(given, Tensor)
            or given.shape != output.shape
            or output is given
            or not given.is_floating_point()
        ):
            return
        self._resting = True
        try:
            kind = norm_kind(module, given, args[1:], kwargs if args else {**dict(list(kwargs.items())[1:])})
        finally:
            self._resting = False
        if kind is None:
            return
        made = self.nodes[self.node(output)]
        if made.op == NORM and made.about["kind"] in ("group", "batch", "instance"):
            kind = made.about["kind"]
        others = tuple(
            self.node(tensor) for _, tensor in tensors_in((args[1:], kwargs)) if tensor is not given
        )
        self._add(NORM, (self.node(given), *others), output, {"kind": kind})


def norm_kind(
    module: nn.Module, given: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | None:
    """What norm a module is, by what it does to vectors: None if doubling them changes the result.

    Args:
        module: Takes a tensor and gives one of the same shape.
        given: What it was given, for shape and type; (…, features).
        args: Its other arguments.
        kwargs: Its named arguments.

    Returns:
        `layer` if adding a number to all features changes nothing either, else `rms`.
    """
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(given.shape, generator=generator, dtype=given.dtype) * _SCALE
    try:
        with torch.no_grad():
            once = module.forward(probe, *args, **kwargs)
            if float(once.std()) == 0 or not _same(once, module.forward(probe * 2, *args, **kwargs)):
                return None
            return "layer" if _same(once, module.forward(probe + _SCALE, *args, **kwargs)) else "rms"
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return None


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and float((one - other).abs().max()) <= _SAME * float(one.abs().max())


def _sequences(value: Any) -> Iterator[Tensor]:
    """The tensors that may be a sequence of hidden states: (batch, positions, features) or an image's (batch, channels, height, width)."""
    for _, tensor in tensors_in(value):
        if tensor.is_floating_point() and tensor.ndim in (3, 4):
            yield tensor


def plain_run(subject: Subject) -> Tracer:
    """What a tracer saw of one run, once for all measures that only look at it."""
    return record(subject) if subject.scale == "tiny" else run_subject(subject)


@shared
def record(subject: Subject) -> Recorder:
    """Run a subject once and record the path of the data.

    Returns:
        The recorder, with what the model returned as its `output`.
    """
    with torch.no_grad(), seeded(), Recorder(subject) as recorder:
        recorder.output = subject.model(**dict(subject.inputs))
    return recorder
