"""Tours: an article's front matter lists notes, `tour: [bert-scaled-scores, …]`; the article shows them numbered, and each note shows its tours.

The line `<!-- tour -->` says where in the article the list stands. An article and its translation have the same tour.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from ptmkb.catalogue.problems import Problem, nearest
from ptmkb.site.page import front_matter

PLACE = "<!-- tour -->"


@dataclass(frozen=True)
class Tour:
    """A way through the notes.

    Attributes:
        page: The article's path below the directory of chapters.
        title: The article's.
        stops: Ids of notes.
        path: The file that says so.
    """

    page: str
    title: str
    stops: tuple[str, ...]
    path: Path


@dataclass(frozen=True)
class Tours:
    """All tours of a language."""

    tours: tuple[Tour, ...] = ()

    @cached_property
    def _by_note(self) -> Mapping[str, list[Tour]]:
        found: dict[str, list[Tour]] = {}
        for tour in self.tours:
            for stop in dict.fromkeys(tour.stops):
                found.setdefault(stop, []).append(tour)
        return found

    def through(self, note_id: str) -> list[Tour]:
        """The tours that a note stands in."""
        return self._by_note.get(note_id, [])

    def of(self, page: str) -> Tour | None:
        """The tour of an article, None where it has none."""
        return next((tour for tour in self.tours if tour.page == page), None)


def read_tours(docs: Path) -> Tours:
    """The tours of all articles below a directory, in the order of their paths.

    Args:
        docs: `docs/en` or `docs/zh`; one that is not there has no tours.
    """
    found = []
    for path in sorted(docs.rglob("*.md")):
        try:
            front = front_matter(path.read_text(encoding="utf-8"))
        except yaml.YAMLError:
            continue  # `tour_problems` says it
        if stops := front.get("tour"):
            names = tuple(map(str, stops)) if isinstance(stops, list) else ()
            found.append(
                Tour(path.relative_to(docs).as_posix(), str(front.get("title", path.stem)), names, path)
            )
    return Tours(tuple(found))


def tour_problems(docs: Path, notes: Collection[str]) -> Iterator[Problem]:
    """What is wrong with the tours below a directory: ids that no note has, ids named twice, a list without its place in the article.

    Args:
        docs: `docs/en` or `docs/zh`.
        notes: The ids that there are.
    """
    for path in sorted(docs.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        try:
            stops = front_matter(text).get("tour")
        except yaml.YAMLError as error:
            yield Problem(
                path, 1, f"front matter that is no YAML ({error})", "mend the lines between the two `---`"
            )
            continue
        if stops is None:
            if PLACE in text:
                yield Problem(
                    path,
                    _line(text, re.escape(PLACE)),
                    f"`{PLACE}` without a tour",
                    "list notes as `tour:` in the front matter",
                )
            continue
        if not isinstance(stops, list) or not stops:
            yield Problem(
                path, _line(text, "tour:"), "`tour` is no list of notes", "write `tour: [note-id, …]`"
            )
            continue
        if PLACE not in text:
            yield Problem(
                path,
                _line(text, "tour:"),
                "a tour that the article does not show",
                f"put `{PLACE}` where it belongs",
            )
        for stop in dict.fromkeys(map(str, stops)):
            line = _line(text, rf"(?<![\w-]){re.escape(stop)}(?![\w-])")
            if stop not in notes:
                meant = nearest(stop, notes)
                mend = f"did you mean `{meant}`?" if meant else "name a note that there is"
                yield Problem(path, line, f"the tour names the note `{stop}`, which there is not", mend)
            if stops.count(stop) > 1:
                yield Problem(path, line, f"the tour names the note `{stop}` twice", "name it once")


def _line(text: str, pattern: str) -> int:
    found = re.search(pattern, text)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def expand_tour(markdown: str, tour: Tour | None, entry: Callable[[str], str]) -> str:
    """Put the list of a tour in its place.

    Args:
        markdown: An article's text.
        tour: Its tour; without one the text stays as it is.
        entry: Makes a stop's line, a link with the note's title.

    Raises:
        KeyError: `entry` knows no such note.
    """
    if tour is None or PLACE not in markdown:
        return markdown
    lines = [f"{nth}. {entry(stop)}" for nth, stop in enumerate(tour.stops, start=1)]
    return markdown.replace(PLACE, "\n".join(lines))
