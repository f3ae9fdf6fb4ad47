"""What a mutation is, and the list of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from benchmarks.mutations import attention
from benchmarks.mutations.attention import Change
from ptmkb.probe.subject import Subject

Patch = Callable[[Subject], Subject | None]


@dataclass(frozen=True)
class Mutation:
    """One way to change a model.

    Attributes:
        name: What it is called.
        measures: Those that must give another value.
        patch: Changes a subject that is its own copy; None where there is nothing of the kind.
        silent: The changed model gives the same numbers on the same inputs (only its weights are held otherwise).
    """

    name: str
    measures: tuple[str, ...]
    patch: Patch
    silent: bool = False


MUTATIONS: dict[str, Mutation] = {}


def mutation(name: str, *measures: str, silent: bool = False) -> Callable[[Patch], Patch]:
    def add(patch: Patch) -> Patch:
        MUTATIONS[name] = Mutation(name, measures, patch, silent)
        return patch

    return add


def stacks_of(subject: Subject) -> dict[str, tuple[nn.Module, ...]]:
    return {name: blocks for name, blocks in subject.blocks.items() if blocks}


def layers(subject: Subject) -> list[nn.Module]:
    return list({id(block): block for blocks in subject.blocks.values() for block in blocks}.values())


def attending(subject: Subject, change: Change, last: bool = False) -> Subject | None:
    """The subject with every attention changed (in the last layer of each stack only), None where none is."""
    modules: list[nn.Module] = [subject.model]
    if last:
        stacks = {
            name: blocks for name, blocks in stacks_of(subject).items() if len(set(blocks)) == len(blocks)
        }
        modules = list(dict.fromkeys(blocks[-1] for blocks in stacks.values()))
    hits = attention.attend(modules, change)
    subject.outputs()
    return subject if hits else None
