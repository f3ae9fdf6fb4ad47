"""Every claim of the catalogue falsified in plausible ways: the share that the probe refutes, and the ones that it does not.

A mutant is a claim that contradicts what was measured: another of the measure's words (causal for bidirectional, untied for tied), the value of another
part, a size one off, doubled or halved, a count 5, 10 or 20 % or ten times too large or too small, a yes for a no. It is judged against the committed
evidence by the same code that judges real claims; only `refuted` counts. Where an entry notes a discrepancy, the noted value is what is falsified.

Not counted are changed claims that are true: what was measured itself, `causal` of a model whose window looks only back, any one of several
objectives that were measured together, and the name of a family (`absolute`, `attention`) for what was measured of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ptmkb.catalogue import Catalogue, load_catalogue
from ptmkb.probe.measures import load_measure
from ptmkb.probe.record import ClaimRecord, ModelRecord, ProbeRecord, read_evidence
from ptmkb.probe.verdicts import Pending, judge, pending

SHARES = (0.05, 0.1, 0.2)
"""By how much counts are falsified."""


@dataclass(frozen=True)
class Mutant:
    """A false claim and what became of it."""

    model_id: str
    claim: Pending
    value: Any
    record: ClaimRecord

    @property
    def refuted(self) -> bool:
        """Whether the probe saw through it."""
        return self.record.verdict == "refuted"

    def __str__(self) -> str:
        of = " · ".join(what for what in (self.claim.part, self.claim.variant) if what)
        told = f"{self.model_id}: {self.claim.measure}{f' of {of}' if of else ''}"
        return f"{told}: {json.dumps(self.value)} beside the measured {json.dumps(self.record.measured)}: {self.record.verdict}"


def mutants(catalogue: Catalogue, evidence: ProbeRecord, only: set[str] | None = None) -> Iterator[Mutant]:
    """Falsify every claim that was verified, or whose discrepancy was.

    Args:
        catalogue: The entries.
        evidence: What was measured on them.
        only: Models to take, all by default.
    """
    words = vocabulary(catalogue, evidence)
    for model in evidence.models:
        entry = catalogue.models.get(model.id)
        if entry is None or entry.status != "curated" or (only is not None and model.id not in only):
            continue
        for claim in pending(entry, catalogue):
            truth = judge(claim, model.measured, {})
            if truth.verdict not in ("verified", "discrepancy"):
                continue
            told = claim.discrepancy.measured if claim.discrepancy else claim.claimed
            for value in _false(claim, told, truth.measured, model, words):
                record = judge(_falsified(claim, value), model.measured, {})
                yield Mutant(model.id, claim, value, record)


def _falsified(claim: Pending, value: Any) -> Pending:
    if claim.discrepancy is not None:
        return replace(claim, discrepancy=claim.discrepancy.model_copy(update={"measured": value}))
    return replace(claim, claimed=value)


def vocabulary(catalogue: Catalogue, evidence: ProbeRecord) -> dict[tuple[str, str], set[str]]:
    """The words that each measure knows, by measure and key (the value itself has none)."""
    words: dict[tuple[str, str], set[str]] = {}

    def note(measure: str, value: Any, key: str = "") -> None:
        if isinstance(value, str):
            words.setdefault((measure, key), set()).add(value)
        elif isinstance(value, Mapping):
            for name, item in value.items():
                note(measure, item, "" if name == "kind" else name)
        elif isinstance(value, list):
            for item in value:
                note(measure, item, key)

    for entry in catalogue.models.values():
        for claim in pending(entry, catalogue):
            note(claim.measure, claim.claimed)
    for model in evidence.models:
        for one in model.measured:
            note(one.measure, one.value)
    for measure in {measure for measure, _ in words}:
        for constant in vars(load_measure(measure)).values():
            if isinstance(constant, tuple | dict) and all(isinstance(word, str) for word in constant):
                words.setdefault((measure, ""), set()).update(
                    word for word in constant if _readable(measure, word)
                )
    return words


def _false(
    claim: Pending, told: Any, measured: Any, model: ModelRecord, words: Mapping[tuple[str, str], set[str]]
) -> list[Any]:
    """What could be claimed instead and is not so."""
    measure = load_measure(claim.measure)
    if claim.measure == "parameters":
        found = [_figure(measured * factor) for share in SHARES for factor in (1 + share, 1 - share)]
        found += [_figure(measured * 10), _figure(measured / 10)]
    else:
        found = list(_otherwise(claim.measure, told, words))
        if isinstance(told, str) and isinstance(measured, Mapping):
            found += _otherwise(
                claim.measure, dict(measured), words
            )  # its numbers, which the claim leaves out
        found += [
            one.value
            for one in model.measured
            if (one.measure, one.variant) == (claim.measure, claim.variant) and isinstance(told, str)
        ]
    true = measure.parse(told)
    distinct = {json.dumps(value, sort_keys=True): value for value in found}
    return [
        value
        for value in distinct.values()
        if _readable(claim.measure, value)
        and measure.parse(value) != true
        and not _true_too(claim.measure, value, measured)
    ]


def _otherwise(
    measure: str, value: Any, words: Mapping[tuple[str, str], set[str]], key: str = ""
) -> Iterator[Any]:
    """A value with one thing about it changed, in every plausible way."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (other for other in (value - 1, value + 1, 2 * value, value // 2) if other > 0)
    elif isinstance(value, str):
        yield from sorted(words.get((measure, key), set()) - {value})
    elif isinstance(value, Mapping):
        for name, item in value.items():
            for other in _otherwise(measure, item, words, "" if name == "kind" else name):
                yield {**value, name: other}
    elif isinstance(value, list):
        for at, item in enumerate(value):
            for other in _otherwise(measure, item, words, key):
                yield [*value[:at], other, *value[at + 1 :]]


