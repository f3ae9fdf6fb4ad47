"""`ptmkb source`: the source of `transformers`, read without importing it.

Its files and relations are here; `source_index` has what the index answers, `source_releases` what released wheels do.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from ptmkb.cli import source_index, source_releases
from ptmkb.cli.source_index import TreeOption, open_tree
from ptmkb.cli.state import Format, FormatOption, print_json, print_table, refuse

__all__ = ["TreeOption", "app", "open_tree"]

app = typer.Typer(
    help="The source of transformers: its files, its symbols, who took code from whom.", no_args_is_help=True
)

app.command()(source_index.index)
app.command()(source_index.search)
app.command()(source_index.show)
app.command()(source_releases.history)
app.command()(source_releases.releases)


@app.command()
def files(
    tree: TreeOption = None,
    under: Annotated[str, typer.Option(help="Only files below this folder, such as models/bert.")] = "",
    format_: FormatOption = Format.table,
) -> None:
    """List the Python files of the release."""
    source = open_tree(tree)
    folder = under.rstrip("/") + "/" if under else ""
    chosen = [file for file in source.files() if file.startswith(folder)]
    if format_ is Format.json:
        print_json({"transformers": source.version, "files": chosen})
    else:
        sys.stdout.writelines(f"{file}\n" for file in chosen)


@app.command()
def relations(
    tree: TreeOption = None,
    model: Annotated[str | None, typer.Option(help="Only from or to this model directory.")] = None,
    format_: FormatOption = Format.table,
) -> None:
    """List which model directory's code comes from which: modular files, inheritance, copied-from marks."""
    from ptmkb.source import code_relations

    source = open_tree(tree)
    if model is not None and model not in source.model_directories():
        refuse(f"transformers {source.version} has no directory models/{model}")
    chosen = [one for one in code_relations(source) if model in (None, one.source, one.target)]
    if format_ is Format.json:
        print_json({"transformers": source.version, "relations": [asdict(one) for one in chosen]})
        return
    rows = [
        [one.source, one.target, one.kind, f"{one.file}:{one.line}", ", ".join(one.symbols)] for one in chosen
    ]
    print_table(
        f"{len(rows)} code relations in transformers {source.version}",
        ["from", "to", "kind", "said at", "symbols"],
        rows,
    )
