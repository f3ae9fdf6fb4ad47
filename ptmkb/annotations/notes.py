"""The notes: their files' schema, loading and checking them, and finding their lines in a source tree.

Notes lie in YAML files laid out like the source tree that they comment, each with the lines that it speaks of. Where those lines stand in
some release is asked of the anchors; what a note's own check says is asked in `checks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from ptmkb.annotations.anchors import Anchor, dedent
from ptmkb.annotations.resolution import Resolution, Status, resolve
from ptmkb.catalogue.checking import dangling
from ptmkb.catalogue.documents import Document, DocumentError, Location, Problem, parse, read_document
from ptmkb.catalogue.schema import Citation, Slug, Str, Strict, Text
from ptmkb.source import MODULE, SourceTree, split_lines


def _whole_number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Count = Annotated[int, BeforeValidator(_whole_number), Field(ge=1)]


class Note(Strict):
    """What a reader of some lines cannot see there.

    Attributes:
        id: Unique over all notes.
        at: Qualified name of the symbol that holds the lines (`Class.method`), or `<module>`.
        quote: The lines themselves, in one piece.
        occurrence: Which of the same lines within the symbol, from 1; only where they stand there more than once.
        of: How many there are. With it, a release that has more or fewer is noticed.
        alone: True where the same lines stand nowhere else in the file. Only then can they be said to have moved out of the symbol.
        papers: Where the literature says it.
        models: Ids of the models that it speaks of.
        title: One line.
        text: Markdown, with TeX between dollar signs.
        check: Python that fails if the note is false. It runs on its own, without a network.
    """

    id: Slug
    at: Str
    quote: Str
    occurrence: Count | None = None
    of: Count | None = None
    alone: bool | None = None
    papers: list[Citation] = []
    models: list[Slug] = []
    title: Text
    text: Text
    check: Str | None = None

    @field_validator("quote")
    @classmethod
    def _quote_has_code(cls, quote: str) -> str:
        if not quote.strip():
            raise ValueError("the quote holds no code; quote the lines that the note speaks of")
        return quote

    @field_validator("at")
    @classmethod
    def _at_is_a_name(cls, at: str) -> str:
        if at != MODULE and not all(part.isidentifier() for part in at.split(".")):
            raise ValueError(f"`{at}` is no qualified name; write Class.method, function or {MODULE}")
        return at

    @field_validator("check")
    @classmethod
    def _check_is_python(cls, check: str | None) -> str | None:
        if check is not None:
            try:
                compile(check, "check", "exec")
            except (SyntaxError, ValueError) as error:
                raise ValueError(f"the check is not Python ({error}); mend it") from None
        return check

    @model_validator(mode="after")
    def _counts_agree(self) -> Note:
        if self.of is not None and (self.occurrence is None or self.occurrence > self.of):
            raise ValueError("`of` counts the same lines in the symbol; give `occurrence` with it, from 1 to `of`")
        if self.alone and self.occurrence is not None:
            raise ValueError("`alone` says that the lines stand once in the file; remove it or `occurrence`")
        return self

    @property
    def anchor(self) -> Anchor:
        """What the note remembers of its lines."""
        return Anchor(
            symbol=self.at,
            quote=dedent(split_lines(self.quote.rstrip("\r\n"))),
            occurrence=self.occurrence,
            of=self.of,
            twins=() if self.alone else None,
        )


class NoteFile(Strict):
    """The notes on one source file.

    Attributes:
        file: Its path below the package, with forward slashes.
        notes: In the order of a tour through it.
    """

    file: Annotated[Str, Field(pattern=r"^[\w./-]+\.py$")]
    notes: Annotated[list[Note], Field(min_length=1)]


class Known(Protocol):
    """What the notes' references are checked against: a catalogue."""

    @property
    def papers(self) -> Mapping[str, Any]:
        """Papers by id."""

    @property
    def models(self) -> Mapping[str, Any]:
        """Models by id."""


@dataclass(frozen=True, slots=True)
class PlacedNote:
    """A note with the source file that it is on, and where it is written.

    Attributes:
        note: the note.
        file: the source file, relative to the package.
        path: the YAML file.
        line: where in it the note begins, 1-based.
    """

    note: Note
    file: str
    path: Path
    line: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.note, name)


@dataclass(frozen=True)
class NoteSet:
    """Notes that are sound, in the order of their files, and the problems of those that are not.

    Attributes:
        directory: where they were read from.
        notes: with their places.
        problems: every problem that was found, sorted.
    """

    directory: Path
    notes: tuple[PlacedNote, ...]
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ResolvedNote:
    """A note and where its lines stand in a release."""

    note: PlacedNote
    resolution: Resolution


def notes_directory() -> Path:
    """Where the project's own notes are: beside the package in a checkout, else inside the installed package."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent / "annotations"
    return checkout if checkout.is_dir() and (package.parent / "pyproject.toml").is_file() else package / "_annotations"
