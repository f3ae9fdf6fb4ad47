"""Probes many entries at once, each in a forked child of a warm parent, and gathers one record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from ptmkb.catalogue import Catalogue, Model
from ptmkb.probe.children import Limits, Outcome, run
from ptmkb.probe.record import ModelRecord, ProbeRecord
from ptmkb.probe.verdicts import judge, pending


class Watcher:
    """What wants to know how a run goes on; this one does not."""

    def begins(self, total: int) -> None:
        """So many models will be probed."""

    def starts(self, model_id: str) -> None:
        """A model's child has started."""

    def ends(self, record: ModelRecord) -> None:
        """A model is done."""

    def ticks(self) -> None:
        """Some time has passed."""


def probe_all(
    entries: Iterable[Model],
    catalogue: Catalogue,
    jobs: int | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    watcher: Watcher | None = None,
    task: Callable[[Model, Catalogue], bytes] | None = None,
) -> tuple[ProbeRecord, bool]:
    """Probe entries in children of this process.

    Args:
        entries: What to probe.
        catalogue: Where their categories are.
        jobs: How many at once; by default as many as there are cores.
        limits: Of each child.
        watcher: Is told how it goes.
        task: What a child does; `probing.probe_offline` but in tests.

    Returns:
        The record in the order of `entries`, and whether all were done: after an interruption (Ctrl-C) the record holds what was done until then.
    """
    import torch
    import transformers

    from ptmkb.probe.probing import probe_offline, warm

    warm()
    chosen = {entry.id: entry for entry in entries}
    watcher = watcher or Watcher()
    watcher.begins(len(chosen))
    # Longest first, so that no long one is left over at the end: variants are what takes time.
    ordered = sorted(chosen.values(), key=lambda entry: (-len(entry.variants), entry.id))
    tasks = {entry.id: partial(task or probe_offline, entry, catalogue) for entry in ordered}
    done: dict[str, ModelRecord] = {}
    whole = True
    outcomes = run(tasks, jobs, limits, watcher.starts, watcher.ticks)
    try:
        for outcome in outcomes:
            record = _record(outcome, chosen[outcome.name], catalogue)
            done[record.id] = record
            watcher.ends(record)
    except KeyboardInterrupt:
        whole = False
    finally:
        outcomes.close()  # type: ignore[attr-defined]
    models = tuple(done[model_id] for model_id in chosen if model_id in done)
    return ProbeRecord(
        transformers=transformers.__version__, torch=torch.__version__.split("+")[0], models=models
    ), whole


def _record(outcome: Outcome, entry: Model, catalogue: Catalogue) -> ModelRecord:
    seconds = round(outcome.seconds, 2)
    if outcome.result is not None:
        return ModelRecord.model_validate_json(outcome.result).model_copy(update={"seconds": seconds})
    why = outcome.why or "failed"
    claims = tuple(judge(c, (), {(c.measure, c.variant): why}) for c in pending(entry, catalogue))
    return ModelRecord(id=entry.id, status="failed", why=why, seconds=seconds, claims=claims)


def timeless(record: ProbeRecord) -> ProbeRecord:
    """The record without times: what is committed as evidence, the same bytes from one run to the next."""
    return record.model_copy(
        update={"models": tuple(m.model_copy(update={"seconds": 0.0}) for m in record.models)}
    )
