"""The graph for the page: pyvis makes vis-network's data and options; positions are given and physics is off.

pyvis' own HTML template loads style sheets from other hosts, so only its data is used; the page of the site brings the container, and the
JavaScript of vis-network is taken from pyvis' package and shipped with the site.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ptmkb.catalogue import Catalogue
from ptmkb.lineage.graph import Graph, ancestors, descendants
from ptmkb.lineage.layout import BOX_HEIGHT, BOX_WIDTH, Layout

_DASHES = {"code": [2, 5], "objective": [9, 5], "data": [2, 3], "distillation": [12, 4, 3, 4]}
_OPTIONS = {
    "physics": {"enabled": False},
    "layout": {"improvedLayout": False},
    "interaction": {
        "hover": True,
        "dragNodes": False,
        "tooltipDelay": 120,
        "navigationButtons": False,
        "keyboard": False,
    },
    "nodes": {
        "shape": "box",
        "margin": 8,
        "borderWidth": 1.5,
        "font": {"size": 15},
        "widthConstraint": {"maximum": BOX_WIDTH},
    },
    "edges": {
        "arrows": {"to": {"enabled": True, "scaleFactor": 0.5}},
        "smooth": {"type": "cubicBezier", "forceDirection": "horizontal", "roundness": 0.45},
    },
}


def network_data(
    graph: Graph, layout: Layout, catalogue: Catalogue, language: str, link: Callable[[str], str]
) -> dict[str, Any]:
    """What the page needs to draw the graph and to walk it.

    Args:
        graph: The lineage graph.
        layout: Its positions.
        catalogue: Gives categories and papers their names.
        language: `en` or `zh`.
        link: The address of a model's page, relative to the graph's page.

    Returns:
        JSON types: `nodes`, `edges`, `options` for vis-network, `years` (the axis), `top`, `bottom`.
    """
    from pyvis.network import Network

    net = Network(directed=True)
    for node, data in graph.nodes(data=True):
        x, y = layout[node]
        category = catalogue.categories.get(data["category"])
        kind = category.name.model_dump()[language] if category else data["category"]
        net.add_node(
            node,
            label=data["name"],
            x=x,
            y=y,
            title=f"{data['name']} · {data['released']}\n{kind}",
            category=data["category"],
            released=data["released"],
            url=link(node),
            ancestors=sorted(ancestors(graph, node)),
            descendants=sorted(descendants(graph, node)),
            physics=False,
            shape="box",
        )
    for source, target, data in graph.edges(data=True):
        relation = data["relation"]
        net.add_edge(
            source,
            target,
            relation=relation,
            title=_edge_title(graph, source, target, data, catalogue, language),
            dashes=_DASHES.get(relation, False),
        )
    nodes, edges, *_ = net.get_network_data()
    for i, edge in enumerate(edges):
        edge["id"] = f"{edge['from']}-{edge['relation']}-{edge['to']}-{i}"
    return {
        "nodes": nodes,
        "edges": edges,
        "options": _OPTIONS,
        "years": {str(year): x for year, x in layout.years.items()},
        "top": layout.top,
        "bottom": layout.bottom,
        "box": [BOX_WIDTH, BOX_HEIGHT],
    }


def _edge_title(
    graph: Graph, source: str, target: str, data: Mapping[str, Any], catalogue: Catalogue, language: str
) -> str:
    names = f"{graph.nodes[source]['name']} → {graph.nodes[target]['name']}"
    if data["relation"] == "code":
        return f"{names}\ncode: {data['symbols']} ({data['example']})"
    paper = catalogue.papers.get(data["paper"])
    where = f"{paper.title} ({paper.year}), {data['at']}" if paper else data["paper"]
    return f"{names}\n{data['relation']}: {data['note'][language]}\n{where}"


def vis_network_files() -> dict[str, Path]:
    """The files of vis-network that the site ships, by name, where pyvis' package has them."""
    import pyvis

    versions = sorted((Path(pyvis.__file__).parent / "templates" / "lib").glob("vis-*"))
    return {name: versions[-1] / name for name in ("vis-network.min.js", "vis-network.css")}


def to_script(data: Mapping[str, Any]) -> str:
    """JSON that is safe inside an HTML `<script>` element."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
