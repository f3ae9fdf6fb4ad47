"""Anchors: what is remembered of some lines, so that they can be found again in another text.

An anchor is the symbol that holds the lines, the lines themselves, the lines around them, and the *twins*: the other places of the same
text with the same lines. Twins are what makes line-finding go wrong. When a line is deleted and its twin stays, the twin looks just like
the line moved; only what was known at home (there were two, and the other stood there) can tell.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from ptmkb.annotations.evidence import MARGIN, context_agreement
from ptmkb.annotations.text import SourceText, prepared

CONTEXT_LINES = 3
"""Lines kept on each side where nothing else looks like the anchor's lines and their surroundings."""

MAX_CONTEXT_LINES = 24
"""Lines kept at most: past this, two places are alike in all that an editor's screen shows."""


@dataclass(frozen=True, slots=True)
class Twin:
    """Another place of the home text with the same lines.

    Attributes:
        symbol: the innermost symbol that holds it; the anchor's own symbol where it stands anywhere within that.
        context: how well the anchor's context fits there, from 0 to 1.
    """

    symbol: str
    context: float


@dataclass(frozen=True, slots=True)
class Anchor:
    """Some lines of a source text, as they are remembered.

    Attributes:
        symbol: qualified name of the symbol that holds the lines, or `<module>`.
        quote: the lines, dedented, without line ends.
        before: the contents of lines before them, nearest first; may be empty.
        after: the contents of lines after them, nearest first; may be empty.
        occurrence: which of the same lines within the symbol, from 1; None where they stand there once.
        of: how many there are within the symbol; None where that is not known.
        twins: the other places of the home text with the same lines, in the order of their lines; None where that is not known,
            as for a note written by hand.
    """

    symbol: str
    quote: tuple[str, ...]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    occurrence: int | None = None
    of: int | None = None
    twins: tuple[Twin, ...] | None = None

    @property
    def has_context(self) -> bool:
        """Whether any line around the quote is remembered."""
        return bool(self.before or self.after)


def dedent(lines: list[str]) -> tuple[str, ...]:
    """Lines without the indentation that they share; tabs stay tabs where all lines begin with the same ones."""
    return tuple(line.rstrip() for line in textwrap.dedent("\n".join(lines)).split("\n"))


def make_anchor(source_text: str, first_line: int, last_line: int) -> Anchor:
    """Remember lines of a source text.

    Args:
        source_text: any Python source, valid or not.
        first_line: 1-based.
        last_line: 1-based, inclusive.

    Returns:
        An anchor with its context and twins: all that `resolve` can use.

    Raises:
        ValueError: if the text has no such lines.
    """
    source = prepared(source_text)
    if not 1 <= first_line <= last_line <= len(source.lines):
        raise ValueError(
            f"lines {first_line}-{last_line} are not in this text, which has lines 1-{len(source.lines)}"
        )
    symbol = source.holder(first_line, last_line)
    quote = dedent(source.lines[first_line - 1 : last_line])
    places = source.same_lines(quote)
    others = [place for place in places if place != first_line]
    length = len(quote)

    def fits(place: int, count: int) -> float:
        before, after = source.before(first_line, count), source.after(last_line, count)
        return context_agreement(source, before, after, place, place + length - 1) or 0.0

    count = CONTEXT_LINES
    # Twins that agree in the few lines around them are told apart by more lines, as far as more lines differ.
    while count < MAX_CONTEXT_LINES and any(fits(place, count) > 1 - MARGIN for place in others):
        count *= 2

    def is_within(place: int) -> bool:
        return source.holds(symbol, place, place + length - 1)

    within = [place for place in places if is_within(place)]
    twins = tuple(
        Twin(symbol if is_within(place) else source.holder(place, place + length - 1), fits(place, count))
        for place in others
    )
    return Anchor(
        symbol=symbol,
        quote=quote,
        before=source.before(first_line, count),
        after=source.after(last_line, count),
        occurrence=within.index(first_line) + 1 if len(within) > 1 else None,
        of=len(within) if len(within) > 1 else None,
        twins=twins,
    )


def describe(source: SourceText, places: list[int]) -> str:
    """Places as a message names them: "line 12 (f), line 40 (g)"; at most five."""
    named = [f"line {place} ({source.holder(place, place)})" for place in places[:5]]
    return ", ".join(named) + (f" and {len(places) - 5} more" if len(places) > 5 else "")
