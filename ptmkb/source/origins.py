"""Which release first had each symbol: the names that every file of the releases at hand defines, kept in one database.

Most files are the same from one release to the next; each text is read once, whatever the number of releases that hold it.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from ptmkb.source.cache import cache_directory
from ptmkb.source.errors import TreeNotFoundError
from ptmkb.source.module import parse_module
from ptmkb.source.releases import FirstSeen, kept_releases, release_key
from ptmkb.source.tree import SourceTree, find_tree

_SCHEMA = """
CREATE TABLE IF NOT EXISTS texts (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL, size INTEGER NOT NULL, checksum INTEGER NOT NULL,
    key TEXT NOT NULL, names TEXT NOT NULL, UNIQUE (path, size, checksum)
);
CREATE INDEX IF NOT EXISTS texts_by_key ON texts (key);
CREATE TABLE IF NOT EXISTS releases (version TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held (text INTEGER NOT NULL, version TEXT NOT NULL, PRIMARY KEY (text, version)) WITHOUT ROWID;
"""
_FORMAT = 1

_OWN_NAME = re.compile(
    r"(modeling|modular|configuration|tokenization|processing|image_processing|video_processing|feature_extraction)_\w+\.py"
)
"""Files named after their model: the same name in another folder (`deprecated/`, the root of old releases) is the same file."""


def read_names(on_release: Callable[[str, int, int], None] | None = None) -> int:
    """Read the names of all releases at hand that were not read yet. A release is kept whole or not at all.

    Args:
        on_release: called with a release's number, how many of its files have to be read, and how many it has, before they are.

    Returns:
        How many releases were read.

    Raises:
        OSError: if the cache directory cannot be written.
    """
    with contextlib.closing(_open(create=True)) as database:
        read = {version for (version,) in database.execute("SELECT version FROM releases")}
        missing = [path for version, path in kept_releases().items() if version not in read]
        for path in missing:
            _read(database, find_tree(path), on_release)
        return len(missing)


def origins(tree: SourceTree, symbols: Iterable[tuple[str, str]]) -> dict[tuple[str, str], FirstSeen]:
    """When symbols came, as far as the releases at hand tell: those that were read, the installed one, and `tree`.

    A symbol is there where its file defines it, or a file of that name elsewhere.

    Args:
        tree: the release that defines the symbols, as its index says; it is not read again.
        symbols: of each the file, by its path in the tree, and the qualified name.

    Returns:
        By the same; those that no release has are left out, and all of them where no release was read.
    """
    held: dict[tuple[str, str], set[str]] = {}
    try:
        with contextlib.closing(_open(create=False)) as database:
            read = {version for (version,) in database.execute("SELECT version FROM releases")}
            for file, symbol in symbols:
                # Names are kept as a list in JSON, so one in its quotes is one of the list: no list has to be read for it.
                rows = database.execute(
                    "SELECT DISTINCT version FROM texts JOIN held ON held.text = texts.id WHERE key = ? AND instr(names, ?)",
                    (_key(file), json.dumps(symbol)),
                )
                held[file, symbol] = {version for (version,) in rows}
    except sqlite3.Error:
        return {}
    installed = None
    with contextlib.suppress(TreeNotFoundError):
        found = find_tree()
        installed = None if found.version in {*read, tree.version} else found
    versions = {*read, tree.version, *([installed.version] if installed else ())}
    seen = {}
    for (file, symbol), having in held.items():
        if tree.version not in read:
            having.add(tree.version)
        if (
            installed is not None
            # Only what is older than all others that have it says more than they do, and is worth parsing a file for.
            and all(release_key(installed.version) < release_key(version) for version in having)
            and file in installed
            and installed.module(file).named(symbol)
        ):
            having.add(installed.version)
        if having:
            seen[file, symbol] = FirstSeen.among(having, versions)
    return seen


def names_path() -> Path:
    """Where the names are kept."""
    return cache_directory() / "index" / f"names-{_FORMAT}.sqlite"


def _open(*, create: bool) -> sqlite3.Connection:
    path = names_path()
    if not create:
        return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.executescript(_SCHEMA)
    return database


def _key(file: str) -> str:
    """What is the same for the same file in all releases."""
    name = PurePosixPath(file).name
    return name if _OWN_NAME.fullmatch(name) else file


def _read(
    database: sqlite3.Connection, tree: SourceTree, on_release: Callable[[str, int, int], None] | None
) -> None:
    known = {
        (path, size, checksum): identity
        for identity, path, size, checksum in database.execute("SELECT id, path, size, checksum FROM texts")
    }
    stamps = tree.stamps()
    new = [(file, *stamp) for file, stamp in stamps.items() if (file, *stamp) not in known]
    if on_release is not None:
        on_release(tree.version, len(new), len(stamps))
    with database:  # one transaction: an interrupted release is read again
        for file, names in _names(tree, [file for file, _, _ in new]):
            cursor = database.execute(
                "INSERT INTO texts (path, size, checksum, key, names) VALUES (?, ?, ?, ?, ?)",
                (file, *stamps[file], _key(file), json.dumps(names)),
            )
            known[file, *stamps[file]] = cursor.lastrowid
        database.executemany(
            "INSERT INTO held VALUES (?, ?)",
            [(known[file, *stamp], tree.version) for file, stamp in stamps.items()],
        )
        database.execute("INSERT INTO releases VALUES (?)", (tree.version,))


def _names(tree: SourceTree, files: list[str]) -> Iterator[tuple[str, list[str]]]:
    for file in files:
        symbols = parse_module(tree.read(file), file).symbols
        yield file, list(dict.fromkeys(symbol.name for symbol in symbols))
