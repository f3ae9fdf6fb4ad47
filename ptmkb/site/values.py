"""Claimed and measured values in the words of the page."""

from __future__ import annotations

from html import escape
from typing import Any

from ptmkb.site.words import word, word_or

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def count(number: float) -> str:
    """A number of parameters as people write it: 109482240 → `109.5M`."""
    for unit, letter in _UNITS:
        if abs(number) >= unit * 0.9995:
            return f"{number / unit:.1f}{letter}"
    return f"{number:g}"


def value_text(measure: str, value: Any, language: str) -> str:
    """A value in a few words.

    Args:
        measure: The measure it belongs to.
        value: In the entry's or the measure's form.
        language: `en` or `zh`.

    Returns:
        Markdown without line breaks.
    """
    if value is None:
        return "—"
    if isinstance(value, bool):
        return {True: "✓", False: "✗"}[value]
    if measure == "parameters" and isinstance(value, int | float):
        return f'<span title="{value:,}">{count(value)}</span>'
    if isinstance(value, dict) and "kind" in value:
        extra = {key: item for key, item in value.items() if key != "kind"}
        rest = ", ".join(
            f"{_extra(key, language)} {value_text(measure, item, language)}" for key, item in extra.items()
        )
        kind = value_text(measure, value["kind"], language)
        if not rest:
            return kind
        return f"{kind}（{rest}）" if language == "zh" else f"{kind} ({rest})"
    if isinstance(value, dict):
        pairs = (
            f"{_label(measure, key, language)} {value_text(measure, item, language)}"
            for key, item in value.items()
        )
        return ("，" if language == "zh" else ", ").join(pairs)
    if isinstance(value, list | tuple):
        return ", ".join(value_text(measure, item, language) for item in value)
    if not isinstance(value, str):
        return str(value)
    # A causal objective is not called what a causal flow is called.
    return word_or(measure, value, language, "value")


def _extra(key: str, language: str) -> str:
    """The name of a number that belongs to a kind; `text>image` is the layer from which one stream changes the other."""
    own = word_or("extra", key, language)
    if own != key or ">" not in key:
        return own
    source, target = (part_text(part, language) for part in key.split(">"))
    return word("extra.changes", language, source=source, target=target)


def caption_text(measure: str, value: Any, language: str) -> str:
    """A value for a picture's caption: what is not there (`false`, null) needs no mention below what is."""
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if item not in (None, False)}
    return value_text(measure, value, language)


def _label(measure: str, key: str, language: str) -> str:
    """The name of a field of a measured mapping: the measure's own word, or the one of shapes."""
    return word_or(measure, key, language, "shape")


def part_text(part: str | None, language: str) -> str:
    """A part's name; `image>text` as an arrow."""
    if part is None:
        return ""
    return " → ".join(_one_part(piece, language) for piece in part.split(">"))


def _one_part(name: str, language: str) -> str:
    """A stream's name; a second stream of one kind bears a number (`text 2`)."""
    kind, _, number = name.rpartition(" ")
    if kind and number.isdigit():
        return f"{word_or('part', kind, language)} {number}"
    return word_or("part", name, language)


def badge(verdict: str, language: str, why: str | None = None) -> str:
    """A verdict as a coloured word, its reason on hover."""
    reason = " ".join((why or "").split())
    title = f' title="{escape(reason)}"' if reason else ""
    return f'<span class="kb-verdict kb-{verdict}"{title}>{word_or("verdict", verdict, language)}</span>'
