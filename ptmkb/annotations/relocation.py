"""Find the file that holds an anchor's lines now, where the one that it was made in is no longer in the tree.

Models copy each other, so the same lines stand in many files, and a text that is alike proves nothing here. What proves is the identity: the
very same lines in a symbol of the same name, in one file of the whole tree, or in one of the files that kept the old one's own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from ptmkb.annotations.anchors import Anchor
from ptmkb.annotations.evidence import DISTINCT
from ptmkb.annotations.resolution import Resolution, Status, resolve
from ptmkb.annotations.text import squash
from ptmkb.source import MODULE, SourceTree


def relocate(
    anchors: Mapping[str, tuple[Anchor, str]], tree: SourceTree
) -> dict[str, tuple[str, Resolution]]:
    """Search a tree for anchors whose files it does not have; every file is read once, whatever their number.

    Args:
        anchors: by a key of the caller's: the anchor and the file that it was made in.
        tree: the tree.

    Returns:
        By the same keys, the file and where in it the lines stand, always `moved`; those that nothing proves are left out.
    """
    wanted = {
        key: (anchor, file, _telling(anchor))
        for key, (anchor, file) in anchors.items()
        if anchor.symbol != MODULE and len(squash(anchor.quote)) >= DISTINCT
    }
    found: dict[str, list[tuple[str, Resolution]]] = {key: [] for key in wanted}
    for file in tree.files() if wanted else ():
        data = tree.read_bytes(file)
        for key, (anchor, _, telling) in wanted.items():
            if telling in data:
                resolution = resolve(anchor, tree.read(file))
                if resolution.status is Status.exact:
                    found[key].append((file, resolution))
    chosen = {}
    for key, places in found.items():
        _, file, _ = wanted[key]
        namesakes = [place for place in places if PurePosixPath(place[0]).name == PurePosixPath(file).name]
        for group in (places, namesakes):
            if len(group) == 1:
                now, resolution = group[0]
                reason = (
                    f"{file} is not in this tree; the same lines stand in {anchors[key][0].symbol} of {now}"
                )
                chosen[key] = (now, replace(resolution, status=Status.moved, reason=reason))
                break
    return chosen


def _telling(anchor: Anchor) -> bytes:
    """The longest of the lines: few files hold it."""
    return max((line.strip() for line in anchor.quote), key=len).encode()
