"""The notes: what their files may say, and where their lines stand in a source tree.

Reading the files is `loading`'s; what a note's own check says is asked in `checks`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ptmkb.annotations.anchors import Anchor, dedent
from ptmkb.annotations.relocation import relocate
from ptmkb.annotations.resolution import Resolution, Status, resolve
from ptmkb.catalogue.schema import Citation, Slug, Str, Strict, Text
from ptmkb.source import MODULE, SourceTree, split_lines

Language = Literal["en", "zh"]


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
        see: Ids of notes on the same mechanism elsewhere; the link is shown at both ends.
        check: Python that fails if the note is false. It runs on its own, without a network.
    """

    id: Slug
    at: Str
    quote: Str
    occurrence: Count | None = None
    of: Count | None = None
    alone: bool | None = None
    papers: list[Citation] = Field(default_factory=list)
    models: list[Slug] = Field(default_factory=list)
    title: Text
    text: Text
    see: list[Slug] = Field(default_factory=list)
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
            raise ValueError(
                "`of` counts the same lines in the symbol; give `occurrence` with it, from 1 to `of`"
            )
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


class PlacedNote(Note):
    """A note with where it belongs.

    Attributes:
        file: The source file that it is on, relative to the package.
        path: The YAML file that it is written in.
        line: Where in that file it begins, 1-based.
    """

    file: str
    path: Path
    line: int

    @classmethod
    def place(cls, note: Note, file: str, path: Path, line: int) -> PlacedNote:
        """The same note, placed; its values are valid already."""
        values = {name: getattr(note, name) for name in Note.model_fields}
        return cls.model_construct(**values, file=file, path=path, line=line)


@dataclass(frozen=True, slots=True)
class ResolvedNote:
    """A note and where its lines stand in a release."""

    note: PlacedNote
    resolution: Resolution

    @property
    def holds(self) -> bool:
        """Whether the very lines that the note quotes are there and known to be the right ones."""
        return self.resolution.status in (Status.exact, Status.moved)


def by_file(resolved: Iterable[ResolvedNote]) -> dict[str, list[ResolvedNote]]:
    """The notes that have a place, by their source file, top to bottom."""
    files: dict[str, list[ResolvedNote]] = {}
    for one in resolved:
        if one.resolution.first_line is not None:
            files.setdefault(one.note.file, []).append(one)
    for notes in files.values():
        notes.sort(key=lambda one: (one.resolution.first_line or 0, one.note.id))
    return dict(sorted(files.items()))


def in_language(text: Text, language: Language) -> str:
    """A text in one of its languages."""
    return text.zh if language == "zh" else text.en


def resolve_notes(notes: Iterable[PlacedNote], tree: SourceTree) -> list[ResolvedNote]:
    """Find the lines of notes in a release.

    Args:
        notes: such as `NoteSet.notes`, with unique ids.
        tree: the release.

    Returns:
        One result a note, in the same order. Where the release has no such file, the note is looked for in the others: found beyond doubt, it
        is `moved` and its `file` is the new one; else it is `lost`.
    """
    notes = list(notes)
    texts = {file: tree.read(file) for file in {note.file for note in notes} if file in tree}
    homeless = {note.id: (note.anchor, note.file) for note in notes if note.file not in texts}
    relocated = relocate(homeless, tree)
    results = []
    for note in notes:
        if note.file in texts:
            results.append(ResolvedNote(note, resolve(note.anchor, texts[note.file])))
        elif note.id in relocated:
            file, resolution = relocated[note.id]
            results.append(ResolvedNote(note.model_copy(update={"file": file}), resolution))
        else:
            reason = f"transformers {tree.version} has no file {note.file}"
            results.append(ResolvedNote(note, Resolution(Status.lost, None, None, 0.0, "", reason)))
    return results
