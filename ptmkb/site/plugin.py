"""The MkDocs plugin: adds the generated pages, the assets and the navigation; everything else is plain pages.

MkDocs hands over one configuration a language (`mkdocs.yml`, `mkdocs.zh.yml`); hand-written chapters lie in its `docs_dir`, a
directory each, whose `index.md` says in its front matter how the chapter is called and where in the navigation it stands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config import config_options
from mkdocs.config.base import Config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import BasePlugin
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page as MkDocsPage

from ptmkb.site.chapters import ChapterError, expand
from ptmkb.site.knowledge import Knowledge, gather
from ptmkb.site.page import Page, front_matter
from ptmkb.site.pages import Section, sections
from ptmkb.site.words import word

ASSETS = Path(__file__).parent / "assets"


class _Options(Config):  # type: ignore[no-untyped-call]
    language = config_options.Choice(("en", "zh"), default="en")


class KnowledgeBasePlugin(BasePlugin[_Options]):  # type: ignore[no-untyped-call]
    """Serves the knowledge base of one language as pages of a MkDocs site."""

    def on_config(self, config: MkDocsConfig) -> MkDocsConfig:
        """Make the pages and the navigation before MkDocs looks for files."""
        self.knowledge: Knowledge = gather(
            "zh" if self.config.language == "zh" else "en", docs=Path(config.docs_dir)
        )
        self.sections: list[Section] = sections(self.knowledge)
        config.nav = _navigation(self.sections, Path(config.docs_dir), self.knowledge)
        config.site_name = word("site.name", self.knowledge.language)
        return config

    def on_files(self, files: Files, *, config: MkDocsConfig) -> Files:
        """Add the generated pages and the site's own assets."""
        for section in self.sections:
            for page in section.pages:
                files.append(File.generated(config, page.path, content=page.source()))
        for path in sorted(ASSETS.rglob("*")):
            if path.is_file():
                relative = path.relative_to(ASSETS).as_posix()
                files.append(File.generated(config, f"assets/{relative}", content=path.read_bytes()))
        return files

    def on_page_markdown(self, markdown: str, *, page: MkDocsPage, config: MkDocsConfig, files: Files) -> str:
        """Draw the measured pictures that a hand-written chapter asks for."""
        try:
            return expand(markdown, page.file.src_uri, self.knowledge)
        except ChapterError as error:
            raise PluginError(str(error)) from None


def _navigation(made: list[Section], docs: Path, kb: Knowledge) -> list[Any]:
    """Tabs: the generated sections and the hand-written chapters, each where it says."""
    tabs: list[tuple[int, dict[str, Any]]] = []
    for section in made:
        if section.key is None:
            continue
        label = kb.word(section.key)
        shown = [page for page in section.pages if page.title]
        tabs.append((section.order, {label: _tab(shown)}))
    for index in sorted(docs.glob("*/index.md")):
        front = front_matter(index.read_text(encoding="utf-8"))
        tabs.append((int(front.get("order", 60)), {str(front["title"]): _chapter(index.parent, docs)}))
    return [tab for _, tab in sorted(tabs, key=lambda item: item[0])]


def _chapter(directory: Path, docs: Path) -> Any:
    """A chapter's pages, its `index.md` first, then articles and chapters within it as their `order` says; a page alone stands for itself."""
    index = directory / "index.md"
    within: list[tuple[int, str, Any]] = []
    for path in directory.iterdir():
        head = path / "index.md" if path.is_dir() else path
        if path == index or head.suffix != ".md" or not (head.is_file() or any(path.glob("*.md"))):
            continue
        if not head.is_file():  # articles without an introduction stand beside it
            within += [(50, page.name, page.relative_to(docs).as_posix()) for page in path.glob("*.md")]
            continue
        front = front_matter(head.read_text(encoding="utf-8"))
        shown: Any = (
            {str(front.get("title", path.name)): _chapter(path, docs)}
            if path.is_dir()
            else path.relative_to(docs).as_posix()
        )
        within.append((int(front.get("order", 50)), path.name, shown))
    first = index.relative_to(docs).as_posix()
    below = [shown for _, _, shown in sorted(within, key=lambda item: item[:2])]
    return [first, *below] if below else first


def _tab(pages: list[Page]) -> Any:
    """A tab's pages: one page alone, or its first page and the others below their groups' headings."""
    if len(pages) == 1:
        return pages[0].path
    below: list[Any] = [pages[0].path]
    groups: dict[str, list[Any]] = {}
    for page in pages[1:]:
        if page.group and page.group not in groups:
            groups[page.group] = []
            below.append({page.group: groups[page.group]})
        (groups[page.group] if page.group else below).append({page.title: page.path})
    return below
