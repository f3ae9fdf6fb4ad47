"""Read YAML that strangers may have written: safely, and with the line of every value.

The catalogue's and the notes' files are data edited by hand, so three things matter here that a plain `yaml.safe_load` does not
give: a problem names its line, a hostile file (exploding aliases, tags, endless nesting, binary, huge) ends in one clear
sentence instead of a traceback or a hang, and scalars keep the text that was written (`2005.11400` is an arXiv id, not a
float). What the values mean is left to the pydantic models that `parse` validates with.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_BYTES = 1 << 20  # 1 MiB: the largest hand-written file is a hundredth of that
MAX_DEPTH = 24  # levels of nesting; the schema needs 6

Location = tuple[str | int, ...]
Parsed = TypeVar("Parsed", bound=BaseModel)
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
        return f"{_shown(self.path)}:{self.line}: {self.what}; {self.mend}"


class DocumentError(Exception):
    """A file that cannot be read as YAML at all."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Plain(str):
    """A scalar written without quotes: its text, before anyone decides whether it is a number."""

    __slots__ = ()


@dataclass(frozen=True)
class Document:
    """A YAML file as plain data, with the line of every value.

    Attributes:
        path: Where it was read from.
        data: Dicts, lists, `None`, `bool`, `str`; unquoted numbers are `Plain` strings.
        lines: The 1-based line of each value by its location (`("claims", 0, "value")`); a mapping's value has the line of its key.
    """

    path: Path
    data: Any
    lines: dict[Location, int] = field(repr=False)

    def line(self, location: Location = ()) -> int:
        """The line of a value, or of the nearest value around it that the file has.

        Args:
            location: Keys and indices from the top of the file; a step that the file lacks (a missing key, or a step that
                pydantic adds for a union's branch) is passed over.

        Returns:
            A 1-based line number.
        """
        here: Location = ()
        for step in location:
            if (*here, step) in self.lines:
                here = (*here, step)
        return self.lines.get(here, 1)

    def problem(self, location: Location, what: str, mend: str) -> Problem:
        """A problem at a location of this file."""
        return Problem(self.path, self.line(location), what, mend)


def read_document(path: Path) -> Document:
    """Read one YAML file.

    Args:
        path: A regular file, UTF-8, at most `MAX_BYTES` long.

    Returns:
        Its data and lines.

    Raises:
        DocumentError: The file is missing, not a regular file, too large, empty, not UTF-8, not YAML, or uses what the
            format leaves out (aliases, tags, merge keys, several documents, duplicate keys, deep nesting).
    """
    text = _read_text(path)
    try:
        return _Composer(path, text).compose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part) or "not YAML"
        mend = "indent with spaces, not tabs" if "\\t" in what or "'\t'" in what else "mend the YAML at this line"
        raise DocumentError(Problem(path, mark.line + 1 if mark else 1, what.replace("\n", " "), mend)) from None
    except yaml.YAMLError as error:
        raise DocumentError(Problem(path, 1, _one_line(error), "save the file as plain UTF-8 text")) from None


def parse(document: Document, model: type[Parsed]) -> tuple[Parsed | None, list[Problem]]:
    """Validate a document's data with a pydantic model.

    Args:
        document: What `read_document` gave.
        model: The model of the whole file.

    Returns:
        The validated object and no problems, or `None` and every problem that was found, in the order of their lines.
    """
    try:
        return model.model_validate(document.data), []
    except ValidationError as error:
        problems = {_explain(document, model, details) for details in error.errors(include_url=False)}
        return None, sorted(problems)


