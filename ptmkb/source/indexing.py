"""The index of a tree, written: made anew or brought up to date, and put in place in one step.

What is being written is a file beside the index, a copy of it where there is one; it takes the index's name when it is done. So a reader
never sees half of one, a writer that is killed leaves the index as it was, and of two writers at once both write a good one and the later
stays.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ptmkb.source.index import SCHEMA, index_path, open_read_only, read_meta, read_stamps
from ptmkb.source.links import resolve_links, times_taken
from ptmkb.source.reading import read_records
from ptmkb.source.records import FileRecord, dotted
from ptmkb.source.tree import SourceTree
from ptmkb.source.words import name_words

ABANDONED_AFTER = 3600.0
"""Seconds after which an unfinished file is no longer some other process's work in hand."""

TAKEN_GAIN = 0.15
"""How much a name's score gains when e times as many definitions (plus one) take it: being taken by 90 others makes it 1.7 times as good."""

HOLDER_GAIN = 0.03
"""The same for a method whose class is taken: enough to choose among the many `forward`, too little to come before their classes."""

STANDING = {"class": 1.0, "function": 1.0, "method": 0.8, "module": 0.7}
"""By kind: who asks for "rms norm" wants the class before its methods and the file that it is in."""

SPECIAL_METHOD = 0.7
"""`__init__` and the like, besides: they match all words of their class and are seldom what is looked for."""

_EVERYWHERE = re.compile(r"\bmodels/|\bmodeling_|\bmodular_|\b__init__$")
"""What the paths of half the tree hold, so that it tells nothing and would make "model" match all of it."""

STAND_IN = 0.3
"""Names in `utils/dummy_*_objects.py`: classes without a body, which say that a library is missing."""


@dataclass(frozen=True, slots=True)
class IndexUpdate:
    """What an update did.

    Attributes:
        path: the index.
        files: in the tree.
        read: files that were read, because they are new or changed.
        removed: files that are no longer there.
        seconds: how long it took.
    """

    path: Path
    files: int
    read: int
    removed: int
    seconds: float


