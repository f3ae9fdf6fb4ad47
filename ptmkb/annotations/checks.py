"""Run the checks of notes: small Python programs that fail if what the note says is false.

Importing torch and transformers takes far longer than a check itself, so workers import them once and fork for each check; every check
thus starts from the same clean state. Where there is no fork, each is a Python of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ptmkb.annotations.notes import PlacedNote

TIMEOUT = 30.0
"""Seconds that one check may take. Checks are asked to stay below 2; a loaded machine may need ten times that."""

WARM = ("torch", "transformers", "transformers.modeling_utils", "transformers.generation.utils")
"""What most checks import."""

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How a note's check ended.

    Attributes:
        id: the note's.
        status: passed, failed (it raised), timeout.
        seconds: how long it took, imports of torch and transformers left out where a worker had them ready.
        why: the end of what it said, where it did not pass; else "".
    """

    id: str
    status: Literal["passed", "failed", "timeout"]
    seconds: float
    why: str


def run_checks(
    notes: Iterable[PlacedNote],
    jobs: int | None = None,
    timeout: float = TIMEOUT,
    on_result: Callable[[CheckResult], None] | None = None,
    warm: Sequence[str] = WARM,
) -> list[CheckResult]:
    """Run the checks of those notes that have one, without a network.

    Args:
        notes: notes with unique ids.
        jobs: processes at once; by default one a core.
        timeout: seconds a check.
        on_result: called with each result as it comes, from another thread.
        warm: modules that are imported once for all checks; a check that needs more imports it itself.

    Returns:
        One result a check, in the order of the notes.
    """
    checks = [(note.id, note.check) for note in notes if note.check is not None]
    count = max(1, min(jobs or os.cpu_count() or 1, len(checks)))
    results: dict[str, CheckResult] = {}
    environment = {**os.environ, **OFFLINE}
    workers: list[subprocess.Popen[str]] = []

    def collect(worker: subprocess.Popen[str], share: Sequence[tuple[str, str]]) -> None:
        errors = ""
        if worker.stdin is not None and worker.stdout is not None:
            worker.stdin.write(json.dumps({"checks": share, "timeout": timeout, "warm": list(warm)}))
            worker.stdin.close()
            for line in worker.stdout:
                try:
                    result = CheckResult(**json.loads(line))
                except (ValueError, TypeError):
                    errors = line.strip()  # the worker itself broke; its last words say why
                    continue
                results[result.id] = result
                if on_result is not None:
                    on_result(result)
        worker.wait()
        for name, _ in share:
            if name not in results:
                results[name] = CheckResult(
                    name, "failed", 0.0, f"the process that ran it ended: {errors or worker.returncode}"
                )

    threads = []
    try:
        for number in range(count if checks else 0):
            command = [sys.executable, "-m", "ptmkb.annotations.check_worker"]
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                env=environment,
            )
            workers.append(worker)
            thread = threading.Thread(target=collect, args=(worker, checks[number::count]), daemon=True)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
    return [results[name] for name, _ in checks]
