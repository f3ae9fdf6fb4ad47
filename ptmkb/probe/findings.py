"""What a probe of one model found, before anybody asks what its entry claims; and the record that comes of it once the claims are judged.

Findings depend on the model alone, so that they can be kept; verdicts cost next to nothing and are made anew. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from ptmkb.catalogue import Catalogue, Model
from ptmkb.probe.measures import measure_names
from ptmkb.probe.record import Built, ClaimRecord, Measurement, ModelRecord, Unmeasured
from ptmkb.probe.verdicts import Pending, judge, pending


class _Finding(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Silence(_Finding):
    """Why a measure gave nothing.

    Attributes:
        measure: Its name; None for a failure of the model as a whole.
        variant: The variant, None for the tiny model.
        why: One line.
        failed: Something went wrong, as opposed to there being nothing to measure.
        lasting: It would be so again; not where memory, time or a signal was the reason.
    """

    measure: str | None
    variant: str | None = None
    why: str
    failed: bool = False
    lasting: bool = True


class Findings(_Finding):
    """Everything that was measured on a model, and why the rest was not.

    Attributes:
        begun: Measures (with their variant) that were begun, in order: the last of a child that died is the one that killed it.
        built: What the tiny model is.
    """

    measured: tuple[Measurement, ...] = ()
    silences: tuple[Silence, ...] = ()
    begun: tuple[tuple[str, str | None], ...] = ()
    built: Built | None = None

    @property
    def complete(self) -> bool:
        """Whether another probe would find the same, so that these are worth keeping."""
        return all(silence.lasting for silence in self.silences)


def joined(pieces: Iterable[Findings]) -> Findings:
    """Findings that came one after another as one."""
    held = tuple(pieces)
    return Findings(
        measured=tuple(one for piece in held for one in piece.measured),
        silences=tuple(one for piece in held for one in piece.silences),
        begun=tuple(one for piece in held for one in piece.begun),
        built=next((piece.built for piece in held if piece.built is not None), None),
    )


def part(findings: Findings, *, tiny: bool) -> Findings:
    """Of findings those about the tiny model, or those about the variants."""
    return findings.model_copy(
        update={
            "measured": tuple(one for one in findings.measured if (one.variant is None) == tiny),
            "silences": tuple(one for one in findings.silences if (one.variant is None) == tiny),
            "begun": tuple(one for one in findings.begun if (one[1] is None) == tiny),
            "built": findings.built if tiny else None,
        }
    )


def cut_short(claims: Iterable[Pending], findings: Findings, why: str) -> Findings:
    """Findings of a probe that died: what it did not come to is unmeasured for the same reason.

    Args:
        claims: What is claimed of the model.
        findings: What was found before.
        why: The reason of the death.
    """
    told = {(one.measure, one.variant) for one in findings.measured}
    told |= {(one.measure, one.variant) for one in findings.silences if one.measure is not None}
    if findings.begun and findings.begun[-1] not in told:
        name, variant = findings.begun[-1]
        why = f"{why} (while measuring `{name}`{f' of {variant}' if variant else ''})"
    wanted: dict[tuple[str, str | None], None] = dict.fromkeys((name, None) for name in measure_names())
    wanted |= dict.fromkeys((claim.measure, claim.variant) for claim in claims)
    missing = [
        Silence(measure=name, variant=variant, why=why, lasting=False)
        for name, variant in wanted
        if (name, variant) not in told
    ]
    dead = Silence(measure=None, why=why, failed=True, lasting=False)
    return findings.model_copy(update={"silences": (*findings.silences, dead, *missing)})


def unclaimed(name: str, findings: Findings, seconds: float = 0.0) -> ModelRecord:
    """The record of a model of which nothing is claimed.

    Args:
        name: The model type.
        findings: What was found.
        seconds: How long it took.
    """
    return _record(name, findings, (), seconds)


def judged(entry: Model, catalogue: Catalogue, findings: Findings, seconds: float = 0.0) -> ModelRecord:
    """The record of a model: every claim about it with its verdict.

    Args:
        entry: The model.
        catalogue: Where its categories are.
        findings: What was found.
        seconds: How long it took.

    Returns:
        `failed` where a claim is refuted or something went wrong, with the reasons in one line; `skipped` where there is nothing to build.
    """
    skipped = entry.implementation.why.en if entry.implementation.kind == "none" else None
    reasons = {(one.measure, one.variant): one.why for one in findings.silences if one.measure is not None}
    if skipped is not None:
        reasons |= {(claim.measure, claim.variant): skipped for claim in pending(entry, catalogue)}
    claims = tuple(judge(claim, findings.measured, reasons) for claim in pending(entry, catalogue))
    return _record(entry.id, findings, claims, seconds, skipped)


def _record(
    name: str,
    findings: Findings,
    claims: tuple[ClaimRecord, ...],
    seconds: float,
    skipped: str | None = None,
) -> ModelRecord:
    broken = dict.fromkeys(one.why for one in findings.silences if one.failed)
    why = "; ".join([*broken, *filter(None, [_refuted(claims)])])
    return ModelRecord(
        id=name,
        status="failed" if why else "skipped" if skipped is not None else "passed",
        why=why or skipped,
        seconds=round(seconds, 2),
        built=findings.built,
        claims=claims,
        measured=findings.measured,
        unmeasured=tuple(
            Unmeasured(measure=one.measure, variant=one.variant, why=one.why)
            for one in findings.silences
            if one.measure is not None
        ),
    )


def _refuted(claims: tuple[ClaimRecord, ...]) -> str | None:
    """One line that names the refuted claims, None where none is."""
    names = [
        claim.measure + "".join(f" of {what}" for what in (claim.part, claim.variant) if what)
        for claim in claims
        if claim.verdict == "refuted"
    ]
    return f"{len(names)} of {len(claims)} claims refuted: {'; '.join(names)}" if names else None
