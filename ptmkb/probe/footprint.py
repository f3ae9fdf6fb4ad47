"""How much memory processes take together, where pages that several share count once: what a forked child shares with its parent is nearly all of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_KIB = 1024


def proportional(process: int) -> int:
    """The proportional set size of a process in bytes: pages of its own, and its share of those that others map too.

    Returns:
        0 where the process has ended, or where the system does not say (it is Linux that does).
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * _KIB
    return 0


def tree(process: int | None = None) -> Iterator[int]:
    """A process and all that descend from it.

    Args:
        process: This one by default.
    """
    waiting = [process or os.getpid()]
    while waiting:
        current = waiting.pop()
        yield current
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{current}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]


def together(processes: Iterable[int]) -> int:
    """The memory that processes take together, in bytes."""
    return sum(proportional(process) for process in processes)
