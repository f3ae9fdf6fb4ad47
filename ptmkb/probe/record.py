"""The record of a probe run: what was claimed, what was measured, and the verdict; readable without torch.

`ptmkb/probe/evidence/` holds the committed record of the last full run, one file a `transformers` release. The site and the listings
read it here; the runner writes it.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

EVIDENCE = Path(__file__).parent / "evidence"
Verdict = Literal["verified", "discrepancy", "refuted", "unmeasured"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClaimRecord(_Record):
    """One claim of an entry, or one that its category makes of every member, and what became of it.

    Attributes:
        claimed: The value in the entry's words.
        measured: The value in the measure's words; None where nothing was measured.
        why: What explains a verdict that is not `verified`.
        origin: `entry`, or `category` for a flow that the category demands.
    """

    measure: str
    part: str | None = None
    variant: str | None = None
    claimed: Any
    measured: Any = None
    verdict: Verdict
    why: str | None = None
    origin: Literal["entry", "category"] = "entry"


class Measurement(_Record):
    """What one measure gave for one part of a tiny model or of a variant, claimed or not."""

    measure: str
    part: str | None = None
    variant: str | None = None
    value: Any
    detail: dict[str, Any] = {}


class ModelRecord(_Record):
    """One model's probe.

    Attributes:
        status: `passed` if it was built and run and no claim was refuted, `failed`, or `skipped` if there is nothing to build.
        why: The reason of a status that is not `passed`.
        seconds: Wall-clock time; left out (0) in committed evidence, so that the same results are the same bytes.
    """

    id: str
    status: Literal["passed", "failed", "skipped"]
    why: str | None = None
    seconds: float = 0.0
    claims: tuple[ClaimRecord, ...] = ()
    measured: tuple[Measurement, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The entry's verdict as a whole: the worst that one of its claims got; unmeasured if none was measured."""
        verdicts = {claim.verdict for claim in self.claims}
        if "refuted" in verdicts:
            return "refuted"
        if "discrepancy" in verdicts:
            return "discrepancy"
        return "verified" if "verified" in verdicts else "unmeasured"


class ProbeRecord(_Record):
    """A whole run."""

    transformers: str
    torch: str
    models: tuple[ModelRecord, ...]

    def model(self, model_id: str) -> ModelRecord | None:
        """The record of one model, None where it was not probed."""
        return next((model for model in self.models if model.id == model_id), None)

    def to_json(self) -> str:
        """The record as JSON, one line a claim and measurement, so that a diff can be read."""
        head = json.dumps({"transformers": self.transformers, "torch": self.torch}, ensure_ascii=False)[:-1]
        models = ",\n".join(_model_json(model) for model in self.models)
        return f'{head}, "models": [\n{models}\n]}}\n'


def _model_json(model: ModelRecord) -> str:
    fields = model.model_dump(mode="json")
    lists = {name: fields.pop(name) for name in ("claims", "measured")}
    text = json.dumps(fields, ensure_ascii=False)[:-1]
    for name, rows in lists.items():
        lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
        text += f',\n "{name}": [\n  {lines}]' if rows else f',\n "{name}": []'
    return text + "}"


def read_record(path: Path) -> ProbeRecord:
    """Read a record from a file that `write_record` wrote."""
    return ProbeRecord.model_validate_json(path.read_bytes())


def read_evidence(directory: Path = EVIDENCE) -> ProbeRecord | None:
    """The committed record of the newest `transformers` release, None where there is none yet."""

    def release(path: Path) -> tuple[int, ...]:
        return tuple(
            int(part) for part in path.stem.removeprefix("transformers-").split(".") if part.isdigit()
        )

    files = sorted(directory.glob("transformers-*.json"), key=release)
    return read_record(files[-1]) if files else None


def write_record(record: ProbeRecord, path: Path) -> None:
    """Write a record as JSON, in one step."""
    write_text(record.to_json(), path)


def write_text(text: str, path: Path) -> None:
    """Write a file in one step: it is either the old one or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).chmod(0o644)
    Path(name).replace(path)
