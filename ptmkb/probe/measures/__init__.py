"""The measures, one file each, found by their place: a new file here is a new measure.

A measure's module has
    `SCALES`: which subjects it wants: `("tiny",)`, `("variant",)` or both;
    `parse(value)`: the claim's value in normal form, or a `ValueError` that says what a claim of this measure may be (works without torch);
    `measure(subject)`: `Reading`s by part (None for a model of one part);
    `agrees(claimed, measured)`: whether the measured value bears the claimed one out, both in normal form.
Its docstring says the method, the assumptions, what it cannot tell, and which paper defines the notion.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from ptmkb.probe.subject import Subject


@dataclass(frozen=True)
class Reading:
    """What a measure found for one part.

    Attributes:
        value: In the normal form that `parse` gives, made of JSON types.
        detail: What the value was read from and pictures are drawn from (a flow matrix, losses a step), made of JSON types.
    """

    value: Any
    detail: Mapping[str, Any] = field(default_factory=dict)


NO_STREAMS = "what comes out has no place for each position of what goes in"
"""Why nothing that is measured position by position can be."""


class Unmeasurable(Exception):
    """This subject cannot be measured by this measure; the message says why, in a few words."""


class Measure(Protocol):
    """The interface of a measure's module."""

    SCALES: tuple[str, ...]

    def parse(self, value: Any) -> Any:
        """The claimed value in normal form; ValueError where it is none."""

    def measure(self, subject: Subject) -> Mapping[str | None, Reading]:
        """What is so, by part."""

    def agrees(self, claimed: Any, measured: Any) -> bool:
        """Whether the measured value bears the claimed one out; Unmeasurable where too little was seen to say."""


def with_whole(stacks: dict[str | None, Reading]) -> dict[str | None, Reading]:
    """The readings of a model's stacks (one or more), and of the model as a whole where they agree; a lone stack is the whole."""
    first, *others = stacks.values()
    if not others:
        return {None: first}
    agree = all(other.value == first.value for other in others)
    return stacks | ({None: Reading(first.value)} if agree else {})


@functools.cache
def measure_names() -> tuple[str, ...]:
    """The names of all measures, without importing any."""
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))


def load_measure(name: str) -> Measure:
    """Import one measure.

    Raises:
        KeyError: There is no such measure.
    """
    if name not in measure_names():
        raise KeyError(name)
    return cast(Measure, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))
