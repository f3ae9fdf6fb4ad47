"""Ways to change a live model from outside, which copies of it keep: for `model_mutations`.

Everything hangs on the modules themselves (their class, their hooks, their parameters), so that a measure that copies the model copies the
change too.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ptmkb.probe.influence import hidden_states_in
from ptmkb.probe.numerics import in_float64, seeded
from ptmkb.probe.subject import Subject

MASKED = -1e3  # what is added to scores that are to vanish lies below
MOST_HEADS = 5  # of a tiny model; heads beside a window that is one wider look like positions beside a sink
_ADDITIONS = {"add", "__add__", "__radd__", "__iadd__", "add_"}
_SUBTRACTIONS = {"sub", "__sub__", "__isub__", "sub_"}

Keep = Callable[[int], Tensor]
"""For a number of positions, (queries, keys): which keys a query keeps."""


def copied(subject: Subject) -> Subject:
    """The subject with a model of its own, which may be changed."""
    model, blocks = copy.deepcopy((subject.model, dict(subject.blocks)))
    return replace(subject, model=model, blocks=blocks)


def around(module: nn.Module, run: Callable[[nn.Module, Callable[..., Any], Any, Any], Any]) -> None:
    """Have every forward pass of a module go through `run(module, forward, args, kwargs)`."""
    plain = type(module)

    @functools.wraps(plain.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return run(self, functools.partial(plain.forward, self), args, kwargs)

    module.__class__ = type(plain.__name__, (plain,), {"forward": forward, "__module__": plain.__module__})


def under(module: nn.Module, mode: Callable[[], TorchFunctionMode]) -> None:
    """Have every forward pass of a module run under a mode."""

    def run(_: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        with mode():
            return forward(*args, **kwargs)

    around(module, run)


def on_input(module: nn.Module, change: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Exchange the hidden states that a layer takes."""

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = next(
            (v for v in (*args, *kwargs.values()) if next(hidden_states_in(v), None) is v and v is not None),
            None,
        )
        if hidden is None:
            return None
        new = change(module, hidden)
        swapped = tuple(new if value is hidden else value for value in args)
        return swapped, {name: new if value is hidden else value for name, value in kwargs.items()}

    module.register_forward_pre_hook(enter, with_kwargs=True)


def on_output(module: nn.Module, change: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
    """Exchange the hidden states that a layer gives; `change` gets what it took as well."""

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        hidden = next(hidden_states_in((args, kwargs)), None)
        same = (v for v in hidden_states_in(output) if hidden is not None and v.shape == hidden.shape)
        found = next(same, None)
        return (
            None if found is None or hidden is None else _with(output, found, change(module, hidden, found))
        )

    module.register_forward_hook(leave, with_kwargs=True)


def _with(output: Any, old: Tensor, new: Tensor) -> Any:
    if output is old:
        return new
    if isinstance(output, Mapping):
        for name, value in output.items():
            if value is old:
                output[name] = new  # type: ignore[index]
        return output
    if isinstance(output, tuple | list):
        return type(output)([_with(value, old, new) for value in output])
    return output


# --- attention ------------------------------------------------------------------------------------------------------------------------


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


# --- choices and parameters -----------------------------------------------------------------------------------------------------------


class Router(TorchFunctionMode):
    """Changes the choices of the k largest of `among`.

    Args:
        among: How many experts there are.
        more: How many more are chosen.
        frozen: All tokens take the first token's.
        hits: Grows with every change.
    """

    def __init__(self, among: int, hits: list[int], more: int = 0, frozen: bool = False) -> None:
        super().__init__()
        self.among, self.hits, self.more, self.frozen = among, hits, more, frozen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if getattr(func, "__name__", "") != "topk" or args[0].shape[-1] != self.among or args[0].ndim < 2:
            return func(*args, **given)
        k = args[1] if len(args) > 1 else given.pop("k")
        if not 1 <= k + self.more <= self.among:
            return func(args[0], k, *args[2:], **given)
        self.hits.append(1)
        values, indices = func(args[0], k + self.more, *args[2:], **given)
        if self.frozen:
            indices = (
                indices.flatten(0, -2)[:1]
                .expand(indices.numel() // indices.shape[-1], -1)
                .reshape(indices.shape)
            )
            values = args[0].gather(-1, indices)
        return torch.return_types.topk((values, indices))


def choices(subject: Subject) -> list[int]:
    """Among how many the k best are chosen while the subject runs, for each choice between rows."""
    seen: list[int] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__name__", "") == "topk" and args[0].ndim > 1:
                seen.append(args[0].shape[-1])
            return func(*args, **(kwargs or {}))

    with Watch():
        subject.outputs()
    return seen


def owners(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """By parameter (its identity), the modules that hold it and what they call it."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            found.setdefault(id(parameter), []).append((module, name))
    return found


def places(model: nn.Module, wanted: nn.Module) -> list[tuple[nn.Module, str, str]]:
    """Where a module hangs: its holder, its name there, and its whole path."""
    return [
        (holder, name, f"{path}.{name}" if path else name)
        for path, holder in model.named_modules()
        for name, child in holder.named_children()
        if child is wanted
    ]


def container(model: nn.Module, blocks: Sequence[nn.Module]) -> tuple[nn.ModuleList, list[int]] | None:
    """The list that holds layers, and their places in it; None where no single list holds them all."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            at = {id(member): index for index, member in enumerate(module)}
            if all(id(block) in at for block in blocks):
                return module, [at[id(block)] for block in blocks]
    return None


def linear(module: nn.Module) -> tuple[int, int] | None:
    """Features that a linear map (or a `Conv1D` of `transformers`) takes and gives; None for anything else."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D" and hasattr(module, "nx"):
        return int(module.weight.shape[0]), int(module.weight.shape[1])  # type: ignore[arg-type, index]
    return None


def tables(model: nn.Module, *words: str) -> Iterator[tuple[str, Tensor]]:
    """Floating parameters and buffers with one of these words in their names."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.is_floating_point() and value.numel() > 1 and any(word in name.lower() for word in words):
            yield name, value


def sinusoids(positions: int, width: int) -> Tensor:
    """(positions, width): sines and cosines of growing wavelengths."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(100.0) / width))
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
