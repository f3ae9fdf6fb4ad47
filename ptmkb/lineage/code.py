"""`code` edges: which catalogued model's code comes from which other's, read from a tree of `transformers` source."""

from __future__ import annotations

from ptmkb.lineage.graph import CodeEdge
from ptmkb.source import SourceTree, TreeNotFoundError, code_relations, find_tree


def code_edges(tree: SourceTree | None = None) -> list[CodeEdge]:
    """Read the code lineage of a source tree, one edge for each pair of model directories.

    Args:
        tree: The tree to read, the installed one where None.

    Returns:
        The edges, sorted; none where no `transformers` is installed, since the graph can be drawn without them.
    """
    if tree is None:
        try:
            tree = find_tree()
        except TreeNotFoundError:
            return []
    symbols: dict[tuple[str, str], set[str]] = {}
    examples: dict[tuple[str, str], str] = {}
    for relation in code_relations(tree):
        pair = (relation.source, relation.target)
        symbols.setdefault(pair, set()).update(relation.symbols)
        examples.setdefault(pair, f"{relation.file}:{relation.line}")
    return [CodeEdge(*pair, len(names), examples[pair]) for pair, names in sorted(symbols.items())]
