"""The articles in a real browser: their figures are there, within the screen of a phone, in both languages."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

ARTICLES = [
    "reading/framework/one-file/",
    "reading/inference/token/",
    "reading/models/bert-flows/",
    "reading/training/masked-batch/",
]


@pytest.mark.parametrize("article", ARTICLES)
@pytest.mark.parametrize("language", ["", "zh/"])
def test_figures_fit_a_phone(browser: Browser, address: str, language: str, article: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(90_000)
    page.goto(f"{address}{language}{article}")
    assert page.locator("figure.kb-walk").count() >= 5
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("ol > li > a[href*='source/']").count() >= 5
    assert "<!--" not in page.inner_text("article")
    page.close()


def test_a_statement_leads_to_its_line_upstream(page: Page, address: str) -> None:
    page.goto(f"{address}reading/models/bert-flows/")
    link = page.locator(".kb-steps-table a", has_text="attn_weights = torch.matmul").first
    assert (link.get_attribute("href") or "").endswith("/models/bert/modeling_bert.py#L125")


def test_the_chapters_stand_in_the_navigation(page: Page, address: str) -> None:
    page.goto(f"{address}zh/reading/")
    assert page.locator(".md-tabs__link", has_text="读懂 transformers").count() == 1
    assert page.locator("nav a", has_text="BERT 里的数据流").count() >= 1
