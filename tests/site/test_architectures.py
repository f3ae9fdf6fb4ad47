"""A page for every architecture, and the table that leads there: what stands on them is what the record says."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import pytest

from ptmkb.probe.record import Measurement, ModelRecord, read_architectures
from ptmkb.site import Knowledge, Page, gather
from ptmkb.site.pages.architectures import facets, pages
from ptmkb.site.reasons import reason_text
from ptmkb.site.values import value_text

RECORD = read_architectures()
assert RECORD is not None


@pytest.fixture(scope="module", params=["en", "zh"])
def knowledge(request: pytest.FixtureRequest) -> Knowledge:
    return gather(request.param)


@pytest.fixture(scope="module")
def made(knowledge: Knowledge) -> dict[str, Page]:
    return {page.path: page for page in pages(knowledge)}


def test_every_type_has_its_page_and_its_row(knowledge: Knowledge, made: dict[str, Page]) -> None:
    assert set(made) == {"architectures/index.md", *(f"architectures/{m.id}.md" for m in RECORD.models)}
    table = made["architectures/index.md"].text
    for model in RECORD.models:
        text = made[f"architectures/{model.id}.md"].text
        assert text.startswith(f"# `{model.id}`\n")
        if model.status == "skipped":
            assert model.why
            why = reason_text(model.why, knowledge.language)
            assert why in text
            assert f"- `{model.id}`{'：' if knowledge.language == 'zh' else ': '}{why}" in table
            continue
        assert f'<a href="{model.id}/"><code>{model.id}</code></a>' in table
        if model.built:
            assert f"/blob/v{RECORD.transformers}/src/{model.built.file}" in text
        for one in model.unmeasured:
            assert escape(reason_text(one.why, knowledge.language)) in text


def test_a_page_shows_what_was_measured(knowledge: Knowledge, made: dict[str, Page]) -> None:
    shown = 0
    for model in RECORD.models:
        text = made[f"architectures/{model.id}.md"].text
        for m in model.measured:
            if m.measure in ("structure", "layers"):
                continue
            assert value_text(m.measure, m.value, knowledge.language).replace("|", "\\|") in text, (
                model.id,
                m,
            )
            shown += 1
        diagrams = [m for m in model.measured if m.measure == "structure"]
        assert text.count('class="kb-blocks"') == len(diagrams)
        matrices = [m for m in model.measured if m.measure == "flow" and "matrix" in m.detail]
        assert bool(matrices) == (f"## {knowledge.word('model.flow')} {{" in text)
    assert shown > 500


def test_the_navigation_lists_the_table_alone(made: dict[str, Page]) -> None:
    assert [page.path for page in made.values() if page.title] == ["architectures/index.md"]


def test_an_entry_and_its_architecture_lead_to_each_other(
    knowledge: Knowledge, made: dict[str, Page]
) -> None:
    from ptmkb.site.pages.models import pages as model_pages

    entries = {page.path: page.text for page in model_pages(knowledge)}
    linked = 0
    for name, ids in knowledge.entries_by_type.items():
        if name not in knowledge.measured_types:
            continue
        for entry in ids:
            assert f"(../models/{entry}.md)" in made[f"architectures/{name}.md"].text
            assert f"(../architectures/{name}.md)" in entries[f"models/{entry}.md"]
            linked += 1
    assert linked


def test_facets_come_from_the_findings() -> None:
    def record(*measured: tuple[str, Any, dict[str, Any]]) -> ModelRecord:
        found = tuple(
            Measurement(measure=name, value=value, detail=detail) for name, value, detail in measured
        )
        return ModelRecord(id="x", status="passed", measured=found)

    stack = {"streams": ["image/1"], "before": [[{"kind": "embedding", "of": ["token", "position"]}]]}
    layers = [
        {
            "count": 3,
            "mixer": "sliding-window",
            "window": 4,
            "heads": "grouped-query",
            "feed_forward": "experts",
        },
        {"count": 1, "mixer": "state-space", "feed_forward": "none"},
    ]
    found = facets(
        record(
            ("structure", {}, {"stacks": [stack]}),
            ("layers", layers, {}),
            ("flow", {"kind": "sliding-window", "window": 4}, {}),
            ("position", ["rotary"], {}),
            ("norm", {"kind": "RMSNorm", "placement": "pre"}, {}),
        )
    )
    assert found == {
        "modality": ["image", "text"],
        "flow": ["sliding-window"],
        "mixer": ["sliding-window", "state-space"],
        "attention": ["grouped-query"],
        "position": ["rotary"],
        "norm": ["RMSNorm", "pre"],
        "experts": ["experts"],
    }


def test_every_kind_has_its_chinese_word(made: dict[str, Page], knowledge: Knowledge) -> None:
    if knowledge.language != "zh":
        return
    same = {"RMSNorm", "LayerNorm", "BatchNorm", "GroupNorm"}
    for kind, shown in re.findall(
        r'<option value="([^"]+)">(.*?) \(\d+\)', made["architectures/index.md"].text
    ):
        assert kind in same or re.search("[\u4e00-\u9fff]", shown), kind


def test_the_table_can_be_filtered_by_every_kind_that_it_shows(made: dict[str, Page]) -> None:
    text = made["architectures/index.md"].text
    rows = re.findall(r"<tr><td>.*?</tr>", text)
    assert len(rows) == sum(model.status != "skipped" for model in RECORD.models)
    columns = re.findall(r'<select data-column="(\d)".*?</select>', text, re.DOTALL)
    assert columns == [str(n) for n in range(1, 8)]
    for column, body in re.findall(r'<select data-column="(\d)"[^>]*>(.*?)</select>', text, re.DOTALL):
        cells = [re.findall(r'data-kinds="([^"]*)"', row)[int(column) - 1].split() for row in rows]
        for kind, number in re.findall(r'<option value="([^"]+)">[^<]*\((\d+)\)', body):
            assert sum(kind in kinds for kinds in cells) == int(number) > 0
