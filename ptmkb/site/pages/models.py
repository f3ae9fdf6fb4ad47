"""A page a model, and the list of all."""

from __future__ import annotations

from collections.abc import Iterator

from ptmkb.catalogue import Claim, Descent, Model
from ptmkb.probe.record import ClaimRecord, ModelRecord
from ptmkb.site.knowledge import Knowledge
from ptmkb.site.page import Page, link, table
from ptmkb.site.pages.source import source_page
from ptmkb.site.pictures import block_section, flow_section, picture_sections
from ptmkb.site.reasons import reason_text
from ptmkb.site.values import badge, count, part_text, value_text
from ptmkb.site.words import word_or

ORDER = 30
SECTION = "nav.models"


def pages(knowledge: Knowledge) -> Iterator[Page]:
    """The list, then the models, oldest first."""
    models = sorted(knowledge.catalogue.models.values(), key=lambda model: (model.released, model.id))
    yield Page("models/index.md", _list(models, knowledge), knowledge.word("model.all"))
    for category in knowledge.catalogue.categories.values():
        for model in models:
            if model.category == category.id:
                path = f"models/{model.id}.md"
                text, meta = _model(model, path, knowledge), {"description": knowledge.text(model.summary)}
                yield Page(path, text, model.name, {**meta}, group=knowledge.text(category.name))


def _list(models: list[Model], kb: Knowledge) -> str:
    path = "models/index.md"
    rows = [
        [
            kb.model_link(path, model.id),
            f'<span class="kb-date">{model.released}</span>',
            kb.category_link(path, model.category),
            model.organisation,
            _tally(model, kb),
        ]
        for model in models
    ]
    head = ["field.name", "field.released", "field.category", "field.organisation", "field.evidence"]
    lead = kb.word("model.all.lead", count=len(models))
    return f"# {kb.word('model.all')}\n\n{lead}\n\n{table([kb.word(key) for key in head], rows)}"


def _tally(model: Model, kb: Knowledge) -> str:
    record = kb.evidence(model.id)
    if record is None:
        return badge("unmeasured", kb.language)
    verified = sum(claim.verdict == "verified" for claim in record.claims if claim.origin == "entry")
    return f"{badge(record.verdict, kb.language)} {verified}/{len(model.claims)}"


