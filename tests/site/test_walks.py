"""Articles show what was recorded, in both languages alike, and say clearly what they ask for in vain."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ptmkb.probe.walks import Step, Walk, WalkRecord, read_walks
from ptmkb.site import gather
from ptmkb.site.building import project_root
from ptmkb.site.chapters import ChapterError, expand
from ptmkb.site.drawings.classes import ancestors
from ptmkb.site.page import front_matter
from ptmkb.site.pages.source import pages, source_page
from ptmkb.site.tours import PLACE, Tour, Tours, read_tours, tour_problems
from ptmkb.site.walks import WalkFigureError, expand_classes, expand_walks
from ptmkb.source import find_tree

DOCS = project_root() / "docs"
ASKED = re.compile(r"<!-- (?:walk|fact|classes):[^|>]+?(?= \||-->| -->)")
ARTICLES = sorted(
    path.relative_to(DOCS / "en").as_posix() for path in (DOCS / "en" / "reading").rglob("*.md")
)
STEP = Step(file="a.py", line=3, symbol="A.f", code="x = y(z)", name="x", module="layer.0", shape=(3, 5), dtype="float32", full=(8, 64))  # fmt: skip
RECORD = WalkRecord(
    transformers="5.23.0",
    torch="2",
    walks=(
        Walk(
            name="w",
            setting={"sizes": {"batch": 3, "hidden": 5}, "full": {"name": "big"}},
            facts={"n": 123456, "share": 0.0842, "part": {"x": [0.25, None]}},
            steps={"part": (STEP,)},
            pictures={
                "tokens": {"kind": "tokens", "rows": [[["a<b", "", None], ["[MASK]", "masked", "word"]]]},
                "bars": {"kind": "bars", "unit": "%", "rows": [{"name": "x", "value": 0.5, "expected": 0.4}]},
            },
        ),
    ),
)


def test_numbers_in_a_sentence() -> None:
    text = "It has <!-- fact:w:n --> rows, <!-- fact:w:part.x.0 --> and <!-- fact:w:share % -->."
    assert expand_walks(text, "a.md", "en", RECORD) == "It has 123,456 rows, 0.25 and 8.4 %."


def test_a_part_is_a_table_of_statements_with_named_dimensions_and_links_upstream() -> None:
    html = expand_walks("<!-- walk:w:part | How it goes. -->", "a.md", "en", RECORD)
    assert "blob/v5.23.0/src/transformers/a.py#L3" in html
    for text in (
        "x = y(z)",
        "A.f",
        "layer.0",
        "3 × 5",
        "batch, hidden size",
        "8 × 64",
        "big",
        "How it goes.",
    ):
        assert text in html
    assert "批次、隐藏宽度" in expand_walks("<!-- walk:w:part -->", "a.md", "zh", RECORD)


def test_pictures_show_what_the_record_says() -> None:
    tokens = expand_walks("<!-- walk:w:tokens -->", "a.md", "en", RECORD)
    assert "a&lt;b" in tokens
    assert "kb-tok-masked" in tokens
    assert "<b>word</b>" in tokens
    bars = expand_walks("<!-- walk:w:bars -->", "a.md", "en", RECORD)
    assert "50.0 %" in bars
    assert "kb-arc-warm" in bars


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- walk:v:part -->", "the walk `v`"),
        ("<!-- walk:w:nothing -->", "`nothing` of the walk `w`; it has part, tokens, bars"),
        ("<!-- fact:w:m -->", "the fact `m`"),
        ("<!-- fact:w:part.x.7 -->", "the fact `part.x.7`"),
    ],
)
def test_what_is_not_recorded_ends_the_build_with_a_line(text: str, said: str) -> None:
    with pytest.raises(WalkFigureError, match=re.escape(said)):
        expand_walks(text, "a.md", "en", RECORD)


def test_what_a_class_inherits_from_is_read_across_files() -> None:
    tree = find_tree()
    found = list(ancestors(tree, "models/bert/modeling_bert.py", "BertForMaskedLM"))
    assert [(one.name, one.depth, one.file) for one in found[:3]] == [
        ("BertForMaskedLM", 0, "models/bert/modeling_bert.py"),
        ("BertPreTrainedModel", 1, "models/bert/modeling_bert.py"),
        ("PreTrainedModel", 2, "modeling_utils.py"),
    ]
    assert ("nn.Module", 3, None) in [(one.name, one.depth, one.file) for one in found]
    modular = list(ancestors(tree, "models/mistral/modular_mistral.py", "MistralMLP"))
    assert [(one.name, one.file) for one in modular[:2]] == [
        ("MistralMLP", "models/mistral/modular_mistral.py"),
        ("LlamaMLP", "models/llama/modeling_llama.py"),
    ]
    for one in (*found, *modular):
        if one.file and one.line:
            assert f"class {one.name}" in "".join(tree.lines(one.file)[one.line - 1 : one.line + 12])
    drawn = expand_classes(
        "<!-- classes:models/mistral/modular_mistral.py:MistralMLP | Two. -->", "a.md", tree
    )
    assert "modeling_llama.py#L" in drawn
    assert "Two." in drawn
    for asked in ("models/mistral/modular_mistral.py:Nothing", "models/none/modeling_none.py:A"):
        with pytest.raises(WalkFigureError):
            expand_classes(f"<!-- classes:{asked} -->", "a.md", tree)


def test_the_articles_ask_for_the_same_figures_and_numbers_in_both_languages() -> None:
    assert "reading/models/bert-flows.md" in ARTICLES
    for article in ARTICLES:
        english, chinese = (
            (DOCS / language / article).read_text(encoding="utf-8") for language in ("en", "zh")
        )
        assert sorted(set(ASKED.findall(english))) == sorted(set(ASKED.findall(chinese))), article
        assert front_matter(english).get("tour") == front_matter(chinese).get("tour"), article
        for text in (english, chinese):
            assert "<!-- walk" not in expand_walks(text, article, "en", read_walks())


def test_each_note_of_a_tour_shows_where_it_stands_and_the_ways_on() -> None:
    knowledge = gather("en", docs=DOCS / "en")
    tour = knowledge.tours.of("reading/models/bert-flows.md")
    assert tour is not None
    made = {page.path: page.text for page in pages(knowledge)}
    for at, stop in enumerate(tour.stops):
        text = made[source_page(knowledge.notes_by_id[stop].note.file)]
        note = text[text.index(f"{{ #{stop} }}") :].partition("<details")[0]
        assert f"In the tour *[{tour.title}]" in note
        assert f"{at + 1} of {len(tour.stops)}" in note
        for beside in tour.stops[max(0, at - 1) : at] + tour.stops[at + 1 : at + 2]:
            assert f"#{beside})" in note


def test_an_article_lists_its_tour_and_a_note_that_is_not_there_ends_the_build() -> None:
    knowledge = gather("zh", docs=DOCS / "zh")
    text = expand(f"# 读\n\n{PLACE}\n", "reading/models/bert-flows.md", knowledge)
    assert "1. [80/10/10 由两枚硬币得来" in text
    assert "../../source/data/data_collator.md#collator-second-coin-is-conditional" in text
    lost = replace(knowledge, tours=Tours((Tour("a.md", "A", ("no-such-note",), Path("a.md")),)))
    with pytest.raises(ChapterError, match=r"a\.md: the tour names the note `no-such-note`"):
        expand(PLACE, "a.md", lost)


def test_tours_are_read_and_what_is_wrong_with_them_is_said_with_its_line(tmp_path: Path) -> None:
    article = tmp_path / "reading" / "a.md"
    article.parent.mkdir()
    article.write_text(f"---\ntitle: A\ntour:\n  - bert-one\n  - bert-tow\n  - bert-one\n---\n\n{PLACE}\n")
    (tmp_path / "b.md").write_text(f"---\ntitle: B\n---\n\n{PLACE}\n")
    (tmp_path / "c.md").write_text("---\ntitle: C\ntour: [bert-one]\n---\n\nno place\n")
    tours = read_tours(tmp_path)
    assert tours.of("reading/a.md") is not None
    assert [tour.title for tour in tours.through("bert-one")] == ["C", "A"]
    problems = list(tour_problems(tmp_path, {"bert-one", "bert-two"}))
    assert [(p.path.name, p.line) for p in problems] == [("b.md", 5), ("c.md", 3), ("a.md", 4), ("a.md", 5)]
    assert "bert-tow" in problems[3].what
    assert "bert-two" in problems[3].mend
    assert "twice" in problems[2].what
