"""Ways to change a live model from outside, which copies of it keep: for the mutations beside it.

Everything hangs on the modules themselves (their class, their hooks, their parameters), so that a measure that copies the model copies the
change too.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ptmkb.probe.influence import hidden_states_in
from ptmkb.probe.pinning import exchanged
from ptmkb.probe.subject import Subject


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
            None
            if found is None or hidden is None
            else exchanged(output, found, change(module, hidden, found))
        )

    module.register_forward_hook(leave, with_kwargs=True)


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
