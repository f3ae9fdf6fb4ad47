"""How well a place fits an anchor: the one scoring function, its parts, and every threshold that decisions use.

    score = (TEXT * text + CONTEXT * context + SYMBOL * symbol) / (the weights of the parts that are known)

The score ranks places and is what a reader sees. It never makes a place `exact` or `moved`: those need the very same lines *and* a proof
that they are not a twin's (see `identity`), because no sum of likenesses tells a line from its copy.
"""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz import fuzz

from ptmkb.annotations.text import SourceText, squash

TEXT = 0.6
"""The lines themselves. They outweigh all else: a note is about what its lines say."""

CONTEXT = 0.25
"""The lines around them. They outweigh the symbol: names are changed more often than surroundings."""

SYMBOL = 0.15
"""The name of the symbol that holds them."""

MARGIN = 0.05
"""Two places closer than this are equally good. Smaller differences come from one far context line, which an unrelated edit changes."""

STRONG = 0.6
"""Context that speaks for a place: most nearest lines on both sides, or one side whole and the nearest line of the other side drifted."""

WEAK = 0.5
"""Context below this speaks for no place. One whole side is just 0.5, and a side can be lost to an insertion at the very edge."""

DISTINCT = 30
"""Characters, squashed, from which lines in another symbol and other surroundings are known by themselves. `if do_pad:` is written anew
in the next function; a whole statement is not."""

PROOF = 0.9
"""Context that speaks for a place although one of the same lines has gone: nothing near the place has changed."""

LOST_BELOW = 0.5
"""No match scores less. At 0.5 the context and the symbol are there and a sixth of the lines, or two thirds of the lines alone."""

STRANGE_BELOW = 0.65
"""No match in another symbol scores less: siblings of a symbol that was removed reach 0.6, renamed symbols with edits 0.7."""

MIN_TEXT = 0.4
"""No match has less of its text left, however well its surroundings fit: surroundings without their lines mean that those went."""

UNPROVEN = 0.5
"""The score shown at most where the same lines were found and nothing proves that they are the anchor's."""

CONTRARY = 0.25
"""Edited lines are the anchor's, and not the same lines elsewhere, where their context is better by this: by one nearest line on a side."""

NEARLY = 0.8
"""Text from which a place is taken for the anchor's lines with a word or a line changed, whatever surrounds it."""

LIKE = 0.7
"""Text from which a place in neither the old symbol nor the old surroundings may be the anchor's lines as well as a copy as they were:
two lines with a third between them reach 0.75."""

STILL = 0.6
"""Text from which lines in the anchor's own symbol are taken for the anchor's, edited, when the lines as they were stand in another symbol."""

COVERAGE = 0.9
"""Lines that are all there, one by one, count this much; characters that agree as a whole count 1."""

FOREIGN = 0.5
"""What lines cost that were inserted between, at most: lines strewn over a whole function are not the quoted ones any more."""

RENAMED = 0.8
"""The best that a similar name counts for against the same name: similar names are siblings as often as renamings."""

_DRIFT = 0.5
_WINDOW = 2


def score(text: float, context: float | None, symbol: float) -> float:
    """How well a place fits, from 0 to 1.

    Args:
        text: likeness of the lines, from 0 to 1.
        context: likeness of the lines around them, or None where the anchor remembers none.
        symbol: likeness of the symbol's name.

    Returns:
        The weighted mean of the parts that are known.
    """
    if context is None:
        return (TEXT * text + SYMBOL * symbol) / (TEXT + SYMBOL)
    return TEXT * text + CONTEXT * context + SYMBOL * symbol


def text_likeness(quote: Sequence[str], lines: Sequence[str], coverage: float) -> float:
    """Likeness of two groups of lines, from 0 to 1, whatever their layout.

    Args:
        quote: the anchor's lines.
        lines: the lines found.
        coverage: the part of the quote's lines that an alignment found again, by weight.

    Returns:
        1 where they differ in layout only.
    """
    foreign = max(0.0, 1 - len(quote) / max(1, len(lines)))
    return max(fuzz.ratio(squash(quote), squash(lines)) / 100, COVERAGE * coverage * (1 - FOREIGN * foreign))


def symbol_likeness(source: SourceText, symbol: str, first: int, last: int) -> float:
    """1 where the lines stand in that symbol, less where the names are alike."""
    if source.holds(symbol, first, last):
        return 1.0
    return RENAMED * fuzz.ratio(symbol, source.holder(first, last)) / 100


def context_agreement(
    source: SourceText, before: Sequence[str], after: Sequence[str], first: int, last: int
) -> float | None:
    """How well the lines around a place are the remembered ones.

    The mean of both sides. On each side the i-th nearest line weighs 1/i, since far lines are the first to be touched by an edit
    that has nothing to do with the place. A line found k lines from where it should be (something was inserted or removed between)
    counts 1/(1 + k/2). Lines only match in order.

    Args:
        source: the text.
        before: the remembered contents, nearest first.
        after: the same, for the other side.
        first: the place's first line.
        last: its last line.

    Returns:
        From 0 to 1; None where nothing is remembered.
    """
    sides = []
    if before:
        sides.append(_side(before, source.before(first, len(before) + _WINDOW)))
    if after:
        sides.append(_side(after, source.after(last, len(after) + _WINDOW)))
    return sum(sides) / len(sides) if sides else None


def _side(remembered: Sequence[str], found: Sequence[str]) -> float:
    if tuple(found[: len(remembered)]) == tuple(remembered):
        return 1.0
    # The heaviest common subsequence. Few lines agree at all, so only the pairs that do are looked at: `ends` holds, for each found
    # line at which a subsequence ends, the weight of the heaviest such.
    places: dict[str, list[int]] = {}
    for j, other in enumerate(found):
        places.setdefault(other, []).append(j)
    ends: dict[int, float] = {}
    for i, content in enumerate(remembered):
        if content not in places:
            continue
        longer = []
        for j in places[content]:
            shorter = max((weight for end, weight in ends.items() if end < j), default=0.0)
            longer.append((j, shorter + 1 / (i + 1) / (1 + _DRIFT * abs(i - j))))
        for j, weight in longer:
            ends[j] = max(weight, ends.get(j, 0.0))
    return max(ends.values(), default=0.0) / sum(1 / (i + 1) for i in range(len(remembered)))
