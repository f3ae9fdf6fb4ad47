"""What the commands on notes share: which notes they are about."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ptmkb.cli.state import State, refuse

if TYPE_CHECKING:
    from ptmkb.annotations import PlacedNote

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]…", help="Only these notes.")]


def chosen_notes(state: State, ids: list[str]) -> tuple[list[PlacedNote], bool]:
    """The chosen notes, all where none is named; and whether all files of notes are sound.

    What is wrong with a file of notes is printed; an unknown id ends with exit code 2.
    """
    from ptmkb.annotations import load_notes, notes_directory

    loaded = load_notes(state.annotations_dir or notes_directory())
    for problem in loaded.problems:
        sys.stderr.write(f"{problem}\n")
    known = {note.id for note in loaded.notes}
    if unknown := [name for name in ids if name not in known]:
        refuse(f"no note `{unknown[0]}`; `ptmkb annotations check` lists them all")
    chosen = [note for note in loaded.notes if not ids or note.id in ids]
    return chosen, not loaded.problems
