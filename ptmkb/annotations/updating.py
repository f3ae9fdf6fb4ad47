"""Write anew what a note remembers of its lines, in its own place of its YAML file, and touch nothing else there.

The text is edited, not dumped: only the values of `at`, `quote`, `occurrence`, `of` and `alone` of that one note are exchanged. The result is
read back before the file is replaced, and must differ from the old one in that note's anchor alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ptmkb.annotations.anchors import dedent
from ptmkb.annotations.notes import Note, NoteFile, PlacedNote
from ptmkb.annotations.resolution import Status, resolve
from ptmkb.annotations.text import prepared
from ptmkb.catalogue.documents import parse, read_document
from ptmkb.source.module import NEWLINE

_HEADER = re.compile(
    r"(?P<mark>\|)(?P<digit>[1-9]?)(?P<chomp>[-+]?)(?P<digit_after>[1-9]?)(?P<rest>[^\r\n]*)"
)
_SCHEMA = re.compile(r"(?<=\$schema=)\.\S+")
_COUNTS = ("occurrence", "of", "alone")
"""The keys that tell the lines from others like them, in the order in which they are written."""


class UpdateError(ValueError):
    """A note cannot be re-anchored by itself; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class NewAnchor:
    """What a note is to remember.

    Attributes:
        at: the symbol that holds the lines, or `<module>`.
        quote: the lines, dedented.
        counts: the values of `occurrence`, `of` and `alone`, those that are needed.
    """

    at: str
    quote: tuple[str, ...]
    counts: dict[str, str]


def new_anchor(note: Note, source_text: str, first_line: int, last_line: int) -> NewAnchor:
    """What a note remembers when it stands at these lines.

    Args:
        note: the note; the symbol that it names is kept where that holds the lines still.
        source_text: the source file's text.
        first_line: 1-based.
        last_line: 1-based, inclusive.

    Returns:
        The anchor, as `draft_note` would write it.
    """
    source = prepared(source_text)
    quote = dedent(source.lines[first_line - 1 : last_line])
    at = note.at if source.holds(note.at, first_line, last_line) else source.holder(first_line, last_line)
    places = source.same_lines(quote)
    within = [place for place in places if source.holds(at, place, place + len(quote) - 1)]
    counts: dict[str, str] = {}
    if len(within) > 1:
        counts = {"occurrence": str(within.index(first_line) + 1), "of": str(len(within))}
    elif len(places) == 1:
        counts = {"alone": "true"}
    return NewAnchor(at, quote, counts)


def update_note(
    note: PlacedNote, source_text: str, first_line: int, last_line: int, *, write: bool = True
) -> str:
    """Re-anchor a note at lines of a source file, in its YAML file.

    The file is replaced at once or not at all; its other bytes stay as they are, comments, quotes, line ends and a byte order mark included.

    Args:
        note: from `load_notes`; other notes of its file may have been updated since.
        source_text: the source file's text.
        first_line: 1-based.
        last_line: 1-based, inclusive.
        write: False only to see the result.

    Returns:
        The file's new text.

    Raises:
        UpdateError: if the file changed otherwise since it was read, is not laid out one key a line, or the result would not say exactly
            what it should.
    """
    anchor = new_anchor(note, source_text, first_line, last_line)
    # `newline=""` keeps the line ends; Path.read_text would make them one kind.
    with note.path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    new = edited(text, note.id, anchor)
    with _beside(note.path, new) as draft:
        _verify(note, draft, source_text, first_line, last_line)
        if write:
            shutil.copymode(note.path, draft)
            draft.replace(note.path)
    return new


def move_notes(path: Path, old_file: str, new_file: str) -> Path:
    """Move a file of notes after its source file, which has another name now.

    Args:
        path: the YAML file.
        old_file: the source file that it is on, as it says.
        new_file: the name of that file in the new release.

    Returns:
        Where the notes are now.

    Raises:
        UpdateError: if there are notes on the new file already.
    """
    directory = path.parents[len(Path(old_file).parts) - 1]
    target = directory / Path(new_file).with_suffix(".yaml")
    if target.exists():
        raise UpdateError(
            f"{old_file} is {new_file} now, which has notes in {target}; put these among them by hand"
        )
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    root = yaml.compose(text.removeprefix("\ufeff"), Loader=yaml.SafeLoader)
    shift = len(text) - len(text.removeprefix("\ufeff"))
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    [value] = [one for key, one in pairs if key.value == "file"]
    first, last = value.start_mark.index + shift, value.end_mark.index + shift
    text = text[:first] + _scalar(new_file, value.style) + text[last:]
    target.parent.mkdir(parents=True, exist_ok=True)
    text = _SCHEMA.sub(lambda found: os.path.relpath(path.parent / found[0], target.parent), text, count=1)
    with _beside(target, text) as draft:
        shutil.copymode(path, draft)
        draft.replace(target)
    path.unlink()
    return target