def _model(model: Model, path: str, kb: Knowledge) -> str:
    record = kb.evidence(model.id)
    parts = [
        f"# {model.name}",
        f'<p class="kb-lead" markdown>{kb.text(model.summary)}</p>',
        _facts(model, path, kb),
        _claims(model, record, path, kb),
        _structure(model, record, kb),
        _flow(record, kb),
        _pictures(model.name, record, kb),
        _variants(model, record, kb),
        _lineage(model, path, kb),
        _notes(model, path, kb),
        _measured(record, kb),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(model: Model, path: str, kb: Knowledge) -> str:
    categories = " · ".join(kb.category_link(path, name) for name in (model.category, *model.also))
    papers = "; ".join(
        f"[{kb.catalogue.papers[paper].title}]({link(path, f'papers/index.md#{paper}')})"
        for paper in model.papers
    )
    facts = {
        "field.organisation": model.organisation,
        "field.released": model.released,
        "field.category": categories,
        "field.modalities": " · ".join(kb.word(f"modality.{modality}") for modality in model.modalities),
        "field.implementation": _implementation(model, path, kb),
        "field.papers": papers,
    }
    items = "\n".join(
        f'<div markdown><dt>{kb.word(key)}</dt><dd markdown="span">{value}</dd></div>'
        for key, value in facts.items()
        if value
    )
    return f'<dl class="kb-facts" markdown>\n{items}\n</dl>'


def _implementation(model: Model, path: str, kb: Knowledge) -> str:
    implementation = model.implementation
    if implementation.kind == "transformers":
        name = f"`{implementation.model_type}`"
        if implementation.model_type in kb.measured_types:
            name = f"[{name}]({link(path, f'architectures/{implementation.model_type}.md')})"
        return f"`transformers`: {name}"
    if implementation.kind == "reference":
        name = f"ptmkb.reference.{implementation.module}"
        target = link(path, f"api/reference.md#{name}.{implementation.class_name}")
        return f"[`{implementation.class_name}`]({target}), {kb.word('implementation.reference')}"
    return f"{kb.word('implementation.none')}: {kb.text(implementation.why)}"


def _claims(model: Model, record: ModelRecord | None, path: str, kb: Knowledge) -> str:
    rows = []
    found = (
        {(c.measure, c.part, c.variant): c for c in record.claims if c.origin == "entry"} if record else {}
    )
    for claim in model.claims:
        proof = found.get((claim.measure, claim.part, claim.variant))
        rows.append(_claim_row(claim, proof, path, kb))
    for demand in record.claims if record else ():
        if demand.origin == "category":
            rows.append(_demand_row(model, demand, path, kb))
    head = [kb.word(f"claim.{key}") for key in ("claim", "says", "measured", "source", "verdict")]
    lead = ""
    if kb.record:
        lead = kb.word(
            "model.claims.lead",
            transformers=kb.record.transformers,
            torch=kb.record.torch,
            method=link(path, "method/index.md"),
        )
    explained = "\n".join(
        f"- {_subject(claim.measure, claim.part, claim.variant, kb)}: {kb.text(claim.discrepancy.note)}"
        for claim in model.claims
        if claim.discrepancy
    )
    text = f"## {kb.word('model.claims')}\n\n{lead}\n\n{table(head, rows)}"
    return f"{text}\n\n{explained}" if explained else text


def _subject(measure: str, part: str | None, variant: str | None, kb: Knowledge) -> str:
    name = _measure(measure, kb)
    return " · ".join(
        word for word in (name, part_text(part, kb.language), f"`{variant}`" if variant else "") if word
    )


def _measure(measure: str, kb: Knowledge) -> str:
    return word_or("measure", measure, kb.language)


def _claim_row(claim: Claim, proof: ClaimRecord | None, path: str, kb: Knowledge) -> list[str]:
    verdict = proof.verdict if proof else "unmeasured"
    measured = proof.measured if proof else None
    if isinstance(measured, dict) and isinstance(
        claim.value, dict
    ):  # what nobody claimed stands further down
        measured = {key: measured[key] for key in claim.value if key in measured}
    return [
        _subject(claim.measure, claim.part, claim.variant, kb),
        value_text(claim.measure, claim.value, kb.language),
        value_text(claim.measure, measured, kb.language),
        kb.citation(path, claim.source),
        badge(verdict, kb.language, _why(claim, proof, kb)),
    ]


def _why(claim: Claim, proof: ClaimRecord | None, kb: Knowledge) -> str | None:
    """The reason of a verdict: the entry's own words for a discrepancy, else what the record says."""
    if proof is None or proof.why is None:
        return None
    if proof.verdict == "discrepancy" and claim.discrepancy is not None:
        return kb.text(claim.discrepancy.note)
    return reason_text(proof.why, kb.language)


def _demand_row(model: Model, demand: ClaimRecord, path: str, kb: Knowledge) -> list[str]:
    return [
        _subject(demand.measure, demand.part, None, kb),
        value_text(demand.measure, demand.claimed, kb.language),
        value_text(demand.measure, demand.measured, kb.language),
        kb.word("claim.category", category=kb.category_link(path, model.category)),
        badge(demand.verdict, kb.language, demand.why and reason_text(demand.why, kb.language)),
    ]


def _structure(model: Model, record: ModelRecord | None, kb: Knowledge) -> str:
    if record is None:
        return ""
    variant = model.variants[0].name if model.variants else None
    return block_section(model.name, record.measured, variant, kb)


def _flow(record: ModelRecord | None, kb: Knowledge) -> str:
    return flow_section(record.measured, kb) if record else ""


def _pictures(name: str, record: ModelRecord | None, kb: Knowledge) -> str:
    return picture_sections(name, record.measured, kb) if record else ""


def _variants(model: Model, record: ModelRecord | None, kb: Knowledge) -> str:
    counted = {
        m.variant: m.value
        for m in (record.measured if record else ())
        if m.measure == "parameters" and m.variant and m.part is None
    }
    rows = []
    for variant in model.variants:
        total = counted.get(variant.name)
        hub = f"[`{variant.hub}`](https://huggingface.co/{variant.hub})" if variant.hub else "—"
        shown = f"{count(total)} ({total:,})" if isinstance(total, int) else "—"
        rows.append([f"`{variant.name}`", shown, hub])
    head = [kb.word(key) for key in ("model.variant", "model.parameters", "model.hub")]
    return f"## {kb.word('model.variants')}\n\n{table(head, rows)}" if rows else ""


def _lineage(model: Model, path: str, kb: Knowledge) -> str:
    lines = []
    before: dict[str, list[Descent]] = {}
    for edge in model.lineage:
        before.setdefault(edge.ancestor, []).append(edge)
    after: dict[str, list[Descent]] = {}
    for other in sorted(kb.catalogue.models.values(), key=lambda m: (m.released, m.id)):
        if edges := [edge for edge in other.lineage if edge.ancestor == model.id]:
            after[other.id] = edges
    for heading, relatives in (("model.from", before), ("model.to", after)):
        if relatives:
            lines.append(f"**{kb.word(heading)}**\n")
            lines += [_relative(other, edges, path, kb) for other, edges in relatives.items()]
            lines.append("")
    code = _code(model, path, kb)
    if code:
        lines += [f"**{kb.word('model.code')}**\n", *code, ""]
    lines.append(f"[{kb.word('model.graph')}]({link(path, f'lineage/index.md#{model.id}')})")
    return f"## {kb.word('model.lineage')}\n\n" + "\n".join(lines)


def _relative(other: str, edges: list[Descent], path: str, kb: Knowledge) -> str:
    """One relative and all that was taken: a list item."""
    taken = "; ".join(
        f'<span class="kb-relation">{kb.word(f"relation.{edge.relation}")}</span> '
        f"{kb.text(edge.note)} ({kb.citation(path, edge.source)})"
        for edge in edges
    )
    return f"- {kb.model_link(path, other)} {taken}"


def _code(model: Model, path: str, kb: Knowledge) -> list[str]:
    if model.id not in kb.graph:
        return []
    ways = {"from": kb.graph.in_edges(model.id, data=True), "to": kb.graph.out_edges(model.id, data=True)}
    lines = []
    for way, edges in ways.items():
        others = [edge[0] if way == "from" else edge[1] for edge in edges if edge[2]["relation"] == "code"]
        if others:
            names = "、" if kb.language == "zh" else ", "
            links = names.join(kb.model_link(path, other) for other in others)
            lines.append(f"- {kb.word(f'model.code.{way}', models=links)}")
    return lines


def _notes(model: Model, path: str, kb: Knowledge) -> str:
    lines = [
        f"- [{kb.text(r.note.title)}]({link(path, f'{source_page(r.note.file)}#{r.note.id}')}) · `{r.note.file}`"
        for r in kb.notes
        if model.id in r.note.models
    ]
    return f"## {kb.word('model.notes')}\n\n" + "\n".join(lines) if lines else ""


def _measured(record: ModelRecord | None, kb: Knowledge) -> str:
    if record is None:
        return ""
    claimed = {(c.measure, c.part, c.variant) for c in record.claims}
    rows = [
        [_subject(m.measure, m.part, m.variant, kb), value_text(m.measure, m.value, kb.language)]
        for m in record.measured
        if (m.measure, m.part, m.variant) not in claimed and m.measure != "structure"
    ]
    if not rows:
        return ""
    head = [kb.word("claim.claim"), kb.word("claim.measured")]
    body = table(head, rows).replace("\n", "\n    ")
    return f'??? info "{kb.word("model.measured")}"\n\n    {kb.word("model.measured.lead")}\n\n    {body}'
