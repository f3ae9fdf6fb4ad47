"""The notes in the formats of others: tours for VS Code's CodeTour, and the W3C Web Annotation model as JSON-LD.

Both are made of notes as they stand in one release; a note without a place there is left out, since neither format can say so.
CodeTour: https://github.com/microsoft/codetour, `schema.json`. Web Annotation Data Model: https://www.w3.org/TR/annotation-model/, §3.2 (bodies),
§4.2.4 and §4.2.5 (selectors), §5 (pages).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any

from ptmkb.annotations.notes import Language, ResolvedNote, by_file, in_language
from ptmkb.annotations.resolution import Status
from ptmkb.catalogue import Paper
from ptmkb.source import SourceTree
from ptmkb.source.module import ended_lines

CHECKOUT = "src/transformers"
"""Where the package lies in a checkout of the release."""

CONTEXT = 32
"""Characters kept before and after a quotation; doubled while the same characters stand elsewhere, too."""

LICENCE = "https://creativecommons.org/licenses/by/4.0/"

_UPSTREAM = "https://raw.githubusercontent.com/huggingface/transformers/v{version}/src/transformers/{file}"
_WORDS = {
    "en": {
        "title": "Notes on {file}",
        "about": "{count} notes on transformers {version}, from ptmkb (CC BY 4.0).",
        "papers": "Papers",
        "changed": "These lines have changed since the note was written.",
        "colon": ": ",
    },
    "zh": {
        "title": "{file} 的批注",
        "about": "对 transformers {version} 的 {count} 条批注，来自 ptmkb（CC BY 4.0）。",
        "papers": "论文",
        "changed": "批注写成后，这几行已有改动。",
        "colon": "：",
    },
}


def code_tours(
    resolved: Iterable[ResolvedNote],
    tree: SourceTree,
    language: Language = "en",
    papers: Mapping[str, Paper] | None = None,
) -> dict[str, dict[str, Any]]:
    """Tours that CodeTour opens against a checkout of the release, one a source file.

    Args:
        resolved: notes and where they stand in `tree`.
        tree: the release; the tours name its tag.
        language: of titles and texts.
        papers: the papers by id, to be linked; by default their ids are named.

    Returns:
        The tours by the name of their file, `models-bert-modeling_bert.tour`.
    """
    words = _WORDS[language]
    tours = {}
    for file, notes in by_file(resolved).items():
        lines = tree.lines(file)
        steps = [_step(one, f"{CHECKOUT}/{file}", lines, language, papers or {}) for one in notes]
        name = str(PurePosixPath(file).with_suffix(".tour")).replace("/", "-")
        tours[name] = _tour(words["title"].format(file=file), steps, tree, language)
    return tours


def article_tours(
    articles: Iterable[tuple[str, str, Sequence[str]]],
    resolved: Iterable[ResolvedNote],
    tree: SourceTree,
    language: Language = "en",
    papers: Mapping[str, Paper] | None = None,
) -> dict[str, dict[str, Any]]:
    """Tours across files for CodeTour, as the articles lay them.

    Args:
        articles: of each the name of its tour's file without suffix, its title, and the ids of its notes in order.
        resolved: notes and where they stand in `tree`; those without a place are left out of the tours.
        tree: the release.
        language: of titles and texts.
        papers: the papers by id, to be linked.

    Returns:
        The tours by the name of their file; an article none of whose notes has a place has none.
    """
    placed = {one.note.id: one for one in resolved if one.resolution.first_line is not None}
    tours = {}
    for name, title, ids in articles:
        stops = [placed[note_id] for note_id in ids if note_id in placed]
        steps = [
            _step(one, f"{CHECKOUT}/{one.note.file}", tree.lines(one.note.file), language, papers or {})
            for one in stops
        ]
        if steps:
            tours[f"{name}.tour"] = _tour(title, steps, tree, language)
    return tours


def _tour(title: str, steps: list[dict[str, Any]], tree: SourceTree, language: Language) -> dict[str, Any]:
    return {
        "$schema": "https://aka.ms/codetour-schema",
        "title": title,
        "description": _WORDS[language]["about"].format(count=len(steps), version=tree.version),
        "ref": f"v{tree.version}",
        "steps": steps,
    }


def _step(
    one: ResolvedNote, file: str, lines: list[str], language: Language, papers: Mapping[str, Paper]
) -> dict[str, Any]:
    note, words = one.note, _WORDS[language]
    first, last = one.resolution.first_line or 1, one.resolution.last_line or 1
    parts = [in_language(note.text, language).strip()]
    cited = [
        f"[{papers[citation.paper].title}]({papers[citation.paper].link}), {citation.at}"
        if citation.paper in papers
        else f"{citation.paper}, {citation.at}"
        for citation in note.papers
    ]
    if cited:
        parts.append(words["papers"] + words["colon"] + " · ".join(cited))
    if one.resolution.status is Status.changed:
        parts.append(f"*{words['changed']}*")
    return {
        "file": file,
        "line": last,  # the comment opens below this line, so that it does not cover the others
        "selection": {
            "start": {"line": first, "character": 1},
            "end": {"line": last, "character": _units(lines[last - 1]) + 1},
        },
        "title": in_language(note.title, language),
        "description": "\n\n".join(parts),
    }


def _units(line: str) -> int:
    """The length of a line as editors of the web count it, in UTF-16 units."""
    return len(line.encode("utf-16-le", errors="surrogatepass")) // 2


def annotation_pages(
    resolved: Iterable[ResolvedNote], tree: SourceTree, papers: Mapping[str, Paper] | None = None
) -> dict[str, dict[str, Any]]:
    """Web Annotations, one page a source file, each with its text in both languages to choose from.

    Args:
        resolved: notes and where they stand in `tree`.
        tree: the release; the annotations' source is its file upstream.
        papers: the papers by id, to be linked.

    Returns:
        The pages by the name of their file, `models/bert/modeling_bert.jsonld`.
    """
    pages = {}
    for file, notes in by_file(resolved).items():
        text = tree.read(file)
        source = _UPSTREAM.format(version=tree.version, file=file)
        items = [_annotation(one, text, source, papers or {}) for one in notes]
        pages[str(PurePosixPath(file).with_suffix(".jsonld"))] = {
            "@context": "http://www.w3.org/ns/anno.jsonld",
            "id": _urn(f"{tree.version}/{file}"),
            "type": "AnnotationPage",
            "items": items,
        }
    return pages


def _annotation(one: ResolvedNote, text: str, source: str, papers: Mapping[str, Paper]) -> dict[str, Any]:
    note = one.note
    start, end = span(text, one.resolution.first_line or 1, one.resolution.last_line or 1)
    texts = [("en", note.title.en, note.text.en), ("zh-Hans", note.title.zh, note.text.zh)]
    choice = {
        "type": "Choice",
        "items": [
            {
                "type": "TextualBody",
                "value": f"### {title}\n\n{body.strip()}\n",
                "format": "text/markdown",
                "language": language,
            }
            for language, title, body in texts
        ],
    }
    linked = [papers[citation.paper].link for citation in note.papers if citation.paper in papers]
    links = [
        {"type": "SpecificResource", "source": link, "purpose": "linking"} for link in dict.fromkeys(linked)
    ]
    return {
        "@context": "http://www.w3.org/ns/anno.jsonld",
        "id": _urn(note.id),
        "type": "Annotation",
        "motivation": "commenting",
        "rights": LICENCE,
        "body": [choice, *links],
        "target": {
            "type": "SpecificResource",
            "source": source,
            "selector": [
                _quotation(text, start, end),
                {"type": "TextPositionSelector", "start": start, "end": end},
            ],
        },
    }


def _quotation(text: str, start: int, end: int) -> dict[str, str]:
    """A quotation with so much around it that it is found once."""
    context = CONTEXT
    while context < len(text) and text.count(text[max(0, start - context) : end + context]) > 1:
        context *= 2
    return {
        "type": "TextQuoteSelector",
        "exact": text[start:end],
        "prefix": text[max(0, start - context) : start],
        "suffix": text[end : end + context],
    }


def span(text: str, first_line: int, last_line: int) -> tuple[int, int]:
    """Where lines begin and end in a text, in code points; the last line's end is not in it.

    Args:
        text: the text.
        first_line: 1-based.
        last_line: 1-based, inclusive.

    Returns:
        Positions from 0, the end exclusive.
    """
    lines = ended_lines(text)
    starts = [0, *accumulate(len(line) for line in lines)]
    return starts[first_line - 1], starts[last_line - 1] + len(lines[last_line - 1].rstrip("\r\n"))


def _urn(name: str) -> str:
    """A lasting name for something that has no address of its own: a version 5 UUID (RFC 9562)."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"ptmkb:{name}").urn