def _true_too(measure: str, value: Any, measured: Any) -> bool:
    """Whether a changed claim is what was measured, or says less than that but nothing false."""
    if measure == "position":
        given, implicit = [value] if isinstance(value, str) else value, ("convolution", "recurrence")
        fits = [[kind for kind in measured if kind == one or kind.startswith(f"{one}-")] for one in given]
        return all(fits) and set(measured) - {kind for row in fits for kind in row} <= set(implicit)
    if measure == "layers" and isinstance(value, Mapping) and value.get("mixer") == "attention":
        rest = {
            name: item for name, item in value.items() if name != "mixer"
        }  # any kind of attention has heads
        return all("heads" in layer and rest.items() <= layer.items() for layer in measured)
    if isinstance(measured, list):
        return value in measured or value == measured
    if isinstance(measured, Mapping):
        claimed = load_measure(measure).parse(value)
        looks_back = measured.get("kind") in ("sliding-window", "chunked", "local-global")
        return (claimed == {"kind": "causal"} and looks_back) or claimed.items() <= measured.items()
    return bool(value == measured)


def _readable(measure: str, value: Any) -> bool:
    try:
        load_measure(measure).parse(value)
    except (ValueError, TypeError, KeyError):
        return False
    return True


def _figure(count: float) -> str:
    """A count as papers print it, with four digits, so that rounding hides nothing."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return (
                f"{count / size:.{3 - len(str(int(count / size))) + 1}f}{unit}"
                if count < 1000 * size
                else f"{count / size:.0f}{unit}"
            )
    return str(round(count))


def run() -> dict[str, Any]:
    catalogue, evidence = load_catalogue(), read_evidence()
    if evidence is None:
        sys.exit("there is no evidence yet; ptmkb probe --all --evidence writes it")
    start = time.perf_counter()
    found = list(mutants(catalogue, evidence))
    survivors = [str(mutant) for mutant in found if not mutant.refuted]
    by_measure = {
        name: {
            "mutants": sum(mutant.claim.measure == name for mutant in found),
            "refuted": sum(mutant.claim.measure == name and mutant.refuted for mutant in found),
        }
        for name in sorted({mutant.claim.measure for mutant in found})
    }
    return {
        "transformers": evidence.transformers,
        "claims": len(
            {(m.model_id, m.claim.measure, m.claim.part, m.claim.variant, m.claim.origin) for m in found}
        ),
        "mutants": len(found),
        "refuted": len(found) - len(survivors),
        "score": round((len(found) - len(survivors)) / len(found), 4),
        "by_measure": by_measure,
        "survivors": survivors,
        "seconds": round(time.perf_counter() - start, 2),
    }


def report(result: dict[str, Any]) -> list[str]:
    lines = [
        f"{result['mutants']:,} false claims made of {result['claims']} true ones, against the evidence for transformers {result['transformers']}: "
        f"{result['refuted']:,} refuted, score {result['score']:.2%} ({result['seconds']} s)"
    ]
    lines += [
        f"{name:14}{row['refuted']:7,} of {row['mutants']:,}" for name, row in result["by_measure"].items()
    ]
    return lines + [f"survives: {survivor}" for survivor in result["survivors"]]
