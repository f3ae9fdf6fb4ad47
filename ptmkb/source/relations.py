"""Which model's code came from which other model's, as the source itself says it.

Three things say so: a modular file, from which the model's other files are generated, uses another model's classes or functions; an
ordinary file has a class that inherits from another model's; a comment marks a definition as copied from another model's.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from ptmkb.source.cache import remembered
from ptmkb.source.module import syntax_tree
from ptmkb.source.records import copied_marks, imported_from
from ptmkb.source.tree import SourceTree, model_directory

_IMPORT_OF_MODEL = re.compile(r"^from[ \t]+(?:\.\.\w|\.{3,}models\.|transformers\.models\.)", re.MULTILINE)
_FACTORIES = "auto"
"""Choosing a class by configuration (AutoModel) is use of a model, not descent from its code."""


@dataclass(frozen=True, slots=True, order=True)
class CodeRelation:
    """One model directory's code comes from another's.

    Attributes:
        source: the directory that the code comes from.
        target: the directory that has it now.
        kind: "modular" (a modular file builds on it), "inherited" (a class in an ordinary file inherits from it) or "copied".
        symbols: the names taken, as the source directory calls them, sorted.
        file: the file that says so.
        line: the line where it first says so, 1-based.
    """

    source: str
    target: str
    kind: Literal["modular", "inherited", "copied"]
    symbols: tuple[str, ...]
    file: str
    line: int


def code_relations(tree: SourceTree) -> list[CodeRelation]:
    """Read all code relations of a tree: one a source, target, kind and file.

    The result is kept in the user's cache directory until a file under `models/` changes.

    Returns:
        The relations, sorted.
    """
    files = [file for file in tree.files() if model_directory(file) not in (None, _FACTORIES)]
    rows = remembered(tree, "relations-1", files, lambda: [_row(relation) for relation in _read(tree, files)])
    return sorted(CodeRelation(row[0], row[1], row[2], tuple(row[3]), row[4], row[5]) for row in rows)


def _row(relation: CodeRelation) -> list[object]:
    return [
        relation.source,
        relation.target,
        relation.kind,
        list(relation.symbols),
        relation.file,
        relation.line,
    ]


def _read(tree: SourceTree, files: Iterable[str]) -> Iterator[CodeRelation]:
    for file in files:
        target = model_directory(file) or ""
        text = tree.read(file)
        taken: dict[tuple[str, Literal["modular", "inherited", "copied"]], list[tuple[str, int]]] = {}
        for source, symbol, line in _copied(text):
            taken.setdefault((source, "copied"), []).append((symbol, line))
        is_modular = PurePosixPath(file).name.startswith("modular_")
        # Parsing costs a hundred times what this search costs, and most files import from no other model.
        if _IMPORT_OF_MODEL.search(text) or file.startswith("models/deprecated/"):
            for source, symbol, line in _imported(text, file, only_bases=not is_modular):
                taken.setdefault((source, "modular" if is_modular else "inherited"), []).append(
                    (symbol, line)
                )
        for (source, kind), places in taken.items():
            if source not in (target, _FACTORIES):
                names = tuple(sorted({symbol for symbol, _ in places}))
                yield CodeRelation(source, target, kind, names, file, min(line for _, line in places))


def _copied(text: str) -> Iterator[tuple[str, str, int]]:
    """Each mark of what was copied from a model: its directory, the symbol, the line."""
    for line, path, _ in copied_marks(text):
        parts = path.removeprefix("models.").removeprefix("deprecated.").split(".")
        if path.startswith("models.") and len(parts) > 1:
            yield parts[0], ".".join(parts[2:]) or parts[1], line


def _imported(text: str, file: str, *, only_bases: bool) -> Iterator[tuple[str, str, int]]:
    """Each name imported from another model directory and put to use: the directory, the name, the line of the import.

    Args:
        text: the file's source.
        file: its path in the tree.
        only_bases: count a name only where a class inherits from it; else wherever it is used.
    """
    try:
        body = syntax_tree(text).body
    except (SyntaxError, ValueError):
        return
    if only_bases:
        classes = (node for node in ast.walk(ast.Module(body, [])) if isinstance(node, ast.ClassDef))
        used = {name for node in classes for name in _base_names(node)}
    else:
        # The import itself is the one mention of a name that is then not used.
        used = {name for name, count in Counter(re.findall(r"\w+", text)).items() if count > 1}
    for node in body:
        if not isinstance(node, ast.ImportFrom):
            continue
        path = imported_from(node, file)
        source = model_directory(path.replace(".", "/")) if path is not None else None
        if source is None:
            continue
        for alias in node.names:
            if (alias.asname or alias.name) in used:
                yield source, alias.name, node.lineno


def _base_names(node: ast.ClassDef) -> Iterator[str]:
    for base in node.bases:
        while isinstance(base, ast.Attribute | ast.Subscript):
            base = base.value
        if isinstance(base, ast.Name):
            yield base.id
