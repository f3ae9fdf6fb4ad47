"""Every architecture of `transformers` as it was measured: a table to choose from, and a page a model type. Nothing on them is claimed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape

from ptmkb.probe.record import Measurement, ModelRecord
from ptmkb.site.knowledge import Knowledge
from ptmkb.site.page import Page, link, table, url
from ptmkb.site.pages.source import source_page
from ptmkb.site.pictures import block_section, flow_section, picture_sections
from ptmkb.site.reasons import reason_text
from ptmkb.site.values import part_text, value_text
from ptmkb.site.words import word_or

ORDER = 35
SECTION = "nav.architectures"

_INDEX = "architectures/index.md"
_UPSTREAM = "https://github.com/huggingface/transformers/blob/v{version}/src/{file}"
_MODALITIES = ("text", "image", "video", "audio", "region", "time-series")
_COLUMNS = ("modality", "flow", "mixer", "attention", "position", "norm", "experts")


def pages(knowledge: Knowledge) -> Iterator[Page]:
    """The table, then a page a model type; they are too many for the navigation, the table leads to them."""
    if knowledge.architectures is None:
        return
    records = sorted(knowledge.architectures.models, key=lambda record: record.id)
    title = knowledge.word("architecture.all")
    yield Page(_INDEX, _index(records, knowledge), title, {"hide": ["navigation", "toc"]})
    for record in records:
        path = f"architectures/{record.id}.md"
        yield Page(
            path, _page(record, path, knowledge), meta={"title": record.id, "template": "architecture.html"}
        )


def facets(record: ModelRecord) -> dict[str, list[str]]:
    """What the table can be filtered by: for each column the measured kinds, sorted."""
    found: dict[str, set[str]] = {column: set() for column in _COLUMNS}
    for m in record.measured:
        if m.measure == "structure":
            found["modality"] |= _modalities(m)
        elif m.measure == "flow":
            found["modality"] |= {m.part} & set(_MODALITIES) if m.part else set()
            if ">" not in (m.part or "") and isinstance(m.value, dict):
                found["flow"].add(m.value["kind"])
        elif m.measure == "layers":
            for run in m.value:
                found["mixer"].add(run["mixer"])
                found["attention"] |= {run["heads"]} if run.get("heads") else set()
                found["experts"] |= {run["feed_forward"]} & {"dense", "experts"}
        elif m.measure == "position" and isinstance(m.value, list):
            found["position"] |= set(m.value)
        elif m.measure == "norm":
            found["norm"].add(m.value["kind"])
            if m.value["placement"] != m.value["kind"]:
                found["norm"].add(m.value["placement"])
    if len(found["position"]) > 1:
        found["position"].discard("none")  # of one part beside another that has positions
    return {column: sorted(kinds) for column, kinds in found.items()}


def _modalities(structure: Measurement) -> set[str]:
    found = set()
    for stack in structure.detail.get("stacks", ()):
        found |= {stream.partition("/")[0] for stream in stack["streams"]} & set(_MODALITIES)
        looked_up = {
            name
            for path in stack["before"]
            for e in path
            for name in e.get("of", ())
            if isinstance(name, str)
        }
        if looked_up & {"token", "character"}:
            found.add("text")
    return found


# ---- the table


def _index(records: list[ModelRecord], kb: Knowledge) -> str:
    assert kb.architectures is not None
    measured = [record for record in records if record.status != "skipped"]
    lead = kb.word(
        "architecture.lead",
        count=len(records),
        measured=len(measured),
        transformers=kb.architectures.transformers,
        method=link(_INDEX, "method/index.md"),
    )
    head = "".join(f"<th>{kb.word(f'architecture.{key}')}</th>" for key in ("type", *_COLUMNS))
    rows = "".join(_row(record, kb) for record in measured)
    filters = _filters(measured, kb)
    body = (
        f'{filters}\n<div class="kb-scroll" data-search-exclude><table class="kb-architectures">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    skipped = [
        f"- `{record.id}`{kb.colon}{reason_text(record.why or '', kb.language)}"
        for record in records
        if record.status == "skipped"
    ]
    rest = f"## {kb.word('architecture.unbuilt')}\n\n" + "\n".join(skipped) if skipped else ""
    return f"# {kb.word('architecture.all')}\n\n{lead}\n\n{body}\n\n{rest}\n"


def _row(record: ModelRecord, kb: Knowledge) -> str:
    found = facets(record)
    cells = "".join(
        f'<td data-kinds="{escape(" ".join(found[column]))}">{escape(_words(column, found[column], kb))}</td>'
        for column in _COLUMNS
    )
    address = url(_INDEX, f"architectures/{record.id}.md")
    return f'<tr><td><a href="{address}"><code>{escape(record.id)}</code></a></td>{cells}</tr>'


def _words(column: str, kinds: Iterable[str], kb: Knowledge) -> str:
    return ("、" if kb.language == "zh" else ", ").join(_kind(column, kind, kb) for kind in kinds)


_FAMILIES = {
    "modality": ("part",),
    "flow": ("value",),
    "mixer": ("layers",),
    "attention": ("layers",),
    "experts": ("layers",),
}


def _kind(column: str, kind: str, kb: Knowledge) -> str:
    (family,) = _FAMILIES.get(column, (column,))
    return word_or(family, kind, kb.language)


def _filters(records: list[ModelRecord], kb: Knowledge) -> str:
    """A search box and a choice a column; hidden until the page's script, which they need, shows them."""
    choices = []
    every = [facets(record) for record in records]
    for at, column in enumerate(_COLUMNS, 1):
        times: dict[str, int] = {}
        for found in every:
            for kind in found[column]:
                times[kind] = times.get(kind, 0) + 1
        options = "".join(
            f'<option value="{escape(kind)}">{escape(_kind(column, kind, kb))} ({number})</option>'
            for kind, number in sorted(times.items(), key=lambda one: (-one[1], one[0]))
        )
        choices.append(
            f'<select data-column="{at}" aria-label="{kb.word(f"architecture.{column}")}">'
            f'<option value="">{kb.word(f"architecture.{column}")}</option>{options}</select>'
        )
    return (
        f'<form class="kb-filter" data-search-exclude hidden><input type="search" placeholder="{kb.word("architecture.find")}" '
        f'aria-label="{kb.word("architecture.find")}">{"".join(choices)}'
        f'<output data-label="{kb.word("architecture.shown", shown="{shown}", count=len(records))}"></output></form>'
    )


