"""Shows how a probe run goes on: a bar on a terminal, a plain line a model elsewhere. Everything goes to the error stream."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ptmkb.probe.record import ModelRecord
from ptmkb.probe.runner import Watcher


def summary(record: ModelRecord) -> str:
    """One line about a model: `bert: passed, 12 claims verified (1.4 s)`."""
    counts = {
        verdict: sum(claim.verdict == verdict for claim in record.claims)
        for verdict in ("verified", "discrepancy", "refuted", "unmeasured")
    }
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "no claims"
    why = f": {record.why}" if record.why and record.status != "passed" else ""
    return f"{record.id}: {record.status}, {told} ({record.seconds:.1f} s){why}"


class Lines(Watcher):
    """A plain line a model."""

    def ends(self, record: ModelRecord) -> None:
        """Say it."""
        sys.stderr.write(summary(record) + "\n")


class Bar(Watcher):
    """A bar with what is running, done and left; failures stay above it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._running: list[str] = []
        # Refreshed by hand: the thread that rich would start could hold a lock while the parent forks.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )

    def begins(self, total: int) -> None:
        """Draw the bar."""
        self._task = self._progress.add_task("probing", total=total)
        self._progress.start()

    def starts(self, model_id: str) -> None:
        """Name it."""
        self._running.append(model_id)
        self._named()

    def ends(self, record: ModelRecord) -> None:
        """Count it, and say what failed."""
        self._running.remove(record.id)
        if record.status == "failed":
            self._progress.console.print(summary(record), style="red", highlight=False, markup=False)
        self._progress.advance(self._task)
        self._named()

    def ticks(self) -> None:
        """Draw it again."""
        self._progress.refresh()

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _named(self) -> None:
        self._progress.update(self._task, description=f"probing {', '.join(self._running)}"[:60])
