"""Probes many models at once, each in a forked child of a warm parent, and gathers one record: entries of the catalogue, or model types.

What was found earlier and still holds comes from the cache; the rest is measured, longest first by what it took the last time, and kept as soon as
it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ptmkb.catalogue import Catalogue, Model
from ptmkb.probe.cache import Cache, installed
from ptmkb.probe.children import Limits, Outcome, run
from ptmkb.probe.findings import Findings, cut_short, joined, judged, unclaimed
from ptmkb.probe.record import ModelRecord, ProbeRecord
from ptmkb.probe.targets import Target, of_entry, of_types, unbuilt
from ptmkb.probe.verdicts import Pending, pending

if TYPE_CHECKING:
    from collections.abc import Generator

_SECONDS = 2.0
"""A tiny model whose time nobody knows."""
_SECONDS_A_VARIANT = 1.0


class Watcher:
    """What wants to know how a run goes on; this one does not."""

    def begins(self, total: int, seconds: Mapping[str, float], workers: int) -> None:
        """So many models will be probed; those named will be measured, and take about so many seconds each."""

    def starts(self, model_id: str) -> None:
        """A model's measuring has started."""

    def ends(self, record: ModelRecord) -> None:
        """A model is done."""

    def kept(self, record: ModelRecord) -> None:
        """A model's findings were there from an earlier run."""

    def ticks(self) -> None:
        """Some time has passed."""


@dataclass(frozen=True)
class Done:
    """What became of one model's measuring.

    Attributes:
        why: What cut it short, None where it came to its end.
    """

    model_id: str
    findings: Findings
    seconds: float
    why: str | None = None


Executor = Callable[[Mapping[str, Target], Watcher], "Generator[Done]"]
"""Measures targets, begun in the order given, and gives what it found as it comes; closing it stops the rest."""


@dataclass(frozen=True)
class _Job:
    """A target, what is claimed of it, and how its record is made of findings and seconds; or its record, where it is not to be measured."""

    target: Target
    claims: tuple[Pending, ...]
    record: Callable[[Findings, float], ModelRecord]
    skipped: ModelRecord | None = None


def children(
    jobs: int | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    task: Callable[[Target], bytes] | None = None,
) -> Executor:
    """Measures in children of this process.

    Args:
        jobs: How many at once; by default as many as there are cores.
        limits: Of each child.
        task: What a child does; `probing.probe_offline` but in tests.
    """

    def execute(targets: Mapping[str, Target], watcher: Watcher) -> Generator[Done]:
        from ptmkb.probe.probing import probe_offline, warm

        warm()
        tasks = {name: partial(task or probe_offline, target) for name, target in targets.items()}
        with closing(run(tasks, jobs, limits, watcher.starts, watcher.ticks)) as outcomes:
            for outcome in outcomes:
                yield Done(outcome.name, _read(outcome), outcome.seconds, outcome.why)

    return execute


def probe_all(
    entries: Iterable[Model],
    catalogue: Catalogue,
    executor: Executor | None = None,
    watcher: Watcher | None = None,
    cache: Cache | None = None,
    workers: int = 1,
) -> tuple[ProbeRecord, bool]:
    """Probe entries, and judge what is claimed of them.

    Args:
        entries: What to probe.
        catalogue: Where their categories are.
        executor: What measures them; by default children of this process, one a core.
        watcher: Is told how it goes.
        cache: Where findings are kept between runs; without it everything is measured.
        workers: How many are measured at once, to tell how long it will take.

    Returns:
        The record in the order of `entries`, and whether all were done: after an interruption (Ctrl-C) the record holds what was done until then.
    """
    jobs = [
        _Job(of_entry(entry), tuple(pending(entry, catalogue)), partial(judged, entry, catalogue))
        for entry in entries
    ]
    return _probe_all(jobs, executor, watcher or Watcher(), cache, workers)


def probe_types(
    names: Iterable[str],
    catalogue: Catalogue,
    executor: Executor | None = None,
    watcher: Watcher | None = None,
    cache: Cache | None = None,
    workers: int = 1,
) -> tuple[ProbeRecord, bool]:
    """Measure model types of `transformers`, of which nothing need be claimed; the arguments and the result are as of `probe_all`.

    Types that cannot be built (`data/unbuilt.yaml`) are skipped with their reason.
    """
    left_out = {
        name: ModelRecord(id=name, status="skipped", why=f"cannot be built here: {why}")
        for name, why in unbuilt().items()
    }
    jobs = [
        _Job(target, (), partial(unclaimed, target.id), left_out.get(target.id))
        for target in of_types(names, catalogue)
    ]
    return _probe_all(jobs, executor, watcher or Watcher(), cache, workers)


def _probe_all(
    given: Iterable[_Job], executor: Executor | None, watcher: Watcher, cache: Cache | None, workers: int
) -> tuple[ProbeRecord, bool]:
    jobs = {job.target.id: job for job in given}
    done: dict[str, ModelRecord] = {}
    kept: dict[str, tuple[Findings, float]] = {}  # of tiny models whose variants are still to be measured
    wanted: dict[str, Target] = {}
    for name, job in jobs.items():
        if job.skipped is not None:
            done[name] = job.skipped
        elif cache and (found := cache.load(job.target)):
            done[name] = job.record(*found)
        elif cache and (found := cache.tiny(job.target)):
            kept[name], wanted[name] = found, job.target.model_copy(update={"tiny": False})
        else:
            wanted[name] = job.target
    expected = {name: _expected(target, cache) for name, target in wanted.items()}
    # Longest first, so that no long one is left over at the end.
    ordered = sorted(expected, key=lambda name: (-expected[name], name))
    watcher.begins(len(jobs), expected, workers)
    for record in done.values():
        watcher.kept(record)
    whole = True
    if ordered:
        results = (executor or children())({name: wanted[name] for name in ordered}, watcher)
        try:
            for one in results:
                job = jobs[one.model_id]
                before, spent = kept.get(one.model_id, (Findings(), 0.0))
                found_now, seconds = joined([before, one.findings]), one.seconds + spent
                if one.why is not None:
                    found_now = cut_short(job.claims, found_now, one.why)
                if cache and found_now.complete:
                    cache.save(job.target, found_now, seconds)
                done[one.model_id] = job.record(found_now, seconds)
                watcher.ends(done[one.model_id])
        except KeyboardInterrupt:
            whole = False
        finally:
            results.close()
    return ProbeRecord(
        transformers=installed("transformers"),
        torch=installed("torch").split("+")[0],
        models=tuple(done[name] for name in jobs if name in done),
    ), whole


def _expected(target: Target, cache: Cache | None) -> float:
    """About how many seconds a target takes."""
    remembered = cache.seconds(target) if cache else None
    return _SECONDS + _SECONDS_A_VARIANT * len(target.variants) if remembered is None else remembered


def _read(outcome: Outcome) -> Findings:
    """All that a child said, its last words with it."""
    said = outcome.pieces if outcome.result is None else (*outcome.pieces, outcome.result)
    return joined(Findings.model_validate_json(piece) for piece in said)


def timeless(record: ProbeRecord) -> ProbeRecord:
    """The record without times: what is committed as evidence, the same bytes from one run to the next."""
    return record.model_copy(
        update={"models": tuple(m.model_copy(update={"seconds": 0.0}) for m in record.models)}
    )
