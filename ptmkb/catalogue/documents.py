"""Read YAML that strangers may have written: safely, and with the line of every value.

The catalogue's and the notes' files are data edited by hand, so three things matter here that a plain `yaml.safe_load` does not
give: a problem names its line, a hostile file (exploding aliases, tags, endless nesting, binary, huge) ends in one clear
sentence instead of a traceback or a hang, and scalars keep the text that was written (`2005.11400` is an arXiv id, not a
float). What the values mean is left to the pydantic models that `parse` validates with.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ptmkb.catalogue.problems import MAX_PROBLEMS, DocumentError, Problem, capped, nearest

__all__ = [
    "Document",
    "DocumentError",
    "Location",
    "Plain",
    "Problem",
    "number_or_text",
    "parse",
    "read_document",
]

MAX_BYTES = 1 << 20  # 1 MiB: the largest hand-written file is a hundredth of that
MAX_DEPTH = 24  # levels of nesting; the schema needs 6
MAX_VALUES = 50_000  # of one file; a large one of today has 2,000
MAX_DIGITS = 40  # of a number; a longer one stays text

Location = tuple[str | int, ...]
Parsed = TypeVar("Parsed", bound=BaseModel)
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STRANGE = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML does not allow, and the three line ends that editors do not count as such: they would shift all line numbers."""


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
    composer = _Composer(path, text)
    problems = composer.problems
    data = None
    try:
        data = composer.compose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part) or "not YAML"
        line = text.splitlines()[mark.line : mark.line + 1] if mark else []
        tabbed = "'\\t'" in what or any(re.match(r"\s*\t", indented) for indented in line)
        mend = "indent with spaces, not tabs" if tabbed else "mend the YAML at this line"
        problems.append(Problem(path, mark.line + 1 if mark else 1, what, mend))
    except (yaml.YAMLError, UnicodeError) as error:
        # UnicodeError: libyaml lets half of a surrogate pair pass where it is written as `%ED%A0%80` in a tag
        problems.append(Problem(path, 1, f"not YAML ({error})", "save the file as plain UTF-8 text"))
    except _EnoughError:
        pass  # noted
    finally:
        composer.loader.dispose()
    if problems:
        raise DocumentError(*capped(path, set(problems)))
    return Document(path, data, composer.lines)


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
        found = error.errors(include_url=False, include_context=True)
        return None, capped(
            document.path, {_explain(document, model, details) for details in found[: 2 * MAX_PROBLEMS]}
        )


def _read_text(path: Path) -> str:
    def refuse(what: str, mend: str) -> DocumentError:
        return DocumentError(Problem(path, 1, what, mend))

    try:
        if not path.is_symlink() and not path.exists():
            raise refuse("no such file", "write it or name another")
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
    if strange := _STRANGE.search(text):
        line = text.count("\n", 0, strange.start()) + 1
        what = f"the character U+{ord(strange[0]):04X}, which text does not have"
        raise DocumentError(Problem(path, line, what, "remove it; save the file as plain text"))
    if not text.strip():
        raise refuse("the file is empty", "write the entry or remove the file")
    return text


