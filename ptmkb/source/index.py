"""The index of a tree, read: search by words, look up by name, follow who took code from whom.

An index is one SQLite file, written whole and then put in place by `ptmkb.source.indexing`, and never changed there: whoever has it open
keeps reading the one that they opened. Nothing in it is true of files that changed since; `SourceIndex.is_current` tells.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ptmkb.source.cache import cache_directory
from ptmkb.source.errors import SourceError
from ptmkb.source.links import Link
from ptmkb.source.tree import SourceTree
from ptmkb.source.words import coverage, query

FORMAT = 1
"""Raised whenever the tables, or what is read into them, change: an index of another format is not used."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, stamp INTEGER NOT NULL,
    lines INTEGER NOT NULL, error TEXT, stated TEXT NOT NULL
);
CREATE TABLE symbols (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    first_line INTEGER NOT NULL, last_line INTEGER NOT NULL,
    signature TEXT NOT NULL, bases TEXT NOT NULL, doc TEXT NOT NULL
);
CREATE INDEX symbols_by_name ON symbols (name);
CREATE INDEX symbols_by_file ON symbols (file);
CREATE TABLE standing (symbol INTEGER PRIMARY KEY, taken INTEGER NOT NULL, factor REAL NOT NULL);
CREATE TABLE links (
    file TEXT NOT NULL, line INTEGER NOT NULL, symbol TEXT NOT NULL, kind TEXT NOT NULL,
    target TEXT NOT NULL, target_file TEXT NOT NULL, target_symbol TEXT NOT NULL, note TEXT NOT NULL
);
CREATE INDEX links_from ON links (symbol, file);
CREATE INDEX links_to ON links (target_symbol, target_file);
CREATE VIRTUAL TABLE words USING fts5 (name, holder, doc, tokenize = 'porter unicode61', detail = column);
"""

# What a word weighs by where it stands. The name says what a thing is; whose it is (its class, its file) and its docstring's first line help
# to choose. Ten to one keeps `LlamaAttention` before a class that only mentions attention, whatever the lengths.
NAME_WEIGHT, HOLDER_WEIGHT, DOC_WEIGHT = 10.0, 2.0, 1.0

COVERAGE_GAIN = 1.0
"""A name of which every word was asked for counts twice as much as one with the same words among many: BM25 sees whole rows, not names."""

CONSIDERED = 200
"""Names beyond those wanted that are looked at for this; a name further down could not come up."""

_SEARCH = f"""
WITH found AS MATERIALIZED (
    SELECT rowid AS id, bm25(words, {NAME_WEIGHT}, {HOLDER_WEIGHT}, {DOC_WEIGHT}) AS score
    FROM words WHERE words MATCH :words
)
SELECT symbols.id, symbols.name, MIN(found.score * standing.factor) AS best, COUNT(*)
FROM found JOIN symbols ON symbols.id = found.id JOIN standing ON standing.symbol = found.id
WHERE (:kind IS NULL OR symbols.kind = :kind)
GROUP BY symbols.name ORDER BY best, symbols.name LIMIT :limit
"""


class IndexUnavailableError(SourceError):
    """There is no usable index of a tree; `ptmkb.source.indexing.update_index` makes one."""


@dataclass(frozen=True, slots=True)
class IndexedSymbol:
    """A module, class, function or method, as the index has it.

    Attributes:
        file: the file that defines it.
        name: qualified name within the file; a module's dotted path in the package.
        kind: "module", "class", "function" or "method".
        first_line: 1-based, decorators included.
        last_line: 1-based, inclusive.
        signature: parameters and result on one line; a class's bases; "" for a module or in a file that does not parse.
        bases: a class's bases as written.
        doc: first line of the docstring, or "".
        taken: how many definitions of other models and files inherit from it, copy it or are generated from it.
    """

    file: str
    name: str
    kind: str
    first_line: int
    last_line: int
    signature: str
    bases: tuple[str, ...]
    doc: str
    taken: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A name that was found.

    Attributes:
        symbol: its definition; of several, the one that others take most, then the first.
        definitions: how many definitions of that name were found: models carry their own copies.
    """

    symbol: IndexedSymbol
    definitions: int


def index_path(tree: SourceTree) -> Path:
    """Where the index of a tree is kept: a file of its own for every place and release."""
    place = hashlib.sha256(str(tree.where.resolve()).encode()).hexdigest()[:12]
    return cache_directory() / "index" / f"{tree.version}-{place}-{FORMAT}.sqlite"


