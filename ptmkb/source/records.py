"""What the index keeps of one file: its symbols with their signatures, and where it says that code comes from elsewhere.

A record is plain JSON data, made from one file alone, so that files can be read side by side in several processes. Where the code comes
from is kept as a dotted path, as written; which file that is, only the whole tree can tell (`ptmkb.source.links`).
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Literal, TypedDict

from ptmkb.source.module import MODULE, Definition, Module, Symbol, parse_with_nodes, split_lines

LinkKind = Literal["inherits", "generated", "copied", "uses"]

_COPIED = re.compile(
    r"#(?P<lead>.*?)\bcopied from +transformers\.(?P<target>\w+(?:\.\w+)*)(?P<note>.*)", re.IGNORECASE
)
_NEGATED = re.compile(r"\bno longer\b", re.IGNORECASE)
_GENERATED = re.compile(r"#.*\bautomatically generated from (?:src/)?transformers/(?P<target>[\w/]+)\.py\b")
_GENERATED_WITHIN = 10
"""Lines from the top in which a generated file says that it is one."""


class SymbolRow(TypedDict):
    """A symbol of `ptmkb.source.Symbol`, with its signature."""

    name: str
    kind: str
    first_line: int
    last_line: int
    signature: str
    bases: list[str]
    doc: str


class LinkRow(TypedDict):
    """One statement that code comes from elsewhere.

    `kind` is "inherits" (a class from a base in the tree), "copied" (a copied-from mark), "generated" (the whole file from a modular file)
    or "uses" (a modular file imports a definition of another model, which is then generated into this one's files). `symbol` is who has
    the code, `target` the dotted path in the package that it comes from, `note` what a copied-from mark adds ("with Bert->Roberta").
    """

    line: int
    symbol: str
    kind: LinkKind
    target: str
    note: str


class FileRecord(TypedDict):
    """All that the index keeps of a file. `lines` is their number, `doc` the first line of the module's docstring."""

    lines: int
    error: str | None
    doc: str
    symbols: list[SymbolRow]
    links: list[LinkRow]


def read_record(text: str, file: str) -> FileRecord:
    """Read a file for the index.

    Args:
        text: its source.
        file: its path in the tree, with forward slashes: relative imports start from there.

    Returns:
        The record. Text that is not valid Python has its symbols (by indentation), without signatures, and its marks in comments.
    """
    module, tree, nodes = parse_with_nodes(text, file)
    return FileRecord(
        lines=len(module.lines),
        error=module.error,
        doc=(ast.get_docstring(tree) or "").split("\n", 1)[0].strip(),
        symbols=list(_symbols(module.symbols, nodes)),
        links=[*_generated(module), *_copied(module, nodes), *_imported(module, tree, nodes)],
    )


def dotted(file: str) -> str:
    """The module's path in the package: "models.bert.modeling_bert"; a folder's own for its `__init__.py`."""
    parts = PurePosixPath(file).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def signature(node: Definition) -> str:
    """Parameters and result, or a class's bases, on one line: "(self, hidden_states: torch.Tensor) -> torch.Tensor"."""
    if isinstance(node, ast.ClassDef):
        given = [ast.unparse(one) for one in (*node.bases, *node.keywords)]
        return f"({', '.join(given)})" if given else ""
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){result}"


def _symbols(symbols: tuple[Symbol, ...], nodes: list[Definition]) -> Iterator[SymbolRow]:
    signatures = [signature(node) for node in nodes] or [""] * len(symbols)
    for symbol, written in zip(symbols, signatures, strict=True):
        yield SymbolRow(
            name=symbol.name,
            kind=symbol.kind,
            first_line=symbol.first_line,
            last_line=symbol.last_line,
            signature=written,
            bases=list(symbol.bases),
            doc=symbol.doc,
        )


def _generated(module: Module) -> Iterator[LinkRow]:
    for number, line in enumerate(module.lines[:_GENERATED_WITHIN], start=1):
        if match := _GENERATED.search(line):
            target = match["target"].replace("/", ".")
            yield LinkRow(line=number, symbol=MODULE, kind="generated", target=target, note="")
            return


def copied_marks(text: str) -> Iterator[tuple[int, str, str]]:
    """Each copied-from mark of a source text: its line, the dotted path in the package that it names, and what it adds."""
    if "opied from" not in text:
        return
    for number, line in enumerate(split_lines(text), start=1):
        match = _COPIED.search(line)
        if match and not _NEGATED.search(match["lead"]):
            yield number, match["target"], match["note"].strip()


def _copied(module: Module, nodes: list[Definition]) -> Iterator[LinkRow]:
    for line, target, note in copied_marks(module.text):
        yield LinkRow(line=line, symbol=_marked(module, nodes, line), kind="copied", target=target, note=note)


def _marked(module: Module, nodes: list[Definition], line: int) -> str:
    """What a mark on this line is about: the definition below it, the one whose decorators it stands among, else the one around it."""
    index = bisect_right([symbol.first_line for symbol in module.symbols], line)
    if index < len(module.symbols):
        below = module.symbols[index]
        between = module.lines[line : below.first_line - 1]
        if all(not text.strip() or text.lstrip().startswith("#") for text in between):
            return below.name
    for symbol, node in zip(module.symbols, nodes, strict=False):
        if symbol.first_line <= line < node.lineno:
            return symbol.name
    around = module.holder(line, line)
    return around.name if around else MODULE


def _imported(module: Module, tree: ast.Module, nodes: list[Definition]) -> Iterator[LinkRow]:
    known: dict[str, str] = {}
    is_modular = PurePosixPath(module.file).name.startswith("modular_")
    for node in _imports(tree.body):
        source = imported_from(node, module.file)
        if source is None:
            continue
        for alias in node.names:
            name = alias.asname or alias.name
            known[name] = f"{source}.{alias.name}".lstrip(".")
            if is_modular and known[name].startswith("models."):
                yield LinkRow(line=node.lineno, symbol=name, kind="uses", target=known[name], note="")
    own = dotted(module.file)
    known |= {
        symbol.name: f"{own}.{symbol.name}".lstrip(".") for symbol in module.symbols if "." not in symbol.name
    }
    for symbol, definition in zip(module.symbols, nodes, strict=False):
        places = definition.bases if isinstance(definition, ast.ClassDef) else []
        for base, place in zip(symbol.bases, places, strict=False):
            first, _, rest = base.partition("[")[0].partition(".")
            if first in known:
                target = f"{known[first]}.{rest}" if rest else known[first]
                yield LinkRow(line=place.lineno, symbol=symbol.name, kind="inherits", target=target, note="")


def _imports(body: Iterable[ast.stmt]) -> Iterator[ast.ImportFrom]:
    """The imports of names that a module makes when it is loaded, those under a condition among them."""
    for node in body:
        if isinstance(node, ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If | ast.Try):
            yield from _imports([*node.body, *node.orelse])
            if isinstance(node, ast.Try):
                yield from _imports(line for handler in node.handlers for line in handler.body)


def imported_from(node: ast.ImportFrom, file: str) -> str | None:
    """The module that an import in a file of the tree names, as a dotted path in the package; None outside of it."""
    parts = node.module.split(".") if node.module else []
    if node.level:
        folder = PurePosixPath(file).parent.parts
        if node.level - 1 > len(folder):
            return None
        return ".".join((*folder[: len(folder) - (node.level - 1)], *parts))
    return ".".join(parts[1:]) if parts[:1] == ["transformers"] else None
