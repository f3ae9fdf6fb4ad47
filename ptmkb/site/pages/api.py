"""The Python API, a page a room, rendered by mkdocstrings."""

from __future__ import annotations

from collections.abc import Iterator

from ptmkb.site.knowledge import Knowledge
from ptmkb.site.page import Page, link

ORDER = 90
SECTION = "nav.api"

_ROOMS = ("catalogue", "source", "annotations", "lineage", "probe", "reference", "site")


def pages(knowledge: Knowledge) -> Iterator[Page]:
    """An overview and a page a room."""
    import ptmkb

    rooms = []
    for room in _ROOMS:
        module = __import__(f"ptmkb.{room}", fromlist=["_"])
        first = (module.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
        rooms.append(f"- [`ptmkb.{room}`]({link('api/index.md', f'api/{room}.md')}): {first}")
    overview = [
        f"# {knowledge.word('api.title')}",
        f"`ptmkb {ptmkb.__version__}`",
        knowledge.word("api.lead"),
    ]
    yield Page("api/index.md", "\n\n".join([*overview, "\n".join(rooms)]) + "\n", knowledge.word("api.title"))
    for room in _ROOMS:
        yield Page(f"api/{room}.md", f"# ptmkb.{room}\n\n{_directives(room)}\n", f"ptmkb.{room}")


def _directives(room: str) -> str:
    """Which modules a room's page shows: the room itself, and the files that are found by their place."""
    import importlib
    import pkgutil

    names = [f"ptmkb.{room}"]
    if room == "reference":
        package = importlib.import_module("ptmkb.reference")
        names += [f"ptmkb.reference.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
    if room == "probe":
        package = importlib.import_module("ptmkb.probe.measures")
        names = [
            "ptmkb.probe",
            "ptmkb.probe.tiny",
            "ptmkb.probe.subject",
            "ptmkb.probe.record",
            "ptmkb.probe.measures",
        ]
        names += [f"ptmkb.probe.measures.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
    return "\n\n".join(f"::: {name}" for name in names)
