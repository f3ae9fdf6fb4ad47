"""The kinds of pages, one file each, found by their place: a new file here is a new kind.

A module has `ORDER`, its place in the navigation, and `pages(knowledge)`, which yields its pages; the first is the one that the
navigation's tab opens. `SECTION` is the key of the tab's label in `words.yaml`, None for pages outside the navigation.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from ptmkb.site.knowledge import Knowledge
from ptmkb.site.page import Page


class PageKind(Protocol):
    """The interface of a module in this package."""

    ORDER: int
    SECTION: str | None

    def pages(self, knowledge: Knowledge) -> Iterator[Page]:
        """The pages of this kind."""


@dataclass(frozen=True)
class Section:
    """One tab of the navigation.

    Attributes:
        key: Of its label; None for pages outside the navigation.
        order: Its place among the tabs.
        pages: What it holds, the page that the tab opens first.
    """

    key: str | None
    order: int
    pages: tuple[Page, ...]


def sections(knowledge: Knowledge) -> list[Section]:
    """Make all pages, kind by kind in the order of the navigation."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    kinds = [cast(PageKind, importlib.import_module(f"{__name__}.{name}")) for name in names]
    return [
        Section(kind.SECTION, kind.ORDER, tuple(kind.pages(knowledge)))
        for kind in sorted(kinds, key=lambda kind: kind.ORDER)
    ]
