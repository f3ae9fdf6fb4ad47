"""Builds and runs every model type of `transformers` in tiny, a child process a type; `python -m benchmarks.survey_types [FILE] [TYPE…]`.

One JSON line a type goes to FILE (`.survey.jsonl`) as soon as it is known. A run that was stopped goes on where it stopped: types that FILE
already has are left out; delete it to begin anew. At the end it prints how many build, run and have a loss, and what does not run.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from ptmkb.probe import probing, tiny
from ptmkb.probe.children import Limits, run
from ptmkb.probe.survey import Row, survey_offline

SMALL = 2_000_000
"""Parameters that a tiny model should stay below."""


def main(path: Path, chosen: list[str]) -> int:
    rows = {row["model_type"]: row for line in _lines(path) if (row := json.loads(line))}
    left = [name for name in chosen or tiny.model_types() if name not in rows]
    probing.warm()
    with path.open("a", encoding="utf-8") as file:
        for outcome in run({name: partial(survey_offline, name) for name in left}, limits=Limits(seconds=60)):
            row = json.loads(outcome.result) if outcome.result else vars(Row(outcome.name, why=outcome.why))
            rows[outcome.name] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"{len(rows):4} {outcome.name}: {row['why'] or 'runs'}", file=sys.stderr)
    return _summary({name: row for name, row in rows.items() if not chosen or name in chosen})


def _lines(path: Path) -> list[str]:
    """The complete lines of a file; one that was cut off is not counted."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    complete = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    if path.exists():
        path.write_text("".join(complete), encoding="utf-8")
    return complete


def _summary(rows: dict[str, dict]) -> int:
    built = [row for row in rows.values() if row["parameters"]]
    running = {name for name, row in rows.items() if row["runs"]}
    print(
        f"{len(rows)} types: {len(built)} build, {len(running)} run ({len(running) / len(rows):.1%}), "
        f"{sum(bool(row['losses']) for row in rows.values())} have a loss; "
        f"{sum(row['seconds'] for row in rows.values()):.0f} s of work"
    )
    listed = tiny.unbuilt()
    for name, row in sorted(rows.items()):
        if name not in running:
            print(f"  {name}: {listed[name]['why'] if name in listed else 'NOT LISTED: ' + str(row['why'])}")
        elif name in listed:
            print(f"  {name}: runs, yet is listed in unbuilt.yaml")
    for row in sorted(built, key=lambda row: -row["parameters"]):
        if row["parameters"] > SMALL:
            print(f"  {row['model_type']}: {row['parameters'] / 1e6:.1f} M parameters")
    return int(set(rows) - running != set(listed) & set(rows))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(Path(arguments[0]) if arguments else Path(".survey.jsonl"), arguments[1:]))
