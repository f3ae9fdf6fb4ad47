"""One Python file: its lines and its symbols, with the line ranges that they hold.

The file is parsed, never run. A file that does not parse (another Python's syntax, a half-written edit) still gets its symbols, found by
their indentation, so that notes on it can be resolved.
"""

from __future__ import annotations

import ast
import gc
import re
import warnings
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

MODULE = "<module>"
"""The name of what holds the lines that no symbol holds."""

Kind = Literal["class", "function", "method"]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_BLOCKS = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
)
"""Statements that may hold definitions of their holder's own."""

NEWLINE = re.compile(r"\r\n|\r|\n")
"""What ends a line of source text, as Python sees it."""

_ENDED_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_HEADER = re.compile(r"(?P<indent>[ \t]*)(?:async[ \t]+)?(?P<word>def|class)[ \t]+(?P<name>[^\W\d]\w*)")
_DECORATOR = re.compile(r"[ \t]*@")
_TRIPLE = re.compile(r"'''|\"\"\"")


@dataclass(frozen=True, slots=True)
class Symbol:
    """A class, function or method of a file.

    Attributes:
        name: qualified name within the file, such as "LlamaAttention.forward"; a nested function is "outer.inner".
        kind: "class", "function" (at module level or inside a function) or "method".
        first_line: 1-based; the first decorator's line where there is one.
        last_line: 1-based, inclusive.
        bases: a class's bases as they are written; empty for the others.
        doc: first line of the docstring, or "".
    """

    name: str
    kind: Kind
    first_line: int
    last_line: int
    bases: tuple[str, ...] = ()
    doc: str = ""


def split_lines(text: str) -> list[str]:
    r"""Split source text into lines as Python counts them, without their ends.

    `str.splitlines` also splits at form feeds and other separators, which Python does not take for line ends, and would shift every line
    number after one. A last line without an end counts; nothing follows a final line end.
    """
    lines = NEWLINE.split(text) if "\r" in text else text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return lines


def ended_lines(text: str) -> list[str]:
    """The lines of `split_lines`, with their ends."""
    return _ENDED_LINE.findall(text)


@dataclass(frozen=True)
class Module:
    """A parsed file.

    Attributes:
        file: its path in the tree, with forward slashes.
        text: its source.
        symbols: in the order of their first lines; outer before inner.
        error: why it could not be parsed, else None. Symbols were then found by indentation.
    """

    file: str
    text: str = field(repr=False)
    symbols: tuple[Symbol, ...] = field(repr=False)
    error: str | None = None

    @cached_property
    def lines(self) -> list[str]:
        """The file's lines, without their ends; line n is `lines[n - 1]`."""
        return split_lines(self.text)

    @cached_property
    def _by_name(self) -> dict[str, tuple[Symbol, ...]]:
        found: dict[str, tuple[Symbol, ...]] = {}
        for symbol in self.symbols:
            found[symbol.name] = (*found.get(symbol.name, ()), symbol)
        return found

    def named(self, name: str) -> tuple[Symbol, ...]:
        """All symbols of that qualified name: more than one for overloads, property setters and definitions by case."""
        return self._by_name.get(name, ())

    def holder(self, first_line: int, last_line: int) -> Symbol | None:
        """The innermost symbol that holds all these lines, or None where only the module does."""
        starts = self._starts
        # Symbols begin in order, so those after this index begin too late to hold the first line.
        for index in range(bisect_right(starts, first_line) - 1, -1, -1):
            if self.symbols[index].last_line >= last_line:
                return self.symbols[index]
        return None

    @cached_property
    def _starts(self) -> list[int]:
        return [symbol.first_line for symbol in self.symbols]

    def source(self, symbol: Symbol) -> str:
        """The symbol's own text, as it stands in the file, with unix line ends."""
        return "\n".join(self.lines[symbol.first_line - 1 : symbol.last_line]) + "\n"


def parse_module(text: str, file: str = "") -> Module:
    """Read a file's symbols.

    Args:
        text: Python source; a byte order mark, any line ends and tabs are fine.
        file: its path, kept for messages.

    Returns:
        The module; `error` says so where the text is not valid Python.
    """
    return parse_with_nodes(text, file)[0]


