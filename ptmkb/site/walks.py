"""Figures of the articles, drawn from the record of the walks.

In a chapter, a line `<!-- walk:bert-flow:attention -->` stands for the steps of that part of the walk, or for the picture of that name;
`<!-- walk:bert-flow:seen | How it reads. -->` gives it a caption. `<!-- fact:bert-flow:loss -->` within a sentence stands for one number; `<!-- fact:masked-batch:kept_share % -->` is written in per cent.
`<!-- classes:models/bert/modeling_bert.py:BertModel -->` draws what a class inherits from, read from the source itself.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape
from typing import Any

from ptmkb.probe.walks import Step, Walk, WalkRecord, read_walks
from ptmkb.site.drawings.classes import NoSuchClassError, class_tree
from ptmkb.site.drawings.walks import picture
from ptmkb.site.knowledge import Language
from ptmkb.site.words import word, word_or
from ptmkb.source import SourceFileNotFoundError, SourceTree

_FIGURE = re.compile(
    r"^<!-- walk:(?P<walk>[\w-]+):(?P<part>[\w-]+)(?: \| (?P<caption>[^\n]+))? -->$", re.MULTILINE
)
_CLASSES = re.compile(
    r"^<!-- classes:(?P<file>[\w/.]+\.py):(?P<name>\w+)(?: \| (?P<caption>[^\n]+))? -->$", re.MULTILINE
)
_FACT = re.compile(r"<!-- fact:(?P<walk>[\w-]+):(?P<fact>[\w-]+(?:\.\w+)*)(?P<share> %)? -->")
_UPSTREAM = "https://github.com/huggingface/transformers/blob/v{version}/src/transformers/{file}#L{line}"
LONGEST = 44  # characters of a value that is shown beside its shape
_THOUSAND = 10_000  # integers from here on are written in groups of three


class WalkFigureError(Exception):
    """A chapter asks for what the record of the walks does not have."""


@cache
def _record() -> WalkRecord | None:
    return read_walks()


def expand_walks(markdown: str, origin: str, language: Language, record: WalkRecord | None = None) -> str:
    """Put figures and numbers of the walks in the place of what asks for them.

    Args:
        markdown: A chapter's text.
        origin: Its path, for messages.
        language: Of the chapter.
        record: Another record than the committed one.

    Raises:
        WalkFigureError: The record has no such walk, part, picture or fact.
    """
    record = record or _record()

    def walk(name: str) -> Walk:
        found = record.walk(name) if record else None
        if found is None:
            raise WalkFigureError(
                f"{origin} asks for the walk `{name}`, which the record does not have; run `ptmkb walk --all --evidence`"
            )
        return found

    def figure(match: re.Match[str]) -> str:
        taken, part = walk(match["walk"]), match["part"]
        caption = match["caption"] or ""
        if part in taken.steps and record is not None:
            body = steps_table(taken, part, record.transformers, language)
        elif part in taken.pictures:
            body = picture(taken.pictures[part], language, caption or part)
        else:
            known = ", ".join([*taken.steps, *taken.pictures])
            raise WalkFigureError(f"{origin} asks for `{part}` of the walk `{taken.name}`; it has {known}")
        told = f'\n<figcaption markdown="span">{caption}</figcaption>' if caption else ""
        return f'<figure class="kb-walk" markdown>\n{body}{told}\n</figure>\n'

    def fact(match: re.Match[str]) -> str:
        value: Any = walk(match["walk"]).facts
        for key in match["fact"].split("."):
            try:
                value = value[int(key) if isinstance(value, list) else key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise WalkFigureError(
                    f"{origin} asks for the fact `{match['fact']}`, which the walk `{match['walk']}` does not have"
                ) from None
        return f"{100 * value:.1f} %" if match["share"] else number(value)

    return _FACT.sub(fact, _FIGURE.sub(figure, markdown))


def expand_classes(markdown: str, origin: str, tree: SourceTree | None) -> str:
    """Put trees of classes in the place of what asks for them.

    Args:
        markdown: A chapter's text.
        origin: Its path, for messages.
        tree: The source; without one the figures are left out.

    Raises:
        WalkFigureError: The source has no such file or class.
    """

    def figure(match: re.Match[str]) -> str:
        if tree is None:
            return ""
        caption = match["caption"] or match["name"]
        try:
            drawn = class_tree(tree, match["file"], match["name"], caption)
        except (NoSuchClassError, SourceFileNotFoundError) as error:
            raise WalkFigureError(f"{origin}: {error}") from None
        return f'<figure class="kb-walk" markdown>\n{drawn}\n<figcaption markdown="span">{caption}</figcaption>\n</figure>\n'

    return _CLASSES.sub(figure, markdown)


def number(value: Any) -> str:
    """A fact as it is read in a sentence."""
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return f"{value:,}" if value >= _THOUSAND else str(value)


def steps_table(walk: Walk, part: str, version: str, language: Language) -> str:
    """The steps of a part: statement, shape, what the dimensions are called, and the shape in the published size.

    Args:
        walk: The walk.
        part: One of its parts.
        version: The release that the lines are of.
        language: Of the labels.
    """
    steps = walk.steps[part]
    wide = any(step.full is not None for step in steps)
    head = [word("walk.statement", language), word("walk.shape", language)]
    head += [walk.setting.get("full", {}).get("name", word("walk.full", language))] if wide else []
    names = {
        size: word_or("dimension", name, language) for name, size in walk.setting.get("sizes", {}).items()
    }
    rows, before = [], None
    for step in steps:
        if (step.symbol, step.module) != before:
            before = (step.symbol, step.module)
            rows.append(
                f'<tr class="kb-walk-at"><th colspan="{len(head)}" scope="rowgroup">{_place(step)}</th></tr>'
            )
        cells = [f'<td><a href="{_upstream(step, version)}"><code>{escape(step.code)}</code></a></td>']
        cells.append(f"<td>{_made(step, names, language)}</td>")
        if wide:
            cells.append(f"<td>{_times(step.full) if step.full else ''}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    return (
        f'<table class="kb-steps-table"><thead><tr>{top}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _place(step: Step) -> str:
    inside = f" <small>{escape(step.module)}</small>" if step.module else ""
    return f"<code>{escape(step.symbol)}</code>{inside}"


def _upstream(step: Step, version: str) -> str:
    return _UPSTREAM.format(version=version, file=step.file, line=step.line)


def _made(step: Step, names: dict[int, str], language: Language) -> str:
    if step.shape is None:
        return f"<code>{escape(str(step.value))}</code>"
    if not step.shape:
        return f"{step.value}"
    kind = "" if step.dtype in ("float32", None) else f" {escape(step.dtype or '')}"
    told = []
    if any(size in names for size in step.shape):
        listed = (names.get(size, str(size)) for size in step.shape)
        told.append(f"<small>{escape(word('walk.comma', language).join(listed))}</small>")
    if step.value is not None and len(str(step.value)) <= LONGEST:
        told.append(f"<code>{escape(str(step.value))}</code>")
    for key, one in step.beside.items():
        told.append(f"<small>{escape(word_or('walk', key, language))} {one}</small>")
    return f"{_times(step.shape)}{kind}{''.join(told)}"


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{size:,}" if size >= _THOUSAND else str(size) for size in shape) or "1"
