"""The graph, who descends from whom in it, and its exports."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable

import networkx as nx
import pytest
from rich.console import Console
from rich.tree import Tree

from ptmkb.catalogue import load_catalogue
from ptmkb.catalogue.schema import Relation
from ptmkb.lineage import (
    CodeEdge,
    ancestors,
    build_graph,
    code_edges,
    descendants,
    place,
    restrict,
    to_dot,
    to_graphml,
    to_json,
    to_tree,
)
from ptmkb.lineage.exports import _FIRST
from ptmkb.lineage.graph import literature
from ptmkb.lineage.rendering import network_data, to_script, vis_network_files

DATES = {"a": "2017", "b": "2018-01", "c": "2018-02-03", "d": "2019", "e": "2016", "f": "2020"}
EDGES = [
    ("a", "b", "architecture"),
    ("a", "c", "objective"),
    ("b", "d", "weights"),
    ("c", "d", "data"),
    ("c", "d", "architecture"),
    ("e", "f", "scale"),
]


@pytest.fixture
def graph(make_graph):
    code = [
        CodeEdge("d", "a", 3, "models/a/modeling_a.py:7"),
        CodeEdge("x", "a", 1, "?"),
        CodeEdge("a", "a", 1, "?"),
    ]
    return make_graph(DATES, EDGES, code)


def shown(trees: Iterable[Tree]) -> str:
    console = Console(file=io.StringIO(), width=160, emoji=False)
    for tree in trees:
        console.print(tree, highlight=False)
    return console.file.getvalue()


def test_nodes_are_oldest_first_and_edges_run_to_descendants(graph):
    assert list(graph.nodes) == ["e", "a", "b", "c", "d", "f"]
    assert {(s, t, k) for s, t, k in graph.edges(keys=True)} == {*EDGES, ("d", "a", "code")}
    assert graph.edges["d", "a", "code"] == {
        "relation": "code",
        "symbols": 3,
        "example": "models/a/modeling_a.py:7",
    }
    assert graph.edges["a", "b", "architecture"] == {
        "relation": "architecture",
        "note": {"en": "all of it", "zh": "全部"},
        "paper": "p",
        "at": "§1",
    }


def test_ancestors_and_descendants_follow_stated_edges_only(graph):
    assert ancestors(graph, "d") == {"a", "b", "c"}
    assert descendants(graph, "a") == {"b", "c", "d"}
    assert ancestors(graph, "a") == set()  # the code edge from d does not count
    assert descendants(graph, "e") == {"f"}
    assert descendants(graph, "d") == ancestors(graph, "e") == set()
    assert list(literature(graph).nodes) == list(graph.nodes)


def test_a_model_alone_has_neither(make_graph):
    lone = make_graph({"a": "2017"})
    assert ancestors(lone, "a") == descendants(lone, "a") == set()
    assert shown(to_tree(lone)) == "A 2017\n"


def test_restrict_keeps_order_and_all_edges_between(graph):
    part = restrict(graph, {"d", "a", "c"})
    assert list(part.nodes) == ["a", "c", "d"]
    assert {(s, t, k) for s, t, k in part.edges(keys=True)} == {
        ("a", "c", "objective"),
        ("c", "d", "data"),
        ("c", "d", "architecture"),
        ("d", "a", "code"),
    }
    assert part.nodes["c"] == graph.nodes["c"]


def test_tree_hangs_each_model_under_what_it_takes_most_from(graph):
    assert shown(to_tree(graph)).splitlines() == [
        "E 2016",
        "└── F 2020 ← scale",
        "A 2017",
        "├── B 2018-01 ← architecture",
        "└── C 2018-02-03 ← objective",
        "    └── D 2019 ← architecture · also B (weights), C (data)",
    ]


def test_tree_below_one_model(graph):
    part = restrict(graph, {"c"} | descendants(graph, "c"))
    assert shown(to_tree(part, "c")).splitlines() == [
        "C 2018-02-03",
        "└── D 2019 ← architecture · also C (data)",
    ]


def test_every_relation_has_a_rank():
    assert sorted(_FIRST) == sorted(Relation.__args__)


def test_a_circle_loses_no_model_and_ends(make_graph):
    circle = make_graph(
        {"a": "2017", "b": "2017", "c": "2018"},
        [("a", "b", "data"), ("b", "a", "data"), ("b", "c", "data"), ("c", "c", "data")],
    )
    for trees in (to_tree(circle), to_tree(circle, "b")):
        names = re.findall(r"\b([ABC]) 201", shown(trees))
        assert sorted(names) == ["A", "B", "C"]


def test_markup_in_names_is_text(make_graph):
    graph = make_graph({"a": "2017"})
    graph.nodes["a"]["name"] = "A [bold]x[/] [/red] :star:"
    assert shown(to_tree(graph)) == "A [bold]x[/] [/red] :star: 2017\n"


def test_json_is_as_designed(graph):
    data = json.loads(json.dumps(to_json(graph)))
    assert set(data) == {"nodes", "edges"}
    assert data["nodes"][0] == {
        "id": "e",
        "name": "E",
        "released": "2016",
        "category": "decoder-ar",
        "status": "indexed",
        "modalities": ["text"],
    }
    edges = {(edge["source"], edge["target"], edge["relation"]) for edge in data["edges"]}
    assert edges == {*EDGES, ("d", "a", "code")}
    assert len(data["edges"]) == len(edges)


def test_graphml_is_read_back(graph):
    graph.nodes["a"]["name"] = '<A> & "x" 模型'
    back = nx.read_graphml(io.BytesIO(to_graphml(graph).encode()), force_multigraph=True)
    assert dict(back.nodes["a"]) == {
        "name": '<A> & "x" 模型',
        "released": "2017",
        "category": "decoder-ar",
        "status": "indexed",
        "modalities": "text",
    }
    found = {(s, t, data["relation"]) for s, t, data in back.edges(data=True)}
    assert found == {*EDGES, ("d", "a", "code")}
    edge = next(iter(back.get_edge_data("a", "b").values()))
    assert (edge["note_en"], edge["note_zh"], edge["paper"], edge["at"]) == ("all of it", "全部", "p", "§1")


def test_whole_graph_survives_graphml():
    graph = build_graph(load_catalogue(), code_edges())
    back = nx.read_graphml(io.BytesIO(to_graphml(graph).encode()), force_multigraph=True)
    assert set(back.nodes) == set(graph.nodes)
    assert back.number_of_edges() == graph.number_of_edges() > 40


STRING = r'"(?:[^"\\]|\\.)*"'
STATEMENT = rf"  (?:rankdir=LR|node \[shape=box\]|{STRING} \[label={STRING}\]|{STRING} -> {STRING} \[label={STRING}\]);"


def test_dot_is_valid(graph):
    graph.nodes["a"]["name"] = 'A "quoted" \\ back\\'
    dot = to_dot(graph)
    first, *body, last = dot.splitlines()
    assert (first, last) == ("digraph lineage {", "}")
    assert all(re.fullmatch(STATEMENT, line) for line in body)
    assert r'  "a" [label="A \"quoted\" \\ back\\\n2017"];' in body
    assert sum(" -> " in line for line in body) == len(EDGES) + 1
    if program := shutil.which("dot"):
        subprocess.run([program, "-Tcanon"], input=dot, text=True, check=True, capture_output=True)


def test_code_edges_come_from_the_installed_source():
    edges = code_edges()
    pairs = {(edge.ancestor, edge.descendant) for edge in edges}
    assert ("llama", "mistral") in pairs
    assert len(pairs) == len(edges)
    assert all(edge.symbols >= 1 and re.fullmatch(r"\S+\.py:\d+", edge.example) for edge in edges)


def test_exports_do_not_change_from_run_to_run():
    program = (
        "from ptmkb.catalogue import load_catalogue; from ptmkb.lineage import *\n"
        "graph = build_graph(load_catalogue()); part = restrict(graph, {'bert'} | descendants(graph, 'bert'))\n"
        "print(to_dot(part), to_json(part), place(graph).positions)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_data_holds_every_node_and_edge_where_the_layout_puts_it(language):
    catalogue = load_catalogue()
    graph = build_graph(catalogue, [CodeEdge("bert", "roberta", 2, "models/roberta/modeling_roberta.py:1")])
    layout = place(graph)
    data = network_data(graph, layout, catalogue, language, lambda model: f"../models/{model}/")
    nodes = {node["id"]: node for node in data["nodes"]}
    assert set(nodes) == set(graph.nodes)
    assert all((node["x"], node["y"]) == layout[name] for name, node in nodes.items())
    assert nodes["bert"]["url"] == "../models/bert/"
    assert "transformer" in nodes["bert"]["ancestors"]
    assert "roberta" in nodes["bert"]["descendants"]
    assert len(data["edges"]) == graph.number_of_edges() == len({edge["id"] for edge in data["edges"]})
    (edge,) = [edge for edge in data["edges"] if (edge["from"], edge["to"]) == ("transformer", "bert")]
    note = catalogue.models["bert"].lineage[0].note
    assert (note.zh if language == "zh" else note.en) in edge["title"]
    assert data["options"]["physics"] == {"enabled": False}
    assert json.loads(to_script(data)) == json.loads(json.dumps(data))


def test_script_cannot_end_or_open_html():
    script = to_script({"a": "</script><!-- <script>"})
    assert "<" not in script
    assert json.loads(script) == {"a": "</script><!-- <script>"}


def test_vis_network_ships_with_pyvis():
    files = vis_network_files()
    assert files["vis-network.min.js"].stat().st_size > 100_000
    assert files["vis-network.css"].is_file()