class _Composer:
    """Builds plain data from the parser's events; what the format leaves out is noted and passed over before it can do harm."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines: dict[Location, int] = {}
        self.problems: list[Problem] = []
        self.loader = _Loader(text)
        self.next: Callable[[], Any] = self.loader.get_event

    def compose(self) -> Any:
        """The data of the text.

        Raises:
            _EnoughError: There is no use in reading on.
            yaml.YAMLError: The text is not YAML.
        """
        event = self.next()
        while isinstance(event, (yaml.StreamStartEvent, yaml.DocumentStartEvent)):
            event = self.next()
        if isinstance(event, yaml.StreamEndEvent):
            return self.note(None, "the file holds only comments", "write the entry or remove the file")
        data = self.value(event, (), event.start_mark.line + 1)
        self.next()  # the document's end
        if not isinstance(event := self.next(), yaml.StreamEndEvent):
            self.note(event, "a second YAML document", "keep one document a file")
        return data

    def note(self, event: Any, what: str, mend: str) -> None:
        self.problems.append(Problem(self.path, event.start_mark.line + 1 if event else 1, what, mend))
        if len(self.problems) > MAX_PROBLEMS:
            raise _EnoughError

    def value(self, event: Any, location: Location, line: int) -> Any:
        self.lines[location] = line
        if len(self.lines) > MAX_VALUES:
            self.note(event, f"more than {MAX_VALUES:,} values", "split the file")
            raise _EnoughError
        if isinstance(event, yaml.AliasEvent):
            self.note(event, f"the alias `*{event.anchor}`", "write the value out: aliases are not used here")
            return None
        if event.anchor:
            self.note(event, f"the anchor `&{event.anchor}`", "remove it: anchors are not used here")
        if event.tag:
            self.note(event, f"the tag `{event.tag}`", "remove it: tags are not used here")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if len(location) >= MAX_DEPTH:
            self.note(event, f"nested more than {MAX_DEPTH} levels deep", "flatten it")
            raise _EnoughError
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(location)
        return self.mapping(location)

    def sequence(self, location: Location) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self.next(), yaml.SequenceEndEvent):
            items.append(self.value(event, (*location, len(items)), event.start_mark.line + 1))
        return items

    def mapping(self, location: Location) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := self.next(), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent) or event.tag or event.anchor:
                self.note(event, "a key that is not plain text", "write the key as one word")
                self.value(event, (*location, ""), line)
                key = ""
            else:
                key = str(event.value)
                if key == "<<":
                    self.note(event, "the merge key `<<`", "write the values out: merging is not used here")
                elif key in items:
                    self.note(event, f"the key `{key}` stands twice", "keep one of the two")
            items[key] = self.value(self.next(), (*location, key), line)
        return items


class _EnoughError(Exception):
    """Reading on would show nothing that helps."""


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
        The same data with `Plain` scalars turned into `int`, `float` or `str`; a number that has no finite value, or no reasonable
        length, stays text.
    """
    if isinstance(value, dict):
        return {key: number_or_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [number_or_text(item) for item in value]
    if isinstance(value, Plain):
        if len(value) <= MAX_DIGITS and re.fullmatch(r"[-+]?[0-9]+", value):
            return int(value)
        number = r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?"
        if len(value) <= MAX_DIGITS and re.fullmatch(number, value) and math.isfinite(float(value)):
            return float(value)
        return str(value)
    return value


_EXPECTED = {
    "string_type": "text; quote it where it looks like something else",
    "list_type": "a list; write its items as `- …` or in brackets",
    "dict_type": "a mapping; write it as `key: value`",
    "model_type": "a mapping; write it as `key: value`",
    "model_attributes_type": "a mapping; write it as `key: value`",
    "string_too_short": "empty; write it or remove the key",
    "too_short": "empty; write it or remove the key",
}
"""What pydantic's kinds of error say of a value, and the mend."""


def _explain(document: Document, model: type[BaseModel], details: ErrorDetails) -> Problem:
    """Say a pydantic error in the words of the file."""
    location = tuple(details["loc"])
    steps = [str(step) for step in location if isinstance(step, str) and step != "[key]"]
    name = f"`{steps[-1]}`" if steps else "the entry" if location else "the file"
    kind = details["type"]
    given = details["input"]
    if kind == "extra_forbidden":
        near = nearest(steps[-1], _field_names(model))
        return document.problem(
            location, f"unknown key {name}", f"did you mean `{near}`?" if near else "remove it"
        )
    if kind == "missing":
        present = given if isinstance(given, dict) else {}
        if {"en", "zh"} == {steps[-1], *present}:
            other = "zh" if steps[-1] == "en" else "en"
            return document.problem(location, f"`{other}` without its {name}", f"add the text in {name}")
        return document.problem(location, f"{name} is missing", "add it")
    if kind == "literal_error":
        return document.problem(
            location, f"`{steps[-1]}: {given}` is not known", f"use {details['ctx']['expected']}"
        )
    if kind in _EXPECTED:
        what, _, mend = _EXPECTED[kind].partition("; ")
        return document.problem(location, f"{name} is {'' if what == 'empty' else 'not '}{what}", mend)
    what, _, mend = details["msg"].removeprefix("Value error, ").rpartition("; ")
    return (
        document.problem(location, what, mend)
        if what
        else document.problem(location, f"{name}: {mend[:1].lower()}{mend[1:]}", "mend the value")
    )


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
