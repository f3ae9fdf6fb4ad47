"""`ptmkb source`: the source of `transformers`, read without importing it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptmkb.cli.state import Format, print_json, print_table, refuse

if TYPE_CHECKING:
    from ptmkb.source import SourceTree

app = typer.Typer(
    help="The source of transformers: its files, its symbols, who took code from whom.", no_args_is_help=True
)

TreeOption = Annotated[
    Path | None,
    typer.Option(
        "--tree",
        metavar="PATH",
        help="A wheel of transformers, its folder or a checkout; by default the installed one.",
    ),
]


def open_tree(where: Path | None) -> SourceTree:
    """The tree that a command reads; ends with exit code 2 where there is none."""
    from ptmkb.source import TreeNotFoundError, find_tree

    try:
        return find_tree(where)
    except TreeNotFoundError as error:
        refuse(str(error))


@app.command()
def files(
    tree: TreeOption = None,
    under: Annotated[str, typer.Option(help="Only files below this folder, such as models/bert.")] = "",
    format_: Annotated[Format, typer.Option("--format")] = Format.table,
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
def show(
    symbol: Annotated[str, typer.Argument(help="Qualified name, such as LlamaAttention.forward.")],
    file: Annotated[str | None, typer.Option(help="The file that defines it, where several do.")] = None,
    tree: TreeOption = None,
) -> None:
    """Print a symbol's source with its line numbers; where several files define it, name them."""
    from ptmkb.source import SourceError

    source = open_tree(tree)
    try:
        found = source.find_symbol(symbol, file)
    except SourceError as error:
        refuse(str(error))
    several = len({module.file for module, _ in found}) > 1
    for module, one in found:
        sys.stdout.write(f"{module.file}:{one.first_line}-{one.last_line}\n")
        if not several:
            for number in range(one.first_line, one.last_line + 1):
                sys.stdout.write(f"{number:6}  {module.lines[number - 1]}".rstrip() + "\n")
    if several:
        sys.stderr.write(f"ptmkb: {symbol} is defined in several files; choose one with --file\n")


@app.command()
def relations(
    tree: TreeOption = None,
    model: Annotated[str | None, typer.Option(help="Only from or to this model directory.")] = None,
    format_: Annotated[Format, typer.Option("--format")] = Format.table,
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
