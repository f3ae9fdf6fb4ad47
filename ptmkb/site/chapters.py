"""Hand-written chapters: where they lie, what their front matter says, and the measured pictures that they ask for.

A chapter is a directory below `docs/LANGUAGE/` with an `index.md`, whose front matter gives its `title` and its `order` among the tabs. A line
`<!-- flow:bert -->` or `<!-- flow:unilm:sequence-to-sequence -->` stands for the measured flow of a model, and of one part of it;
`<!-- drawing:cost:mistral -->` for what any other measure found, `<!-- drawing:routing:mixtral@VARIANT -->` for a published size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ptmkb.site.drawings import measured_drawing
from ptmkb.site.knowledge import Knowledge
from ptmkb.site.page import Page, link
from ptmkb.site.pictures import blocks
from ptmkb.site.tours import expand_tour
from ptmkb.site.values import caption_text, part_text
from ptmkb.site.walks import WalkFigureError, expand_classes, expand_walks

_LINE = r"<!-- (?:drawing:)?(?P<kind>(?<=drawing:)[a-z]+|flow):(?P<model>[\w.-]+)(?::(?P<part>[\w>-]+))?(?:@(?P<variant>[\w. -]+?))? -->"
_PICTURE = re.compile(f"^{_LINE}$", re.MULTILINE)
_ROW = re.compile(rf"(?:^{re.sub(r'[?]P<[a-z]+>', '?:', _LINE)}$\n*)+", re.MULTILINE)


class ChapterError(Exception):
    """A chapter asks for what is not there."""


def chapters(docs: Path, knowledge: Knowledge) -> Iterator[Page]:
    """The chapters of a language as pages, their pictures drawn.

    Args:
        docs: `docs/en` or `docs/zh`.
        knowledge: Of the same language.
    """
    for path in sorted(docs.rglob("*.md")):
        relative = path.relative_to(docs).as_posix()
        yield Page(relative, expand(path.read_text(encoding="utf-8"), relative, knowledge))


def expand(markdown: str, origin: str, knowledge: Knowledge) -> str:
    """Put measured pictures in the place of the lines that ask for them.

    Args:
        markdown: A chapter's text.
        origin: Its path, for links.
        knowledge: Has the evidence.

    Returns:
        The text with figures; consecutive ones stand side by side.

    Raises:
        ChapterError: The evidence has no such model or part, so that no picture can go missing unseen.
    """

    def row(match: re.Match[str]) -> str:
        figures = "\n".join(_figure(found, origin, knowledge) for found in _PICTURE.finditer(match[0]))
        return f'<div class="kb-figures" markdown>\n{figures}\n</div>\n\n'

    try:
        drawn = expand_classes(_ROW.sub(row, markdown), origin, knowledge.tree)
        return expand_walks(_toured(drawn, origin, knowledge), origin, knowledge.language)
    except WalkFigureError as error:
        raise ChapterError(str(error)) from None


def _toured(markdown: str, origin: str, kb: Knowledge) -> str:
    """The list of the article's tour in its place."""

    def entry(note_id: str) -> str:
        resolved = kb.notes_by_id.get(note_id)
        if resolved is None:
            raise ChapterError(f"{origin}: the tour names the note `{note_id}`, which there is not")
        file = resolved.note.file.removesuffix(".py")
        address = link(origin, f"source/{file}.md#{note_id}")
        return f"[{kb.text(resolved.note.title)}]({address}) <small>`{resolved.note.file}`</small>"

    return expand_tour(markdown, kb.tours.of(origin), entry)


def _figure(asked: re.Match[str], origin: str, kb: Knowledge) -> str:
    kind, model_id, part, variant = asked["kind"], asked["model"], asked["part"], asked["variant"]
    record = kb.evidence(model_id)
    for found in record.measured if record else ():
        if (found.measure, found.part, found.variant) != (kind, part, variant):
            continue
        name = kb.catalogue.models[model_id].name
        value = "" if kind in ("structure", "layers") else caption_text(kind, found.value, kb.language)
        caption = " · ".join(word for word in (variant, part_text(part, kb.language), value) if word)
        measured = record.measured if record else ()
        if kind == "structure":
            picture: str | None = blocks(found, name, measured, None, kb)[0]
        else:
            picture = measured_drawing(
                found, measured, kb.language, f"{name}: {caption}" if caption else name
            )
        if picture:
            address = link(origin, f"models/{model_id}.md")
            below = f"[{name}]({address})" + (f"<br>{caption}" if caption else "")
            return (
                f'<figure markdown>\n{picture}\n<figcaption markdown="span">{below}</figcaption>\n</figure>'
            )
    named = model_id + (f":{part}" if part else "") + (f"@{variant}" if variant else "")
    raise ChapterError(
        f"{origin} asks for the {kind} of `{named}`, which the evidence does not have; run `make probe`"
    )
