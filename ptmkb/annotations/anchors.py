"""Anchors: what is remembered of some lines, so that they can be found again in another text.

An anchor is the symbol that holds the lines, the lines themselves, the lines around them, and the *twins*: the other places of the same
text with the same lines. Twins are what makes line-finding go wrong. When a line is deleted and its twin stays, the twin looks just like
the line moved; only what was known at home (there were two, and the other stood there) can tell.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from ptmkb.annotations.text import SourceText


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
class Home:
    """The text that an anchor was made from, and which of its lines are the anchor's: 1-based, inclusive."""

    source: SourceText = field(repr=False)
    first: int
    last: int

    def has_elsewhere(self, lines: Sequence[str]) -> bool:
        """Whether the same lines stand in the home text, in one piece, apart from the anchor's."""
        places = self.source.same_lines(lines)
        return any(place > self.last or place + len(lines) - 1 < self.first for place in places)


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
        lookalikes: squashed text of the places of the home text that are most like the quote without being the same.
        neighbours: qualified names of the other symbols of the home text.
        home: the home text, for as long as it is at hand; None for a note.
    """

    symbol: str
    quote: tuple[str, ...]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    occurrence: int | None = None
    of: int | None = None
    twins: tuple[Twin, ...] | None = None
    lookalikes: tuple[str, ...] = ()
    neighbours: frozenset[str] = frozenset()
    home: Home | None = field(default=None, compare=False)

    @property
    def has_context(self) -> bool:
        """Whether any line around the quote is remembered."""
        return bool(self.before or self.after)


def dedent(lines: list[str]) -> tuple[str, ...]:
    """Lines without the indentation that they share; tabs stay tabs where all lines begin with the same ones."""
    return tuple(line.rstrip() for line in textwrap.dedent("\n".join(lines)).split("\n"))


def describe(source: SourceText, places: list[int]) -> str:
    """Places as a message names them: "line 12 (f), line 40 (g)"; at most five."""
    named = [f"line {place} ({source.holder(place, place)})" for place in places[:5]]
    return ", ".join(named) + (f" and {len(places) - 5} more" if len(places) > 5 else "")
