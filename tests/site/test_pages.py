"""The pages as plain Markdown: complete, linked, in both languages alike."""

from __future__ import annotations

import posixpath
import re

import pytest

from ptmkb.catalogue import Text
from ptmkb.probe.record import read_evidence
from ptmkb.site import Knowledge, Page, gather, sections
from ptmkb.site.chapters import ChapterError, expand
from ptmkb.site.drawings import drawing, drawing_names, flow_matrix
from ptmkb.site.page import link, table, url
from ptmkb.site.pages.source import stretches
from ptmkb.site.values import badge, count, part_text, value_text
from ptmkb.site.words import _all, word

LINK = re.compile(r"(?<!!)\]\((?!https?://|#)([^)\s]+)\)")


@pytest.fixture(scope="module", params=["en", "zh"])
def knowledge(request: pytest.FixtureRequest) -> Knowledge:
    return gather(request.param)


@pytest.fixture(scope="module")
def pages(knowledge: Knowledge) -> dict[str, Page]:
    return {page.path: page for section in sections(knowledge) for page in section.pages}


def test_every_entry_has_its_page(knowledge: Knowledge, pages: dict[str, Page]) -> None:
    for model in knowledge.catalogue.models.values():
        text = pages[f"models/{model.id}.md"].text
        assert text.startswith(f"# {model.name}\n")
        assert knowledge.text(model.summary) in text
        for claim in model.claims:
            assert knowledge.citation(f"models/{model.id}.md", claim.source) in text
    for category in knowledge.catalogue.categories.values():
        text = pages[f"categories/{category.id}.md"].text
        for trait in (*category.strengths, *category.limits):
            assert knowledge.text(trait.text) in text
    papers = pages["papers/index.md"].text
    for paper in knowledge.catalogue.papers.values():
        assert f'id="{paper.id}"' in papers
        assert paper.link in papers


def test_every_claim_stands_with_the_verdict_of_the_evidence(
    knowledge: Knowledge, pages: dict[str, Page]
) -> None:
    record = read_evidence()
    assert record is not None
    for model in knowledge.catalogue.models.values():
        proof = record.model(model.id)
        assert proof is not None, f"{model.id} is not in the evidence: run `make probe`"
        text = pages[f"models/{model.id}.md"].text
        section = text.split(f"## {knowledge.word('model.claims')}")[1].split("\n## ")[0]
        for verdict in ("verified", "discrepancy", "refuted", "unmeasured"):
            expected = sum(claim.verdict == verdict for claim in proof.claims)
            assert section.count(f'kb-verdict kb-{verdict}"') == expected, (model.id, verdict)


def test_links_between_pages_lead_somewhere(pages: dict[str, Page]) -> None:
    chapters = {"method/index.md", "contributing/index.md"}
    ids = {
        path: set(re.findall(r'\bid="([^"]+)"|\{ #([\w-]+) \}', page.text)) for path, page in pages.items()
    }
    anchors = {path: {name for pair in found for name in pair if name} for path, found in ids.items()}
    checked = 0
    for path, page in pages.items():
        if not path.endswith(".md"):
            continue
        prose = re.sub(r"<pre.*?</pre>|```.*?```", "", page.text, flags=re.DOTALL)
        for target in LINK.findall(prose):
            file, _, anchor = target.partition("#")
            resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), file))
            assert resolved in pages or resolved in chapters, f"{path} → {target}"
            if anchor and resolved.startswith(("papers/", "lineage/", "source/")):
                assert anchor in anchors[resolved], f"{path} → {target}"
            checked += 1
    assert checked > 500


def test_both_languages_have_the_same_pages_and_no_text_of_the_other() -> None:
    english, chinese = gather("en"), gather("zh")
    left = {page.path: page for section in sections(english) for page in section.pages}
    right = {page.path: page for section in sections(chinese) for page in section.pages}
    assert list(left) == list(right)
    for model in english.catalogue.models.values():
        assert model.summary.zh not in left[f"models/{model.id}.md"].text
        assert model.summary.en not in right[f"models/{model.id}.md"].text


def test_words_have_both_languages() -> None:
    for key, texts in _all().items():
        assert set(texts) == {"en", "zh"}, key
        assert sorted(re.findall(r"\{\w+\}", texts["en"])) == sorted(re.findall(r"\{\w+\}", texts["zh"])), key
    with pytest.raises(KeyError):
        word("no.such.word", "en")


def test_source_stretches_cover_a_file_once() -> None:
    knowledge = gather("en")
    assert knowledge.tree is not None
    for file, notes in knowledge.notes_by_file.items():
        lines = knowledge.tree.read(file).count("\n")
        found = stretches(notes, lines)
        covered = [line for stretch in found for line in range(stretch.first, stretch.last + 1)]
        assert covered == list(range(1, lines + 1))
        placed = [note for stretch in found for note in stretch.notes]
        assert len(placed) == len(notes)
        for stretch in found:
            for note in stretch.notes:
                assert note.resolution.first_line == stretch.first


