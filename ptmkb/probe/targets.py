"""What a run measures: an entry of the catalogue with its published sizes, or a model type of `transformers` that nobody has claimed anything of.

A target holds what findings depend on and nothing else: no claims, no texts. Needs no torch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import BaseModel, ConfigDict

from ptmkb.catalogue import Catalogue, Model
from ptmkb.catalogue.schema import Implementation, TransformersImplementation, Variant

_UNBUILT = Path(__file__).parent / "data" / "unbuilt.yaml"


class Buildable(Protocol):
    """What a model can be built from: an entry, or a target."""

    @property
    def id(self) -> str:
        """Its name, for messages."""

    @property
    def implementation(self) -> Implementation:
        """What its tiny model is built from."""

    @property
    def variants(self) -> list[Variant]:
        """Its published sizes."""


class Target(BaseModel):
    """Something to measure.

    Attributes:
        id: What the run calls it.
        held_as: The name of its findings in the cache. A model type that the catalogue has an entry of shares that entry's.
        implementation: What its tiny model is built from.
        variants: The published sizes to measure at full size.
        tiny: Measure the tiny model; not where that has been done and only variants are left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    held_as: str
    implementation: Implementation
    variants: list[Variant] = []
    tiny: bool = True


def of_entry(entry: Model) -> Target:
    """An entry of the catalogue, tiny and at its published sizes."""
    return Target(id=entry.id, held_as=entry.id, implementation=entry.implementation, variants=entry.variants)


def of_types(names: Iterable[str], catalogue: Catalogue) -> list[Target]:
    """Model types of `transformers`, tiny; each as its entry builds it, where the catalogue has one.

    Args:
        names: Model types, such as `bert`.
        catalogue: Where entries are looked for; of several entries of one type the one that names no class counts, or else the first.
    """
    entries: dict[str, Model] = {}
    for entry in sorted(catalogue.models.values(), key=lambda entry: _architecture(entry) is not None):
        if isinstance(entry.implementation, TransformersImplementation):
            entries.setdefault(entry.implementation.model_type, entry)
    return [
        Target(id=name, held_as=entries[name].id, implementation=entries[name].implementation)
        if name in entries
        else Target(
            id=name,
            held_as=f"{name}.type",
            implementation=TransformersImplementation(kind="transformers", model_type=name),
        )
        for name in names
    ]


@cache
def model_types() -> tuple[str, ...]:
    """All model types of the installed `transformers`, as `tiny.model_types` names them, read from its source: importing it takes seconds."""
    package = find_spec("transformers")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).parent / "models" / "auto" / "modeling_auto.py"
    for node in ast.parse(source.read_bytes()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODEL_MAPPING_NAMES":
            assert isinstance(node.value, ast.Call)
            return tuple(dict(ast.literal_eval(node.value.args[0])))
    raise LookupError(f"{source} has no MODEL_MAPPING_NAMES")


@cache
def unbuilt() -> dict[str, str]:
    """Why the model types that cannot be built or run cannot; not those whose missing package is there."""
    listed: dict[str, dict[str, Any]] = yaml.safe_load(_UNBUILT.read_text(encoding="utf-8"))
    return {
        name: entry["why"]
        for name, entry in listed.items()
        if "needs" not in entry or find_spec(entry["needs"]) is None
    }


def _architecture(entry: Model) -> str | None:
    made = entry.implementation
    return made.architecture if isinstance(made, TransformersImplementation) else None
