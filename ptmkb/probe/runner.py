"""Probes many entries at once, each in a forked child of a warm parent, and gathers one record.

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
from ptmkb.probe.findings import Findings, cut_short, joined, judged
from ptmkb.probe.record import ModelRecord, ProbeRecord

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


Executor = Callable[[Mapping[str, Model], Watcher], "Generator[Done]"]
"""Measures entries, begun in the order given, and gives what it found as it comes; closing it stops the rest."""


def children(
    jobs: int | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    task: Callable[[Model], bytes] | None = None,
) -> Executor:
    """Measures in children of this process.

    Args:
        jobs: How many at once; by default as many as there are cores.
        limits: Of each child.
        task: What a child does; `probing.probe_offline` but in tests.
    """

    def execute(entries: Mapping[str, Model], watcher: Watcher) -> Generator[Done]:
        from ptmkb.probe.probing import probe_offline, warm

        warm()
        tasks = {model_id: partial(task or probe_offline, entry) for model_id, entry in entries.items()}
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
    chosen = {entry.id: entry for entry in entries}
    watcher = watcher or Watcher()
    held = {model_id: cache.load(entry) for model_id, entry in chosen.items()} if cache else {}
    done = {
        model_id: judged(chosen[model_id], catalogue, *found) for model_id, found in held.items() if found
    }
    expected = {model_id: _expected(e, cache) for model_id, e in chosen.items() if model_id not in done}
    # Longest first, so that no long one is left over at the end.
    ordered = sorted(expected, key=lambda model_id: (-expected[model_id], model_id))
    watcher.begins(len(chosen), expected, workers)
    for record in done.values():
        watcher.kept(record)
    whole = True
    if ordered:
        results = (executor or children())({model_id: chosen[model_id] for model_id in ordered}, watcher)
        try:
            for one in results:
                entry = chosen[one.model_id]
                found = (
                    one.findings if one.why is None else cut_short(entry, catalogue, one.findings, one.why)
                )
                if cache and found.complete:
                    cache.save(entry, found, one.seconds)
                done[one.model_id] = judged(entry, catalogue, found, one.seconds)
                watcher.ends(done[one.model_id])
        except KeyboardInterrupt:
            whole = False
        finally:
            results.close()
    return ProbeRecord(
        transformers=installed("transformers"),
        torch=installed("torch").split("+")[0],
        models=tuple(done[model_id] for model_id in chosen if model_id in done),
    ), whole


def _expected(entry: Model, cache: Cache | None) -> float:
    """About how many seconds an entry takes."""
    remembered = cache.seconds(entry) if cache else None
    return _SECONDS + _SECONDS_A_VARIANT * len(entry.variants) if remembered is None else remembered


def _read(outcome: Outcome) -> Findings:
    """All that a child said, its last words with it."""
    said = outcome.pieces if outcome.result is None else (*outcome.pieces, outcome.result)
    return joined(Findings.model_validate_json(piece) for piece in said)


def timeless(record: ProbeRecord) -> ProbeRecord:
    """The record without times: what is committed as evidence, the same bytes from one run to the next."""
    return record.model_copy(
        update={"models": tuple(m.model_copy(update={"seconds": 0.0}) for m in record.models)}
    )
