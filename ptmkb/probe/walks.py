"""The record of the walks: real data followed through the real code, statement by statement; readable without torch.

`ptmkb.labs.walks` takes the walks and writes the record, `ptmkb/probe/evidence/walks-5.23.0.json`; the articles of the site are illustrated
from it. A walk says nothing in words: what its steps mean, the articles say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ptmkb.probe.record import EVIDENCE, newest, write_text


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Record):
    """What one statement of the real code bound to one name.

    Attributes:
        file: The source file, below the package.
        line: The statement's first line, 1-based.
        symbol: The function that it stands in, by its qualified name.
        code: The statement on one line, long calls shortened.
        name: The name that was bound; `return` for what the function gave back.
        module: Which module of the model ran it, as `named_modules` calls it.
        shape: Of a tensor.
        dtype: Of a tensor, without `torch.`.
        value: Of a small tensor or a plain value.
        full: The shape of the same step in the published size.
        beside: Further values that the walk looked at there.
    """

    file: str
    line: int
    symbol: str
    code: str
    name: str
    module: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    value: Any = None
    full: tuple[int, ...] | None = None
    beside: dict[str, Any] = {}


class Walk(_Record):
    """One walk.

    Attributes:
        name: As the command and the articles call it.
        setting: What was run: classes, sizes, seeds.
        facts: Numbers and words that came out, by name.
        steps: The statements that were watched, in the order in which they ran, by the part of the walk.
        pictures: Data for figures, by name.
    """

    name: str
    setting: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    steps: dict[str, tuple[Step, ...]] = {}
    pictures: dict[str, Any] = {}


class WalkRecord(_Record):
    """All walks of one release."""

    transformers: str
    torch: str
    walks: tuple[Walk, ...]

    def walk(self, name: str) -> Walk | None:
        """A walk by its name, None where it was not taken."""
        return next((walk for walk in self.walks if walk.name == name), None)

    def to_json(self) -> str:
        """The record as JSON, one line a step, fact and picture, so that a diff can be read."""
        head = json.dumps({"transformers": self.transformers, "torch": self.torch})[:-1]
        walks = ",\n".join(_walk_json(walk) for walk in self.walks)
        return f'{head}, "walks": [\n{walks}\n]}}\n'


def _walk_json(walk: Walk) -> str:
    fields = walk.model_dump(mode="json", exclude_defaults=True)
    parts = [f'{{"name": {json.dumps(walk.name)}']
    for key in ("setting", "facts", "pictures"):
        rows = [
            f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}"
            for name, value in fields.get(key, {}).items()
        ]
        parts.append(f' "{key}": {_lines("{", rows, " }")}')
    steps = []
    for part, taken in fields.get("steps", {}).items():
        lines = [f"   {json.dumps(step, ensure_ascii=False)}" for step in taken]
        steps.append(f"  {json.dumps(part)}: {_lines('[', lines, '  ]')}")
    parts.append(f' "steps": {_lines("{", steps, " }")}')
    return ",\n".join(parts) + "}"


def _lines(opening: str, rows: list[str], closing: str) -> str:
    return "\n".join([opening, ",\n".join(rows), closing]) if rows else opening + closing.strip()


def read_walks(directory: Path = EVIDENCE) -> WalkRecord | None:
    """The committed walks of the newest `transformers` release, None where there are none yet."""
    path = newest("walks", directory)
    return WalkRecord.model_validate_json(path.read_bytes()) if path else None


def write_walks(record: WalkRecord, directory: Path = EVIDENCE) -> Path:
    """Make a record the committed one of its release.

    Returns:
        The file.
    """
    path = directory / f"walks-{record.transformers}.json"
    write_text(record.to_json(), path)
    return path


def differences(expected: Any, found: Any, tolerance: float, where: str = "") -> list[str]:
    """Where two records differ, as lines; numbers with a fractional part may differ by a relative tolerance, all else must be equal."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        lines = []
        for key in dict.fromkeys([*expected, *found]):
            if key in expected and key in found:
                lines += differences(expected[key], found[key], tolerance, f"{where}.{key}")
            else:
                lines.append(f"{where}.{key}: only in the {'record' if key in expected else 'new run'}")
        return lines
    if isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        if len(expected) != len(found):
            return [f"{where}: {len(expected)} in the record, {len(found)} now"]
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, tolerance, f"{where}[{i}]")]
    if isinstance(expected, float) and isinstance(found, float | int):
        near = abs(expected - found) <= tolerance * max(abs(expected), abs(found), 1e-3)
        return [] if near else [f"{where}: {expected} in the record, {found} now"]
    return [] if expected == found else [f"{where}: {expected!r} in the record, {found!r} now"]
