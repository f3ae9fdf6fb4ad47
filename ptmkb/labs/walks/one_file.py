"""How the models come by their code: what modular files generate, what is copied, who inherits from whom; read from the source index.

Nothing runs here and torch is not needed. Counts are of one release; the shares over the releases are read from their wheels, which are fetched
once and kept.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import networkx as nx

from ptmkb.probe.walks import Walk
from ptmkb.source import (
    MODULE,
    IndexUnavailableError,
    Link,
    SourceIndex,
    SourceTree,
    code_relations,
    find_tree,
    model_directory,
    update_index,
)
from ptmkb.source.releases import find_release

RELEASES = ("4.20.1", "4.40.2", "4.48.3", "4.57.6", "5.0.0", "5.12.0")
"""Releases that are compared with the present one."""

_GENERATED = re.compile(r"#.*\bautomatically generated from (?:src/)?transformers/", re.IGNORECASE)
_COPIED = re.compile(r"#\s*Copied from transformers\.")
_HEAD = 10  # lines from the top in which a generated file says that it is one
_SHOWN = 12  # rows of a chart
_ALIKE = ("RMSNorm", "rotate_half", "repeat_kv", "eager_attention_forward", "apply_rotary_pos_emb")
"""Definitions that many models have: a class by how its name ends, a function by its name."""

Place = tuple[str, str]  # a file and a qualified name in it


def take() -> Walk:
    """Read the release that is installed, and its predecessors."""
    tree = find_tree()
    with _index(tree) as index:
        links = index.links()
    relations = code_relations(tree)
    models = _models(tree)
    modular = nx.DiGraph((r.source, r.target) for r in relations if r.kind == "modular")
    classes = _classes(links)
    chain = nx.dag_longest_path(classes)
    own = _shares(tree)
    parents = Counter({model: modular.out_degree(model) for model in modular})
    below = {model: len(nx.descendants(modular, model)) for model in modular}
    alike = {name: _alike(tree, name) for name in _ALIKE}
    return Walk(
        name="one-file",
        setting={"transformers": tree.version},
        facts={
            "models": len(models),
            "builders": len({r.target for r in relations if r.kind == "modular"}),
            "sources": sum(1 for model in modular if modular.out_degree(model)),
            "modular_pairs": modular.number_of_edges(),
            "copied_pairs": len({(r.source, r.target) for r in relations if r.kind == "copied"}),
            "llama_children": parents["llama"],
            "llama_descendants": below["llama"],
            "bert_children": parents["bert"],
            "bert_copies": len({r.target for r in relations if r.kind == "copied" and r.source == "bert"}),
            "longest_models": nx.dag_longest_path_length(modular),
            "longest_classes": len({file for file, _ in chain if not _is_modular(file)}) - 1,
            "inherited_classes": _inherited(links),
            **own,
            **{
                f"alike_{name}": {"count": count, "bodies": bodies} for name, (count, bodies) in alike.items()
            },
        },
        pictures={
            "parents": _bars(parents.most_common(_SHOWN)),
            "bases": _bars(_bases(links).most_common(_SHOWN)),
            "chain": _chain(chain, tree),
            "alike": {
                "kind": "table",
                "columns": ["definition", "definitions", "bodies"],
                "rows": [[name, *alike[name]] for name in _ALIKE],
            },
            "releases": _releases(tree, own),
        },
    )


def _index(tree: SourceTree) -> SourceIndex:
    """The index of a tree, brought up to date."""
    try:
        opened = SourceIndex(tree)
        if opened.is_current():
            return opened
        opened.close()
    except IndexUnavailableError:
        pass
    update_index(tree)
    return SourceIndex(tree)


def _models(tree: SourceTree) -> set[str]:
    """The model directories: those with a modeling file of their own."""
    return {
        directory
        for file in tree.files()
        if PurePosixPath(file).name.startswith("modeling_")
        and (directory := model_directory(file)) not in (None, "auto")
    }


def _is_modular(file: str) -> bool:
    return PurePosixPath(file).name.startswith("modular_")


def _shares(tree: SourceTree) -> dict[str, Any]:
    """Lines of model code: in modular files, generated from them, and all others; copied-from marks; models with a modular file."""
    lines: Counter[str] = Counter()
    marks, modular = 0, set()
    for file in tree.files():
        directory = model_directory(file)
        if directory in (None, "auto"):
            continue
        text = tree.read(file)
        count = text.count("\n")
        if _is_modular(file):
            lines["modular"] += count
            modular.add(directory)
        elif any(_GENERATED.match(line) for line in text.split("\n", _HEAD)[:_HEAD]):
            lines["generated"] += count
        else:
            lines["other"] += count
        marks += len(_COPIED.findall(text))
    return {
        "with_modular": len(modular),
        "modular_lines": lines["modular"],
        "generated_lines": lines["generated"],
        "other_lines": lines["other"],
        "generated_share": round(lines["generated"] / sum(lines.values()), 4),
        "copied_marks": marks,
    }


def _across(link: Link) -> bool:
    source, target = model_directory(link.file), model_directory(link.target_file)
    return None not in (source, target) and source != target


def _inherited(links: Iterable[Link]) -> int:
    """Classes of modular files that inherit from another model's class."""
    return len(
        {(x.file, x.symbol) for x in links if x.kind == "inherits" and _is_modular(x.file) and _across(x)}
    )


