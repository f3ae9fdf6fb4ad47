"""Released `transformers`: which there are, and their wheels, downloaded by pip once and kept.

The list of releases is kept too and asked for again only when a release is wanted that it does not name, so that with the wheels at hand
nothing here needs a network.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptmkb.source.cache import cache_directory, keep, remembered
from ptmkb.source.errors import SourceError, TreeNotFoundError
from ptmkb.source.tree import PACKAGE, SourceTree, find_tree

_FINAL = re.compile(r"\d+(\.\d+){1,3}")
_WHEEL = re.compile(rf"{PACKAGE}-(?P<version>\d+(\.\d+){{1,3}})-py[\w.]+-none-any\.whl")
_LISTED = re.compile(r"^Available versions: (?P<versions>.+)$", re.MULTILINE)

PATIENCE = ("--retries", "1", "--timeout", "20")
"""How long pip waits for a network that may not be there: two tries of 20 seconds."""


class ReleaseUnavailableError(SourceError):
    """A release, or the list of releases, could not be had."""


@dataclass(frozen=True, slots=True)
class FirstSeen:
    """When a model directory or a symbol came, as far as the releases at hand tell.

    Attributes:
        release: the oldest release at hand that has it.
        after: the newest release at hand before that one, which has it not; None where there is none: it may be older than `release`.
    """

    release: str
    after: str | None

    @classmethod
    def among(cls, having: Iterable[str], versions: Iterable[str]) -> FirstSeen:
        """When it came, by the releases that have it and all those at hand."""
        first = min(having, key=release_key)
        earlier = [version for version in versions if release_key(version) < release_key(first)]
        return cls(first, max(earlier, key=release_key, default=None))

    def __str__(self) -> str:
        if self.after is None:
            return f"in {self.release} already, the oldest release kept here"
        return f"first in {self.release} of the releases kept here; not before: {self.after} has it not"


def is_release(text: str) -> bool:
    """Whether this is a final release's number, such as "5.0.0"."""
    return _FINAL.fullmatch(text) is not None


def release_key(version: str) -> tuple[int, ...]:
    """A key that sorts releases: 4.57.6 before 5.0.0, 5.9.0 before 5.10.1."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def wheels_directory() -> Path:
    """Where wheels are kept."""
    return cache_directory() / "wheels"


def kept_releases() -> dict[str, Path]:
    """The wheels at hand by release, oldest first."""
    found = {}
    for path in wheels_directory().glob(f"{PACKAGE}-*.whl"):
        if match := _WHEEL.fullmatch(path.name):
            found[match["version"]] = path
    return {version: found[version] for version in sorted(found, key=release_key)}


def find_release(version: str, *, download: bool = True) -> SourceTree:
    """The source of a release: the installed one where it is that, else its wheel, which is downloaded where it is not at hand.

    Args:
        version: such as "5.0.0".
        download: whether pip may be asked.

    Returns:
        The tree.

    Raises:
        ReleaseUnavailableError: if it cannot be had.
        TreeNotFoundError: if the wheel that is kept is broken.
    """
    if not is_release(version):
        raise ReleaseUnavailableError(f"{version!r} is no release; name one like 5.0.0")
    with contextlib.suppress(TreeNotFoundError):
        installed = find_tree()
        if installed.version == version:
            return installed
    path = kept_releases().get(version)
    if path is None:
        if not download:
            raise ReleaseUnavailableError(
                f"the wheel of {PACKAGE} {version} is not kept in {wheels_directory()}"
            )
        path = _download(version)
    return find_tree(path)


def published_releases(wanted: Iterable[str] = ()) -> list[str]:
    """The final releases that there are, oldest first.

    Args:
        wanted: releases that the kept list should name; where it does not, pip is asked for a new one.

    Raises:
        ReleaseUnavailableError: if there is no list at hand and pip cannot give one.
    """
    path = cache_directory() / "releases.json"
    kept: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(path.read_bytes())
    if kept and set(wanted) <= set(kept):
        return kept
    try:
        said = _pip("index", "versions", PACKAGE)
    except ReleaseUnavailableError:
        if kept:
            return kept
        raise
    match = _LISTED.search(said)
    if match is None:
        raise ReleaseUnavailableError(
            f"pip lists no releases of {PACKAGE}; update pip, or put wheels in {wheels_directory()}"
        )
    versions = sorted(filter(is_release, match["versions"].split(", ")), key=release_key)
    keep(path, versions)
    return versions


def releases_between(versions: Sequence[str], first: str, last: str, *, patches: bool = False) -> list[str]:
    """Choose releases of a range, oldest first.

    Args:
        versions: to choose from.
        first: the oldest; always among them where it is one.
        last: the newest, likewise.
        patches: all releases; else the first of each minor version, as the later ones seldom bring more than corrections.
    """
    chosen = []
    minors: set[tuple[int, ...]] = set()
    for version in sorted(versions, key=release_key):
        minor = release_key(version)[:2]
        inside = release_key(first) <= release_key(version) <= release_key(last)
        if inside and (patches or minor not in minors or version in (first, last)):
            chosen.append(version)
        minors.add(minor)
    return chosen


def first_seen(directories: Iterable[str]) -> dict[str, FirstSeen]:
    """When model directories came, as far as the wheels at hand and the installed release tell.

    Returns:
        By directory; those that none of the releases has are left out.
    """
    wanted = set(directories)
    if not wanted:
        return {}
    places: dict[str, Path | None] = dict(kept_releases())
    with contextlib.suppress(TreeNotFoundError):
        places.setdefault(find_tree().version)
    seen: dict[str, FirstSeen] = {}
    after = None
    for version in sorted(places, key=release_key):  # opened one by one: most models are old
        directories = wanted.intersection(model_directories(find_tree(places[version])))
        seen |= {directory: FirstSeen(version, after) for directory in directories - seen.keys()}
        if len(seen) == len(wanted):
            break
        after = version
    return seen


def model_directories(tree: SourceTree) -> list[str]:
    """`SourceTree.model_directories`, kept between runs where the tree is a wheel, which does not change."""
    if tree.where.is_file():
        return list(remembered(tree, "directories-1", (), lambda: list(tree.model_directories())))
    return list(tree.model_directories())


def _download(version: str) -> Path:
    folder = wheels_directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Downloaded aside: an interrupted download must not look like a wheel, and two processes may want the same one.
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            wanted = f"{PACKAGE}=={version}"
            _pip(
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--no-cache-dir",
                "--dest",
                aside,
                wanted,
            )
            [wheel] = Path(aside).glob("*.whl")
            return wheel.replace(folder / wheel.name)
    except (OSError, ValueError) as error:
        raise ReleaseUnavailableError(
            f"the wheel of {PACKAGE} {version} could not be kept in {folder}: {error}"
        ) from error


def _pip(command: str, *arguments: str) -> str:
    """Run pip; its own configuration says where packages come from."""
    if importlib.util.find_spec("pip") is None:
        raise ReleaseUnavailableError(
            f"releases of {PACKAGE} are downloaded with pip, which this Python lacks; install it, or put wheels in {wheels_directory()}"
        )
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, "--disable-pip-version-check", *PATIENCE, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PIP_NO_INPUT": "1"},
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    why = errors[-1] if errors else done.stderr.strip().rpartition("\n")[2]
    raise ReleaseUnavailableError(f"{arguments[-1]} cannot be had: pip says: {why}")
