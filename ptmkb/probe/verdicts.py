"""Judges claims against what was measured, one by one. Needs no torch, and knows no measure by its name.

A claim that names no part is about the model as a whole: it is compared with the reading of the whole, or with the only reading there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ptmkb.catalogue import Catalogue, Model
from ptmkb.catalogue.schema import Discrepancy
from ptmkb.probe.measures import Measure, Unmeasurable, load_measure
from ptmkb.probe.record import ClaimRecord, Measurement

WHOLE = "model"
"""What a category calls the only part of a model of one part."""


@dataclass(frozen=True)
class Pending:
    """A claim that waits for its verdict: one of the entry's own, or one that a category makes of every member."""

    measure: str
    part: str | None
    variant: str | None
    claimed: Any
    discrepancy: Discrepancy | None = None
    origin: Literal["entry", "category"] = "entry"


def pending(entry: Model, catalogue: Catalogue) -> list[Pending]:
    """All claims about an entry: its own, in the order of the file, then those of the categories that it belongs to."""
    own = [Pending(c.measure, c.part, c.variant, c.value, c.discrepancy) for c in entry.claims]
    demanded: dict[tuple[str, str], Pending] = {}
    for name in [entry.category, *entry.also]:
        category = catalogue.categories.get(name)
        while category is not None:
            for part, value in category.flow.items():
                claim = Pending("flow", None if part == WHOLE else part, None, value, origin="category")
                demanded.setdefault((part, value), claim)
            category = catalogue.categories.get(category.parent) if category.parent else None
    return own + list(demanded.values())


def judge(
    claim: Pending,
    measured: Sequence[Measurement],
    reasons: Mapping[tuple[str, str | None], str],
    measures: Callable[[str], Measure] = load_measure,
) -> ClaimRecord:
    """The verdict on one claim.

    Args:
        claim: The claim.
        measured: Everything that was measured on the model.
        reasons: Why a measure (by name and variant) gave nothing.
        measures: Finds a measure by name.

    Returns:
        `verified`; `discrepancy` where the entry itself notes the measured value beside the published one; `refuted`; or `unmeasured`
        with the reason.
    """

    def verdict(
        verdict: Literal["verified", "discrepancy", "refuted", "unmeasured"],
        why: str | None,
        value: Any = None,
    ) -> ClaimRecord:
        return ClaimRecord(
            measure=claim.measure,
            part=claim.part,
            variant=claim.variant,
            claimed=claim.claimed,
            measured=value,
            verdict=verdict,
            why=why,
            origin=claim.origin,
        )

    try:
        measure = measures(claim.measure)
    except KeyError:
        return verdict("unmeasured", f"there is no measure `{claim.measure}`")
    if (reason := reasons.get((claim.measure, claim.variant))) is not None:
        return verdict("unmeasured", reason)
    scale = "variant" if claim.variant is not None else "tiny"
    if scale not in measure.SCALES:
        mend = "name a variant" if scale == "tiny" else "leave out `variant`"
        return verdict("unmeasured", f"`{claim.measure}` is not measured there; {mend}")
    readings = {m.part: m for m in measured if m.measure == claim.measure and m.variant == claim.variant}
    found = readings.get(claim.part)
    if found is None and claim.part is None and len(readings) == 1:
        found = next(iter(readings.values()))
    if found is None:
        parts = ", ".join(f"`{part}`" if part else "the whole" for part in readings) or "none"
        asked = f"part `{claim.part}`" if claim.part else "reading of the whole"
        return verdict("unmeasured", f"no {asked}; measured parts: {parts}")
    try:
        claimed = measure.parse(claim.claimed)
        noted = measure.parse(claim.discrepancy.measured) if claim.discrepancy else None
    except ValueError as error:
        return verdict("unmeasured", f"the claim cannot be read: {error}", found.value)
    try:
        holds = measure.agrees(claimed, found.value)
    except Unmeasurable as reason:
        return verdict("unmeasured", str(reason), found.value)
    if claim.discrepancy is None:
        return (
            verdict("verified", None, found.value)
            if holds
            else verdict("refuted", "measured otherwise", found.value)
        )
    if measure.agrees(noted, found.value):
        return verdict("discrepancy", claim.discrepancy.note.en, found.value)
    if holds:
        return verdict(
            "refuted", "the published value is met; the entry's `discrepancy` is out of date", found.value
        )
    return verdict(
        "refuted", "neither the published value nor the one noted under `discrepancy`", found.value
    )
