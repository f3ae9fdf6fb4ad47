"""What is still sound of an entry that breaks the schema.

A misspelt key must not hide that the entry's paper does not exist, nor make all that refers to the entry dangle. So the parts that
break the schema are taken out, and the rest can be checked against the other files like any entry. A catalogue with such
entries is for finding problems only: `load_catalogue` refuses it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ptmkb.catalogue.documents import MAX_DEPTH, Location
from ptmkb.catalogue.schema import Category, Model, Paper

_Entry = TypeVar("_Entry", bound=BaseModel)

_TEXT = {"en": "-", "zh": "无"}
_STAND_INS: dict[type[BaseModel], dict[str, Any]] = {
    Model: {
        "id": "x",
        "name": "-",
        "status": "indexed",
        "released": "2000",
        "organisation": "-",
        "category": "x",
        "modalities": ["text"],
        "summary": _TEXT,
        "implementation": {"kind": "none", "why": _TEXT},
    },
    Paper: {"id": "x", "title": "-", "authors": ["-"], "year": 2000, "url": "https://-", "provenance": "-"},
    Category: {"id": "x", "name": _TEXT, "definition": _TEXT},
}
"""Values that let an entry pass where its own are missing or broken."""
_UNSAID: dict[str, Any] = {"id": "", "released": "", "category": "", "title": "", "year": 0}
"""What stand-ins that could be taken for statements are replaced by in the end; checks pass these over."""


def salvage(kind: type[_Entry], data: Any) -> tuple[_Entry, Mapping[str, tuple[int, ...]]] | None:
    """Make an entry of what is sound in broken data.

    Args:
        kind: `Model`, `Paper` or `Category`.
        data: What stands in the file, in whatever state.

    Returns:
        The entry, empty where nothing sound is said, and for each of its lists the indices in the file of the items that were kept;
        None where the data is no mapping.
    """
    if not isinstance(data, dict):
        return None
    stand_ins = _STAND_INS[kind]
    lists = {name for name, value in data.items() if isinstance(value, list)}
    rest = {name: dict(enumerate(v)) if name in lists else v for name, v in copy.deepcopy(data).items()}
    if kind is Model:
        rest.pop("status", None)  # a curated entry must have papers and claims, which may be what is broken
    for _ in range(2 * MAX_DEPTH):
        kept = {name: tuple(rest[name]) for name in rest if name in lists}
        filled = {name: list(value.values()) if name in lists else value for name, value in rest.items()}
        try:
            entry = kind.model_validate(stand_ins | filled)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                _take_out(rest, kept, details["loc"])
            continue
        unsaid = {name: _UNSAID[name] for name in stand_ins if name in _UNSAID and name not in rest}
        return entry.model_copy(update=unsaid), kept
    return None


def _take_out(rest: dict[Any, Any], kept: Mapping[str, tuple[int, ...]], location: Location) -> None:
    """Remove the innermost value on the way to an error that stands in a mapping."""
    if len(location) > 1 and location[0] in kept and isinstance(location[1], int):
        index = kept[str(location[0])][location[1]]
        if index not in rest.get(location[0], ()):
            return  # gone already, for another error
        location = (location[0], index, *location[2:])
    here: Any = rest
    last: tuple[dict[Any, Any], str | int] | None = None
    for step in location:
        if isinstance(here, dict) and step in here:
            last = here, step
            here = here[step]
    if last:
        last[0].pop(last[1])
