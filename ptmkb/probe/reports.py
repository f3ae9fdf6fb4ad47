"""Writes what a run found for others to read: JSON for programs, JUnit XML for continuous integration, Markdown for people.

The file's suffix chooses. Needs no torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ptmkb.probe.record import ClaimRecord, ModelRecord, ProbeRecord, Verdict, write_text

VERDICTS: tuple[Verdict, ...] = ("verified", "discrepancy", "refuted", "unmeasured")
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_report(record: ProbeRecord, path: Path) -> None:
    """Write a report in one step, in the form that the suffix says.

    Raises:
        ValueError: No form has that suffix.
        OSError: The file cannot be written.
    """
    write_text(writer(path)(record), path)


def writer(path: Path) -> Callable[[ProbeRecord], str]:
    """What makes the text of a report with this file's suffix.

    Raises:
        ValueError: No form has that suffix.
    """
    try:
        return FORMS[path.suffix.lower()]
    except KeyError:
        raise ValueError(f"a report is written as {', '.join(FORMS)}; not {path.name!r}") from None


def to_junit(record: ProbeRecord) -> str:
    """JUnit XML: a suite a model, a case a claim; a refuted claim is a failure, an unmeasured one is skipped, a model that broke is an error."""
    suites = ElementTree.Element("testsuites", _totals(record.models) | {"name": "ptmkb probe"})
    for model in record.models:
        suite = ElementTree.SubElement(suites, "testsuite", _totals([model]) | {"name": model.id})
        properties = ElementTree.SubElement(suite, "properties")
        for name in ("transformers", "torch"):
            ElementTree.SubElement(properties, "property", name=name, value=getattr(record, name))
        for claim in model.claims:
            _case(suite, model, claim)
        if _broke(model) or not model.claims:
            case = ElementTree.SubElement(
                suite, "testcase", classname=model.id, name="probe", time=f"{model.seconds:.2f}"
            )
            if _broke(model):
                ElementTree.SubElement(case, "error", message=_xml(model.why or "failed"))
            elif model.status == "skipped":
                ElementTree.SubElement(case, "skipped", message=_xml(model.why or ""))
    ElementTree.indent(suites)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"
    )


def _totals(models: Any) -> dict[str, str]:
    verdicts = Counter(claim.verdict for model in models for claim in model.claims)
    broke = sum(_broke(model) for model in models)
    bare = sum(not model.claims and not _broke(model) for model in models)
    idle = sum(not model.claims and model.status == "skipped" for model in models)
    return {
        "tests": str(verdicts.total() + broke + bare),
        "failures": str(verdicts["refuted"]),
        "errors": str(broke),
        "skipped": str(verdicts["unmeasured"] + idle),
        "time": f"{sum(model.seconds for model in models):.2f}",
    }


def _broke(model: ModelRecord) -> bool:
    """Whether more went wrong than that claims are refuted."""
    refuted = any(claim.verdict == "refuted" for claim in model.claims)
    return model.status == "failed" and not (
        refuted and re.match(r"\d+ of \d+ claims refuted", model.why or "")
    )


def _case(suite: ElementTree.Element, model: ModelRecord, claim: ClaimRecord) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=model.id, name=_xml(_name(claim)))
    if claim.verdict == "refuted":
        told = f"claimed {_value(claim.claimed)}, measured {_value(claim.measured, claim.claimed)}"
        ElementTree.SubElement(case, "failure", message=_xml(told)).text = _xml(claim.why or "")
    elif claim.verdict == "unmeasured":
        ElementTree.SubElement(case, "skipped", message=_xml(claim.why or ""))
    elif claim.verdict == "discrepancy":
        ElementTree.SubElement(case, "system-out").text = _xml(f"discrepancy: {claim.why or ''}")


def to_markdown(record: ProbeRecord) -> str:
    """A summary for people: counts, what went wrong, then a table a model."""
    verdicts = Counter(claim.verdict for model in record.models for claim in model.claims)
    statuses = Counter(model.status for model in record.models)
    lines = [
        "# Probe report",
        "",
        f"transformers {record.transformers}, torch {record.torch}",
        "",
        f"{len(record.models)} models: "
        + ", ".join(f"{statuses[name]} {name}" for name in ("passed", "failed", "skipped"))
        + f". {verdicts.total()} claims: "
        + ", ".join(f"{verdicts[name]} {name}" for name in VERDICTS)
        + ".",
        "",
    ]
    if failed := [model for model in record.models if model.status == "failed"]:
        lines += ["## Failed", "", *(f"- **{model.id}**: {_cell(model.why)}" for model in failed), ""]
    rows = [
        [
            model.id,
            model.status,
            *(str(sum(claim.verdict == verdict for claim in model.claims)) for verdict in VERDICTS),
            f"{model.seconds:.1f}",
        ]
        for model in record.models
    ]
    lines += ["## Models", "", *_table(["model", "status", *VERDICTS, "seconds"], rows), ""]
    for model in record.models:
        if not model.claims and model.measured:
            found = [[_of(one.measure, one.part), _value(one.value), ""] for one in model.measured]
            silent = [[one.measure, "", one.why] for one in model.unmeasured]
            table = _table(["measure", "measured", "why not"], found + silent)
            lines += [f"### {model.id}", "", *table, ""]
        if model.claims:
            claims = [
                [_name(c), _value(c.claimed), _value(c.measured, c.claimed), c.verdict, c.why or ""]
                for c in model.claims
            ]
            lines += [
                f"### {model.id}",
                "",
                *_table(["claim", "claimed", "measured", "verdict", "why"], claims),
                "",
            ]
    return "\n".join(lines)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    written = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in written]


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _name(claim: ClaimRecord) -> str:
    return _of(claim.measure, claim.part, claim.variant) + (
        ", asked of its category" if claim.origin == "category" else ""
    )


def _of(measure: str, *parts: str | None) -> str:
    of = " · ".join(part for part in parts if part)
    return measure + (f" of {of}" if of else "")


def _value(value: Any, beside: Any = None) -> str:
    """A value in short; of a measured mapping only what the claim names."""
    if isinstance(value, Mapping):
        if isinstance(beside, Mapping):
            value = {key: item for key, item in value.items() if key in beside}
        elif set(value) == {"kind"}:
            return str(value["kind"])
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _xml(text: str) -> str:
    """Without what XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


FORMS: dict[str, Callable[[ProbeRecord], str]] = {
    ".json": ProbeRecord.to_json,
    ".xml": to_junit,
    ".md": to_markdown,
}
