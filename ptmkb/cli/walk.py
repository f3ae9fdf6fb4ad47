"""`ptmkb walk`: follows real data through the real code, statement by statement."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ptmkb.cli.state import Format, FormatOption, needs_torch, print_json, print_table, refuse

if TYPE_CHECKING:
    from ptmkb.probe.walks import Step, Walk


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(walk)


def walk(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Walks, such as bert-flow.", show_default=False),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every walk.")] = False,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Make these walks the committed record (with --all).")
    ] = False,
    format_: FormatOption = Format.table,
) -> None:
    """Run the real code on a small batch and show what each statement made: shapes, masks, cache sizes, chosen tokens, labels."""
    from ptmkb.labs.walks import take_all, walk_names

    known = ", ".join(walk_names())
    if evidence and not all_:
        refuse("--evidence is about all walks; add --all")
    if all_ == bool(names):
        refuse(f"name walks, or give --all; there are {known}")
    if unknown := [name for name in names or () if name not in walk_names()]:
        refuse(f"there is no walk `{unknown[0]}`; there are {known}")
    needs_torch("walks run models")
    record = take_all(names or None)
    if evidence:
        from ptmkb.probe.walks import write_walks

        sys.stderr.write(f"written: {write_walks(record)}\n")
    if format_ is Format.json:
        print_json(record.model_dump(mode="json", exclude_defaults=True))
        return
    for taken in record.walks:
        _print(taken)


def _print(taken: Walk) -> None:
    for part, steps in taken.steps.items():
        rows = [[str(at), _place(step), step.code, _made(step)] for at, step in enumerate(steps, start=1)]
        print_table(f"{taken.name}: {part}", ["step", "where", "statement", "made"], rows)
    print_table(
        f"{taken.name}: facts", ["fact", "value"], [[name, str(value)] for name, value in taken.facts.items()]
    )


def _place(step: Step) -> str:
    return f"{step.file}:{step.line} {step.symbol}"


def _made(step: Step) -> str:
    if step.shape is None:
        return str(step.value)
    shape = " × ".join(map(str, step.shape)) or "scalar"
    full = f" ({' × '.join(map(str, step.full))})" if step.full else ""
    value = f" = {step.value}" if step.value is not None else ""
    return f"{shape} {step.dtype}{full}{value}"
