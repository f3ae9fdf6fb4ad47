"""A source text made ready for finding lines in it: their contents, where each stands, and which symbol holds them.

Many notes speak of one file, so what is made ready is kept and shared.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import accumulate

from ptmkb.source import MODULE, Module, parse_module, split_lines

EDGE = "\f"
"""Stands in a context for the file's own beginning or end; no stripped line can equal it."""

_NOT_CODE = str.maketrans({'"': "'", **dict.fromkeys(",()\\", None)})


def squash(lines: Sequence[str]) -> str:
    """The characters of some lines that survive a formatter: no space, comma, parenthesis or backslash, one kind of quote.

    A formatter breaks and joins lines, adds a comma before a closing bracket and parentheses around what it breaks, and chooses
    quotes. Two texts that differ only so are equal here.
    """
    return "".join("".join(lines).split()).translate(_NOT_CODE)


def indent_shape(lines: Sequence[str]) -> tuple[int, ...]:
    """How deep each line that is not blank stands beside the others, from 0 for the shallowest.

    Two spaces instead of four, tabs, or a block moved in or out change no shape; a line moved into another branch does.
    """
    widths = [
        len(wide) - len(wide.lstrip()) for line in lines if line.strip() for wide in (line.expandtabs(8),)
    ]
    rank = {width: depth for depth, width in enumerate(sorted(set(widths)))}
    return tuple(rank[width] for width in widths)


class SourceText:
    """A text with its lines; line numbers here are 1-based, like everywhere outside."""

    def __init__(self, text: str) -> None:
        self.text = text.removeprefix("\ufeff")
        self.lines = split_lines(self.text)
        self.contents = [line.strip() for line in self.lines]

    @cached_property
    def module(self) -> Module:
        """The symbols."""
        return parse_module(self.text)

    @cached_property
    def _where(self) -> dict[str, list[int]]:
        where: dict[str, list[int]] = defaultdict(list)
        for number, content in enumerate(self.contents, start=1):
            where[content].append(number)
        return dict(where)

    @cached_property
    def code_lines(self) -> list[int]:
        """The numbers of the lines that are not blank."""
        return [number for number, content in enumerate(self.contents, start=1) if content]

    @cached_property
    def _squashed(self) -> tuple[str, dict[int, int], dict[int, int]]:
        # As `squash` does, for all lines in one go.
        lines = "\n".join(self.contents).translate(_NOT_CODE).split("\n") if self.contents else []
        pieces = ["".join(line.split()) for line in lines]
        ends = list(accumulate(len(piece) for piece in pieces))
        starts_at = {
            end - len(piece): number
            for number, (piece, end) in enumerate(zip(pieces, ends, strict=True), 1)
            if piece
        }
        ends_at = {
            end: number for number, (piece, end) in enumerate(zip(pieces, ends, strict=True), 1) if piece
        }
        return "".join(pieces), starts_at, ends_at

    def at(self, content: str) -> list[int]:
        """The lines with this content, whatever their indentation."""
        return self._where.get(content, [])

    def same_lines(self, quote: Sequence[str]) -> list[int]:
        """Where the same lines stand: the first line of each place. Indentation as a whole does not count, its shape does."""
        contents = [line.strip() for line in quote]
        if not contents:
            return []
        rarest = min(range(len(contents)), key=lambda index: len(self.at(contents[index])))
        shape = indent_shape(quote)
        found = []
        for number in self.at(contents[rarest]):
            first = number - rarest
            if first < 1 or self.contents[first - 1 : first - 1 + len(contents)] != contents:
                continue
            if indent_shape(self.lines[first - 1 : first - 1 + len(contents)]) == shape:
                found.append(first)
        return found

    def same_code(self, quote: Sequence[str]) -> list[tuple[int, int]]:
        """Where the same code stands, laid out otherwise: whole lines, first and last, whose squashed text is the quote's."""
        wanted = squash(quote)
        if not wanted:
            return []
        text, starts_at, ends_at = self._squashed
        found = []
        position = text.find(wanted)
        while position >= 0:
            first, last = starts_at.get(position), ends_at.get(position + len(wanted))
            if first is not None and last is not None:
                found.append((first, self._closed(first, last)))
            position = text.find(wanted, position + 1)
        return found

    def _closed(self, first: int, last: int) -> int:
        """The last line with the closing brackets after it that belong to these lines (squashed, they are empty)."""
        depth = sum(line.count("(") - line.count(")") for line in self.contents[first - 1 : last])
        while (
            depth > 0 and last < len(self.lines) and self.contents[last] and not squash([self.contents[last]])
        ):
            depth += self.contents[last].count("(") - self.contents[last].count(")")
            last += 1
        return last

    def holder(self, first: int, last: int) -> str:
        """The qualified name of the innermost symbol that holds these lines, or `<module>`."""
        symbol = self.module.holder(first, last)
        return symbol.name if symbol else MODULE

    def holds(self, symbol: str, first: int, last: int) -> bool:
        """Whether these lines stand in that symbol, in it itself or in what it holds; for `<module>`: in no symbol."""
        if symbol == MODULE:
            return self.module.holder(first, last) is None
        return any(one.first_line <= first and last <= one.last_line for one in self.module.named(symbol))

    def before(self, first: int, count: int) -> tuple[str, ...]:
        """The contents of the lines before a line, nearest first, blank ones left out, `EDGE` at the file's beginning."""
        index = bisect_left(self.code_lines, first)
        found = self._code[max(0, index - count) : index][::-1]
        return (*found, EDGE)[:count]

    def after(self, last: int, count: int) -> tuple[str, ...]:
        """The contents of the lines after a line, nearest first, blank ones left out, `EDGE` at the file's end."""
        index = bisect_right(self.code_lines, last)
        return (*self._code[index : index + count], EDGE)[:count]

    @cached_property
    def _code(self) -> list[str]:
        return [content for content in self.contents if content]


TEXTS_KEPT = 256
"""Texts that stay ready: all annotated files of a release, and those that the next release changed. One takes half a megabyte."""


@lru_cache(maxsize=TEXTS_KEPT)
def prepared(text: str) -> SourceText:
    """The text, made ready once and kept."""
    return SourceText(text)