def test_a_note_stands_beside_its_own_lines(pages: dict[str, Page], knowledge: Knowledge) -> None:
    text = pages["source/models/bert/modeling_bert.md"].text
    row = next(row for row in text.split('<div class="kb-row') if "{ #bert-scaled-scores }" in row)
    first_line = re.sub(
        r"<[^>]+>",
        "",
        re.findall(r'<span class="kb-line[^>]*>(.*?)</span>(?=<span class="kb-line|</pre>)', row)[0],
    )
    assert "attn_weights" in first_line
    assert "torch.matmul" in first_line


def test_relative_links() -> None:
    assert link("models/bert.md", "papers/index.md#x") == "../papers/index.md#x"
    assert link("index.md", "models/bert.md") == "models/bert.md"
    assert url("lineage/index.md", "models/bert.md") == "../models/bert/"
    assert url("models/bert.md", "models/gpt2.md") == "../gpt2/"
    assert url("index.md", "lineage/index.md") == "lineage/"


def test_tables_escape_what_would_break_them() -> None:
    assert table(["a"], [["x | y\nz"]]).splitlines()[-1] == "| x \\| y z |"
    assert table(["a"], []) == ""


@pytest.mark.parametrize(
    ("number", "text"),
    [(109_482_240, "109.5M"), (1_543_304_960, "1.5B"), (999, "999"), (13_593_316, "13.6M")],
)
def test_counts_read_as_people_write_them(number: int, text: str) -> None:
    assert count(number) == text


def test_values_in_words() -> None:
    assert value_text("flow", "causal", "en") == "causal"
    assert value_text("objective", "causal", "en") == "next token"
    assert value_text("flow", {"kind": "sliding-window", "window": 4}, "zh") == "滑动窗口（窗口 4）"
    assert value_text("flow", "none", "en") == "no influence"
    assert value_text("norm", {"kind": "none", "placement": "none"}, "en") == "none (placed none)"
    assert value_text("shape", {"layers": 12, "heads": 8}, "en") == "layers 12, heads 8"
    assert part_text("image>text", "zh") == "图像 → 文本"
    assert 'title="a &lt;b&gt; &quot;c&quot;"' in badge("refuted", "en", 'a <b> "c"')


@pytest.mark.parametrize("published", ["1.3B", "175.0B", "46.7B", "110M", "a.b.c"])
def test_a_published_figure_is_shown_as_published(published: str) -> None:
    for language in ("en", "zh"):
        assert value_text("parameters", published, language) == published


def test_every_published_figure_stands_on_its_page(knowledge: Knowledge, pages: dict[str, Page]) -> None:
    for model in knowledge.catalogue.models.values():
        for claim in model.claims:
            if claim.measure == "parameters":
                assert f"| {claim.value} |" in pages[f"models/{model.id}.md"].text, (model.id, claim.value)


def test_drawings_are_well_formed_and_labelled() -> None:
    from xml.etree import ElementTree

    for name in drawing_names():
        for language in ("en", "zh"):
            root = ElementTree.fromstring(drawing(name, language))
            title = root.find("title")
            assert title is not None
            assert title.text
    matrix = ElementTree.fromstring(flow_matrix(["10", "11"], "a & b"))
    cells = {path.get("class"): path.get("d", "") for path in matrix.iter("path")}
    assert cells == {"kb-cells kb-cells-on": "M0 0.43h1M0 1.43h2", "kb-cells kb-cells-off": "M1 0.43h1"}


def test_a_category_names_only_drawings_that_exist(knowledge: Knowledge) -> None:
    named = {name for category in knowledge.catalogue.categories.values() for name in category.drawings}
    assert named <= set(drawing_names())
    assert named == set(drawing_names()), "a drawing that no category shows"


def test_chapters_get_their_measured_pictures(knowledge: Knowledge) -> None:
    text = expand(
        "before\n\n<!-- flow:bert -->\n<!-- flow:unilm:sequence-to-sequence -->\n\nafter",
        "method/index.md",
        knowledge,
    )
    assert text.count("<figure") == 2
    assert "../models/unilm.md" in text
    with pytest.raises(ChapterError, match="`nobody`"):
        expand("<!-- flow:nobody -->", "method/index.md", knowledge)


def test_text_of_a_language(knowledge: Knowledge) -> None:
    assert knowledge.text(Text(en="yes", zh="是")) == ("是" if knowledge.language == "zh" else "yes")
