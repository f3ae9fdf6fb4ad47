"""The walks, one file each, found by its place: `bert_flow.py` is the walk `bert-flow`. A file has `take()`, which walks and returns the record.

A walk runs the real code on a small real batch and keeps what it saw. It asserts nothing about what should come out: the record is
compared with a new walk by the tests, and the articles show the record.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, cast

from ptmkb.probe.walks import Walk, WalkRecord


class _WalkModule(Protocol):
    def take(self) -> Walk:
        """Walk."""


def walk_names() -> tuple[str, ...]:
    """The walks that there are."""
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))


def take(name: str) -> Walk:
    """Take one walk.

    Raises:
        LookupError: There is no such walk.
    """
    if name not in walk_names():
        raise LookupError(f"there is no walk `{name}`; there are {', '.join(walk_names())}")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return cast(_WalkModule, module).take()


def take_all(names: Iterable[str] | None = None) -> WalkRecord:
    """Take all walks.

    Returns:
        Their record, with the versions that ran.
    """
    import torch
    import transformers

    walks = tuple(take(name) for name in (walk_names() if names is None else names))
    return WalkRecord(
        transformers=transformers.__version__, torch=torch.__version__.partition("+")[0], walks=walks
    )


def package() -> Path:
    """Where the installed `transformers` lies."""
    import transformers

    return Path(transformers.__file__).parent
