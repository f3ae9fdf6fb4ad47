"""The graph itself: models are nodes, each statement of descent is an edge from ancestor to descendant.

Edges of the relations that the literature states come from the entries; `code` edges come from the source of `transformers`
(which model's code inherits from or is copied from which) and are handed in, so that the graph can be made without a source tree.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import networkx as nx

from ptmkb.catalogue import Catalogue

Graph: TypeAlias = "nx.MultiDiGraph[str]"
"""Nodes carry `name`, `released`, `category`, `status`, `modalities`; edges carry `relation`, and where the literature states them `note`
(both languages), `paper` and `at`. The key of an edge is its relation."""


@dataclass(frozen=True)
class CodeEdge:
    """Code of one model that another model's code inherits from or is copied from.

    Attributes:
        ancestor: The model directory whose code is reused.
        descendant: The model directory that reuses it.
        symbols: How many classes and functions are reused.
        example: `file:line` of the first.
    """

    ancestor: str
    descendant: str
    symbols: int
    example: str


def build_graph(catalogue: Catalogue, code: Iterable[CodeEdge] = ()) -> Graph:
    """Make the lineage graph of a catalogue.

    Args:
        catalogue: A checked catalogue; edges to models that it lacks are left out.
        code: Edges read from the source; those between models of the catalogue are added.

    Returns:
        A directed multigraph, ancestors before descendants.
    """
    graph: Graph = nx.MultiDiGraph()
    for model in sorted(catalogue.models.values(), key=lambda m: (m.released, m.id)):
        graph.add_node(
            model.id,
            name=model.name,
            released=model.released,
            category=model.category,
            status=model.status,
            modalities=list(model.modalities),
        )
    for model in catalogue.models.values():
        for descent in model.lineage:
            if descent.ancestor in graph:
                graph.add_edge(
                    descent.ancestor,
                    model.id,
                    key=descent.relation,
                    relation=descent.relation,
                    note=descent.note.model_dump(),
                    paper=descent.source.paper,
                    at=descent.source.at,
                )
    for edge in code:
        if edge.ancestor in graph and edge.descendant in graph and edge.ancestor != edge.descendant:
            graph.add_edge(
                edge.ancestor,
                edge.descendant,
                key="code",
                relation="code",
                symbols=edge.symbols,
                example=edge.example,
            )
    return graph


def literature(graph: Graph) -> Graph:
    """The part of the graph that the literature states; it has no circles, which `code` edges may have."""
    return _part(graph, (edge for edge in graph.edges(keys=True) if edge[2] != "code"))


def restrict(graph: Graph, models: Container[str]) -> Graph:
    """The graph of some of its models, with the edges between them, all in the order of the whole.

    (A view of networkx walks over a set, so that its order would change from run to run.)
    """
    part = _part(graph, (edge for edge in graph.edges(keys=True) if edge[0] in models and edge[1] in models))
    part.remove_nodes_from([node for node in graph if node not in models])
    return part


def _part(graph: Graph, edges: Iterable[tuple[str, str, str]]) -> Graph:
    part: Graph = nx.MultiDiGraph()
    part.add_nodes_from(graph.nodes(data=True))
    for source, target, key in edges:
        part.add_edge(source, target, key=key, **graph.edges[source, target, key])
    return part


def ancestors(graph: Graph, model_id: str) -> set[str]:
    """Every model that this one descends from, through any number of stated edges."""
    stated = literature(graph)
    return set(nx.ancestors(stated, model_id))


def descendants(graph: Graph, model_id: str) -> set[str]:
    """Every model that descends from this one, through any number of stated edges."""
    stated = literature(graph)
    return set(nx.descendants(stated, model_id))
