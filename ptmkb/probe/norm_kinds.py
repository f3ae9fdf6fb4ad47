"""Finds normalisations by what they do: a module that gives the same for a vector and for its multiple normalises."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe.memory import shared
from ptmkb.probe.numerics import seeded
from ptmkb.probe.pinning import layers_only
from ptmkb.probe.subject import Subject

TOLERANCE = 1e-3  # of the output's spread: an epsilon of 1e-5 beside a variance of 100 changes far less
PROBE_SCALE = 10.0  # standard deviation of probe vectors: large, so that epsilons do not count


def kind_of(function: Callable[[Tensor], Any], like: Tensor) -> str | None:
    """What normalisation a function of hidden states is, None where it is none.

    Args:
        function: Takes and gives a tensor of this shape.
        like: Its usual input, (…, features).

    Returns:
        `LayerNorm` (multiples and shifts of a vector give the same), `RMSNorm` (multiples only), `GroupNorm` (as `LayerNorm`, but
        positions change one another).
    """
    if not like.numel():
        return None
    generator = torch.Generator().manual_seed(0)

    def vectors() -> Tensor:
        return (torch.randn(like.shape, generator=generator) * PROBE_SCALE).to(like.dtype)

    def given(probe: Tensor) -> Tensor | None:
        result = function(probe)
        return result if isinstance(result, Tensor) and result.shape == like.shape else None

    first = vectors()
    plain, other = given(first), given(vectors())
    if plain is None or other is None or not torch.isfinite(plain).all():
        return None
    spread = float(plain.std())

    def same(probe: Tensor) -> bool:
        result = given(probe)
        return result is not None and float((result - plain).abs().max()) < TOLERANCE * spread

    if spread == 0.0 or float((other - plain).abs().max()) < TOLERANCE * spread or not same(first * 7.0):
        return None
    if not same(first + 3.0 * PROBE_SCALE):
        return "RMSNorm"
    if like.ndim > 2 and like.shape[1] > 1:
        changed = first.clone()
        changed[:, 0] = vectors()[:, 0]
        result = given(changed)
        if result is not None and float((result - plain)[:, 1:].abs().max()) > TOLERANCE * spread:
            return "GroupNorm"
    return "LayerNorm"


@shared
def norm_modules(subject: Subject, runs: int) -> dict[int, tuple[nn.Module, str]]:
    """The modules inside the model that normalise, found by probing, with their kind; by identity.

    Args:
        subject: The subject.
        runs: How many layers run (`pinning.layer_runs`).
    """
    seen: dict[int, tuple[nn.Module, tuple[Any, ...], dict[str, Any], Tensor]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if id(module) in seen or not isinstance(output, Tensor):
            return
        given = args[0] if args and isinstance(args[0], Tensor) else None
        if given is not None and given.is_floating_point() and given.ndim > 1 and given.shape == output.shape:
            seen[id(module)] = (module, args, kwargs, given)

    with ExitStack() as hooks:
        for module in subject.model.modules():
            if next(module.children(), None) is None and all(p.ndim < 2 for p in module.parameters()):
                hooks.callback(module.register_forward_hook(note, with_kwargs=True).remove)
        run_layers(subject, runs)
    found = {}
    with torch.no_grad():
        for identity, (module, args, kwargs, like) in seen.items():
            kind = kind_of(_with_rest(module, args, kwargs), like)
            if kind is None and any(True for _ in module.buffers()):
                kind = _over_batch(module, like)
            if kind is not None:
                found[identity] = (module, kind)
    return found


def _with_rest(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Callable[[Tensor], Any]:
    """The module as a function of its first argument."""
    return lambda probe: module(probe, *args[1:], **kwargs)


def _over_batch(module: nn.Module, like: Tensor) -> str | None:
    """Batch normalisation is a mere scale when it is used, and normalises only while it learns."""
    learning = copy.deepcopy(module).train()
    return "BatchNorm" if kind_of(learning, like) is not None else None


def run_layers(subject: Subject, runs: int) -> None:
    """Run a subject as far as its last layer."""
    with torch.no_grad(), seeded(), layers_only(subject, runs):
        subject.model(**dict(subject.inputs))
