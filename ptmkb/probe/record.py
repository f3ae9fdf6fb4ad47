"""The record of a probe run: what was claimed, what was measured, and the verdict; readable without torch.

`ptmkb/probe/evidence/` holds the committed record of the last full run, one file a `transformers` release. The site and the listings
read it here; the runner writes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
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


class Unmeasured(_Record):
    """A measure that gave nothing, of a tiny model or of a variant, and why."""

    measure: str
    variant: str | None = None
    why: str


class Built(_Record):
    """The class that a tiny model is of.

    Attributes:
        architecture: Its name, such as `BertForPreTraining`.
        file: Where its source is, from the package on: `transformers/models/bert/modeling_bert.py`.
    """

    architecture: str
    file: str


class ModelRecord(_Record):
    """One model's probe: an entry of the catalogue, or a model type of `transformers` (then without claims).

    Attributes:
        status: `passed` if it was built and run and no claim was refuted, `failed`, or `skipped` if there is nothing to build.
        why: The reason of a status that is not `passed`.
        seconds: Wall-clock time; left out (0) in committed evidence, so that the same results are the same bytes.
        built: What the tiny model is; None where nothing was built.
        unmeasured: What gave nothing, with the reason.
    """

    id: str
    status: Literal["passed", "failed", "skipped"]
    why: str | None = None
    seconds: float = 0.0
    built: Built | None = None
    claims: tuple[ClaimRecord, ...] = ()
    measured: tuple[Measurement, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()

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
    if model.built is None:
        del fields["built"]
    lists = {name: fields.pop(name) for name in ("claims", "measured", "unmeasured")}
    if not model.unmeasured:
        del lists["unmeasured"]
    text = json.dumps(fields, ensure_ascii=False)[:-1]
    for name, rows in lists.items():
        lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
        text += f',\n "{name}": [\n  {lines}]' if rows else f',\n "{name}": []'
    return text + "}"


def read_architectures(directory: Path = EVIDENCE) -> ProbeRecord | None:
    """What was measured on every model type of the newest `transformers` release, None where there is no such record yet.

    `record.model("bert")` is a `ModelRecord` as an entry's, without claims and variants:
    - `status` is `skipped` for a type that cannot be built, with its reason in `why` and nothing else; a type whose measuring broke
      somewhere is `failed`, with what was measured all the same;
    - `built` names the class and its source file;
    - `measured` holds what each measure gave, `detail` included: the diagram under `structure`, the matrix under `flow`;
    - `unmeasured` says for every other measure why it gave nothing.
    """
    path = newest("architectures", directory)
    return unpacked(path.read_text(encoding="utf-8")) if path else None


def write_architectures(record: ProbeRecord, directory: Path = EVIDENCE) -> Path:
    """Write what `read_architectures` reads, in one step; where it was written is returned."""
    path = directory / f"architectures-{record.transformers}.json"
    write_text(packed(record), path)
    return path


def read_record(path: Path) -> ProbeRecord:
    """Read a record from a file that `write_record` wrote."""
    return ProbeRecord.model_validate_json(path.read_bytes())


def read_evidence(directory: Path = EVIDENCE) -> ProbeRecord | None:
    """The committed record of the newest `transformers` release, None where there is none yet."""
    path = newest("transformers", directory)
    return read_record(path) if path else None


def newest(kind: str, directory: Path = EVIDENCE) -> Path | None:
    """The committed record of one kind for the newest `transformers` release, such as `walks-5.23.0.json`; None where there is none yet."""

    def release(path: Path) -> tuple[int, ...]:
        return tuple(int(part) for part in path.stem.rpartition("-")[2].split(".") if part.isdigit())

    return max(directory.glob(f"{kind}-*.json"), key=release, default=None)


# --- the record of all model types, packed ---------------------------------------------------------------------------------------------

_SHARED = 60  # characters of JSON from which a value that is there more than once is written once
_REFERENCE = "="  # {"=": "3f2a…"} stands for the shared value of that name


def packed(record: ProbeRecord) -> str:
    """The record of model types as JSON, one line a type; values that many types share (matrices, blocks) are written once, under `shared`.

    Args:
        record: Without claims, variants and times, which model types have not.

    Returns:
        The same text for the same findings, whatever the order in which they came.
    """
    types = {}
    for model in sorted(record.models, key=lambda model: model.id):
        fields: dict[str, Any] = {"status": model.status, "why": model.why}
        if model.built is not None:
            fields |= model.built.model_dump()
        measured: dict[str, list[Any]] = {}
        for one in model.measured:
            measured.setdefault(one.measure, []).append([one.part, one.value, one.detail])
        fields["measured"] = measured
        fields["unmeasured"] = {one.measure: one.why for one in model.unmeasured}
        types[model.id] = {name: value for name, value in fields.items() if value}
    times: Counter[str] = Counter()
    for fields in types.values():
        _count(fields, times)
    shared: dict[str, Any] = {}
    lines = [f"{_json(name)}: {_json(_shortened(fields, times, shared))}" for name, fields in types.items()]
    head = f'{{"transformers": {_json(record.transformers)}, "torch": {_json(record.torch)}'
    pool = ",\n".join(f"{_json(name)}: {_json(value)}" for name, value in sorted(shared.items()))
    return f'{head}, "shared": {{\n{pool}\n}}, "types": {{\n' + ",\n".join(lines) + "\n}}\n"


def unpacked(text: str) -> ProbeRecord:
    """The record that `packed` wrote."""
    data = json.loads(text)
    held: dict[str, Any] = {}

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(item) for item in value]
        if isinstance(value, dict):
            if set(value) == {_REFERENCE}:
                name = value[_REFERENCE]
                if name not in held:
                    held[name] = whole(data["shared"][name])
                return held[name]
            return {key: whole(item) for key, item in value.items()}
        return value

    models = []
    for name, short in data["types"].items():
        fields = whole(short)
        built = Built(architecture=fields["architecture"], file=fields["file"]) if "file" in fields else None
        models.append(
            ModelRecord(
                id=name,
                status=fields["status"],
                why=fields.get("why"),
                built=built,
                measured=tuple(
                    Measurement(measure=measure, part=part, value=value, detail=detail)
                    for measure, rows in fields.get("measured", {}).items()
                    for part, value, detail in rows
                ),
                unmeasured=tuple(
                    Unmeasured(measure=measure, why=why)
                    for measure, why in fields.get("unmeasured", {}).items()
                ),
            )
        )
    return ProbeRecord(transformers=data["transformers"], torch=data["torch"], models=tuple(models))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _count(value: Any, times: Counter[str]) -> None:
    """How often each value that is long enough occurs; what is within one that was seen before is counted with that one."""
    if isinstance(value, list | dict):
        text = _json(value)
        if len(text) >= _SHARED:
            times[text] += 1
            if times[text] > 1:
                return
        for item in value if isinstance(value, list) else value.values():
            _count(item, times)


def _shortened(value: Any, times: Counter[str], shared: dict[str, Any]) -> Any:
    if not isinstance(value, list | dict):
        return value
    text = _json(value)
    name = hashlib.sha256(text.encode()).hexdigest()[:10]
    if times[text] > 1 and name in shared:
        return {_REFERENCE: name}
    short: Any
    if isinstance(value, list):
        short = [_shortened(item, times, shared) for item in value]
    else:
        short = {key: _shortened(item, times, shared) for key, item in value.items()}
    if times[text] > 1:
        shared[name] = short
        return {_REFERENCE: name}
    return short


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
