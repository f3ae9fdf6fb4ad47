"""Pictures of what a walk recorded, by kind: token rows, matrices, bars, growth along steps. Colours are the style sheet's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from ptmkb.site.drawings.canvas import Canvas
from ptmkb.site.drawings.matrix import flow_matrix
from ptmkb.site.words import word_or


def picture(data: Mapping[str, Any], language: str, title: str) -> str:
    """Draw one picture of a walk.

    Args:
        data: From the record; `kind` says how it is drawn.
        language: Of labels.
        title: What a screen reader says.
    """
    return KINDS[data["kind"]](data, language, title)


def _tokens(data: Mapping[str, Any], language: str, title: str) -> str:
    rows = []
    for row in data["rows"]:
        cells = "".join(_token(*cell) for cell in row)
        rows.append(f'<div class="kb-tokens">{cells}</div>')
    return "".join(rows)


def _token(text: str, kind: str, answer: str | None = None) -> str:
    below = f"<b>{escape(answer)}</b>" if answer is not None else ""
    style = f" kb-tok-{kind}" if kind else ""
    return f'<span class="kb-tok{style}">{escape(text)}{below}</span>'


def _matrices(data: Mapping[str, Any], language: str, title: str) -> str:
    drawn = []
    for matrix in data["matrices"]:
        name = word_or("walk", matrix["name"], language) if matrix["name"] else ""
        label = f"{title} {name}".strip()
        below = f"<small>{escape(name)}</small>" if name else ""
        drawn.append(f'<div class="kb-walk-matrix">{flow_matrix(matrix["rows"], label)}{below}</div>')
    return f'<div class="kb-figures">{"".join(drawn)}</div>'


_WIDE, _ROW = 330.0, 22.0  # pixels: a chart fits a phone without shrinking
_LETTER, _WIDE_LETTER = 5.8, 10.5  # pixels of a letter in a label, and of a Chinese one


def _bars(data: Mapping[str, Any], language: str, title: str) -> str:
    """One bar a row; where a row has an expected value, a mark shows it."""
    rows = data["rows"]
    top = max(max(row["value"], row.get("expected") or 0) for row in rows) or 1
    names = [word_or("walk", str(row["name"]), language) for row in rows]
    left = max(_length(name) for name in names) + 10
    canvas = Canvas(_WIDE, _ROW * len(rows))
    room = _WIDE - left - 52
    for at, (row, name) in enumerate(zip(rows, names, strict=True)):
        y = at * _ROW
        canvas.label(left - 6, y + 14, name, anchor="end", kind="kb-label-small")
        width = room * row["value"] / top
        canvas.elements.append(
            f'<rect class="kb-on" x="{left:g}" y="{y + 4:g}" width="{width:.1f}" height="13" rx="2"/>'
        )
        end = width
        if row.get("expected") is not None:
            mark = room * row["expected"] / top
            canvas.line(left + mark, y + 1, left + mark, y + 20, "kb-arc-warm")
            end = max(end, mark)
        canvas.label(
            left + end + 5,
            y + 14,
            _figure(row["value"], data.get("unit", "")),
            anchor="start",
            kind="kb-label-small",
        )
    return canvas.svg(title)


def _length(text: str) -> float:
    return sum(_LETTER if letter.isascii() else _WIDE_LETTER for letter in text)


def _figure(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _growth(data: Mapping[str, Any], language: str, title: str) -> str:
    """Columns along steps, one colour a series, stacked; the number above each is the whole."""
    steps, series = data["steps"], data["series"]
    totals = [sum(one["values"][at] for one in series) for at in range(len(steps))]
    height, wide = 120.0, _WIDE / max(len(steps), 1)
    top = max(totals) or 1
    canvas = Canvas(_WIDE, height + 46 + 16 * len(series))
    for at, step in enumerate(steps):
        y = height + 16
        for nth, one in enumerate(series):
            tall = height * one["values"][at] / top
            y -= tall
            kind = ("kb-on", "kb-warm", "kb-off")[nth]
            canvas.elements.append(
                f'<rect class="{kind}" x="{at * wide + 3:.1f}" y="{y:.1f}" width="{wide - 6:.1f}" height="{tall:.1f}"/>'
            )
        canvas.label(at * wide + wide / 2, y - 4, f"{totals[at]:,}", kind="kb-label-small")
        canvas.label(at * wide + wide / 2, height + 30, str(step), kind="kb-label-small")
    for nth, one in enumerate(series):
        y = height + 46 + 16 * nth
        kind = ("kb-on", "kb-warm", "kb-off")[nth]
        canvas.elements.append(f'<rect class="{kind}" x="0" y="{y - 9:g}" width="10" height="10" rx="2"/>')
        canvas.label(16, y, word_or("walk", one["name"], language), anchor="start", kind="kb-label-small")
    return canvas.svg(title)


def _table(data: Mapping[str, Any], language: str, title: str) -> str:
    head = "".join(
        f'<th scope="col">{escape(word_or("walk", key, language))}</th>' for key in data["columns"]
    )
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(cell, language)}</td>' for cell in row)}</tr>" for row in data["rows"]
    )
    return f'<table class="kb-steps-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(value: Any, language: str) -> str:
    if value is None:
        return "—"
    if isinstance(value, list):
        return "<br>".join(escape(str(one)) for one in value)
    return escape(
        word_or("walk", value, language)
        if isinstance(value, str)
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:g}"
    )


_LINK = 46.0  # pixels from one class of a chain to the next
_UPSTREAM = "https://github.com/huggingface/transformers/blob/v{version}/src/transformers/{file}"


def _chain(data: Mapping[str, Any], language: str, title: str) -> str:
    """Classes from the youngest to the first of their line; each leads to its lines upstream, each arrow to the file that says so."""
    rows = data["rows"]
    canvas = Canvas(_WIDE, _LINK * (len(rows) - 1) + 26)
    for at, row in enumerate(rows):
        y = at * _LINK
        address = _UPSTREAM.format(version=data["version"], file=row["file"])
        canvas.elements.append(f'<a href="{escape(address)}#L{row["line"]}">')
        canvas.box(40, y, 250, 24, "kb-box" if row["modular"] else "kb-box-warm", row["symbol"])
        canvas.elements.append("</a>")
        if row["modular"]:
            canvas.arrow(165, y + 24, 165, y + _LINK)
            saying = _UPSTREAM.format(version=data["version"], file=row["modular"])
            canvas.elements.append(f'<a href="{escape(saying)}">')
            name = row["modular"].rpartition("/")[2]
            canvas.label(172, y + 39, name, anchor="start", kind="kb-label-small")
            canvas.elements.append("</a>")
    return canvas.svg(title)


_Drawer = Callable[[Mapping[str, Any], str, str], str]
KINDS: dict[str, _Drawer] = {
    "tokens": _tokens,
    "matrices": _matrices,
    "bars": _bars,
    "growth": _growth,
    "table": _table,
    "chain": _chain,
}
