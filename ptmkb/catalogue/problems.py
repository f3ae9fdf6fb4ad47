"""What is wrong in a file, said to the person who edits it: one line, with its place and the mend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_PROBLEMS = 500  # of one file; what has more is no catalogue, and nobody reads on


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong in one file, said to the person who edits it.

    Attributes:
        path: The file.
        line: 1-based line of the value that is wrong, 1 where the whole file is.
        what: What is wrong.
        mend: How to mend it.
    """

    path: Path
    line: int
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{_printable(_shown(self.path))}:{self.line}: {_short(self.what)}; {_short(self.mend)}"


class DocumentError(Exception):
    """A file that cannot be read as YAML at all.

    Attributes:
        problem: The first thing that is wrong.
        problems: All that is wrong, as far as it could be read.
    """

    def __init__(self, problem: Problem, *more: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.problems = (problem, *more)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one was probably meant to be, None where none is like it."""
    from rapidfuzz import fuzz, process

    found = process.extractOne(name[:100], list(known), scorer=fuzz.ratio, score_cutoff=65)
    return found[0] if found else None


def capped(path: Path, problems: Iterable[Problem]) -> list[Problem]:
    """The problems of one file in order, cut off where they are too many for anyone to read."""
    ordered = sorted(problems)
    if len(ordered) > MAX_PROBLEMS:
        what = f"more than {MAX_PROBLEMS} problems in this file"
        ordered[MAX_PROBLEMS:] = [Problem(path, ordered[MAX_PROBLEMS].line, what, "mend those above first")]
    return ordered


def _printable(text: str) -> str:
    """The text without line ends and what else would upset a terminal, each such character as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _short(text: str) -> str:
    """At most 300 characters of a text on one line; the middle gives way, since the point stands at either end."""
    line = _printable(" ".join(text.split()))
    return line if len(line) <= 300 else f"{line[:180]} … {line[-110:]}"


def _shown(path: Path) -> str:
    """The path as an editor's terminal can click it: relative to the current directory where it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
