"""What became of the notes' lines from release to release.

A note is anchored to one release. In an older one its lines may not have been written yet: `lost` there is a fact about the source, not a
fault of the note. Where a release could not be read, that is said, and never taken for `lost`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ptmkb.annotations.notes import PlacedNote, resolve_notes
from ptmkb.annotations.resolution import Resolution
from ptmkb.source import SourceError, SourceTree
from ptmkb.source.releases import find_release, release_key


@dataclass(frozen=True, slots=True)
class DriftStep:
    """A note in one release.

    Attributes:
        version: the release.
        resolution: where its lines stand there; None where the release could not be read.
        why: why it could not be read; else "".
    """

    version: str
    resolution: Resolution | None
    why: str = ""

    @property
    def status(self) -> str:
        """exact, moved, changed, lost or unavailable."""
        return self.resolution.status.value if self.resolution else "unavailable"


@dataclass(frozen=True, slots=True)
class NoteHistory:
    """A note through releases.

    Attributes:
        note: the note, with its anchor as it is today.
        steps: one a release, oldest first.
    """

    note: PlacedNote
    steps: tuple[DriftStep, ...]

    def spans(self) -> Iterator[tuple[DriftStep, DriftStep]]:
        """Runs of releases in which the note's status is the same: the first and the last step of each."""
        start = 0
        for index in range(1, len(self.steps) + 1):
            if index == len(self.steps) or self.steps[index].status != self.steps[start].status:
                yield self.steps[start], self.steps[index - 1]
                start = index


def note_histories(
    notes: Sequence[PlacedNote],
    versions: Iterable[str],
    *,
    open_release: Callable[[str], SourceTree] = find_release,
    on_release: Callable[[str], None] | None = None,
) -> list[NoteHistory]:
    """Resolve every note against every release.

    Args:
        notes: such as `NoteSet.notes`.
        versions: the releases, in any order.
        open_release: gives the source of a release; called once for each, oldest first.
        on_release: called with each release when its notes are resolved.

    Returns:
        One history a note, in the same order.
    """
    columns: list[list[DriftStep]] = []
    for version in sorted(set(versions), key=release_key):
        try:
            resolved = resolve_notes(notes, open_release(version))
            columns.append([DriftStep(version, one.resolution) for one in resolved])
        except SourceError as error:
            columns.append([DriftStep(version, None, str(error))] * len(notes))
        if on_release:
            on_release(version)
    return [NoteHistory(note, tuple(column[row] for column in columns)) for row, note in enumerate(notes)]
