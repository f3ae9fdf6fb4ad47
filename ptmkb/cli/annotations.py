"""`ptmkb annotations`: do the notes still stand at their lines, and what would a new one look like.

`note_releases` has what they are in other releases, `note_copies` what they look like elsewhere.
"""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptmkb.cli import note_copies, note_coverage, note_releases
from ptmkb.cli.notes import Ids, chosen_notes
from ptmkb.cli.source import TreeOption, open_tree
from ptmkb.cli.state import FAILS, Format, FormatOption, print_json, print_table, refuse

if TYPE_CHECKING:
    from ptmkb.annotations import CheckResult, ResolvedNote
    from ptmkb.source import SourceTree

app = typer.Typer(
    help="The notes on the source: check them, start one, follow them through releases, take them elsewhere.",
    no_args_is_help=True,
)


@app.command()
def check(
    ctx: typer.Context,
    ids: Ids = None,
    run: Annotated[
        bool | None,
        typer.Option(
            "--run/--no-run",
            help="Whether to run the notes' own checks; by default where torch is there, and on the installed release.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Checks run at once; by default one a core.")
    ] = None,
    tree: TreeOption = None,
    format_: FormatOption = Format.table,
) -> None:
    """Find every note's lines in the source and run every check; exit 1 if lines changed or were lost, or a note is not sound or not true."""
    from ptmkb.annotations import resolve_notes, run_checks

    notes, sound = chosen_notes(ctx.obj, ids or [])
    source = open_tree(tree)
    resolved = resolve_notes(notes, source)
    results = {}
    if run is None:
        has_torch = find_spec("torch") is not None
        run = has_torch and tree is None
        if not has_torch:
            sys.stderr.write(
                "ptmkb: the notes' own checks need torch and were not run: pip install 'ptmkb[probe]'\n"
            )
    if run:
        results = {result.id: result for result in run_checks(notes, jobs, on_result=_progress)}
    if format_ is Format.json:
        _print_json(source, resolved, results)
    else:
        _print_table(source, resolved, results)
    passed = all(result.status == "passed" for result in results.values())
    if not (sound and passed and all(one.holds for one in resolved)):
        raise typer.Exit(FAILS)


def _progress(result: CheckResult) -> None:
    if result.status == "passed":
        sys.stderr.write(f"{result.id}: passed ({result.seconds:.1f} s)\n")
    else:
        lines = result.why.splitlines() or [""]
        sys.stderr.write(f"{result.id}: {result.status} ({result.seconds:.1f} s): {lines[-1]}\n")


def _print_json(source: SourceTree, resolved: list[ResolvedNote], results: dict[str, CheckResult]) -> None:
    rows = []
    for one in resolved:
        row: dict[str, object] = {
            "id": one.note.id,
            "file": one.note.file,
            "status": one.resolution.status.value,
            "first_line": one.resolution.first_line,
            "last_line": one.resolution.last_line,
        }
        if result := results.get(one.note.id):
            row["check"] = {"status": result.status, "seconds": result.seconds, "why": result.why}
        rows.append(row)
    print_json({"transformers": source.version, "notes": rows})


def _print_table(source: SourceTree, resolved: list[ResolvedNote], results: dict[str, CheckResult]) -> None:
    columns = ["note", "file", "lines", "status"]
    rows = []
    for one in resolved:
        found = one.resolution
        lines = "" if found.first_line is None else f"{found.first_line}-{found.last_line}"
        rows.append([one.note.id, one.note.file, lines, found.status.value])
        if results:
            result = results.get(one.note.id)
            rows[-1].append(result.status if result else "")
    print_table(
        f"{len(rows)} notes on transformers {source.version}",
        [*columns, "check"] if results else columns,
        rows,
    )
    for one in resolved:
        if not one.holds:
            sys.stdout.write(
                f"{one.note.path}:{one.note.line}: {one.note.id}: {one.resolution.status}: {one.resolution.reason}\n"
            )
            if one.resolution.diff:
                sys.stdout.write(f"{one.resolution.diff}\n")
    for result in results.values():
        if result.status != "passed":
            sys.stdout.write(f"{result.id}: its check {result.status}\n{result.why}\n")


@app.command()
def add(
    place: Annotated[
        str, typer.Argument(metavar="FILE:FIRST-LAST", help="Such as models/bert/modeling_bert.py:120-124.")
    ],
    tree: TreeOption = None,
) -> None:
    """Print the YAML of a new note on lines of the source, its anchor filled in."""
    from ptmkb.annotations import draft_note
    from ptmkb.source import SourceFileNotFoundError

    match = re.fullmatch(r"(?P<file>.+?):(?P<first>\d+)(?:-(?P<last>\d+))?", place)
    if match is None:
        refuse(f"`{place}` is no place; write FILE:12-18, the lines counted from 1")
    source = open_tree(tree)
    file = match["file"].removeprefix(f"{source.where.as_posix()}/")
    first = int(match["first"])
    last = int(match["last"] or first)
    try:
        draft = draft_note(source.read(file), file, first, last)
    except (SourceFileNotFoundError, ValueError) as error:
        refuse(str(error))
    target = Path(file).with_suffix(".yaml").as_posix()
    sys.stdout.write(f"# for {target}, below `file: {file}` and `notes:`\n{draft}")


app.command()(note_coverage.coverage)
app.command()(note_releases.drift)
app.command()(note_releases.update)
app.command()(note_copies.weave)
app.command()(note_copies.export)
