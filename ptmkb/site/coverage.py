"""How much of the source is annotated, as a page."""

from __future__ import annotations

from ptmkb.annotations import count_coverage
from ptmkb.site.knowledge import Knowledge
from ptmkb.site.page import Page, link, table

PATH = "source/coverage.md"


def page(knowledge: Knowledge) -> Page:
    """The table of parts, of categories and of files; nothing but its heading where no source is installed."""
    kb = knowledge
    title = kb.word("coverage.title")
    if kb.tree is None:
        return Page(PATH, f"# {title}\n", title)
    found = count_coverage(kb.notes, kb.tree, kb.catalogue.models)
    parts = [
        [kb.word(f"part.{one.part}"), str(one.notes), str(one.checks), _share(one.noted_files, one.files, kb)]
        for one in found.parts
    ]
    total = [sum(column) for column in zip(*((one.notes, one.checks) for one in found.parts), strict=True)]
    parts.append(
        [
            kb.word("coverage.all"),
            *map(str, total),
            _share(len(found.files), sum(one.files for one in found.parts), kb),
        ]
    )
    categories = [
        [
            kb.category_link(PATH, one.category),
            str(one.notes),
            _share(one.noted_models, one.models, kb),
        ]
        for one in found.categories
    ]
    files = [
        [
            f"[`{one.file}`]({link(PATH, f'source/{one.file[:-3]}.md')})",
            kb.word(f"part.{one.part}"),
            str(one.notes),
            str(one.checks),
            _share(one.noted_symbols, one.symbols, kb),
            _share(one.noted_lines, one.lines, kb),
        ]
        for one in found.files
    ]

    def head(*keys: str) -> list[str]:
        return [kb.word(f"coverage.{key}") for key in keys]

    text = [
        f"# {title}",
        kb.word("coverage.lead", version=kb.tree.version),
        f"## {kb.word('coverage.parts')}",
        table(head("part", "notes", "checks", "files"), parts),
        f"## {kb.word('coverage.categories')}",
        table(head("category", "notes", "models"), categories),
        f"## {kb.word('coverage.files')}",
        '<div class="kb-paths" markdown>',
        table(head("file", "part", "notes", "checks", "symbols", "lines"), files),
        "</div>",
    ]
    return Page(PATH, "\n\n".join(text) + "\n", title)


def _share(some: int, all_: int, kb: Knowledge) -> str:
    return kb.word("coverage.share", some=f"{some:,}", all=f"{all_:,}")
