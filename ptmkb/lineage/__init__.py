"""The lineage of models as a graph: who descends from whom, by which relation, on whose evidence.

graph = build_graph(load_catalogue())
place(graph)["bert"]                     # where it stands on the page
"""

from ptmkb.lineage.code import code_edges
from ptmkb.lineage.exports import to_dot, to_graphml, to_json, to_tree
from ptmkb.lineage.graph import CodeEdge, ancestors, build_graph, descendants, restrict
from ptmkb.lineage.layout import Layout, place
from ptmkb.lineage.rendering import network_data, vis_network_files

__all__ = [
    "CodeEdge",
    "Layout",
    "ancestors",
    "build_graph",
    "code_edges",
    "descendants",
    "network_data",
    "place",
    "restrict",
    "to_dot",
    "to_graphml",
    "to_json",
    "to_tree",
    "vis_network_files",
]
