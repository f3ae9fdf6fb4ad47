"""Drafts of catalogue entries: what can be measured is filled in, what a person must find out is left blank, so that `ptmkb check` asks for it.

A measurement is no source: measured values stand as comments, each a claim that lacks the place in the literature that says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ptmkb.catalogue import Category, Model
from ptmkb.probe import children
from ptmkb.probe.findings import Findings, Silence, joined
from ptmkb.probe.measures import load_measure
from ptmkb.probe.record import Measurement

DEFAULTS = "defaults"
"""The variant that has the configuration class's own sizes."""

_MODALITIES = {  # by the argument of the forward pass that carries it
    "input_ids": "text", "pixel_values": "image", "pixel_values_videos": "video", "input_values": "audio", "input_features": "audio",
    "bbox": "layout", "past_values": "time-series",
}  # fmt: skip


def provisional(model_id: str, model_type: str) -> Model:
    """An entry good enough to be measured; nothing in it but its implementation is meant.

    Raises:
        ValueError: The id is none.
    """
    text = {"en": "?", "zh": "待写"}
    return Model.model_validate(
        {
            "id": model_id, "name": model_id, "status": "indexed", "released": "2000", "organisation": "?",
            "category": "unknown", "modalities": ["text"], "summary": text, "variants": [{"name": DEFAULTS}],
            "implementation": {"kind": "transformers", "model_type": model_type},
        }
    )  # fmt: skip


def measured(entry: Model) -> tuple[Findings, tuple[str, ...]]:
    """Everything that can be measured on an entry, and the arguments of its forward pass, from a child of this process."""
    from ptmkb.probe.probing import probe_whole, warm
    from ptmkb.probe.targets import of_entry

    def arguments() -> bytes:
        from ptmkb.probe.subjects import subject_for

        children.emit(probe_whole(of_entry(entry)))
        return json.dumps(list(subject_for(entry).inputs)).encode()

    warm()
    (outcome,) = children.run({entry.id: arguments})
    findings = joined(Findings.model_validate_json(piece) for piece in outcome.pieces)
    if outcome.result is None:
        why = Silence(measure=None, why=outcome.why or "failed", failed=True, lasting=False)
        return findings.model_copy(update={"silences": (*findings.silences, why)}), ()
    return findings, tuple(json.loads(outcome.result))


def draft(
    entry: Model, findings: Findings, arguments: Sequence[str], categories: Mapping[str, Category]
) -> str:
    """The text of an entry's file.

    Args:
        entry: The provisional entry.
        findings: What was measured.
        arguments: Of its forward pass.
        categories: Of the catalogue.
    """
    modalities = list(dict.fromkeys(_MODALITIES[one] for one in arguments if one in _MODALITIES))
    fitting = [category.id for category in categories.values() if _fits(category, findings.measured)]
    others = (
        f"; the measured flow fits {' and '.join(fitting)}" if fitting else "; no category asks for this flow"
    )
    implementation = entry.implementation.model_dump(exclude_none=True)
    lines = [
        "# yaml-language-server: $schema=../../../../schemas/model.schema.json",
        f"id: {entry.id}",
        "name:  # as its authors write it",
        "status: indexed",
        "released:  # YYYY-MM-DD of the first paper or announcement",
        "organisation:",
        f"category:  # one of: {', '.join(categories)}{others}",
        f"modalities: [{', '.join(modalities)}]",
        "summary:",
        "  en:",
        "  zh:",
        f"implementation: {{{', '.join(f'{key}: {_scalar(value)}' for key, value in implementation.items())}}}",
        "variants:",
        "  # The sizes below are those of the configuration class's defaults: name the checkpoint that has them.",
        f"  - {{name: {DEFAULTS}}}",
        "claims: []",
        "# Measured, and waiting for a source. Take over what the literature says, with the place where it says so.",
    ]
    for one in findings.measured:
        value = claimable(one)
        if value is None:
            continue
        of = "".join(
            f", {key}: {_scalar(what)}"
            for key, what in (("part", one.part), ("variant", one.variant))
            if what
        )
        lines.append(
            f'#  - {{measure: {one.measure}{of}, value: {_flow(value)}, source: {{paper: , at: ""}}}}'
        )
    if silent := [
        one for one in findings.silences if one.measure is None or one.variant is None or one.failed
    ]:
        lines.append("# Not measured:")
        lines += [f"#  {one.measure or 'the model'}: {one.why}" for one in silent]
    return "\n".join(lines) + "\n"


def claimable(found: Measurement) -> Any:
    """A measured value as a claim would say it; None where no claim can (a size of the tiny model, a value that no claim has words for)."""
    measure = load_measure(found.measure)
    if found.variant is None and found.measure in ("parameters", "shape"):
        return None
    value = found.value
    if isinstance(value, Mapping) and set(value) == {"kind"}:
        value = value["kind"]
    try:
        return value if measure.agrees(measure.parse(value), found.value) else None
    except (ValueError, TypeError, KeyError):
        return None


def _fits(category: Category, found: Sequence[Measurement]) -> bool:
    flows = {one.part or "model": one.value for one in found if one.measure == "flow" and one.variant is None}
    measure = load_measure("flow")
    return bool(category.flow) and all(
        part in flows and measure.agrees(measure.parse(value), flows[part])
        for part, value in category.flow.items()
    )


def _flow(value: Any) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A value on one line as YAML reads it back; text in quotes where it would be read as something else."""
    import yaml

    text = yaml.safe_dump(value, allow_unicode=True, width=10_000, default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...")
