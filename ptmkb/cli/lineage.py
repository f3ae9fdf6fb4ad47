"""`ptmkb lineage`: the lineage graph as a tree on the terminal or as a file for other programs."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from ptmkb.cli.state import print_json, refuse


class GraphFormat(StrEnum):
    """How the graph is written."""

    tree = "tree"
    json = "json"
    graphml = "graphml"
    dot = "dot"


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(lineage)


def lineage(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Only this model and its descendants.")
    ] = None,
    code: Annotated[bool, typer.Option(help="With the edges read from the source of transformers.")] = True,
    format_: Annotated[GraphFormat, typer.Option("--format")] = GraphFormat.tree,
) -> None:
    """Who descends from whom, by which relation."""
    from ptmkb.catalogue import dangling
    from ptmkb.lineage import (
        build_graph,
        code_edges,
        descendants,
        restrict,
        to_dot,
        to_graphml,
        to_json,
        to_tree,
    )

    catalogue = ctx.obj.load_catalogue()
    wants_code = code and format_ is not GraphFormat.tree
    graph = build_graph(catalogue, code_edges() if wants_code else ())
    if model is not None:
        if model not in graph:
            refuse("; ".join(dangling("model", model, graph.nodes)))
        graph = restrict(graph, {model} | descendants(graph, model))
    if format_ is GraphFormat.json:
        print_json(to_json(graph))
    elif format_ is GraphFormat.tree:
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else 160, emoji=False)
        for tree in to_tree(graph, model):
            console.print(tree, highlight=False)
    else:
        sys.stdout.write(to_graphml(graph) if format_ is GraphFormat.graphml else to_dot(graph))
