"""Measures targets in a process of its own: `python -m ptmkb.probe.remote` reads a target a line from its input and writes a line of what came of it.

This is what a worker of a cluster starts, once. A worker has threads, and a process with threads must not fork, so that the warm parent of the
measuring children is a process that has none; it stays for the next target, and the imports with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from functools import partial
from typing import Any

from pydantic import BaseModel

from ptmkb.probe.children import GIB, Limits, die_with, run
from ptmkb.probe.findings import Findings, joined
from ptmkb.probe.targets import Target


class Answer(BaseModel):
    """What came of a target: its findings, how long they took, and what cut them short."""

    findings: Findings
    seconds: float
    why: str | None = None


def answer(target: Target, limits: Limits) -> Answer:
    """Measure a target in a child of this process."""
    from ptmkb.probe.probing import probe_offline

    (outcome,) = run({target.id: partial(probe_offline, target)}, limits=limits)
    said = outcome.pieces if outcome.result is None else (*outcome.pieces, outcome.result)
    found = joined(Findings.model_validate_json(piece) for piece in said)
    return Answer(findings=found, seconds=outcome.seconds, why=outcome.why)


class Server:
    """The warm process of one thread of a worker, from the worker's side; it is started when it is first asked, and again when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its number while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def ask(self, asked: dict[str, Any]) -> bytes:
        """Have a target measured.

        Args:
            asked: `target`, `seconds`, `memory`.

        Returns:
            An `Answer` as JSON. One that says that the process died where it did.
        """
        if self.pid is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ptmkb.probe.remote", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
        if (line := process.stdout.readline()).endswith(b"\n"):
            return line
        process.kill()
        why = f"its process ended with code {process.wait()}"
        return Answer(findings=Findings(), seconds=0.0, why=why).model_dump_json().encode()


def main() -> None:
    """Read lines `{"target": …, "seconds": …, "memory": …}`, write an `Answer` a line, both as JSON, until the input ends."""
    from ptmkb.probe.probing import warm

    out = os.dup(1)
    os.dup2(2, 1)  # what anybody prints is not the answer
    die_with(int(sys.argv[1]))
    warm()
    with os.fdopen(out, "w", encoding="utf-8") as file:
        for line in sys.stdin:
            asked: dict[str, Any] = json.loads(line)
            limits = Limits(seconds=asked.get("seconds", 120.0), memory=asked.get("memory", 4 * GIB))
            file.write(answer(Target.model_validate(asked["target"]), limits).model_dump_json() + "\n")
            file.flush()


if __name__ == "__main__":
    main()
