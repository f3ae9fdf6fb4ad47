"""Measures one target in a process of its own: `python -m ptmkb.probe.remote` reads the target from its input and writes what came of it.

This is what a worker of a cluster starts. A worker has threads, and a process with threads must not fork, so that the warm parent of the measuring
child is a process that has none.
"""

from __future__ import annotations

import json
import os
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
    from ptmkb.probe.probing import probe_offline, warm

    warm()
    (outcome,) = run({target.id: partial(probe_offline, target)}, limits=limits)
    said = outcome.pieces if outcome.result is None else (*outcome.pieces, outcome.result)
    found = joined(Findings.model_validate_json(piece) for piece in said)
    return Answer(findings=found, seconds=outcome.seconds, why=outcome.why)


def main() -> None:
    """Read `{"target": …, "parent": …, "seconds": …, "memory": …}`, write an `Answer`, both as JSON."""
    out = os.dup(1)
    os.dup2(2, 1)  # what anybody prints is not the answer
    asked: dict[str, Any] = json.load(sys.stdin)
    die_with(asked["parent"])
    limits = Limits(seconds=asked.get("seconds", 120.0), memory=asked.get("memory", 4 * GIB))
    with os.fdopen(out, "w", encoding="utf-8") as file:
        file.write(answer(Target.model_validate(asked["target"]), limits).model_dump_json())


if __name__ == "__main__":
    main()
