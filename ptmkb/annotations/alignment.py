"""Where lines went that were edited: the best place for an anchor whose own lines stand nowhere as they were.

Two searches find places. One looks for the same code laid out otherwise. The other aligns the remembered lines, context included,
with the lines of the text: context keeps the alignment at the right spot even where the lines themselves changed much, and says that they
are gone where their neighbours now meet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from ptmkb.annotations.anchors import Anchor
from ptmkb.annotations.evidence import (
    LOST_BELOW,
    MIN_TEXT,
    STRANGE_BELOW,
    context_agreement,
    score,
    symbol_likeness,
    text_likeness,
)
from ptmkb.annotations.text import EDGE, SourceText, squash
from ptmkb.source import MODULE

SIMILAR = 0.6
"""Two lines less alike than this are not versions of each other: unrelated lines of code of one file are alike to about 0.4."""

POINT = 1_000_000
"""What a full line that is found gains. Whole numbers, so that the way back through an alignment's table can compare them."""

SKIP_QUOTED = 150_000
"""Cost of a remembered line that is not found, against up to `POINT` for one that is."""

SKIP_FOREIGN = 50_000
"""Cost of a line of the text between lines that are found: insertions are common, and four must not cut off a closing bracket."""

MAX_CELLS = 60_000
"""Above this many pairs of lines, only windows around lines that agree are aligned."""

SEEDS = 4
"""Windows that are aligned at most in one text."""


@dataclass(frozen=True, slots=True)
class Match:
    """A place that fits an anchor more or less; lines are 1-based and inclusive, the likenesses those of `evidence`."""

    first: int
    last: int
    text: float
    context: float | None
    symbol: float

    @property
    def score(self) -> float:
        """The one score."""
        return score(self.text, self.context, self.symbol)


def is_shown(match: Match) -> bool:
    """Whether a place is good enough to be shown as the anchor's lines, changed."""
    return match.text >= MIN_TEXT and match.score >= (LOST_BELOW if match.symbol == 1 else STRANGE_BELOW)


def is_another(anchor: Anchor, source: SourceText, match: Match) -> bool:
    """Whether a place is, by what was known at home, another than the anchor's: one that only looks like it.

    It is where just these lines stood at home beside the anchor's, where they are liker to a lookalike of the home text than to the quote,
    and where they stand in another symbol that was there at home. (Lines that were both moved into an old symbol and edited are given up by this; siblings of deleted lines are far more common.)
    """
    found = source.lines[match.first - 1 : match.last]
    if anchor.home is not None and anchor.home.has_elsewhere(found):
        return True
    lines = squash(found)
    own = fuzz.ratio(squash(anchor.quote), lines)
    if any(fuzz.ratio(lookalike, lines) > own for lookalike in anchor.lookalikes):
        return True
    # In a text that does not parse, names are guesses.
    return (
        match.symbol < 1
        and not source.module.error
        and source.holder(match.first, match.last) in anchor.neighbours
    )


def candidates(
    anchor: Anchor,
    source: SourceText,
    taken: Collection[int] = (),
    *,
    within_symbol: bool = False,
    everywhere: bool = False,
) -> list[Match]:
    """Places where the anchor's lines may stand now, edited.

    Args:
        anchor: the anchor.
        source: the text.
        taken: first lines of places with the very same lines that are known not to be the anchor's.
        within_symbol: align only the lines of the anchor's symbol.
        everywhere: align the whole text even where something was found in the symbol.

    Returns:
        Matches, best first; empty where nothing is alike.
    """
    if not any(line.strip() for line in anchor.quote):
        return []
    length = len(anchor.quote)
    barred = {number for place in taken for number in range(place, place + length)}
    found = {
        span: _match(anchor, source, *span, coverage=1.0)
        for span in source.same_code(anchor.quote)
        if not barred.intersection(range(span[0], span[1] + 1))
    }
    inside = list(_inside(anchor.symbol, source))
    for numbers in inside:
        _add(found, anchor, source, numbers, barred)
    # Where the symbol is still there, its lines are looked for in it; the whole text only where that gave nothing, or where the text
    # does not parse and the symbol's end is a guess.
    if everywhere or (not within_symbol and (not found or source.module.error)):
        _add(found, anchor, source, source.code_lines, barred)
    own = (match for match in found.values() if not is_another(anchor, source, match))
    return sorted(own, key=lambda match: (-match.score, match.first))


def _inside(symbol: str, source: SourceText) -> Iterator[list[int]]:
    if symbol == MODULE:
        yield source.code_lines
        return
    for one in source.module.named(symbol):
        # The context of the symbol's first and last lines lies outside it.
        first, last = one.first_line - 6, one.last_line + 6
        yield [number for number in source.code_lines if first <= number <= last]


def _add(
    found: dict[tuple[int, int], Match],
    anchor: Anchor,
    source: SourceText,
    numbers: list[int],
    barred: Set[int],
) -> None:
    for window in _windows(anchor, source, numbers):
        aligned = _align(anchor, source, window, barred)
        if aligned:
            first, last, coverage = aligned
            match = _match(anchor, source, first, last, coverage)
            if (first, last) not in found or found[first, last].score < match.score:
                found[first, last] = match


def _match(anchor: Anchor, source: SourceText, first: int, last: int, coverage: float) -> Match:
    return Match(
        first,
        last,
        text_likeness(anchor.quote, source.lines[first - 1 : last], coverage),
        context_agreement(source, anchor.before, anchor.after, first, last),
        symbol_likeness(source, anchor.symbol, first, last),
    )