# ---- a type


def _page(record: ModelRecord, path: str, kb: Knowledge) -> str:
    assert kb.architectures is not None
    parts = [f"# `{record.id}`", _lead(record, path, kb)]
    if record.status == "skipped":
        return "\n\n".join([*parts, reason_text(record.why or "", kb.language)]) + "\n"
    sections = [
        _facts(record, kb),
        block_section(record.id, record.measured, None, kb),
        flow_section(record.measured, kb),
        picture_sections(record.id, record.measured, kb),
        _values(record, kb),
        _unmeasured(record, kb),
    ]
    body = "\n\n".join(section for section in sections if section)
    # Searching finds the page by its name and class; figures by the hundred would drown everything else.
    return (
        "\n\n".join([*parts, re.sub(r"^(## .+)$", r"\1 { data-search-exclude }", body, flags=re.MULTILINE)])
        + "\n"
    )


def _lead(record: ModelRecord, path: str, kb: Knowledge) -> str:
    assert kb.architectures is not None
    apart = "、" if kb.language == "zh" else ", "
    lines = [f"[{kb.word('architecture.back')}]({link(path, _INDEX)})"]
    if record.built is not None:
        upstream = _UPSTREAM.format(version=kb.architectures.transformers, file=record.built.file)
        file = record.built.file.removeprefix("transformers/")
        lines.append(f"`{record.built.architecture}` · [`{file}`]({upstream})")
        if file in kb.notes_by_file:
            lines.append(f"[{kb.word('architecture.notes')}]({link(path, source_page(file))})")
    if entries := kb.entries_by_type.get(record.id):
        names = apart.join(kb.model_link(path, entry) for entry in entries)
        lines.append(f"{kb.word('architecture.entry')}{kb.colon}{names}")
    text = kb.word("architecture.as-measured", method=link(path, "method/index.md"))
    return f"{' · '.join(lines)}\n\n{text}" if record.status != "skipped" else " · ".join(lines)


def _facts(record: ModelRecord, kb: Knowledge) -> str:
    found = facets(record)
    items = "\n".join(
        f"<div><dt>{kb.word(f'architecture.{column}')}</dt><dd>{escape(_words(column, found[column], kb))}</dd></div>"
        for column in _COLUMNS
        if found[column]
    )
    return f'<dl class="kb-facts">\n{items}\n</dl>' if items else ""


def _values(record: ModelRecord, kb: Knowledge) -> str:
    rows = [
        [
            " · ".join(
                x for x in (word_or("measure", m.measure, kb.language), part_text(m.part, kb.language)) if x
            ),
            value_text(m.measure, m.value, kb.language),
        ]
        for m in record.measured
        if m.measure != "structure"
    ]
    head = [kb.word("architecture.measure"), kb.word("claim.measured")]
    return f"## {kb.word('architecture.measured')}\n\n{table(head, rows)}" if rows else ""


def _unmeasured(record: ModelRecord, kb: Knowledge) -> str:
    lines = [
        f"- {word_or('measure', one.measure, kb.language)}{kb.colon}{escape(reason_text(one.why, kb.language))}"
        for one in record.unmeasured
    ]
    if record.status == "failed" and record.why:
        lines += [f"- {escape(reason_text(why, kb.language))}" for why in record.why.split("; measure ")]
    return f"## {kb.word('architecture.unmeasured')}\n\n" + "\n".join(lines) if lines else ""
