"""Read the notes' files, and say everything that is wrong with them.

Like the catalogue's loader it shows every problem, not the first: a note that breaks the schema keeps no other note from being checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from ptmkb.annotations.notes import Note, NoteFile, PlacedNote
from ptmkb.catalogue.checking import dangling
from ptmkb.catalogue.documents import Document, DocumentError, Location, Problem, parse, read_document


class Known(Protocol):
    """What the references of notes are checked against: a catalogue."""

    @property
    def papers(self) -> Mapping[str, Any]:
        """Papers by id."""

    @property
    def models(self) -> Mapping[str, Any]:
        """Models by id."""


@dataclass(frozen=True)
class NoteSet:
    """The notes of a directory.

    Attributes:
        directory: where they were read from.
        notes: those that are sound by the schema, in the order of their files and lines.
        problems: all that is wrong, sorted.
    """

    directory: Path
    notes: tuple[PlacedNote, ...]
    problems: list[Problem] = field(default_factory=list)


def notes_directory() -> Path:
    """Where the project's own notes are: beside the package in a checkout, else inside the installed package."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent / "annotations"
    is_checkout = checkout.is_dir() and (package.parent / "pyproject.toml").is_file()
    return checkout if is_checkout else package / "_annotations"


def load_notes(directory: Path, catalogue: Known | None = None) -> NoteSet:
    """Read all notes below a directory.

    Args:
        directory: laid out like the source tree: `models/bert/modeling_bert.yaml` is on `models/bert/modeling_bert.py`.
        catalogue: where given, papers and models that it does not have are problems.

    Returns:
        The notes and the problems; nothing is raised for bad input.
    """
    if not directory.is_dir():
        return NoteSet(
            directory,
            (),
            [Problem(directory, 1, "no such directory of notes", "name the one that holds them")],
        )
    problems: list[Problem] = []
    notes: list[PlacedNote] = []
    first_of: dict[str, PlacedNote] = {}
    references: list[tuple[PlacedNote, Document, Location]] = []
    for path in sorted(directory.rglob("*.y*ml")):
        for note, document, location in _read(path, directory, problems):
            if earlier := first_of.get(note.id):
                where = f"{earlier.path.relative_to(directory).as_posix()}:{earlier.line}"
                what = f"the id `{note.id}` is taken by {where}"
                problems.append(
                    document.problem(
                        (*location, "id"), what, "choose another: ids are part of permanent links"
                    )
                )
            first_of.setdefault(note.id, note)
            if catalogue is not None:
                problems += _dangling(note, document, location, catalogue)
            notes.append(note)
            references.append((note, document, location))
    for note, document, location in references:
        problems += _unknown_notes(note, document, location, first_of)
    return NoteSet(directory, tuple(notes), sorted(set(problems)))


def _read(
    path: Path, directory: Path, problems: list[Problem]
) -> Iterator[tuple[PlacedNote, Document, Location]]:
    if path.suffix != ".yaml":
        problems.append(
            Problem(path, 1, f"a file of notes named `{path.suffix}`", f"rename it to {path.stem}.yaml")
        )
        return
    try:
        document = read_document(path)
    except DocumentError as error:
        problems.extend(error.problems)
        return
    _, found = parse(document, NoteFile)
    problems += found
    data = document.data if isinstance(document.data, dict) else {}
    expected = path.relative_to(directory).with_suffix(".py").as_posix()
    file = str(data.get("file", expected))
    if file != expected:
        what = f"`file: {file}`, but these notes lie where those on {expected} belong"
        problems.append(
            document.problem(("file",), what, f"move them to {Path(file).with_suffix('.yaml').as_posix()}")
        )
    raw_notes = data.get("notes")
    for index, raw in enumerate(raw_notes if isinstance(raw_notes, list) else []):
        try:
            note = Note.model_validate(raw)
        except ValidationError:
            continue  # `parse` has said what is wrong with it
        location = ("notes", index)
        yield PlacedNote.place(note, file, path, document.line(location)), document, location


def _dangling(
    note: PlacedNote, document: Document, location: Location, catalogue: Known
) -> Iterator[Problem]:
    for index, citation in enumerate(note.papers):
        if citation.paper not in catalogue.papers:
            where = (*location, "papers", index, "paper")
            yield document.problem(where, *dangling("paper", citation.paper, catalogue.papers))
    for index, model in enumerate(note.models):
        if model not in catalogue.models:
            yield document.problem((*location, "models", index), *dangling("model", model, catalogue.models))


def _unknown_notes(
    note: PlacedNote, document: Document, location: Location, known: Mapping[str, PlacedNote]
) -> Iterator[Problem]:
    for index, other in enumerate(note.see):
        where = (*location, "see", index)
        if other == note.id:
            yield document.problem(where, f"`{other}` points at itself", "name another note or remove it")
        elif other not in known:
            yield document.problem(where, *dangling("note", other, known))