def _bases(links: Iterable[Link]) -> Counter[str]:
    """Classes by how many classes of other models' modular files inherit from them."""
    takers: dict[str, set[Place]] = defaultdict(set)
    for link in links:
        if link.kind == "inherits" and _is_modular(link.file) and _across(link):
            takers[link.target_symbol].add((link.file, link.symbol))
    return Counter({name: len(who) for name, who in takers.items()})


def _classes(links: Iterable[Link]) -> Any:
    """Top-level definitions, each with an edge to what it is generated from, or in a modular file inherits from."""
    graph: Any = nx.DiGraph()
    for link in links:
        if MODULE in (link.symbol, link.target_symbol) or "." in link.symbol or not link.target_file:
            continue
        here, there = (link.file, link.symbol), (link.target_file, link.target_symbol)
        taken = link.kind == "generated" or (link.kind == "inherits" and _is_modular(link.file))
        if taken and here != there:
            graph.add_edge(here, there)
    return graph


def _chain(places: list[Place], tree: SourceTree) -> dict[str, Any]:
    """The longest way from a class to the first of its line, one row a model, with the lines where it stands."""
    rows: list[dict[str, Any]] = []
    for file, symbol in places:
        if _is_modular(file) and rows:
            rows[-1]["modular"] = file  # the file that its line is generated from
            continue
        first = next((one.first_line for one in tree.module(file).named(symbol)), None)
        rows.append({"file": file, "symbol": symbol, "line": first, "modular": None})
    return {"kind": "chain", "version": tree.version, "rows": rows}


def _bars(counted: Iterable[tuple[str, int]]) -> dict[str, Any]:
    ordered = sorted(counted, key=lambda item: (-item[1], item[0]))
    return {"kind": "bars", "rows": [{"name": name, "value": count} for name, count in ordered]}


def _alike(tree: SourceTree, name: str) -> tuple[int, int]:
    """How many modeling files define something, and how many different bodies that has when names and docstrings are left out."""
    bodies: Counter[str] = Counter()
    for file in tree.files():
        if not PurePosixPath(file).name.startswith("modeling_") or model_directory(file) in (None, "auto"):
            continue
        text = tree.read(file)
        if name not in text:
            continue
        for node in ast.parse(text).body:
            alike = isinstance(node, ast.ClassDef) and node.name.endswith(name)
            if alike or (isinstance(node, ast.FunctionDef) and node.name == name):
                bodies[_bare(node)] += 1
    return bodies.total(), len(bodies)


def _bare(node: Any) -> str:
    """The syntax of a definition without its own name, docstrings and annotations, which say nothing about what it computes."""
    own = node.name
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef):
            first = inner.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                inner.body = inner.body[1:] or [ast.Pass()]
        if isinstance(inner, ast.FunctionDef):
            inner.returns = None
        if isinstance(inner, ast.arg):
            inner.annotation = None
    return ast.dump(node).replace(repr(own), "''")


def _releases(tree: SourceTree, own: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for version in (*RELEASES, tree.version):
        shares = own if version == tree.version else _shares(find_release(version))
        count = len(_models(tree if version == tree.version else find_release(version)))
        rows.append(
            [
                version,
                count,
                shares["with_modular"],
                shares["copied_marks"],
                f"{100 * shares['generated_share']:.0f} %",
            ]
        )
    return {
        "kind": "table",
        "columns": ["release", "models", "with_modular", "copied_marks", "generated_share"],
        "rows": rows,
    }