def _windows(anchor: Anchor, source: SourceText, numbers: list[int]) -> list[list[int]]:
    """The lines to align: all of them, or in a long text the stretches where rare lines of the anchor stand."""
    wanted = [line.strip() for line in anchor.quote if line.strip()]
    around = [*anchor.before, *anchor.after]
    reach = len(wanted) + len(around)
    if reach * len(numbers) <= MAX_CELLS:
        return [numbers]
    position = {number: index for index, number in enumerate(numbers)}
    votes: Counter[int] = Counter()
    for content in {*wanted, *around}:
        places = [position[number] for number in source.at(content) if number in position]
        for place in places:
            # A line that stands in many places says little about each; weights are whole numbers to keep the counter's order.
            votes[place // reach] += 1000 // len(places)
    chosen: list[list[int]] = []
    for bucket, _ in votes.most_common(SEEDS):
        chosen.append(numbers[max(0, (bucket - 2) * reach) : (bucket + 3) * reach])
    return chosen


def _weight(content: str) -> float:
    """How much a line says: a closing bracket little, a full line 1."""
    return min(1.0, 0.2 + len(content) / 30)


def _align(
    anchor: Anchor, source: SourceText, numbers: Sequence[int], barred: Set[int]
) -> tuple[int, int, float] | None:
    """The best local alignment of the remembered lines with these lines of the text.

    Smith and Waterman's recurrence with lines for letters: a pair gains its weight by its likeness above `SIMILAR`, a line left out
    costs `SKIP_QUOTED` or `SKIP_FOREIGN`.

    Returns:
        First line, last line and the part of the quote found again by weight; None where none of the quote was found.
    """
    before = [content for content in reversed(anchor.before) if content != EDGE]
    quote = [line.strip() for line in anchor.quote if line.strip()]
    after = [content for content in anchor.after if content != EDGE]
    rows = before + quote + after
    begin, end = len(before), len(before) + len(quote)
    if not numbers:
        return None
    weights = np.array([_weight(content) for content in rows])
    contents = [source.contents[number - 1] for number in numbers]
    likeness = (
        process.cdist(rows, contents, scorer=fuzz.ratio, score_cutoff=100 * SIMILAR, dtype=np.float64) / 100
    )
    gains = np.rint(POINT * weights[:, None] * (likeness - SIMILAR) / (1 - SIMILAR)).astype(np.int64)
    if barred:
        gains[begin:end, [j for j, number in enumerate(numbers) if number in barred]] = 0
    table, best_cell = _fill(gains)
    pairs = _trace(table, best_cell)
    quoted = [(i, j) for i, j in pairs if begin <= i < end]
    if not quoted:
        gap = _between(pairs, begin, end, numbers)
        return None if gap and any(line in barred for line in range(gap[0], gap[1] + 1)) else gap
    first, last = quoted[0][1], quoted[-1][1]
    # Lines replaced at the region's own edges: as many as are missing there, up to the neighbour that was found.
    above = max((j for i, j in pairs if i < begin), default=None)
    below = min((j for i, j in pairs if i >= end), default=None)
    if above is not None:
        first = max(above + 1, first - (quoted[0][0] - begin))
    if below is not None:
        last = min(below - 1, last + (end - 1 - quoted[-1][0]))
    first_line, last_line = numbers[first], numbers[last]
    # Blank lines at the region's edges are not aligned; they end at the neighbour that was found.
    if above is not None and not anchor.quote[0].strip():
        first_line = numbers[above] + 1
    if below is not None and not anchor.quote[-1].strip():
        last_line = numbers[below] - 1
    found = sum(weights[i] * likeness[i, j] for i, j in quoted)
    return first_line, last_line, float(found / weights[begin:end].sum())


def _fill(gains: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """The table of the recurrence, a row and a column of zeros before it, and its best cell: of equal ones the first."""
    height, width = gains.shape
    table = np.zeros((height + 1, width + 1), dtype=np.int64)
    skipped = SKIP_FOREIGN * np.arange(width)
    best, best_cell = 0, (0, 0)
    for i in range(height):
        above = table[i]
        paired = np.where(gains[i] > 0, above[:-1] + gains[i], 0)
        value = np.maximum(np.maximum(above[1:] - SKIP_QUOTED, paired), 0)
        # A cell is the best of those left of it, less the cost of the lines between.
        row = np.maximum.accumulate(value + skipped) - skipped
        table[i + 1, 1:] = row
        j = int(row.argmax())
        if row[j] > best:
            best, best_cell = int(row[j]), (i + 1, j + 1)
    return table, best_cell


def _between(
    pairs: Sequence[tuple[int, int]], begin: int, end: int, numbers: Sequence[int]
) -> tuple[int, int, float] | None:
    """The lines between both neighbours, where none of the quote was found line by line but something stands there."""
    above = max((j for i, j in pairs if i < begin), default=None)
    below = min((j for i, j in pairs if i >= end), default=None)
    if above is None or below is None or below - above < 2:
        return None
    return numbers[above + 1], numbers[below - 1], 0.0


def _trace(table: NDArray[np.int64], cell: tuple[int, int]) -> list[tuple[int, int]]:
    """The pairs of the alignment that ends in that cell, in order."""
    i, j = cell
    pairs: list[tuple[int, int]] = []
    while i > 0 and j > 0 and table[i, j] > 0:
        value = table[i, j]
        if value == table[i - 1, j] - SKIP_QUOTED:
            i -= 1
        elif value == table[i, j - 1] - SKIP_FOREIGN:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
