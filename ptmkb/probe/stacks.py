"""Finds the repeated layers of a model's stacks from its module tree and from one forward pass.

A block is a member of a list of modules that takes a sequence of positions and gives one of the same shape; the list that holds it is
the outermost such. Blocks are listed in the order in which they ran, once for every time they ran (ALBERT runs one block twelve times).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ptmkb.probe import samples
from ptmkb.probe.numerics import tensors_in

_WORDS: Mapping[
    str, tuple[str, ...]
] = {  # what the path to a stack says about the stream that runs through it
    "decoder": ("decoder",),
    "encoder": ("encoder",),
    "text": ("text", "language"),
    "image": ("image", "vision", "visual", "region"),
    "audio": ("audio", "speech"),
    "forward": ("forward",),
    "backward": ("backward",),
}
JOINT = "joint"
"""The name of the only stack of a model whose streams all run in one sequence."""
CROSS = "cross"
"""The name of the stack of blocks that take and give several streams at once (cross-modal layers)."""


@dataclass(frozen=True)
class Ran:
    """A member of a list of modules that ran and gave what it took in shape.

    Attributes:
        path: Its lower-case path in the model.
        module: The member.
        lengths: How many positions there are in what it gave: (batch, positions, features) or, in some models, (positions, batch, features).
    """

    path: str
    module: nn.Module
    lengths: frozenset[int]


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Ran]]:
    """While this is open, note which members of lists of modules run, in order."""
    ran: list[Ran] = []
    handles = []
    for path, block in members(model):

        def note(module: nn.Module, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
            given = {t.shape for _, t in tensors_in((args, kwargs)) if t.dim() == 3}
            kept = frozenset(
                length
                for _, t in tensors_in(output)
                if t.dim() == 3 and t.shape in given
                for length in _lengths(t)
            )
            if kept:
                ran.append(Ran(path, module, kept))

        handles.append(block.register_forward_hook(note, with_kwargs=True))
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def _lengths(hidden: Tensor) -> Iterator[int]:
    first, second = hidden.shape[:2]
    if first % samples.BATCH == 0:  # several pictures of a sample go through a tower as samples of their own
        yield second
    if second % samples.BATCH == 0:
        yield first


def blocks(
    ran: Sequence[Ran], lengths: Mapping[str, int], joint: int | None, shared: bool = False
) -> dict[str, tuple[nn.Module, ...]]:
    """The repeated layers of each stack.

    Args:
        ran: What ran.
        lengths: How many positions each stream has inside the model, added tokens included.
        joint: How many positions the one sequence has, where all streams run in one.
        shared: Whether that is a text with places for what towers of their own made of pictures and sounds: their layers are not its.

    Returns:
        By stream name (`JOINT`, `CROSS` for what several share), in the order of running.
    """
    sizes = set(lengths.values()) if joint is None else {joint}
    fitting = [row for row in ran if row.lengths & sizes]
    if shared:
        towers = [word for stream in ("image", "audio") for word in _WORDS[stream]]
        fitting = [row for row in fitting if not any(word in row.path for word in towers)] or fitting
    paths = {row.path for row in fitting}
    stacks: dict[str, list[nn.Module]] = {stream: [] for stream in lengths}
    for row in fitting:
        if any(row.path.startswith(f"{path}.") for path in paths):
            continue  # a part of a block
        for stream in [JOINT] if joint is not None else _streams(row, lengths):
            stacks.setdefault(stream, []).append(row.module)
    return {stream: tuple(found) for stream, found in stacks.items() if found}


def _streams(row: Ran, lengths: Mapping[str, int]) -> list[str]:
    """The streams that run through a block: those of its length, and where its path names streams, of these only those."""
    fitting = [stream for stream, length in lengths.items() if length in row.lengths]
    if len({lengths[stream] for stream in fitting}) > 1:
        return [CROSS]
    named = [stream for stream in lengths if any(word in row.path for word in _WORDS.get(stream, (stream,)))]
    return [stream for stream in fitting if stream in named] if named else fitting


def members(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The members of all lists of modules, with their paths."""
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.ModuleList):
            for index, member in enumerate(module):
                # A list may have gaps, and a lone layer (a norm, a projection) is no block.
                if member is not None and next(member.children(), None) is not None:
                    yield f"{path.lower()}.{index}", member
