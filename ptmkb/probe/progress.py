"""Shows how a probe run goes on: a bar on a terminal, a plain line a model elsewhere. Everything goes to the error stream."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ptmkb.probe.record import ModelRecord
from ptmkb.probe.runner import Watcher


def summary(record: ModelRecord) -> str:
    """One line about a model: `bert: passed, 12 verified (1.4 s)`."""
    counts = {
        verdict: sum(claim.verdict == verdict for claim in record.claims)
        for verdict in ("verified", "discrepancy", "refuted", "unmeasured")
    }
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "no claims"
    why = f": {record.why}" if record.why and record.status != "passed" else ""
    return f"{record.id}: {record.status}, {told} ({record.seconds:.1f} s){why}"


class Clock:
    """How long a run still takes, from how long each model took the last time and how that compares with today."""

    def __init__(self, seconds: Mapping[str, float], workers: int) -> None:
        self._waiting = dict(seconds)
        self._workers = max(1, workers)
        self._running: dict[str, float] = {}
        self._expected = self._took = 0.0

    def starts(self, model_id: str) -> None:
        """A model has started."""
        self._running[model_id] = time.monotonic()

    def ends(self, model_id: str) -> None:
        """A model is done."""
        expected = self._waiting.pop(model_id, 0.0)
        if (started := self._running.pop(model_id, None)) is not None:  # not told where others do the work
            self._took += time.monotonic() - started
            self._expected += expected

    def left(self) -> float:
        """Seconds until the end, about: all work shared by the workers, but no less than the longest that is left."""
        pace = self._took / self._expected if self._expected > 0 else 1.0
        now = time.monotonic()
        rest = [
            max(0.0, seconds * pace - (now - self._running.get(model_id, now)))
            for model_id, seconds in self._waiting.items()
        ]
        return max(sum(rest) / self._workers, *rest, 0.0) if rest else 0.0


class Lines(Watcher):
    """A plain line a model, with how many are done and about how long the rest takes."""

    def begins(self, total: int, seconds: Mapping[str, float], workers: int) -> None:
        """Say what is kept and what is to be done."""
        self._total, self._done = total, 0
        self._clock = Clock(seconds, workers)
        if kept := total - len(seconds):
            sys.stderr.write(f"{kept} of {total} models: nothing changed since they were measured\n")

    def starts(self, model_id: str) -> None:
        """Look at the clock."""
        self._clock.starts(model_id)

    def kept(self, record: ModelRecord) -> None:
        """Count it, and say what fails."""
        self._done += 1
        if record.status == "failed":
            sys.stderr.write(summary(record) + "\n")

    def ends(self, record: ModelRecord) -> None:
        """Say it."""
        self._done += 1
        self._clock.ends(record.id)
        left = f", {_clock(self._clock.left())} left" if self._done < self._total else ""
        sys.stderr.write(f"[{self._done}/{self._total}{left}] {summary(record)}\n")


class Bar(Watcher):
    """A bar with what is running, done, failed, and the time that is left; failures stay above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._running: list[str] = []
        self._failed = 0
        # Refreshed by hand: the thread that rich would start could hold a lock while the parent forks.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )

    def begins(self, total: int, seconds: Mapping[str, float], workers: int) -> None:
        """Draw the bar."""
        self._clock = Clock(seconds, workers)
        self._task = self._progress.add_task("probing", total=total, failed="", left="")
        self._progress.start()

    def starts(self, model_id: str) -> None:
        """Name it."""
        self._clock.starts(model_id)
        self._running.append(model_id)

    def kept(self, record: ModelRecord) -> None:
        """Count it, and say what fails."""
        self._count(record)

    def ends(self, record: ModelRecord) -> None:
        """Count it, and say what failed."""
        self._clock.ends(record.id)
        if record.id in self._running:
            self._running.remove(record.id)
        self._count(record)

    def ticks(self) -> None:
        """Draw it again."""
        self._progress.update(
            self._task,
            description=f"probing {', '.join(self._running)}"[:60],
            failed=f"{self._failed} failed" if self._failed else "",
            left=f"{_clock(self._clock.left())} left",
        )
        self._progress.refresh()

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _count(self, record: ModelRecord) -> None:
        if record.status == "failed":
            self._failed += 1
            self._progress.console.print(summary(record), style="red", highlight=False, markup=False)
        self._progress.advance(self._task)


def _clock(seconds: float) -> str:
    """`0:07`, `12:40`, `1:02:03`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
