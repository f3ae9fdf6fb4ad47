"""Probes one entry in this process: builds it, runs every measure on it and on its variants, and judges its claims."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import torch
import transformers

from ptmkb.catalogue import Catalogue, Model
from ptmkb.probe.children import TaskFailedError
from ptmkb.probe.measures import Unmeasurable, load_measure, measure_names
from ptmkb.probe.offline import hub_attempt, refuse_network
from ptmkb.probe.record import ClaimRecord, Measurement, ModelRecord
from ptmkb.probe.subject import Subject
from ptmkb.probe.subjects import subject_for
from ptmkb.probe.verdicts import judge, pending

Reasons = dict[tuple[str, str | None], str]


def probe(entry: Model, catalogue: Catalogue) -> ModelRecord:
    """Build an entry's tiny model and its variants, measure them, and judge every claim.

    Args:
        entry: The entry.
        catalogue: Where its categories are.

    Returns:
        The record, with `seconds` left at 0.

    Raises:
        Exception: The tiny model cannot be built, run or measured.
    """
    if entry.implementation.kind == "none":
        why = entry.implementation.why.en
        unmeasured = tuple(judge(c, (), {(c.measure, c.variant): why}) for c in pending(entry, catalogue))
        return ModelRecord(id=entry.id, status="skipped", why=why, claims=unmeasured)
    measured: list[Measurement] = []
    reasons: Reasons = {}
    measured.extend(_measured(subject_for(entry), None, reasons))
    for variant in entry.variants:
        try:
            subject = subject_for(entry, variant.name)
        except Exception as error:
            reason = f"cannot be built: {_line(error)}"
            reasons.update({(name, variant.name): reason for name in measure_names()})
            continue
        measured.extend(_measured(subject, variant.name, reasons))
    claims = tuple(judge(claim, measured, reasons) for claim in pending(entry, catalogue))
    failed = refuted(claims)
    return ModelRecord(
        id=entry.id,
        status="failed" if failed else "passed",
        why=failed,
        claims=claims,
        measured=tuple(measured),
    )


def refuted(claims: tuple[ClaimRecord, ...]) -> str | None:
    """One line that names the refuted claims, None where none is."""
    names = [
        claim.measure + "".join(f" of {what}" for what in (claim.part, claim.variant) if what)
        for claim in claims
        if claim.verdict == "refuted"
    ]
    return f"{len(names)} of {len(claims)} claims refuted: {'; '.join(names)}" if names else None


def _measured(subject: Subject, variant: str | None, reasons: Reasons) -> Iterator[Measurement]:
    for name in measure_names():
        measure = load_measure(name)
        if ("tiny" if variant is None else "variant") not in measure.SCALES:
            continue
        torch.manual_seed(0)
        random.seed(0)
        try:
            readings = measure.measure(subject)
        except Unmeasurable as error:
            reasons[name, variant] = str(error)
            continue
        except Exception as error:
            if variant is None:
                raise TaskFailedError(f"measure `{name}`: {hub_attempt(error) or _line(error)}") from error
            reasons[name, variant] = f"cannot be measured at full size: {_line(error)}"
            continue
        for part, reading in readings.items():
            yield Measurement(
                measure=name, part=part, variant=variant, value=reading.value, detail=dict(reading.detail)
            )


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def warm() -> None:
    """Import what every child needs, so that a fork has it."""
    import transformers.generation
    import transformers.masking_utils
    import transformers.modeling_layers
    import transformers.modeling_utils  # noqa: F401

    for name in measure_names():
        load_measure(name)
    torch.set_num_threads(1)


def probe_offline(entry: Model, catalogue: Catalogue) -> bytes:
    """`probe` in a child of its own: without a network, on one thread, the record as JSON.

    Raises:
        TaskFailedError: With the reason in one line.
    """
    attempts = refuse_network()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    try:
        record = probe(entry, catalogue)
    except TaskFailedError:
        if attempts:
            raise TaskFailedError(attempts[0]) from None
        raise
    except Exception as error:
        if attempts:
            raise TaskFailedError(attempts[0]) from error
        if (line := hub_attempt(error)) is not None:
            raise TaskFailedError(line) from error
        raise
    if attempts:
        raise TaskFailedError(attempts[0])
    return json.dumps(record.model_dump(mode="json"), ensure_ascii=False).encode()
