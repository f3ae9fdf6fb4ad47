"""Read many files of a tree for the index, on all cores.

Each worker is a Python of its own (`ptmkb.source.reading_worker`) that is given lists of files, and answers each with their records. A
worker whose parent was killed meets the end of its input and ends too; an interrupt from the keyboard reaches
the parent alone, which keeps what has come.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from ptmkb.source.errors import SourceError
from ptmkb.source.records import FileRecord, read_record
from ptmkb.source.tree import SourceTree

CHUNK = 400_000
"""Bytes of source that a worker gets at once: large enough to make the pipe cheap, small enough that the workers end together."""

WORTH_A_WORKER = 1_000_000
"""Bytes below which reading here is quicker than starting workers (a tenth of a second each)."""


def read_records(
    tree: SourceTree, sizes: Mapping[str, int], jobs: int | None = None
) -> Iterator[dict[str, FileRecord]]:
    """Read files.

    Args:
        tree: where they are.
        sizes: the files, with their sizes in bytes.
        jobs: processes at once; by default one a core.

    Yields:
        The records of a few files at a time, as they come.

    Raises:
        SourceError: if a worker ended before its work did.
    """
    chunks = _chunks(sizes)
    count = min(jobs or os.cpu_count() or 1, len(chunks))
    if count <= 1 or sum(sizes.values()) < WORTH_A_WORKER:
        for chunk in chunks:
            yield {file: read_record(tree.read(file), file) for file in chunk}
        return
    waiting: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
    for chunk in chunks:
        waiting.put(chunk)
    done: queue.SimpleQueue[dict[str, FileRecord] | SourceError] = queue.SimpleQueue()
    workers = [_start(tree) for _ in range(count)]
    try:
        for worker in workers:
            threading.Thread(target=_feed, args=(worker, waiting, done), daemon=True).start()
        for _ in chunks:
            result = done.get()
            if isinstance(result, SourceError):
                raise result
            yield result
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _chunks(sizes: Mapping[str, int]) -> list[list[str]]:
    chunks: list[list[str]] = []
    room = 0
    for file in sorted(sizes):
        if room < sizes[file] or not chunks:
            chunks.append([])
            room = CHUNK
        chunks[-1].append(file)
        room -= sizes[file]
    return chunks


def _start(tree: SourceTree) -> subprocess.Popen[bytes]:
    import ptmkb

    package = str(Path(ptmkb.__file__).parents[1])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    return subprocess.Popen(
        [sys.executable, "-m", "ptmkb.source.reading_worker", str(tree.where.absolute()), tree.version],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


def _feed(
    worker: subprocess.Popen[bytes],
    waiting: queue.SimpleQueue[list[str]],
    done: queue.SimpleQueue[dict[str, FileRecord] | SourceError],
) -> None:
    if worker.stdin is None or worker.stdout is None:
        return
    while True:
        try:
            chunk = waiting.get_nowait()
        except queue.Empty:
            return
        # A worker that has gone answers with the end of its output, and writing to it fails.
        with contextlib.suppress(OSError):
            worker.stdin.write(json.dumps(chunk).encode() + b"\n")
            worker.stdin.flush()
        answer = worker.stdout.readline()
        if not answer:
            done.put(
                SourceError(
                    f"a process that read {chunk[0]} and the {len(chunk) - 1} files after it ended; run it again"
                )
            )
            return
        done.put(cast("dict[str, FileRecord]", json.loads(answer)))
