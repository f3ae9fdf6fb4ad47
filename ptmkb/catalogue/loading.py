"""From a directory of YAML files to a `Catalogue`, with every problem that the files have on their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from ptmkb.catalogue.documents import Document, DocumentError, Location, Problem, parse, read_document
from ptmkb.catalogue.schema import Categories, Category, Model, Paper, Papers

DATA = Path(__file__).parent / "data"
"""The catalogue that ships with the package."""

_Parsed = TypeVar("_Parsed", bound=BaseModel)


@dataclass(frozen=True)
class Origin:
    """Where an entry stands: its file, and its location in it (an index where the file holds a list)."""

    document: Document
    location: Location = ()

    def problem(self, location: Location, what: str, mend: str) -> Problem:
        """A problem at a location inside the entry."""
        return self.document.problem((*self.location, *location), what, mend)


@dataclass(frozen=True)
class Entry:
    """An entry with its origin, kept apart from the dictionary so that duplicates are seen too."""

    value: Model | Paper | Category
    origin: Origin


@dataclass(frozen=True)
class Catalogue:
    """Models, papers and categories by id, in the order of their files.

    Attributes:
        directory: Where it was read from.
        entries: Every entry that was read, duplicates included, with its file and place.
    """

    directory: Path
    models: Mapping[str, Model]
    papers: Mapping[str, Paper]
    categories: Mapping[str, Category]
    entries: tuple[Entry, ...] = field(repr=False, default=())

    def members(self, category: str) -> list[Model]:
        """The models of a category (as their first or a further one) and of the categories below it, oldest first."""
        below = {category} | {c.id for c in self.categories.values() if c.parent == category}
        found = [m for m in self.models.values() if m.category in below or below & set(m.also)]
        return sorted(found, key=lambda model: (model.released, model.id))


class CatalogueError(Exception):
    """The catalogue cannot be used as it is.

    Attributes:
        problems: What is wrong, in the order of files and lines.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def read_catalogue(directory: Path = DATA) -> tuple[Catalogue, list[Problem]]:
    """Read all files of a catalogue, whatever state they are in.

    Args:
        directory: Holds `categories.yaml`, `papers/*.yaml` and `models/*.yaml`.

    Returns:
        What could be read, and the problems of what could not. What needs several files at once is left to `checking`.
    """
    problems: list[Problem] = []
    entries = list(_read_all(directory, problems))
    if not directory.is_dir():
        problems.append(Problem(directory, 1, "no such directory", "name the directory that holds `models/`"))
    return (
        Catalogue(
            directory=directory,
            models={e.value.id: e.value for e in entries if isinstance(e.value, Model)},
            papers={e.value.id: e.value for e in entries if isinstance(e.value, Paper)},
            categories={e.value.id: e.value for e in entries if isinstance(e.value, Category)},
            entries=tuple(entries),
        ),
        problems,
    )


def _read_all(directory: Path, problems: list[Problem]) -> Iterator[Entry]:
    for path in sorted(directory.glob("models/*.yaml")):
        model, document = _read(path, Model, problems)
        if model and document:
            yield Entry(model, Origin(document))
    for path in sorted(directory.glob("papers/*.yaml")):
        papers, document = _read(path, Papers, problems)
        if papers and document:
            yield from (Entry(paper, Origin(document, (i,))) for i, paper in enumerate(papers.root))
    path = directory / "categories.yaml"
    if path.exists() or directory.is_dir():
        categories, document = _read(path, Categories, problems)
        if categories and document:
            yield from (Entry(item, Origin(document, (i,))) for i, item in enumerate(categories.root))


def _read(path: Path, model: type[_Parsed], problems: list[Problem]) -> tuple[_Parsed | None, Document | None]:
    try:
        document = read_document(path)
    except DocumentError as error:
        problems.append(error.problem)
        return None, None
    parsed, found = parse(document, model)
    problems.extend(found)
    return parsed, document
