"""The built site in a real browser: it draws, it leads where it says, and it asks nobody else for anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from ptmkb.catalogue import load_catalogue
from ptmkb.site.building import build, fingerprint, project_root

pytestmark = pytest.mark.browser

ROOT = project_root()


def test_the_graph_draws_every_model_and_a_click_leads_to_its_page(page: Page, address: str) -> None:
    page.goto(f"{address}lineage/")
    page.wait_for_selector(".kb-graph-canvas[data-drawn]")
    models = load_catalogue().models
    assert page.get_attribute(".kb-graph-canvas", "data-drawn") == str(len(models))
    drawn = page.evaluate(
        """() => {
          const canvas = document.querySelector(".kb-graph-canvas canvas");
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          return pixels.filter((value, i) => i % 4 === 3 && value > 0).length / (pixels.length / 4);
        }"""
    )
    assert drawn > 0.02, "the canvas is empty"
    for model_id in ("xlnet", "mixtral"):
        page.goto(f"{address}lineage/")
        page.wait_for_selector(".kb-graph-canvas[data-drawn]")
        point = page.evaluate(
            """(id) => {
              const { network } = document.querySelector(".kb-graph-canvas").ptmkb;
              return network.canvasToDOM(network.getPosition(id));
            }""",
            model_id,
        )
        box = page.locator(".kb-graph-canvas").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + point["x"], box["y"] + point["y"])
        page.wait_for_url(f"**/models/{model_id}/")
        assert page.text_content("h1").startswith(models[model_id].name)  # type: ignore[union-attr]


def test_the_graph_stands_still(page: Page, address: str) -> None:
    page.goto(f"{address}lineage/")
    page.wait_for_selector(".kb-graph-canvas[data-drawn]")
    read = "() => document.querySelector('.kb-graph-canvas').ptmkb.network.getPositions()"
    before = page.evaluate(read)
    page.wait_for_timeout(500)
    assert page.evaluate(read) == before
    released = {model.id: model.released for model in load_catalogue().models.values()}
    order = sorted(released, key=lambda model_id: before[model_id]["x"])
    years = [released[model_id][:4] for model_id in order]
    assert years == sorted(years), "the year runs along the axis"


def test_searching_the_graph_and_hiding_a_relation(page: Page, address: str) -> None:
    page.goto(f"{address}lineage/")
    page.wait_for_selector(".kb-graph-canvas[data-drawn]")
    hidden = "() => document.querySelector('.kb-graph-canvas').ptmkb.edges.get({filter: e => e.hidden}).map(e => e.relation)"
    assert set(page.evaluate(hidden)) == {"code"}
    page.uncheck('input[name="relation"][value="objective"]')
    assert set(page.evaluate(hidden)) == {"code", "objective"}
    page.fill(".kb-graph-tools input[type=search]", "XLNet")
    bold = "() => document.querySelector('.kb-graph-canvas').ptmkb.nodes.get({filter: n => n.borderWidth > 2}).map(n => n.id)"
    assert page.evaluate(bold) == ["xlnet"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "categories/",
        "categories/permuted-lm/",
        "models/",
        "models/bert/",
        "models/lxmert/",
        "architectures/",
        "architectures/convnext/",
        "architectures/mixtral/",
        "papers/",
        "source/",
        "source/models/bert/modeling_bert/",
        "method/",
        "contributing/",
        "contributing/note/",
        "api/catalogue/",
    ],
)
def test_pages_load_clean_in_both_languages_and_schemes(page: Page, address: str, path: str) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for language in ("", "zh/"):
            page.goto(f"{address}{language}{path}")
            assert page.get_attribute("html", "lang") == ("zh" if language else "en")
            assert page.locator("h1").count() >= 1


def test_phone_pages_do_not_scroll_sideways(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    for path in (
        "",
        "models/bert/",
        "models/lxmert/",
        "architectures/",
        "architectures/clip/",
        "architectures/mask2former/",
        "lineage/",
        "categories/",
        "papers/",
        "source/models/bert/modeling_bert/",
        "method/",
    ):
        for language in ("", "zh/"):
            page.goto(f"{address}{language}{path}")
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 390, f"{language}{path} is {width} px wide"
    page.close()


def test_the_table_of_architectures_is_filtered(page: Page, address: str) -> None:
    page.goto(f"{address}architectures/")
    rows = page.locator(".kb-architectures tbody tr")
    total = rows.count()
    shown = "() => [...document.querySelectorAll('.kb-architectures tbody tr')].filter((row) => !row.hidden).map((row) => row.cells[0].textContent)"
    assert len(page.evaluate(shown)) == total > 500
    page.fill(".kb-filter input", "qwen3")
    named = page.evaluate(shown)
    assert 0 < len(named) < 60
    assert all("qwen3" in name for name in named)
    page.select_option('.kb-filter select[data-column="7"]', "experts")
    sparse = page.evaluate(shown)
    assert 0 < len(sparse) < len(named)
    assert "qwen3_moe" in sparse
    assert f"{len(sparse)} of {total}" in (page.text_content(".kb-filter output") or "")
    page.click('.kb-architectures a[href="qwen3_moe/"]')
    page.wait_for_url("**/architectures/qwen3_moe/")
    assert page.locator(".kb-blocks svg").count() == 1


def test_drawings_can_be_read_on_a_phone(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    for path in ("models/lxmert/", "zh/models/mixtral/", "method/"):
        page.goto(f"{address}{path}")
        sizes = page.eval_on_selector_all(
            "svg.kb-drawing text",
            """texts => texts.map((text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)""",
        )
        assert sizes
        assert min(sizes) > 9, f"{path}: letters of {min(sizes):.1f} px"
    page.close()


@pytest.mark.parametrize(("early", "late"), [("", "zh/"), ("zh/", "")])
def test_the_language_switch_stays_on_the_page(page: Page, address: str, early: str, late: str) -> None:
    # The theme would lead to the other language's first page, once it has that language's sitemap before the other.
    page.route(f"{address}{late}sitemap.xml", lambda _: None)
    for path in ("models/xlnet/", "papers/", ""):
        with page.expect_response(f"{address}{early}sitemap.xml"):
            page.goto(f"{address}{path}")
        page.evaluate("new Promise(requestAnimationFrame)")
        page.hover(".md-header__option .md-select")
        page.click('a[data-ptmkb-language][hreflang="zh"]')
        page.wait_for_url(f"{address}zh/{path}")
        page.hover(".md-header__option .md-select")
        page.click('a[data-ptmkb-language][hreflang="en"]')
        page.wait_for_url(f"{address}{path}")


@pytest.mark.parametrize(
    ("language", "words", "expected"),
    [
        ("", "permuted factorisation", "xlnet"),
        ("zh/", "解耦注意力", "deberta"),
        ("zh/", "滑动窗口", "mistral"),
    ],
)
def test_search_answers_in_both_languages(
    page: Page, address: str, language: str, words: str, expected: str
) -> None:
    page.goto(f"{address}{language}")
    page.click(".md-search__input")
    page.keyboard.type(words, delay=20)
    # Answers to the first letters may still stand there while the last ones are typed.
    page.wait_for_function(
        "(wanted) => [...document.querySelectorAll('.md-search-result__item a')].some((a) => a.href.includes(wanted))",
        arg=expected,
    )


def test_formulas_are_drawn_by_our_own_files(page: Page, address: str) -> None:
    page.goto(f"{address}source/models/bert/modeling_bert/")
    assert page.locator(".kb-note .katex").count() > 5
    assert page.locator(".katex-error").count() == 0


def test_a_link_to_a_folded_line_opens_the_fold(page: Page, address: str) -> None:
    page.goto(f"{address}source/generation/utils/")
    folded = page.eval_on_selector("details.kb-fold", "fold => `L${Number(fold.dataset.first) + 5}`")
    assert not page.is_visible(f"#{folded}")
    page.goto(f"{address}source/generation/utils/#{folded}")
    page.wait_for_selector(f"#{folded}", state="visible")


def test_a_note_is_level_with_its_lines(page: Page, address: str) -> None:
    page.goto(f"{address}source/models/bert/modeling_bert/#bert-scaled-scores")
    note = page.locator("#bert-scaled-scores").bounding_box()
    row = page.locator(".kb-row", has=page.locator("#bert-scaled-scores"))
    line = row.locator(".kb-marked").first.bounding_box()
    assert note is not None
    assert line is not None
    assert abs(note["y"] - line["y"]) < 40


def test_no_file_of_the_site_names_another_host_to_load_from(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for tag in (
            '<script src="http',
            '<link rel="stylesheet" href="http',
            '<img src="http',
            "fonts.googleapis",
        ):
            assert tag not in text, f"{path}: {tag}"


def test_the_search_index_has_no_source_code(site: Path) -> None:
    for language in ("", "zh/"):
        index = json.loads((site / language / "search" / "search_index.json").read_text(encoding="utf-8"))
        source = [item for item in index["docs"] if item["location"].startswith("source/generation/utils")]
        assert source
        assert not any("def _sample" in item["text"] for item in source)


def test_nothing_is_built_where_nothing_changed(site: Path) -> None:
    stamp = (site / ".fingerprint").read_text(encoding="utf-8")
    assert stamp == fingerprint(ROOT)
    assert build(ROOT) is False
