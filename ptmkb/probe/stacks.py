"""Finds the repeated layers of a model's stacks from its module tree and from one forward pass.

A block is a member of a list of modules that takes a sequence of positions and gives one of the same shape; the list that holds it is
the outermost such. Blocks are listed in the order in which they ran, once for every time they ran (ALBERT runs one block twelve times).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_WORDS: Mapping[str, tuple[str, ...]] = {  # what the path to a stack says about the stream that runs through it
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


def blocks(
    model: nn.Module, run: Callable[[], Any], lengths: Mapping[str, int], joint: int | None
) -> dict[str, tuple[nn.Module, ...]]:
    """The repeated layers of each stack.

    Args:
        model: The model.
        run: Runs it once.
        lengths: How many positions each stream has inside the model, added tokens included.
        joint: How many positions the one sequence has, where all streams run in one.

    Returns:
        By stream name (by `JOINT` where they are joint), in the order of running.
    """
    ran: list[tuple[str, nn.Module, frozenset[int]]] = []
    sizes = set(lengths.values()) if joint is None else {joint}
    handles = []
    for path, block in _members(model):

        def record(module: nn.Module, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
            given = {t.shape for t in _tensors([args, kwargs]) if t.dim() == 3}
            # (batch, positions, features) or, in some models, (positions, batch, features).
            kept = frozenset(n for t in _tensors(output) if t.dim() == 3 and t.shape in given for n in t.shape[:2])
            if kept & sizes:
                ran.append((path, module, kept & sizes))

        handles.append(block.register_forward_hook(record, with_kwargs=True))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    paths = {path for path, _, _ in ran}
    ran = [row for row in ran if not any(row[0].startswith(f"{path}.") for path in paths)]
    if joint is not None:
        whole = tuple(module for _, module, _ in ran)
        return {JOINT: whole} if whole else {}
    stacks: dict[str, list[nn.Module]] = {stream: [] for stream in lengths}
    for path, module, kept in ran:
        for stream in _streams(path, kept, lengths):
            stacks[stream].append(module)
    return {stream: tuple(found) for stream, found in stacks.items() if found}


def _streams(path: str, kept: frozenset[int], lengths: Mapping[str, int]) -> list[str]:
    """The streams that run through a block: those of its length, and where its path names streams, of these only those."""
    fitting = [stream for stream, length in lengths.items() if length in kept]
    named = [stream for stream in lengths if any(word in path for word in _WORDS.get(stream, (stream,)))]
    # A block that gives two streams (a cross-modal layer) belongs to both, whatever it is called.
    return fitting if len(kept) > 1 or not named else [stream for stream in fitting if stream in named]


def _members(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The members of all lists of modules, with their paths."""
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.ModuleList):
            for index, member in enumerate(module):
                if next(member.children(), None) is not None:  # a lone layer (a norm, a projection) is no block
                    yield f"{path.lower()}.{index}", member


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
