"""What a drawing of one measurement is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ptmkb.probe.record import Measurement
from ptmkb.site.words import word, word_or


@dataclass(frozen=True)
class Scene:
    """A measurement, and what its drawing may look up beside it.

    Attributes:
        finding: What is drawn.
        measured: All measurements of the same model.
        language: Of the labels, `en` or `zh`.
        title: What a screen reader says first.
    """

    finding: Measurement
    measured: Sequence[Measurement]
    language: str
    title: str

    def word(self, key: str, **values: object) -> str:
        """A label of a drawing."""
        return word(f"draw.{key}", self.language, **values)

    def name(self, family: str, value: str) -> str:
        """A label of an open vocabulary."""
        return word_or(family, value, self.language)

    def other(self, measure: str, part: str | None = None) -> Measurement | None:
        """What another measure found on the same tiny model, for one part."""
        return next(
            (m for m in self.measured if (m.measure, m.part, m.variant) == (measure, part, None)), None
        )

    def block(self) -> Sequence[dict[str, Any]]:
        """The path through the first block of the stack that the finding's part names, as `structure` found it; empty if unknown."""
        found = self.other("structure")
        for stack in found.detail.get("stacks", ()) if found else ():
            if (
                self.finding.part in (None, stack["name"])
                and len(stack["blocks"])
                and stack["blocks"][0]["paths"]
            ):
                path: Sequence[dict[str, Any]] = stack["blocks"][0]["paths"][0]
                return path
        return ()
