"""The papers by year, and the files that reference managers read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ptmkb.annotations import PlacedNote
from ptmkb.catalogue import Paper, to_bibtex, to_csl, to_csv
from ptmkb.site.knowledge import Knowledge
from ptmkb.site.page import Page, link
from ptmkb.site.pages.source import source_page

ORDER = 50
SECTION = "nav.papers"

_PATH = "papers/index.md"


def pages(knowledge: Knowledge) -> Iterator[Page]:
    """One page, and the bibliography in three formats."""
    papers = sorted(knowledge.catalogue.papers.values(), key=lambda paper: (paper.year, paper.id))
    yield Page(_PATH, _list(papers, knowledge), knowledge.word("papers.title"))
    yield Page("papers/papers.bib", to_bibtex(papers))
    yield Page("papers/papers.json", to_csl(papers))
    yield Page("papers/papers.csv", to_csv(papers))


def _list(papers: list[Paper], kb: Knowledge) -> str:
    lead = kb.word("papers.lead", count=len(papers), bibtex="papers.bib", csl="papers.json", csv="papers.csv")
    parts = [f"# {kb.word('papers.title')}", lead]
    citing, noted = _citing(kb), _noted(kb)
    for year in sorted({paper.year for paper in papers}, reverse=True):
        parts.append(f"## {year}")
        parts += [
            _entry(paper, citing.get(paper.id, []), noted.get(paper.id, []), kb)
            for paper in papers
            if paper.year == year
        ]
    return "\n\n".join(parts) + "\n"


def _entry(paper: Paper, citing: list[str], noted: list[PlacedNote], kb: Knowledge) -> str:
    shown = paper.authors if len(paper.authors) <= 8 else [*paper.authors[:7], "et al."]
    where = " · ".join(
        word for word in (paper.venue, f"arXiv:{paper.arxiv}" if paper.arxiv else None) if word
    )
    cited = ""
    if citing:
        names = "、" if kb.language == "zh" else ", "
        cited = f" · {kb.word('papers.cited')} " + names.join(kb.model_link(_PATH, model) for model in citing)
    if noted:
        links = "、" if kb.language == "zh" else ", "
        titles = [f"[{kb.text(n.title)}]({link(_PATH, f'{source_page(n.file)}#{n.id}')})" for n in noted]
        cited += f"<br>{kb.word('papers.notes')}{kb.colon}{links.join(titles)}"
    return (
        f'<div class="kb-paper" id="{paper.id}" markdown>\n'
        f"**[{paper.title}]({paper.link})**<br>{', '.join(shown)}<br>{where}{cited}<br>\n"
        f'<small markdown="span">{kb.word("papers.checked")}{kb.colon}{_linked(paper.provenance)}</small>\n</div>'
    )


def _linked(text: str) -> str:
    """Addresses inside a provenance as links."""
    return re.sub(r"(https?://[^\s;,<>\"]*[^\s;,<>\".)])", r"<\1>", text)


def _citing(kb: Knowledge) -> dict[str, list[str]]:
    """Which models cite each paper, anywhere in their entry."""
    citing: dict[str, list[str]] = {}
    for model in sorted(kb.catalogue.models.values(), key=lambda m: (m.released, m.id)):
        cited = {
            *model.papers,
            *(c.source.paper for c in model.claims),
            *(d.source.paper for d in model.lineage),
        }
        for paper in cited:
            citing.setdefault(paper, []).append(model.id)
    return citing


def _noted(kb: Knowledge) -> dict[str, list[PlacedNote]]:
    """Which notes on the source name each paper, by their files, top to bottom: the way back from a paper to the lines."""
    noted: dict[str, list[PlacedNote]] = {}
    for resolved in (one for notes in kb.notes_by_file.values() for one in notes):
        for paper in dict.fromkeys(citation.paper for citation in resolved.note.papers):
            noted.setdefault(paper, []).append(resolved.note)
    return noted
