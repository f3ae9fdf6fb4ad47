"""How much of the source is annotated: file by file, part by part, category by category.

A share is told by symbols (functions, methods, classes without methods) that hold at least one noted line, and by the lines themselves; a note on
one line of a long function covers the function and one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ptmkb.annotations.notes import ResolvedNote, by_file
from ptmkb.annotations.text import prepared
from ptmkb.source import SourceTree

PARTS = ("framework", "models", "training", "inference")
"""The parts of the library, in the order of the chapters."""

_DATA = Path(__file__).parent / "parts.yaml"
_ELSE = "framework"


@cache
def _patterns() -> tuple[tuple[str, str], ...]:
    data = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    return tuple((pattern, part) for part, patterns in data.items() for pattern in patterns)


def part_of(file: str) -> str:
    """The part of the library that a file belongs to: "training" for `trainer.py`."""
    return next((part for pattern, part in _patterns() if fnmatchcase(file, pattern)), _ELSE)


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """One annotated file.

    Attributes:
        file: its path below the package.
        part: one of `PARTS`.
        notes: how many stand on it.
        checks: how many of them carry a check.
        symbols: functions, methods and classes without methods.
        noted_symbols: those of them that hold a noted line.
        lines: how many it has.
        noted_lines: those that a note quotes.
    """

    file: str
    part: str
    notes: int
    checks: int
    symbols: int
    noted_symbols: int
    lines: int
    noted_lines: int


@dataclass(frozen=True, slots=True)
class PartCoverage:
    """One part of the library.

    Attributes:
        part: one of `PARTS`.
        files: how many files it has.
        noted_files: how many of them have notes.
        notes: how many stand on them.
        checks: how many of these carry a check.
    """

    part: str
    files: int
    noted_files: int
    notes: int
    checks: int


@dataclass(frozen=True, slots=True)
class CategoryCoverage:
    """One category of the catalogue.

    Attributes:
        category: its id.
        models: how many curated models it has.
        noted_models: how many of them a note speaks of.
        notes: how many notes speak of them.
    """

    category: str
    models: int
    noted_models: int
    notes: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is annotated: annotated files in order of their paths, all parts, the categories that have models."""

    files: tuple[FileCoverage, ...]
    parts: tuple[PartCoverage, ...]
    categories: tuple[CategoryCoverage, ...]


def count_coverage(notes: Iterable[ResolvedNote], tree: SourceTree, models: Mapping[str, Any]) -> Coverage:
    """Count what notes cover. A note that found no place in the release counts nowhere.

    Args:
        notes: resolved against `tree`.
        tree: the release.
        models: the catalogue's models by id, with `status` and `category`.
    """
    placed = [one for one in notes if one.resolution.first_line]
    files = tuple(_file(file, on_it, tree) for file, on_it in by_file(placed).items())
    totals = dict.fromkeys(PARTS, 0)
    for file in tree.files():
        totals[part_of(file)] += 1
    parts = tuple(_part(part, totals[part], files) for part in PARTS)
    return Coverage(files, parts, tuple(_categories(placed, models)))


def _file(file: str, notes: list[ResolvedNote], tree: SourceTree) -> FileCoverage:
    module = prepared(tree.read(file)).module  # as it was made ready for its notes to be resolved
    holders = {symbol.name.rpartition(".")[0] for symbol in module.symbols}
    leaves = [symbol for symbol in module.symbols if symbol.name not in holders]
    spans = [(one.resolution.first_line or 0, one.resolution.last_line or 0) for one in notes]
    return FileCoverage(
        file=file,
        part=part_of(file),
        notes=len(notes),
        checks=sum(one.note.check is not None for one in notes),
        symbols=len(leaves),
        noted_symbols=sum(
            any(first <= symbol.last_line and last >= symbol.first_line for first, last in spans)
            for symbol in leaves
        ),
        lines=len(module.lines),
        noted_lines=len({line for first, last in spans for line in range(first, last + 1)}),
    )


def _part(part: str, total: int, files: Iterable[FileCoverage]) -> PartCoverage:
    noted = [one for one in files if one.part == part]
    return PartCoverage(
        part, total, len(noted), sum(one.notes for one in noted), sum(one.checks for one in noted)
    )


def _categories(notes: list[ResolvedNote], models: Mapping[str, Any]) -> Iterable[CategoryCoverage]:
    curated: dict[str, set[str]] = {}
    for model_id, model in models.items():
        if model.status == "curated":
            curated.setdefault(model.category, set()).add(model_id)
    for category, members in sorted(curated.items()):
        about = [members.intersection(one.note.models) for one in notes]
        yield CategoryCoverage(
            category, len(members), len(set().union(*about)), sum(bool(named) for named in about)
        )