class SourceIndex:
    """The index of a tree, open for reading. Close it, or use it in a `with` statement.

    Args:
        tree: the tree that it is of.

    Raises:
        IndexUnavailableError: if there is none, or not a whole one.
    """

    def __init__(self, tree: SourceTree) -> None:
        self.tree = tree
        self.path = index_path(tree)
        try:
            self._database = open_read_only(self.path)
        except sqlite3.Error as error:
            raise IndexUnavailableError(
                f"transformers {tree.version} has no index yet ({error}); `ptmkb source index` makes it"
            ) from error
        self.meta = read_meta(self._database)
        if self.meta.get("complete") != "yes":
            self.close()
            raise IndexUnavailableError(
                f"the index of transformers {tree.version} is unfinished; `ptmkb source index` goes on with it"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def is_current(self) -> bool:
        """Whether every file of the tree is as it was when it was indexed."""
        return read_stamps(self._database) == self.tree.stamps()

    def counts(self) -> dict[str, int]:
        """How much there is: files, lines, and symbols by kind."""
        files, lines = self._database.execute("SELECT COUNT(*), TOTAL(lines) FROM files").fetchone()
        kinds = self._database.execute("SELECT kind, COUNT(*) FROM symbols GROUP BY kind ORDER BY kind")
        return {"files": files, "lines": int(lines), **dict(kinds)}

    def errors(self) -> list[tuple[str, str]]:
        """The files that are not valid Python, and why."""
        return list(
            self._database.execute("SELECT path, error FROM files WHERE error IS NOT NULL ORDER BY path")
        )

    def search(self, question: str, *, kind: str | None = None, limit: int = 20) -> list[Hit]:
        """Find names by words: in the name itself, in the class or file that holds it, in the first line of its docstring.

        A name scores by SQLite's BM25 with a weight for each of these places, times its standing (what many models take from comes before
        their copies of it) and times how much of the name was asked for. Where no name has all the words, those that have some are found.

        Args:
            question: words or names, in any case and order.
            kind: only modules, classes, functions or methods.
            limit: how many names at most.

        Returns:
            The names, best first; empty where no word is found.
        """
        for all_words in (True, False):
            words = query(question, all_words=all_words)
            if words is None:
                return []
            among = {"words": words, "kind": kind, "limit": limit + CONSIDERED}
            rows = self._database.execute(_SEARCH, among).fetchall()
            if rows:
                break
        # BM25 scores are negative, the best the least.
        rows.sort(key=lambda row: row[2] * (1 + COVERAGE_GAIN * coverage(row[1], question)))
        return [Hit(self._symbol(identity), count) for identity, _, _, count in rows[:limit]]

    def named(self, name: str, file: str | None = None) -> list[IndexedSymbol]:
        """The definitions of a name.

        Args:
            name: a qualified name, such as "LlamaAttention.forward", or a module's dotted path.
            file: only there.

        Returns:
            The definitions, those that others take most first, then in the order of files and lines.
        """
        rows = self._database.execute(
            "SELECT symbols.id FROM symbols JOIN files ON files.id = symbols.file JOIN standing ON standing.symbol = symbols.id "
            "WHERE name = ? AND path = COALESCE(?, path) ORDER BY taken DESC, path, first_line",
            (name, file),
        )
        return [self._symbol(identity) for (identity,) in rows.fetchall()]

    def symbols(self, file: str) -> list[IndexedSymbol]:
        """What a file defines, in the order of its lines, without the module itself."""
        rows = self._database.execute(
            "SELECT symbols.id FROM symbols JOIN files ON files.id = symbols.file "
            "WHERE path = ? AND kind <> 'module' ORDER BY symbols.id",
            (file,),
        )
        return [self._symbol(identity) for (identity,) in rows.fetchall()]

    def links_from(self, file: str, symbol: str) -> list[Link]:
        """Where a definition's code comes from, as the file says it."""
        return list(
            self._links("links.file = ? AND links.symbol = ? ORDER BY line, kind, target", file, symbol)
        )

    def links_to(self, file: str, symbol: str) -> list[Link]:
        """Who takes code from a definition."""
        return list(
            self._links(
                "target_file = ? AND target_symbol = ? ORDER BY file, line, links.symbol", file, symbol
            )
        )

    def links(self) -> list[Link]:
        """All statements that code comes from elsewhere, in the order of files and lines."""
        return list(self._links("TRUE ORDER BY file, line, links.symbol, kind, target, target_symbol"))

    def _links(self, condition: str, *values: str) -> Iterator[Link]:
        return map(Link._make, self._database.execute(f"SELECT * FROM links WHERE {condition}", values))

    def _symbol(self, identity: int) -> IndexedSymbol:
        row = self._database.execute(
            "SELECT path, name, kind, first_line, last_line, signature, bases, doc, taken FROM symbols "
            "JOIN files ON files.id = symbols.file JOIN standing ON standing.symbol = symbols.id WHERE symbols.id = ?",
            (identity,),
        ).fetchone()
        file, name, kind, first_line, last_line, signature, bases, doc, taken = row
        return IndexedSymbol(
            file, name, kind, first_line, last_line, signature, tuple(json.loads(bases)), doc, taken
        )


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open an index.

    Raises:
        sqlite3.Error: if there is none or it is no database.
    """
    # immutable: nobody writes to a file once it is in place, so no locks are needed and none can be in the way.
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        database.execute("SELECT COUNT(*) FROM meta").fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database


def read_meta(database: sqlite3.Connection) -> dict[str, str]:
    """What an index says of itself: "version", "where", "complete" (yes or no)."""
    return dict(database.execute("SELECT key, value FROM meta").fetchall())


def read_stamps(database: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """The files of an index, with what they were when they were read; compare `SourceTree.stamps`."""
    with contextlib.closing(database.execute("SELECT path, size, stamp FROM files")) as rows:
        return {path: (size, stamp) for path, size, stamp in rows}
