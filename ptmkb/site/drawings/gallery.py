"""All drawings by name; a name is what a category lists under `drawings`."""

from __future__ import annotations

from collections.abc import Callable

from ptmkb.site.drawings import flows, streams

Draw = Callable[[str], str]

_GALLERY: dict[str, Draw] = {**flows.DRAWINGS, **streams.DRAWINGS}


def drawing_names() -> tuple[str, ...]:
    """The names of all drawings."""
    return tuple(_GALLERY)


def drawing(name: str, language: str) -> str:
    """One drawing as an `<svg>` element.

    Args:
        name: One of `drawing_names()`.
        language: Of its labels, `en` or `zh`.

    Raises:
        KeyError: There is no such drawing.
    """
    return _GALLERY[name](language)
