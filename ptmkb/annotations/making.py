"""Make an anchor: remember lines of a text with everything that may be needed to find them in another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ptmkb.annotations.alignment import candidates, is_shown
from ptmkb.annotations.anchors import Anchor, Home, Twin, dedent
from ptmkb.annotations.evidence import MARGIN, context_agreement
from ptmkb.annotations.text import SourceText, prepared, squash

CONTEXT_LINES = 3
"""Lines kept on each side where nothing else looks like the anchor's lines and their surroundings."""

MAX_CONTEXT_LINES = 24
"""Lines kept at most: past this, two places are alike in all that an editor's screen shows."""

LOOKALIKES = 3
"""Places much like the anchor's lines that are remembered, the best ones."""


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
    anchor = Anchor(
        symbol=symbol,
        quote=quote,
        before=source.before(first_line, count),
        after=source.after(last_line, count),
        occurrence=within.index(first_line) + 1 if len(within) > 1 else None,
        of=len(within) if len(within) > 1 else None,
        twins=twins,
        neighbours=frozenset(one.name for one in source.module.symbols) - {symbol},
    )
    home = Home(source, first_line, last_line)
    return replace(anchor, lookalikes=tuple(_lookalikes(anchor, source, places)), home=home)


def _lookalikes(anchor: Anchor, source: SourceText, places: list[int]) -> Iterator[str]:
    """Squashed text of the places of the symbol that are most like the quote, best first."""
    # By the quote alone: with its context, every search would end at the anchor's own place.
    quote = replace(anchor, before=(), after=())
    taken = set(places)
    for _ in range(LOOKALIKES):
        found = [match for match in candidates(quote, source, taken, within_symbol=True) if is_shown(match)]
        if not found:
            return
        yield squash(source.lines[found[0].first - 1 : found[0].last])
        taken.add(found[0].first)