def _shown(path: Path) -> str:
    """The path as an editor's terminal can click it: relative to the current directory where it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _read_text(path: Path) -> str:
    def refuse(what: str, mend: str) -> DocumentError:
        return DocumentError(Problem(path, 1, what, mend))

    try:
        if not path.is_file():
            raise refuse("not a regular file", "put a YAML file in its place or remove it")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise refuse(f"{size:,} bytes, over the limit of {MAX_BYTES:,}", "split the file")
        raw = path.read_bytes()
    except OSError as error:
        raise refuse(f"cannot be read ({error.strerror})", "check that it exists and may be read") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8 text (byte {raw[error.start]:#04x})"
        raise DocumentError(Problem(path, line, what, "save the file as UTF-8")) from None
    if not text.strip():
        raise refuse("the file is empty", "write the entry or remove the file")
    return text


class _Composer:
    """Builds plain data from the parser's events, refusing what the format leaves out before it can do harm."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines: dict[Location, int] = {}
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=_Loader)

    def compose(self) -> Document:
        event = next(self.events)
        while isinstance(event, (yaml.StreamStartEvent, yaml.DocumentStartEvent)):
            event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            raise DocumentError(Problem(self.path, 1, "the file holds only comments", "write the entry or remove the file"))
        data = self.value(event, (), event.start_mark.line + 1)
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                raise self.refuse(event, "a second YAML document", "keep one document a file")
        return Document(self.path, data, self.lines)

    def refuse(self, event: yaml.Event, what: str, mend: str) -> DocumentError:
        return DocumentError(Problem(self.path, event.start_mark.line + 1, what, mend))

    def value(self, event: yaml.Event, location: Location, line: int) -> Any:
        self.lines[location] = line
        if isinstance(event, yaml.AliasEvent):
            raise self.refuse(event, f"the alias `*{event.anchor}`", "write the value out: aliases are not used here")
        if getattr(event, "anchor", None):
            raise self.refuse(event, f"the anchor `&{event.anchor}`", "remove it: anchors are not used here")
        if getattr(event, "tag", None):
            raise self.refuse(event, f"the tag `{event.tag}`", "remove it: tags are not used here")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if len(location) >= MAX_DEPTH:
            raise self.refuse(event, f"nested more than {MAX_DEPTH} levels deep", "flatten it")
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(location)
        return self.mapping(location)

    def sequence(self, location: Location) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.value(event, (*location, len(items)), event.start_mark.line + 1))
        return items

    def mapping(self, location: Location) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent) or event.tag or event.anchor:
                raise self.refuse(event, "a key that is not plain text", "write the key as one word")
            key = str(event.value)
            if key == "<<":
                raise self.refuse(event, "the merge key `<<`", "write the values out: merging is not used here")
            if key in items:
                raise self.refuse(event, f"the key `{key}` stands twice", "keep one of the two")
            items[key] = self.value(next(self.events), (*location, key), line)
        return items


def _scalar(event: yaml.ScalarEvent) -> Any:
    text = str(event.value)
    if event.style:  # quoted or block: text, whatever it looks like
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    return Plain(text)


def number_or_text(value: Any) -> Any:
    """Give unquoted numbers inside free-form values (a claim's value, a variant's config) their YAML 1.2 core type.

    Args:
        value: Data of a `Document`.

    Returns:
        The same data with `Plain` scalars turned into `int`, `float` or `str`.
    """
    if isinstance(value, dict):
        return {key: number_or_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [number_or_text(item) for item in value]
    if isinstance(value, Plain):
        if re.fullmatch(r"[-+]?\d+", value):
            return int(value)
        if re.fullmatch(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?", value):
            return float(value)
        return str(value)
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _explain(document: Document, model: type[BaseModel], details: ErrorDetails) -> Problem:
    """Say a pydantic error in the words of the file."""
    location = tuple(details["loc"])
    name = next((str(step) for step in reversed(location) if isinstance(step, str)), "the file")
    kind = details["type"]
    given = details["input"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(name, _field_names(model), n=1)
        mend = f"did you mean `{near[0]}`?" if near else "remove it"
        return document.problem(location, f"unknown key `{name}`", mend)
    if kind == "missing":
        present = given if isinstance(given, dict) else {}
        if {"en", "zh"} == {name, *present}:
            other = "zh" if name == "en" else "en"
            return document.problem(location, f"`{other}` without its `{name}`", f"add the text in `{name}`")
        return document.problem(location, f"`{name}` is missing", "add it")
    if kind == "literal_error":
        return document.problem(location, f"`{name}: {given}` is not known", f"use {details['ctx']['expected']}")
    what, _, mend = details["msg"].removeprefix("Value error, ").partition("; ")
    what = what if mend else f"`{name}`: {what[:1].lower()}{what[1:]}"
    return document.problem(location, " ".join(what.split()), mend or "mend the value")


@cache
def _field_names(model: type[BaseModel]) -> list[str]:
    """Every key that a file of this model may use, at any depth."""
    names: set[str] = set()
    seen: set[Any] = set()
    waiting: list[Any] = [model]
    while waiting:
        kind = waiting.pop()
        if typing.get_origin(kind) is not None or isinstance(kind, types.UnionType):
            waiting.extend(typing.get_args(kind))
        elif isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
            seen.add(kind)
            for field_name, info in kind.model_fields.items():
                names.add(info.alias or field_name)
                waiting.append(info.annotation)
    return sorted(names)