def edited(text: str, note_id: str, anchor: NewAnchor) -> str:
    """The text of a file of notes with one note's anchor exchanged.

    Args:
        text: YAML, any line ends.
        note_id: which note.
        anchor: its new anchor.

    Returns:
        The new text.

    Raises:
        UpdateError: if the note is not there, or is not laid out one key a line.
    """
    mark = text[: len(text) - len(text.removeprefix("\ufeff"))]
    text = text.removeprefix(mark)
    node = _find(text, note_id)
    found = NEWLINE.search(text)
    newline = found[0] if found else "\n"
    values = {key.value: (key, value) for key, value in node.value}
    missing = [key for key in ("at", "quote") if key not in values]
    if node.flow_style or missing:
        raise UpdateError(
            f"{note_id}: write its keys on lines of their own (`at:`, `quote:`), then update it again"
        )
    indent = " " * int(values["at"][0].start_mark.column)
    edits: list[tuple[int, int, str]] = []
    at = values["at"][1]
    if at.value != anchor.at:
        edits.append((at.start_mark.index, at.end_mark.index, _scalar(anchor.at, at.style)))
    quote = values["quote"][1]
    end = _quote_end(text, quote)
    if dedent(quote.value.rstrip("\r\n").split("\n")) != anchor.quote:
        edits.append(_quote_edit(text, quote, end, anchor.quote, indent, newline))
    added = ""
    for name in _COUNTS:
        wanted = anchor.counts.get(name)
        if name not in values:
            added += f"{indent}{name}: {wanted}{newline}" if wanted else ""
            continue
        key, value = values[name]
        if wanted is None:
            edits.append(_line(text, key, value, node, note_id))
        elif value.value != wanted:
            edits.append((value.start_mark.index, value.end_mark.index, wanted))
    for first, last, replacement in sorted(edits, reverse=True):
        text = text[:first] + replacement + text[last:]
        end += len(replacement) - (last - first) if last <= end else 0
    if added:
        added = added if text[:end].endswith(("\r", "\n")) else newline + added.removesuffix(newline)
        text = text[:end] + added + text[end:]
    return mark + text


def _find(text: str, note_id: str) -> yaml.MappingNode:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value != "notes" or not isinstance(value, yaml.SequenceNode):
            continue
        for note in value.value:
            if isinstance(note, yaml.MappingNode) and any(
                name.value == "id" and one.value == note_id for name, one in note.value
            ):
                return note
    raise UpdateError(f"{note_id}: this note is no longer in its file; run the command again")


def _scalar(value: str, style: str | None) -> str:
    """A symbol's name in the quotes that stood there; none of its characters needs an escape."""
    return f"{style}{value}{style}" if style in ("'", '"') else value


def _quote_end(text: str, quote: yaml.ScalarNode) -> int:
    """Where the quote's last line ends, its line end included: after a block there may be blank lines that belong to no one."""
    start, end = quote.start_mark.index, quote.end_mark.index
    if quote.style in ("|", ">"):
        end = start + len(text[start:end].rstrip())
    found = NEWLINE.search(text, end)
    return found.end() if found else len(text)


def _quote_edit(
    text: str, quote: yaml.ScalarNode, end: int, lines: Sequence[str], indent: str, newline: str
) -> tuple[int, int, str]:
    """Exchange the quote: a block of lines stays one, with its own indentation; a short one stays on its line if the new one fits there."""
    start = quote.start_mark.index
    if quote.style in (None, "'", '"') and len(lines) == 1 and quote.start_mark.line == quote.end_mark.line:
        return start, quote.end_mark.index, json.dumps(lines[0], ensure_ascii=False)
    body = indent + "  "
    chomp, rest = "", ""
    header = _HEADER.match(text, start)
    if header and quote.style == "|":
        chomp, rest = header["chomp"], header["rest"]
        first = next((line for line in NEWLINE.split(text[header.end() : end]) if line.strip()), "")
        digit = header["digit"] or header["digit_after"]
        body = indent + " " * int(digit) if digit else first[: len(first) - len(first.lstrip(" "))] or body
    elif quote.style not in ("|", ">"):
        rest = NEWLINE.split(text[quote.end_mark.index : end])[0]
    # Where the first line is itself indented, YAML has to be told how much of it is the block's.
    depth = str(len(body) - len(indent)) if lines[0].startswith(" ") else ""
    block = newline.join([f"|{depth}{chomp}{rest}", *(f"{body}{line}" if line else "" for line in lines)])
    return start, end, block + (newline if text[:end].endswith(("\r", "\n")) else "")


def _line(
    text: str, key: yaml.Node, value: yaml.Node, note: yaml.MappingNode, note_id: str
) -> tuple[int, int, str]:
    """Remove a key with its whole line."""
    if key.start_mark.line == note.start_mark.line:
        raise UpdateError(
            f"{note_id}: `{key.value}` stands first in it; put `id` first, then update it again"
        )
    begin = key.start_mark.index - key.start_mark.column
    found = NEWLINE.search(text, value.end_mark.index)
    return begin, found.end() if found else len(text), ""


@contextlib.contextmanager
def _beside(path: Path, text: str) -> Iterator[Path]:
    """A file with this text beside another; gone at the end if it was not moved."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _verify(note: PlacedNote, draft: Path, source_text: str, first_line: int, last_line: int) -> None:
    """The draft is sound, says the same of every other note, and anchors this one at exactly these lines."""
    old, _ = parse(read_document(note.path), NoteFile)
    new, problems = parse(read_document(draft), NoteFile)
    if old is None or new is None:
        raise UpdateError(
            f"{note.id}: {problems[0] if problems else 'its file is not sound; run `annotations check`'}"
        )
    anchored = {"at", "quote", *_COUNTS}
    for before, after in zip(old.notes, new.notes, strict=True):
        left_out = anchored if before.id == note.id else set()
        if before.model_dump(exclude=left_out) != after.model_dump(exclude=left_out):
            raise UpdateError(f"{note.id}: its file cannot be edited safely; write the new anchor by hand")
        if before.id == note.id:
            found = resolve(after.anchor, source_text)
            if (found.status, found.first_line, found.last_line) != (Status.exact, first_line, last_line):
                raise UpdateError(
                    f"{note.id}: no anchor in YAML finds these lines alone ({found.reason}); quote more lines"
                )
