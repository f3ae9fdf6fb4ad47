"""The graph for other programs (JSON, GraphML, DOT) and for the terminal (a tree)."""

from __future__ import annotations

import io
from typing import Any

import networkx as nx
from rich.text import Text
from rich.tree import Tree

from ptmkb.lineage.graph import Graph, literature

_FIRST = ("architecture", "weights", "distillation", "component", "scale", "objective", "data")
"""Which of several parents the tree hangs a model under: the one it takes most from."""


def to_json(graph: Graph) -> dict[str, Any]:
    """`{nodes: [{id, …}], edges: [{source, target, relation, …}]}`."""
    return {
        "nodes": [{"id": node, **data} for node, data in graph.nodes(data=True)],
        "edges": [
            {"source": source, "target": target, **data} for source, target, data in graph.edges(data=True)
        ],
    }


def to_graphml(graph: Graph) -> str:
    """GraphML, as Gephi and yEd read it; lists are joined, notes become one attribute a language."""
    flat: Graph = nx.MultiDiGraph()
    for node, data in graph.nodes(data=True):
        flat.add_node(node, **_flat(data))
    for source, target, key, data in graph.edges(keys=True, data=True):
        flat.add_edge(source, target, key=key, **_flat(data))
    out = io.BytesIO()
    nx.write_graphml(flat, out, encoding="utf-8")
    return out.getvalue().decode()


def _flat(data: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{key}": item for key, item in value.items()}
        else:
            flat[name] = ", ".join(value) if isinstance(value, list) else value
    return flat


def to_dot(graph: Graph) -> str:
    """DOT for Graphviz, time from left to right."""
    lines = ["digraph lineage {", "  rankdir=LR;", "  node [shape=box];"]
    lines += [_dot_node(node, data) for node, data in graph.nodes(data=True)]
    lines += [
        f"  {_quoted(source)} -> {_quoted(target)} [label={_quoted(data['relation'])}];"
        for source, target, data in graph.edges(data=True)
    ]
    return "\n".join([*lines, "}", ""])


def _dot_node(node: str, data: dict[str, Any]) -> str:
    label = _quoted(data["name"])[:-1] + "\\n" + data["released"] + '"'
    return f"  {_quoted(node)} [label={label}];"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def to_tree(graph: Graph, root: str | None = None) -> list[Tree]:
    """Trees for the terminal: each model under the ancestor it takes most from, its further ancestors named beside it.

    Args:
        graph: The lineage graph.
        root: Only what descends from this model; all models where None.

    Returns:
        One tree a root, oldest first.
    """
    stated = literature(graph)
    parent: dict[str, tuple[str, str]] = {}
    for node in stated.nodes:
        edges = [(data["relation"], source) for source, _, data in stated.in_edges(node, data=True)]
        if edges:
            relation, source = min(
                edges, key=lambda edge: (_FIRST.index(edge[0]), graph.nodes[edge[1]]["released"], edge[1])
            )
            parent[node] = (source, relation)
    children: dict[str, list[str]] = {}
    for node in graph.nodes:  # oldest first: nodes were added in the order of their dates
        if node in parent:
            children.setdefault(parent[node][0], []).append(node)

    def label(node: str) -> Text:
        data = graph.nodes[node]
        text = Text.assemble((data["name"], "bold"), " ", (data["released"], "dim"))
        if node in parent:
            text.append(f" ← {parent[node][1]}")
        others = [
            f"{graph.nodes[source]['name']} ({edge['relation']})"
            for source, _, edge in stated.in_edges(node, data=True)
            if (source, edge["relation"]) != parent.get(node)
        ]
        if others:
            text.append(f" · also {', '.join(others)}", "dim")
        return text

    shown: set[str] = set()

    def grow(node: str, tree: Tree) -> Tree:
        shown.add(node)
        for child in children.get(node, []):
            if child not in shown:  # in a circle, which `check` reports, every model is its own descendant
                grow(child, tree.add(label(child)))
        return tree

    roots = [root] if root else [node for node in graph.nodes if node not in parent]
    trees = [grow(node, Tree(label(node))) for node in roots]
    if root is None:
        trees += [grow(node, Tree(label(node))) for node in graph.nodes if node not in shown]
    return trees
