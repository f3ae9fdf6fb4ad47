"""From a directory of YAML files to a `Catalogue`, with every problem that the files have on their own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, RootModel

from ptmkb.catalogue.documents import (
    MAX_BYTES,
    Document,
    DocumentError,
    Location,
    Problem,
    parse,
    read_document,
)
from ptmkb.catalogue.salvage import salvage
from ptmkb.catalogue.schema import Categories, Category, Model, Paper, Papers

DATA = Path(__file__).parent / "data"
"""The catalogue that ships with the package."""


@dataclass(frozen=True)
class Origin:
    """Where an entry stands: its file, and its location in it (an index where the file holds a list).

    Attributes:
        document: The file.
        location: The way to the entry in it.
        kept: Of an entry that broke the schema, by list, the indices in the file of the items that it still has.
    """

    document: Document
    location: Location = ()
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def line(self, location: Location) -> int:
        """The line of a location inside the entry."""
        return self.document.line((*self.location, *self._in_file(location)))

    def problem(self, location: Location, what: str, mend: str) -> Problem:
        """A problem at a location inside the entry."""
        return self.document.problem((*self.location, *self._in_file(location)), what, mend)

    def _in_file(self, location: Location) -> Location:
        if len(location) > 1 and location[0] in self.kept and isinstance(location[1], int):
            return (location[0], self.kept[str(location[0])][location[1]], *location[2:])
        return location


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
        What could be read, the sound parts of broken entries among it, and the problems of single files. What needs several files at
        once is left to `checking`.
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
    for path in _files(directory / "models", problems):
        yield from _read(path, Model, Model, problems)
    for path in _files(directory / "papers", problems):
        yield from _read(path, Papers, Paper, problems)
    if directory.is_dir():
        yield from _read(directory / "categories.yaml", Categories, Category, problems)


def _files(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix == ".yaml":
            yield path
        elif path.suffix.lower() in (".yaml", ".yml"):
            what = f"a file named `{path.suffix}` is not read"
            problems.append(Problem(path, 1, what, f"rename it to {path.stem}.yaml"))


def _read(
    path: Path, whole: type[BaseModel], kind: type[Model | Paper | Category], problems: list[Problem]
) -> Iterator[Entry]:
    """The entries of a file, with what is wrong with it added to `problems`."""
    try:
        document = read_document(path)
    except DocumentError as error:
        problems.extend(error.problems)
        yield from _named_in(path, kind)
        return
    parsed, found = parse(document, whole)
    problems.extend(found)
    if isinstance(parsed, RootModel):
        yield from (Entry(value, Origin(document, (i,))) for i, value in enumerate(parsed.root))
    elif isinstance(parsed, kind):
        yield Entry(parsed, Origin(document))
    else:
        listed = document.data if isinstance(document.data, list) else []
        broken = [((), document.data)] if whole is kind else [((i,), item) for i, item in enumerate(listed)]
        for location, data in broken:
            if saved := salvage(kind, data):
                value, kept = saved
                if isinstance(value, Model) and not value.id:
                    value = value.model_copy(update={"id": path.stem})
                yield Entry(value, Origin(document, location, kept))


def _named_in(path: Path, kind: type[Model | Paper | Category]) -> Iterator[Entry]:
    """What a file that is not YAML seems to name, so that references to it do not dangle on top of all."""
    text = ""
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            text = path.read_text(encoding="utf-8", errors="replace")
    lines = {path.stem: 1} if kind is Model else {}
    for number, line in enumerate(text.split("\n"), 1):
        for match in re.finditer(r"\bid: *[\"']?([a-z0-9][a-z0-9._-]*)", line):
            lines.setdefault(match[1], number)
    for name, number in lines.items():
        if saved := salvage(kind, {"id": name}):
            yield Entry(saved[0], Origin(Document(path, None, {(): number})))
