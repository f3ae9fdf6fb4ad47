"""`ptmkb annotations drift|update`: the notes' lines in other releases, and notes that follow their lines."""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptmkb.cli.notes import Ids, chosen_notes
from ptmkb.cli.source import TreeOption, open_tree
from ptmkb.cli.source_releases import Patches, WheelsFrom, WheelsTo, chosen_releases, opening
from ptmkb.cli.state import FAILS, Format, FormatOption, print_json, print_table, refuse

if TYPE_CHECKING:
    from pathlib import Path

    from ptmkb.annotations import PlacedNote, ResolvedNote
    from ptmkb.annotations.drift import DriftStep, NoteHistory
    from ptmkb.source import SourceTree


def drift(
    ctx: typer.Context,
    ids: Ids = None,
    first: WheelsFrom = None,
    last: WheelsTo = None,
    patches: Patches = False,
    format_: FormatOption = Format.table,
) -> None:
    """Find every note's lines in a range of releases. Wheels are downloaded by pip once and kept.

    A note whose lines are younger than a release is lost there, which is no failure. Exit code 1: a release could not be read, or a
    file of notes is not sound.
    """
    from ptmkb.annotations.drift import note_histories

    notes, sound = chosen_notes(ctx.obj, ids or [])
    versions = chosen_releases(first, last, patches)
    with opening(versions) as open_release:
        histories = note_histories(notes, versions, open_release=open_release, on_release=_progress)
    if format_ is Format.json:
        print_json({"releases": versions, "notes": [_history(one) for one in histories]})
    else:
        rows = [
            [one.note.id, one.note.file, "\n".join(_span(*span) for span in one.spans())] for one in histories
        ]
        print_table(
            f"{len(rows)} notes from {versions[0]} to {versions[-1]}", ["note", "file", "history"], rows
        )
    troubled = {step.version: step.why for one in histories for step in one.steps if step.why}
    for version, why in troubled.items():
        sys.stderr.write(f"ptmkb: {version}: {why}\n")
    if troubled or not sound:
        raise typer.Exit(FAILS)


def _progress(version: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"transformers {version}: done\n")


def _history(history: NoteHistory) -> dict[str, Any]:
    return {
        "id": history.note.id,
        "file": history.note.file,
        "history": [
            {
                "release": step.version,
                "status": step.status,
                "first_line": step.resolution.first_line if step.resolution else None,
                "last_line": step.resolution.last_line if step.resolution else None,
                "score": round(step.resolution.score, 3) if step.resolution else None,
                "reason": step.resolution.reason if step.resolution else step.why,
            }
            for step in history.steps
        ],
    }


def _span(first: DriftStep, last: DriftStep) -> str:
    releases = first.version if first is last else f"{first.version}–{last.version}"
    return f"{releases} {first.status}"


def update(
    ctx: typer.Context,
    ids: Ids = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Take the lines that were found for this changed note; may be repeated."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written, write nothing.")
    ] = False,
    tree: TreeOption = None,
) -> None:
    """Anchor notes anew where their lines moved, and where changed lines are accepted. The rest of each file stays as it is.

    Exit code 1: a note is still changed or lost, could not be updated, or a file of notes is not sound.
    """
    from ptmkb.annotations import Status, resolve_notes
    from ptmkb.annotations.updating import UpdateError, update_note

    accepted = accept or []
    notes, sound = chosen_notes(ctx.obj, list(dict.fromkeys([*(ids or []), *(accepted if ids else [])])))
    source = open_tree(tree)
    resolved = resolve_notes(notes, source)
    for name in accepted:
        _refuse_needless(name, resolved, source)
    failed = 0
    for one in resolved:
        found = one.resolution
        if found.status is Status.exact:
            continue
        wanted = found.status is Status.moved or one.note.id in accepted
        if not wanted or found.first_line is None or found.last_line is None:
            failed += 1
            accepting = f"; to accept lines {found.first_line}-{found.last_line}: --accept {one.note.id}"
            more = accepting if found.status is Status.changed else ""
            sys.stdout.write(
                f"{one.note.path}:{one.note.line}: {one.note.id}: {found.status}: {found.reason}{more}\n"
            )
            sys.stdout.write(f"{found.diff}\n" if found.diff else "")
            continue
        try:
            with one.note.path.open(encoding="utf-8", newline="") as file:
                old = file.read()
            new = update_note(
                one.note, source.read(one.note.file), found.first_line, found.last_line, write=not dry_run
            )
        except UpdateError as error:
            failed += 1
            sys.stderr.write(f"ptmkb: {one.note.path}:{one.note.line}: {error}\n")
            continue
        sys.stdout.write(f"{one.note.id}: lines {found.first_line}-{found.last_line}, {found.status}\n")
        if dry_run:
            name = str(one.note.path)
            sys.stdout.writelines(
                difflib.unified_diff(
                    old.splitlines(keepends=True), new.splitlines(keepends=True), name, name, n=1
                )
            )
    if not dry_run:
        failed += _follow_files(notes, resolved, source)
    if failed or not sound:
        raise typer.Exit(FAILS)


def _follow_files(notes: list[PlacedNote], resolved: list[ResolvedNote], source: SourceTree) -> int:
    """Move files of notes whose source files have other names now; says how many cannot be."""
    from ptmkb.annotations.updating import UpdateError, move_notes

    failed = 0
    homes: dict[tuple[Path, str], set[str]] = {}
    for note, one in zip(notes, resolved, strict=True):
        if note.file not in source and one.resolution.first_line:
            homes.setdefault((note.path, note.file), set()).add(one.note.file)
    for (path, file), found in homes.items():
        try:
            if len(found) > 1:
                raise UpdateError(
                    f"{file} is gone; its notes stand in {', '.join(sorted(found))} now: move them by hand"
                )
            target = move_notes(path, file, *found)
        except UpdateError as error:
            failed += 1
            sys.stderr.write(f"ptmkb: {path}: {error}\n")
        else:
            sys.stdout.write(f"{path}: its source file is {found.pop()} now; moved to {target}\n")
    return failed


def _refuse_needless(name: str, resolved: list[ResolvedNote], source: SourceTree) -> None:
    """Accepting what is not `changed` is a slip of the pen; it is said before anything is written."""
    found = next((one.resolution for one in resolved if one.note.id == name), None)
    if found is None:
        refuse(f"no note `{name}`; `ptmkb annotations check` lists them all")
    if found.status != "changed":
        refuse(
            f"`{name}` is {found.status} in transformers {source.version}; only changed lines can be accepted"
        )
