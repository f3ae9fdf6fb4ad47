"""Bibliographic exports of the papers: BibTeX, CSL-JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from typing import Any

from ptmkb.catalogue.schema import Paper

_TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_"}
    | {
        "{": r"\textbraceleft{}",  # BibTeX counts braces without regard to backslashes
        "}": r"\textbraceright{}",
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        '"': r"\textquotedbl{}",
    }
)
_VENUE_FIELDS = {"inproceedings": "booktitle", "techreport": "institution"}


def to_bibtex(papers: Iterable[Paper]) -> str:
    """The papers as a BibTeX file; capitals in titles are braced, so that no style lowers them."""
    return "\n".join(_bibtex(paper) for paper in papers)


def to_csl(papers: Iterable[Paper]) -> str:
    """The papers as CSL-JSON 1.0, the format that Zotero and pandoc read."""
    return json.dumps([_csl(paper) for paper in papers], ensure_ascii=False, indent=2)


def to_csv(papers: Iterable[Paper]) -> str:
    """The papers as CSV with a header; authors are joined by semicolons."""
    columns = ["id", "title", "authors", "year", "venue", "arxiv", "doi", "acl", "url"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for paper in papers:
        row = paper.model_dump() | {"authors": "; ".join(paper.authors), "url": paper.link}
        writer.writerow([row[column] or "" for column in columns])
    return out.getvalue()


def _bibtex(paper: Paper) -> str:
    kind = {"report": "techreport", "web": "misc"}.get(paper.kind, "inproceedings" if paper.venue else "misc")
    title = re.sub(r"\S+", lambda word: _kept(word[0]), paper.title)
    fields = {
        "title": title,
        "author": " and ".join(_author(name) for name in paper.authors),
        "year": str(paper.year),
        _VENUE_FIELDS.get(kind, "howpublished"): (paper.venue or "").translate(_TEX),
        "eprint": paper.arxiv,
        "archiveprefix": "arXiv" if paper.arxiv else None,
        "doi": paper.doi,
        "url": paper.link,
    }
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@{kind}{{{paper.id},\n{lines}}}\n"


def _kept(word: str) -> str:
    """A word of a title; in braces, which keep its capitals, where it has any."""
    tex = word.translate(_TEX)
    return f"{{{tex}}}" if word != word.lower() else tex


def _author(name: str) -> str:
    """A name as BibTeX takes it; in braces where a comma or an `and` would make it several."""
    if name == "et al.":
        return "others"
    tex = name.translate(_TEX)
    return f"{{{tex}}}" if "," in name or re.search(r"\band\b", name, re.IGNORECASE) else tex


def _csl(paper: Paper) -> dict[str, Any]:
    kind = {"report": "report", "web": "webpage"}.get(
        paper.kind, "paper-conference" if paper.venue else "article"
    )
    item: dict[str, Any] = {
        "id": paper.id,
        "type": kind,
        "title": paper.title,
        "author": [_csl_name(name) for name in paper.authors if name != "et al."],
        "issued": {"date-parts": [[paper.year]]},
        "container-title": paper.venue,
        "DOI": paper.doi,
        "number": f"arXiv:{paper.arxiv}" if paper.arxiv else None,
        "URL": paper.link,
    }
    return {name: value for name, value in item.items() if value}


def _csl_name(name: str) -> dict[str, str]:
    given, _, family = name.rpartition(" ")
    return {"given": given, "family": family} if given else {"literal": family}