def parse_with_nodes(text: str, file: str = "") -> tuple[Module, ast.Module, list[Definition]]:
    """Read a file's symbols and keep what they were read from, for those who want more of it without parsing twice.

    Args:
        text: as for `parse_module`.
        file: as for `parse_module`.

    Returns:
        The module; its syntax tree; the definition of each of its symbols, in the same order. Text that is not valid Python has an empty
        tree and no definitions.
    """
    text = text.removeprefix("\ufeff")
    try:
        tree = syntax_tree(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = f"{type(error).__name__}: {error}"
        return Module(file, text, tuple(_scan(split_lines(text))), reason), ast.Module([], []), []
    found = sorted(
        _walk(tree.body, "", "function"), key=lambda pair: (pair[0].first_line, -pair[0].last_line)
    )
    return Module(file, text, tuple(symbol for symbol, _ in found)), tree, [node for _, node in found]


def syntax_tree(text: str | bytes) -> ast.Module:
    """Parse Python source, without a word about invalid escapes: other people's strings are not our reader's concern.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: if it is not valid Python.
    """
    # A syntax tree is a hundred thousand objects without a cycle; looking for cycles among them takes as long as the parsing.
    collects = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    finally:
        if collects:
            gc.enable()


def _walk(body: list[ast.stmt], prefix: str, function_kind: Kind) -> Iterator[tuple[Symbol, Definition]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            name = prefix + node.name
            is_class = isinstance(node, ast.ClassDef)
            bases = tuple(ast.unparse(base) for base in node.bases) if isinstance(node, ast.ClassDef) else ()
            doc = (ast.get_docstring(node) or "").split("\n", 1)[0].strip()
            symbol = Symbol(
                name, "class" if is_class else function_kind, first, node.end_lineno or first, bases, doc
            )
            yield symbol, node
            yield from _walk(node.body, name + ".", "method" if is_class else "function")
            continue
        if not isinstance(node, _BLOCKS):
            continue
        for block in ("body", "orelse", "finalbody"):
            inner = getattr(node, block, None)
            if inner:
                yield from _walk(inner, prefix, function_kind)
        for branch in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _walk(branch.body, prefix, function_kind)


def _scan(lines: list[str]) -> list[Symbol]:
    """Symbols by their indentation alone, for text that does not parse."""
    found: list[Symbol] = []
    open_symbols: list[tuple[int, int]] = []  # (indent, index in found), outermost first
    decorated_from: int | None = None
    decorator_indent = 0
    quotes: str | None = None  # the triple quote that we are inside of
    last_code = 0
    for number, line in enumerate(lines, start=1):
        inside_text = quotes is not None
        for match in _TRIPLE.finditer(line):
            if quotes is None:
                quotes = match.group()
            elif quotes == match.group():
                quotes = None
        if not line.strip():
            continue
        if not inside_text:
            indent = len(line) - len(line.lstrip())
            # A closing bracket at a header's or decorator's own indent still belongs to it.
            closes = line.lstrip().startswith((")", "]", "}"))
            while open_symbols and indent <= open_symbols[-1][0] and not closes:
                _, index = open_symbols.pop()
                found[index] = _ending(found[index], last_code)
            if _DECORATOR.match(line):
                decorated_from = decorated_from or number
                decorator_indent = indent
            elif header := _HEADER.match(line):
                parent = found[open_symbols[-1][1]] if open_symbols else None
                kind: Kind = "class" if header["word"] == "class" else "function"
                if kind == "function" and parent is not None and parent.kind == "class":
                    kind = "method"
                name = f"{parent.name}.{header['name']}" if parent else header["name"]
                open_symbols.append((indent, len(found)))
                found.append(Symbol(name, kind, decorated_from or number, number))
                decorated_from = None
            elif indent <= decorator_indent and not closes:
                decorated_from = None
        last_code = number
    for _, index in open_symbols:
        found[index] = _ending(found[index], last_code)
    return found


def _ending(symbol: Symbol, last_line: int) -> Symbol:
    return Symbol(symbol.name, symbol.kind, symbol.first_line, max(last_line, symbol.first_line))
