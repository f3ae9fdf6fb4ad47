"""`ptmkb annotations coverage`: how much of the source is annotated."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from ptmkb.cli.notes import chosen_notes
from ptmkb.cli.source import TreeOption, open_tree
from ptmkb.cli.state import FAILS, Format, FormatOption, print_json, print_table

if TYPE_CHECKING:
    from ptmkb.annotations import Coverage


def coverage(
    ctx: typer.Context,
    tree: TreeOption = None,
    format_: FormatOption = Format.table,
) -> None:
    """How much of which file, part and category is annotated."""
    from ptmkb.annotations import count_coverage, resolve_notes

    notes, sound = chosen_notes(ctx.obj, [])
    source = open_tree(tree)
    found = count_coverage(resolve_notes(notes, source), source, ctx.obj.load_catalogue().models)
    if format_ is Format.json:
        print_json({"transformers": source.version, **asdict(found)})
    else:
        _print(found, source.version)
    if not sound:
        raise typer.Exit(FAILS)


def _print(found: Coverage, version: str) -> None:
    files = [
        [
            one.file,
            one.part,
            str(one.notes),
            str(one.checks),
            f"{one.noted_symbols} of {one.symbols}",
            f"{one.noted_lines:,} of {one.lines:,}",
        ]
        for one in found.files
    ]
    print_table(
        f"Annotated files of transformers {version}",
        ["file", "part", "notes", "with a check", "symbols", "lines"],
        files,
    )
    parts = [
        [one.part, str(one.notes), str(one.checks), f"{one.noted_files:,} of {one.files:,}"]
        for one in found.parts
    ]
    print_table("Parts", ["part", "notes", "with a check", "files"], parts)
    categories = [
        [one.category, str(one.notes), f"{one.noted_models} of {one.models}"] for one in found.categories
    ]
    print_table("Categories", ["category", "notes", "models"], categories)
