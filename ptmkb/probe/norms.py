"""Follows a layer's residual stream to see where its normalisations stand.

It is read from one traced run: the residual stream is what reaches a sum without a product with a weight on its way, the branch
what reaches it by way of such products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ptmkb.probe.influence import hidden_states_in
from ptmkb.probe.memory import shared
from ptmkb.probe.norm_kinds import kind_of, norm_modules, run_layers
from ptmkb.probe.numerics import tensors_in
from ptmkb.probe.pinning import layer_runs
from ptmkb.probe.subject import Subject

_ADDS = {"add", "__add__", "__radd__", "__iadd__", "add_"}
_PRODUCTS = {
    "linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum", "conv1d", "conv2d", "conv3d",
    "grouped_mm", "_grouped_mm", "bilinear",
}  # fmt: skip
_MIXERS = {"lstm", "gru", "rnn_tanh", "rnn_relu", "fft_fft", "fft_fft2", "fft_fftn", "fft_rfft", "fft_rfft2"}
_NORM_FUNCTIONS = (F.layer_norm, F.rms_norm, F.group_norm, F.normalize, torch.layer_norm, torch.rms_norm)


@dataclass(frozen=True)
class Residual:
    """One sum of the residual stream with a branch.

    Attributes:
        pre: Kinds of the norms between the stream and the branch's first product.
        after: Kinds of the norms between the branch's last product and the sum.
        post: Kinds of the norms that the sum goes through before it is the stream again.
        attends: Whether the branch has an attention or another product of two activations.
        parallel: The branch starts before another one's sum, or is the sum of two that start together.
        uneven: It is the sum of two of which one starts behind a norm and the other does not.
    """

    pre: tuple[str, ...]
    after: tuple[str, ...]
    post: tuple[str, ...]
    attends: bool
    parallel: bool
    uneven: bool = False

    @property
    def placement(self) -> str:
        """`pre`, `post`, `sandwich` (before and behind the branch), `res-post` (behind the branch only), `pre+post`, `none` or `mixed`."""
        if self.uneven:
            return "mixed"
        if self.pre:
            return "sandwich" if self.after else "pre+post" if self.post else "pre"
        return "post" if self.post else "res-post" if self.after else "none"


@dataclass
class LayerNorms:
    """What is around the residual stream of one layer.

    Attributes:
        stacks: The stacks that the layer belongs to.
        residuals: Its sums, in order.
        qk: Kinds of the norms of queries and keys.
        inside: Kinds of all norms that ran.
        opening: Kinds of the norms that the stream itself goes through before the first sum.
    """

    stacks: tuple[str, ...]
    residuals: list[Residual] = field(default_factory=list)
    opening: tuple[str, ...] = ()
    qk: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()


Start = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class _Path:
    """How a tensor comes from the residual stream.

    Attributes:
        starts: The states of the stream that it starts from, each with the norms before the first product.
        worked: A product lies on the way.
        attended: A product of two activations lies on the way.
        after: The norms since the last product.
        merged: Since the last product it became the sum of a branch that attends and one that does not.
        scores: It is the product of two activations, both of which went through these norms since their own products.
    """

    starts: frozenset[Start]
    worked: bool = False
    attended: bool = False
    after: tuple[int, ...] = ()
    merged: bool = False
    scores: tuple[int, ...] = ()


@dataclass
class _Sum:
    identity: frozenset[Start]
    branch: _Path
    state: int


class NormTracer(TorchFunctionMode):
    """Watches the residual streams of a model's layers while it is entered.

    Args:
        blocks: The layers, by stack.
        norms: The modules that normalise, with their kinds (`norm_modules`).
    """

    def __init__(
        self, blocks: Mapping[str, Sequence[nn.Module]], norms: Mapping[int, tuple[nn.Module, str]]
    ) -> None:
        super().__init__()
        self.layers: list[LayerNorms] = []
        self._blocks, self._norms = blocks, norms
        self._paths: dict[int, tuple[Tensor, _Path]] = {}
        self._kinds: list[str] = []  # of every norm that ran in this layer
        self._sums: list[_Sum] = []
        self._qk: list[int] = []
        self._depth = 0  # of layers
        self._inside = 0  # of norms
        self._hooks = ExitStack()

    def __enter__(self) -> NormTracer:
        for layer in {id(m): m for stack in self._blocks.values() for m in stack}.values():
            stacks = tuple(s for s, modules in self._blocks.items() if any(m is layer for m in modules))
            enter = self._hooked_entry(stacks)
            self._hooks.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
            self._hooks.callback(layer.register_forward_hook(self._leave_layer).remove)
        for module, kind in self._norms.values():
            self._hooks.callback(module.register_forward_pre_hook(self._enter_norm).remove)
            leave = self._hooked_exit(kind)
            self._hooks.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        self._hooks.close()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    # --- layers -----------------------------------------------------------------------------------------------------------------------

    def _hooked_entry(self, stacks: tuple[str, ...]) -> Callable[..., None]:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._depth += 1
            self._paths.clear()
            self._kinds, self._sums, self._qk = [], [], []
            self.layers.append(LayerNorms(stacks))
            hidden = next(hidden_states_in((args, kwargs)), None)
            if hidden is not None:
                self._keep(hidden, _Path(frozenset({(0, ())})))

        return enter

    def _leave_layer(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth -= 1
        ends = [path for value in hidden_states_in(output) if (path := self._path(value)) is not None]
        self.layers[-1].residuals = [self._residual(at, ends[:1]) for at in range(len(self._sums))]
        first = [starts for starts in (s.identity for s in self._sums) if any(not at for at, _ in starts)]
        self.layers[-1].opening = self._named(
            norm for starts in first for state, norms in starts if not state for norm in norms
        )
        self.layers[-1].qk = self._named(self._qk)
        self.layers[-1].inside = self._named(range(len(self._kinds)))

    def _residual(self, at: int, ends: list[_Path]) -> Residual:
        this = self._sums[at]
        users = [path.starts for path in ends if not path.worked] + [s.identity for s in self._sums[at + 1 :]]
        post = {norm for starts in users for state, norms in starts if state == this.state for norm in norms}
        kept = {norm for _, norms in this.identity for norm in norms}
        pre = {norm for _, norms in this.branch.starts for norm in norms} - kept
        states = {state for state, _ in this.identity}
        bare = any(not set(norms) - kept for _, norms in this.branch.starts)
        apart = bool(this.branch.starts) and not states & {state for state, _ in this.branch.starts}
        return Residual(
            self._named(pre),
            self._named(this.branch.after),
            self._named(post),
            this.branch.attended,
            this.branch.merged or apart,
            this.branch.merged and bare and bool(pre),
        )

    def _named(self, norms: Iterable[int]) -> tuple[str, ...]:
        return tuple(sorted({self._kinds[norm] for norm in norms}))

    # --- norms ------------------------------------------------------------------------------------------------------------------------

    def _enter_norm(self, module: nn.Module, args: Any) -> None:
        self._inside += 1

    def _hooked_exit(self, kind: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._inside -= 1
            given = next((value for _, value in tensors_in((args, kwargs))), None)
            if self._depth and given is not None and isinstance(output, Tensor):
                self._normalised(given, output, kind)

        return leave

    def _normalised(self, given: Tensor, output: Tensor, kind: str) -> None:
        path = self._path(given)
        if path is None:
            return
        norm = len(self._kinds)
        self._kinds.append(kind)
        if path.worked:
            path = replace(path, after=(*path.after, norm))
        else:
            path = replace(path, starts=frozenset((state, (*norms, norm)) for state, norms in path.starts))
        self._keep(output, path)

    # --- operations -------------------------------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        before = (
            [self._path(v) for _, v in tensors_in((args, kwargs))] if self._depth and not self._inside else []
        )
        result = func(*args, **kwargs)
        paths = [path for path in before if path is not None]
        if paths:
            self._record(func, args, kwargs, paths, result)
        return result

    def _record(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], paths: list[_Path], result: Any
    ) -> None:
        name = getattr(func, "__name__", "")
        if func in _NORM_FUNCTIONS and isinstance(result, Tensor) and args and isinstance(args[0], Tensor):
            with torch._C.DisableTorchFunction():
                kind = kind_of(lambda probe: func(probe, *args[1:], **kwargs), args[0])
            if kind is not None:
                self._normalised(args[0], result, kind)
                return
        if (
            func is F.scaled_dot_product_attention
            or func is F.multi_head_attention_forward
            or name in _MIXERS
        ):
            if func is F.scaled_dot_product_attention:
                self._qk += [norm for value in args[:2] if (p := self._path(value)) for norm in p.after]
            path = replace(_union(paths), worked=True, attended=True, after=(), merged=False, scores=())
        elif name in _PRODUCTS:
            both = len(paths) > 1 and all(path.after for path in paths)
            scores = tuple(norm for path in paths for norm in path.after) if both else ()
            path = replace(_union(paths), worked=True, after=(), merged=False, scores=scores)
            path = replace(path, attended=path.attended or len(paths) > 1)
        elif name in _ADDS and len(paths) == 2:
            path = self._added(paths, args, result)
        else:
            path = _union(paths)
            if name == "softmax":
                self._qk += path.scores
        if name.endswith("_") and args and isinstance(args[0], Tensor):  # in place, `__setitem__` too
            self._keep(args[0], path)
        for _, value in tensors_in(result):
            if value.is_floating_point() or value.is_complex():
                self._keep(value, path)

    def _added(self, paths: list[_Path], args: tuple[Any, ...], result: Any) -> _Path:
        first, second = paths
        if first.worked != second.worked:
            identity, branch = (second, first) if first.worked else (first, second)
            if all(isinstance(v, Tensor) and v.shape == result.shape for v in args[:2]):
                state = len(self._sums) + 1
                self._sums.append(_Sum(identity.starts, branch, state))
                return _Path(frozenset({(state, ())}))
        merged = first.worked and second.worked and first.attended != second.attended
        union = _union(paths)
        return replace(union, merged=union.merged or merged)

    def _path(self, value: Any) -> _Path | None:
        found = self._paths.get(id(value))
        return found[1] if found else None

    def _keep(self, tensor: Tensor, path: _Path) -> None:
        """Remember how a tensor came about; the tensor is held, so that no other gets its identity."""
        self._paths[id(tensor)] = (tensor, path)


def _union(paths: list[_Path]) -> _Path:
    if len(set(paths)) == 1:
        return paths[0]
    worked = [path for path in paths if path.worked]
    return _Path(
        frozenset().union(*(path.starts for path in worked or paths)),
        bool(worked),
        any(path.attended for path in paths),
        next((path.after for path in paths if path.after), ()),
        any(path.merged for path in paths),
        next((path.scores for path in paths if path.scores), ()),
    )


@shared
def layer_norms(subject: Subject) -> list[LayerNorms]:
    """Run a subject once and see where its norms stand: every run of a layer, in order."""
    count = layer_runs(subject)
    with NormTracer(subject.blocks, norm_modules(subject, count)) as tracer:
        run_layers(subject, count)
    for stack in subject.blocks:
        runs = [layer for layer in tracer.layers if stack in layer.stacks]
        # Where the stream is normalised as a layer begins, the norm belongs to the sum that the layer before ended with; that of the
        # last layer is closed by what follows the stack, as those before it were.
        for layer, following in zip(runs, [*runs[1:], *runs[-1:]], strict=True):
            if following.opening and layer.residuals and not layer.residuals[-1].post:
                layer.residuals[-1] = replace(layer.residuals[-1], post=following.opening)
    return tracer.layers
