"""The classes that a class inherits from, as a small tree read from the source; each name leads to its lines upstream."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import PurePosixPath

from ptmkb.site.drawings.canvas import Canvas
from ptmkb.source import SourceTree

_UPSTREAM = "https://github.com/huggingface/transformers/blob/v{version}/src/transformers/{file}#L{line}"
_ROW, _STEP = 34.0, 16.0  # pixels from one class to the next, and from a class to those it inherits from
_WIDE = 330.0


class NoSuchClassError(LookupError):
    """The file defines no such class."""


@dataclass(frozen=True)
class Ancestor:
    """A class in the tree.

    Attributes:
        name: Its name, as the class that inherits from it calls it.
        depth: How many inheritances above the class that was asked for.
        file: Where it is defined; None outside of the package.
        line: Of its definition, 1-based.
    """

    name: str
    depth: int
    file: str | None = None
    line: int | None = None


def ancestors(tree: SourceTree, file: str, name: str, depth: int = 0) -> Iterator[Ancestor]:
    """A class and all that it inherits from, depth first, in the order in which bases are written.

    Raises:
        NoSuchClassError: The file has no such class.
    """
    found = next((one for one in tree.module(file).named(name) if one.kind == "class"), None)
    if found is None:
        raise NoSuchClassError(f"{file} defines no class `{name}`")
    yield Ancestor(name, depth, file, found.first_line)
    for written in found.bases:
        base = written.partition("[")[0]
        home = _home(tree, file, base)
        if home is None:
            yield Ancestor(base, depth + 1)
        else:
            yield from ancestors(tree, home, base, depth + 1)


def _home(tree: SourceTree, file: str, name: str) -> str | None:
    """The file that defines a class that another file names; None where the package has none."""
    if tree.module(file).named(name):
        return file
    for node in ast.walk(ast.parse(tree.read(file))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        if any((alias.asname or alias.name) == name for alias in node.names):
            folder = PurePosixPath(file).parent.parts
            path = "/".join([*folder[: len(folder) - node.level + 1], *(node.module or "").split(".")])
            if f"{path}.py" in tree:
                return _home(tree, f"{path}.py", name)
            within = (one for one in tree.files() if one.startswith(f"{path}/"))
            return next(
                (one for one in within if f"class {name}" in tree.read(one) and tree.module(one).named(name)),
                None,
            )
    return None


def class_tree(tree: SourceTree, file: str, name: str, title: str) -> str:
    """Draw a class and what it inherits from.

    Args:
        tree: The release.
        file: The file that defines it.
        name: The class.
        title: What a screen reader says.

    Raises:
        NoSuchClassError: The file has no such class.
    """
    rows = list(ancestors(tree, file, name))
    canvas = Canvas(_WIDE, _ROW * len(rows) - 4)
    below: dict[int, float] = {}  # by depth, where the class stands that the next of that depth is a base of
    for at, row in enumerate(rows):
        x, y = row.depth * _STEP, at * _ROW
        below[row.depth] = y + 15
        if row.depth:
            left = x - _STEP - 1
            canvas.path(f"M{left:g} {below[row.depth - 1]:g}V{y + 12:g}H{x:g}", "kb-arc-faint")
        label = escape(row.name)
        place = ""
        if row.file:
            address = _UPSTREAM.format(version=tree.version, file=row.file, line=row.line)
            label = f'<a href="{escape(address)}">{label}</a>'
            place = row.file.removeprefix("models/")
        canvas.elements.append(f'<text class="kb-label" x="{x + 4:g}" y="{y + 13:g}">{label}</text>')
        canvas.label(x + 4, y + 26, place, anchor="start", kind="kb-label-small")
    return canvas.svg(title)
