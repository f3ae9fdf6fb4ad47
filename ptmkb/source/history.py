"""What became of a definition from release to release: where its text changed, and how."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from ptmkb.source.errors import SourceError, SymbolNotFoundError
from ptmkb.source.module import Module, Symbol
from ptmkb.source.releases import find_release, release_key
from ptmkb.source.tree import SourceTree

Status = Literal["present", "same", "changed", "added", "removed", "absent", "unclear", "unavailable"]

NAMED_FILES = 4
"""Files named as examples where too many define a symbol."""

CONTEXT_LINES = 3
"""Unchanged lines around each change in a diff."""


@dataclass(frozen=True, slots=True)
class Step:
    """A definition in one release.

    Attributes:
        version: the release.
        status: compared with the release before it that could be read: "same" or "changed" text, "added" (it was not there), "removed"
            (it was there and is not), "absent" (nor was it before); "present" in the oldest release that was asked for, which cannot say
            since when; "unclear" where several files define it and none is more likely meant; "unavailable" where the release could
            not be had.
        file: the file that defines it, or "".
        first_line: 1-based; 0 where it is not there.
        last_line: 1-based, inclusive; 0 where it is not there.
        before: the file that defined it before, where that was another one; else "".
        diff: unified diff from the text before, where it changed; else "".
        why: what is unclear or unavailable; else "".
    """

    version: str
    status: Status
    file: str = ""
    first_line: int = 0
    last_line: int = 0
    before: str = ""
    diff: str = ""
    why: str = ""


def symbol_history(
    name: str,
    versions: Iterable[str],
    file: str | None = None,
    *,
    open_release: Callable[[str], SourceTree] = find_release,
) -> Iterator[Step]:
    """Follow a definition through releases.

    Its text is compared as it stands, comments and decorators included. In each release it is looked for in the file that defines it in
    the newest release that has it; elsewhere only where it is certain to be the same one.

    Args:
        name: qualified name, such as "BertSelfAttention.forward".
        versions: the releases, in any order.
        file: the file that defines it, where several do.
        open_release: gives the source of a release; called once for each, newest first.

    Yields:
        A step for each release, oldest first. The first comes when all releases were opened.
    """
    found: list[_Found] = []
    home = file
    newer: SourceTree | None = None
    for version in sorted(set(versions), key=release_key, reverse=True):
        try:
            tree = open_release(version)
        except SourceError as error:
            found.append(_Found(version, "unavailable", why=str(error)))
            continue
        one = _find(tree, name, home, newer)
        if one.file:
            home, newer = one.file, tree
        found.append(one)
    yield from _compared(name, reversed(found))


@dataclass(frozen=True, slots=True)
class _Found:
    """A definition as one release has it; no text where it has not."""

    version: str
    trouble: Literal["", "unclear", "unavailable"] = ""
    file: str = ""
    first_line: int = 0
    last_line: int = 0
    text: str | None = None
    why: str = ""


def _find(tree: SourceTree, name: str, home: str | None, newer: SourceTree | None) -> _Found:
    if home is not None and home in tree and (symbols := tree.module(home).named(name)):
        return _taken(tree.version, [(tree.module(home), symbol) for symbol in symbols])
    definitions = _definitions(tree, name)
    files = {module.file for module, _ in definitions}
    if home is not None:
        files = _elsewhere(files, name, home, newer)
    if len(files) > 1:
        some = ", ".join(sorted(files)[:NAMED_FILES])
        return _Found(tree.version, "unclear", why=f"{len(files)} files define it, such as {some}")
    if not files:
        return _Found(tree.version)
    return _taken(tree.version, [pair for pair in definitions if pair[0].file in files])


def _definitions(tree: SourceTree, name: str) -> list[tuple[Module, Symbol]]:
    """The definitions of a name, those in modular files only where nothing else has it: what runs is what is generated from them."""
    try:
        found = tree.find_symbol(name)
    except SymbolNotFoundError:
        return []
    return [pair for pair in found if not PurePosixPath(pair[0].file).name.startswith("modular_")] or found


def _elsewhere(files: set[str], name: str, home: str, newer: SourceTree | None) -> set[str]:
    """Of the files that define a name in a release where its usual file does not, those that may hold the same definition.

    Models carry definitions of the same name, so one more file with it proves nothing: it has to be the same file in another folder
    (`deprecated/`, `models/`), or the name must be the only one of its kind in the newer release as well.
    """
    if same := {file for file in files if PurePosixPath(file).name == PurePosixPath(home).name}:
        return same
    if (
        len(files) == 1
        and newer is not None
        and len({module.file for module, _ in _definitions(newer, name)}) == 1
    ):
        return files
    return set()


def _taken(version: str, definitions: list[tuple[Module, Symbol]]) -> _Found:
    """All definitions of a name in one file: overloads, a property and its setter."""
    return _Found(
        version,
        file=definitions[0][0].file,
        first_line=min(symbol.first_line for _, symbol in definitions),
        last_line=max(symbol.last_line for _, symbol in definitions),
        text="\n".join(module.source(symbol) for module, symbol in definitions),
    )


def _compared(name: str, found: Iterable[_Found]) -> Iterator[Step]:
    before: _Found | None = None
    for one in found:
        if one.trouble:
            yield Step(one.version, one.trouble, why=one.why)
            continue
        was = before.text if before else None
        moved_from = before.file if before and before.file and one.file not in ("", before.file) else ""
        status: Status
        diff = ""
        if one.text is None:
            status = "removed" if was is not None else "absent"
        elif before is None:
            status = "present"
        elif was is None:
            status = "added"
        elif was == one.text:
            status = "same"
        else:
            status = "changed"
            diff = _diff(name, before, one)
        yield Step(
            one.version, status, one.file, one.first_line, one.last_line, moved_from if was else "", diff
        )
        before = one


def _diff(name: str, old: _Found, new: _Found) -> str:
    lines = difflib.unified_diff(
        (old.text or "").splitlines(keepends=True),
        (new.text or "").splitlines(keepends=True),
        f"{old.version} {old.file}:{old.first_line} {name}",
        f"{new.version} {new.file}:{new.first_line} {name}",
        n=CONTEXT_LINES,
    )
    return "".join(lines)
