"""Hands the layers of a model what they are to see, whatever came before them.

While `pinned` is open, every layer that runs is offered in order; what goes into it, and what comes out, can be looked at and exchanged.
So a layer can be studied alone, inside the whole model, with the masks and positions that the model itself makes for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe.influence import hidden_states_in
from ptmkb.probe.memory import shared
from ptmkb.probe.numerics import seeded
from ptmkb.probe.subject import Subject


@dataclass(frozen=True)
class LayerRun:
    """One run of one layer.

    Attributes:
        index: How many layers ran before it.
        stacks: The stacks that it belongs to.
        module: The layer.
    """

    index: int
    stacks: tuple[str, ...]
    module: nn.Module


Exchange = Callable[[LayerRun, Tensor], Tensor | None]
"""Gets what goes into a layer (or comes out) and gives what is to take its place; None where it stays."""


class Enough(Exception):
    """Raised by an exchange when nothing further is to be seen; ends the forward pass, and `pinned` with it."""


@contextmanager
def pinned(
    blocks: Mapping[str, Sequence[nn.Module]], into: Exchange | None = None, out: Exchange | None = None
) -> Iterator[None]:
    """While open, hidden states go through `into` before every layer and through `out` behind it.

    Args:
        blocks: The layers by stack. The count of runs starts anew whenever the context is entered.
        into: For the first tensor (batch, positions, features) that a layer takes.
        out: For the first tensor of that shape that it gives.
    """
    runs: list[LayerRun] = []
    shapes: list[Any] = []

    def before(
        stacks: tuple[str, ...], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        run = LayerRun(len(runs), stacks, module)
        runs.append(run)
        hidden = next((v for v in (*args, *kwargs.values()) if next(hidden_states_in(v), None) is v), None)
        shapes.append(None if hidden is None else hidden.shape)
        new = into(run, hidden) if into and hidden is not None else None
        if new is None:
            return None
        # A layer may take the same tensor several times, as queries, keys and values.
        return (
            tuple(new if value is hidden else value for value in args),
            {name: new if value is hidden else value for name, value in kwargs.items()},
        )

    def after(at: int, output: Any) -> Any:
        if out is None:
            return None
        run, shape = runs[at], shapes[at]
        found = next((value for value in hidden_states_in(output) if value.shape == shape), None)
        if found is None:
            return None
        new = out(run, found)
        return None if new is None else exchanged(output, found, new)

    with ExitStack() as hooks:
        for module in {id(layer): layer for stack in blocks.values() for layer in stack}.values():
            stacks = tuple(name for name, stack in blocks.items() if any(layer is module for layer in stack))
            open_runs: list[int] = []

            def enter(
                module: nn.Module,
                args: tuple[Any, ...],
                kwargs: dict[str, Any],
                stacks: tuple[str, ...] = stacks,
                open_runs: list[int] = open_runs,
            ) -> Any:
                open_runs.append(len(runs))
                return before(stacks, module, args, kwargs)

            def leave(_: nn.Module, args: Any, output: Any, open_runs: list[int] = open_runs) -> Any:
                return after(open_runs.pop(), output)

            hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        with suppress(Enough):
            yield


@shared
def layer_runs(subject: Subject) -> int:
    """How many layers run in a forward pass."""
    runs: list[LayerRun] = []

    def note(run: LayerRun, hidden: Tensor) -> None:
        runs.append(run)

    with pinned(subject.blocks, out=note), torch.no_grad(), seeded():
        subject.model(**dict(subject.inputs))
    return runs[-1].index + 1 if runs else 0


@contextmanager
def layers_only(subject: Subject, runs: int) -> Iterator[None]:
    """While open, a forward pass ends with the last of the layers: heads and vocoders behind it do not run.

    Args:
        subject: The subject.
        runs: How many layers run (`layer_runs`). To be entered after whatever else hooks the layers, so that it sees the last one end.
    """

    def out(run: LayerRun, hidden: Tensor) -> None:
        if run.index == runs - 1:
            raise Enough

    with pinned(subject.blocks, out=out):
        yield


def exchanged(output: Any, old: Tensor, new: Tensor) -> Any:
    """What a module gave (a tensor, a mapping, a tuple or list of these) with one tensor in it exchanged for another."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        for name, value in output.items():
            if value is old:
                output[name] = new  # type: ignore[index]
        return output
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(exchanged(value, old, new) for value in output))
    if isinstance(output, tuple | list):
        return type(output)([exchanged(value, old, new) for value in output])
    return output
