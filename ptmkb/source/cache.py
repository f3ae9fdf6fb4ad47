"""Results of reading a tree, kept between runs in the user's cache directory.

A kept result is used only while the release, the place and every file's size and time are what they were. Nothing depends on the cache: where
it cannot be read or written, the result is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ptmkb.source.tree import SourceTree


def cache_directory() -> Path:
    """Where results are kept: `$PTMKB_CACHE`, else `ptmkb` in the platform's cache directory for the user."""
    if chosen := os.environ.get("PTMKB_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "ptmkb" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ptmkb"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ptmkb"


def fingerprint(tree: SourceTree, files: Iterable[str]) -> str:
    """A digest of the release, its place, and the size and time of each of these files (or of the wheel)."""
    digest = hashlib.sha256(f"{tree.version}\0{tree.where.resolve()}\0".encode())
    paths = [tree.where] if tree.where.is_file() else [tree.where / file for file in files]
    for path in paths:
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def remembered(tree: SourceTree, name: str, files: Iterable[str], compute: Callable[[], Any]) -> Any:
    """A result of `compute`, or the one kept from an earlier run on the same files.

    Args:
        tree: the tree that it is about.
        name: of the result, with the version of its format: a new format must not meet an old file.
        files: the files that the result depends on.
        compute: makes the result; it must be plain JSON data.
    """
    path = cache_directory() / f"{name}-{fingerprint(tree, files)[:32]}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_bytes())
    result = compute()
    keep(path, result)
    return result


def keep(path: Path, data: Any) -> None:
    """Write JSON data in one step, where that is possible: two runs at once must never read half a file."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8"
        ) as temporary:
            json.dump(data, temporary)
        Path(temporary.name).replace(path)