def update_index(
    tree: SourceTree,
    *,
    anew: bool = False,
    jobs: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> IndexUpdate:
    """Bring the index of a tree up to date: read what is new or changed, forget what is gone.

    Interrupted from the keyboard, it keeps what was read and raises `KeyboardInterrupt`; the next update goes on from there.

    Args:
        tree: the tree.
        anew: read every file again.
        jobs: processes at once; by default one a core.
        on_progress: called with the number of files read and to read.

    Returns:
        What was done.

    Raises:
        SourceError: if a process that read files ended.
        OSError: if the cache directory cannot be written.
    """
    started = time.perf_counter()
    path = index_path(tree)
    stamps = tree.stamps()
    complete, known = (False, {}) if anew else _known(path)
    changed = {file for file, stamp in stamps.items() if known.get(file) != stamp}
    removed = known.keys() - stamps.keys()
    if not complete or changed or removed:
        with _replacement(path, keep=bool(known)) as database:
            _write(database, tree, stamps, changed, removed, jobs, on_progress)
    return IndexUpdate(path, len(stamps), len(changed), len(removed), time.perf_counter() - started)


def _known(path: Path) -> tuple[bool, dict[str, tuple[int, int]]]:
    """Whether the index is whole, and the files in it; an index that cannot be read is none."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(open_read_only(path)) as database:
        return read_meta(database).get("complete") == "yes", read_stamps(database)
    return False, {}


@contextlib.contextmanager
def _replacement(path: Path, *, keep: bool) -> Iterator[sqlite3.Connection]:
    """A database that takes the place of the index once the block ends, or was interrupted; on any other error it is thrown away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_AFTER:
                left.unlink()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem + "-", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        if keep:
            shutil.copyfile(path, temporary)
        with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as database:
            # Nobody else has this file, and it is thrown away if we fail: neither a journal on disk nor flushing is of use.
            database.execute("PRAGMA journal_mode = MEMORY")
            database.execute("PRAGMA synchronous = OFF")
            if not keep:
                for statement in SCHEMA.split(";"):
                    database.execute(statement)
            interrupted = None
            try:
                yield database
            except KeyboardInterrupt as interrupt:
                interrupted = interrupt
        temporary.replace(path)
        if interrupted is not None:
            raise interrupted
    finally:
        temporary.unlink(missing_ok=True)


def _write(
    database: sqlite3.Connection,
    tree: SourceTree,
    stamps: Mapping[str, tuple[int, int]],
    changed: set[str],
    removed: set[str],
    jobs: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    meta = {"version": tree.version, "where": str(tree.where), "complete": "no"}
    with _transaction(database):
        database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
        for file in removed:
            _forget(database, file)
    count = 0
    for records in read_records(tree, {file: stamps[file][0] for file in changed}, jobs):
        with _transaction(database):
            for file, record in records.items():
                _forget(database, file)
                _insert(database, file, stamps[file], record)
        count += len(records)
        if on_progress is not None:
            on_progress(count, len(changed))
    with _transaction(database):
        _connect(database)
        database.execute("UPDATE meta SET value = 'yes' WHERE key = 'complete'")


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing: an interrupt in the middle must not leave a file with half of its symbols."""
    database.execute("BEGIN")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _forget(database: sqlite3.Connection, file: str) -> None:
    row = database.execute("SELECT id FROM files WHERE path = ?", (file,)).fetchone()
    if row is not None:
        database.execute("DELETE FROM words WHERE rowid IN (SELECT id FROM symbols WHERE file = ?)", row)
        database.execute("DELETE FROM symbols WHERE file = ?", row)
        database.execute("DELETE FROM files WHERE id = ?", row)


def _insert(database: sqlite3.Connection, file: str, stamp: tuple[int, int], record: FileRecord) -> None:
    stated = json.dumps(record["links"])
    number = database.execute(
        "INSERT INTO files (path, size, stamp, lines, error, stated) VALUES (?, ?, ?, ?, ?, ?)",
        (file, *stamp, record["lines"], record["error"], stated),
    ).lastrowid
    (last,) = database.execute("SELECT COALESCE(MAX(id), 0) FROM symbols").fetchone()
    module = (number, dotted(file), "module", 1, max(record["lines"], 1), "", "[]", record["doc"])
    rows = [module] + [
        (
            number,
            symbol["name"],
            symbol["kind"],
            symbol["first_line"],
            symbol["last_line"],
            symbol["signature"],
            json.dumps(symbol["bases"]),
            symbol["doc"],
        )
        for symbol in record["symbols"]
    ]
    identified = [(identity, *row) for identity, row in enumerate(rows, start=last + 1)]
    database.executemany("INSERT INTO symbols VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", identified)
    place = " ".join(dict.fromkeys(name_words(_EVERYWHERE.sub("", file.removesuffix(".py"))).split()))
    words = []
    for identity, _, name, kind, *_, doc in identified:
        holder, _, own = ("", "", place) if kind == "module" else str(name).rpartition(".")
        words.append((identity, name_words(own), f"{name_words(holder)} {place}", name_words(str(doc))))
    database.executemany("INSERT INTO words (rowid, name, holder, doc) VALUES (?, ?, ?, ?)", words)


def _connect(database: sqlite3.Connection) -> None:
    """Work out what the statements of all files mean, and each definition's standing."""
    definitions = database.execute(
        "SELECT path, name, kind, symbols.id FROM symbols JOIN files ON files.id = symbols.file"
    ).fetchall()
    symbols: dict[str, list[str]] = {}
    for path, name, kind, _ in definitions:
        names = symbols.setdefault(path, [])
        if kind != "module":
            names.append(name)
    stated = {
        path: json.loads(rows)
        for path, rows in database.execute("SELECT path, stated FROM files ORDER BY path")
    }
    links = resolve_links(stated, symbols)
    taken = times_taken(links)
    database.execute("DELETE FROM links")
    database.executemany("INSERT INTO links VALUES (?, ?, ?, ?, ?, ?, ?, ?)", links)
    standing = [
        (identity, taken[path, name], _factor(path, name, kind, taken))
        for path, name, kind, identity in definitions
    ]
    database.execute("DELETE FROM standing")
    database.executemany("INSERT INTO standing VALUES (?, ?, ?)", standing)


def _factor(file: str, name: str, kind: str, taken: Counter[tuple[str, str]]) -> float:
    holder, _, own = name.rpartition(".")
    factor = STANDING[kind] * (1 + TAKEN_GAIN * math.log1p(taken[file, name]))
    if kind == "method":
        factor *= 1 + HOLDER_GAIN * math.log1p(taken[file, holder])
        if own.startswith("__"):
            factor *= SPECIAL_METHOD
    if file.rpartition("/")[2].startswith("dummy_"):
        factor *= STAND_IN
    return factor
