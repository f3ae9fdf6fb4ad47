"""Takes a recorded graph apart: what every path between two tensors goes through, and what lies between.

A block of a transformer is a chain of tensors that everything passes, its residual stream, with norms on it and with additions
`x + f(x)`; each `f` is such a chain again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ptmkb.probe.dataflow import NORM, Node

ADDITIONS = {"add", "__add__", "__radd__", "__iadd__", "add_"}
PRODUCTS = {"mul", "__mul__", "__rmul__", "__imul__", "mul_", "multiply"}
PASSING = {
    "dropout", "view", "reshape", "transpose", "permute", "contiguous", "to", "type", "type_as", "float", "clone",
    "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "roll", "__get__", "masked_fill", "alpha_dropout",
    "swapaxes", "movedim", "drop_path", "half", "bfloat16", "double", "view_as", "reshape_as", "t", "chunk", "split", "__getitem__",
    "unbind", "repeat_interleave", "detach", "div", "__truediv__", "pad",
} | PRODUCTS  # fmt: skip
"""What leaves a tensor what it is: its form, its number type, a constant factor."""


@dataclass(frozen=True)
class Residual:
    """An addition `x + f(x)`, with one branch or several side by side; `trunk` is x, `end` the sum, `terms` what is added to x."""

    trunk: int
    end: int
    terms: tuple[int, ...]


@dataclass(frozen=True)
class Normed:
    """A norm on the path."""

    at: int


@dataclass(frozen=True)
class Stretch:
    """Everything between two tensors of the path that is neither: a map of its own."""

    start: int
    end: int
    nodes: frozenset[int]


Piece = Residual | Normed | Stretch


class Graph:
    """Questions about a recorded graph; nodes are numbered in the order in which they ran.

    Args:
        nodes: The graph.
        begins: By what a block takes, the first node of the block. What ran in between is none of its paths, though it may come from the same
            tensor and go into the block beside it (Gemma 4's inputs of each layer).
    """

    def __init__(self, nodes: Sequence[Node], begins: Mapping[int, int] | None = None) -> None:
        self.nodes, self.begins = nodes, begins or {}

    def between(self, start: int, end: int) -> list[int]:
        """All nodes on a path from one to another, both included; empty if there is no path."""
        reached = {start}
        for at in range(self.begins.get(start, start + 1), end + 1):
            if not reached.isdisjoint(self.nodes[at].inputs):
                reached.add(at)
        if end not in reached:
            return []
        kept = {end}
        for at in range(end, start, -1):
            if at in kept:
                kept.update(other for other in self.nodes[at].inputs if other in reached)
        return sorted(kept)

    def above(self, ends: Iterable[int], stops: Iterable[int] = ()) -> set[int]:
        """All nodes that went into some, themselves included; the path is not followed beyond the stops."""
        stopped, found, waiting = set(stops), set(), list(ends)
        while waiting:
            at = waiting.pop()
            if at not in found:
                found.add(at)
                if at not in stopped:
                    waiting.extend(self.nodes[at].inputs)
        return found

    def gates(self, start: int, end: int) -> list[int]:
        """The nodes that every path from one to another goes through, both included; empty if there is no path."""
        region = self.between(start, end)
        if not region:
            return []
        inside = set(region)
        down = {start: 1}
        for at in region[1:]:
            down[at] = sum(down[other] for other in self.nodes[at].inputs if other in inside)
        up = dict.fromkeys(region, 0)
        up[end] = 1
        for at in reversed(region):
            for other in self.nodes[at].inputs:
                if other in inside:
                    up[other] += up[at]
        return [at for at in region if down[at] * up[at] == down[end]]

    def pieces(self, start: int, end: int) -> list[Piece]:
        """The path from one tensor to another, cut at its norms and residual additions."""
        found: list[Piece] = []
        stretch: list[tuple[int, int]] = []

        def close() -> None:
            if stretch:
                nodes = {at for pair in stretch for at in self.between(*pair)} - {stretch[0][0]}
                found.append(Stretch(stretch[0][0], stretch[-1][1], frozenset(nodes)))
                stretch.clear()

        for before, after in pairwise(self.gates(start, end)):
            residual = self._residual(before, after)
            if residual:
                close()
                found.append(residual)
            elif self.nodes[after].op == NORM and len(self.between(before, after)) == 2:
                close()
                found.append(Normed(after))
            else:
                stretch.append((before, after))
        close()
        return found

    def passes(self, start: int, at: int) -> bool:
        """Whether a tensor is an earlier one, in another form at most."""
        while at > start:
            node = self.nodes[at]
            moving = {other for other in node.inputs if not self.nodes[other].fixed}
            if node.op not in PASSING or len(moving) != 1:
                return False
            (at,) = moving
        return at == start

    def _residual(self, before: int, after: int) -> Residual | None:
        if (
            self.nodes[after].op not in ADDITIONS
            or self.nodes[before].tensor.numel() != self.nodes[after].tensor.numel()
        ):
            return None
        region = self.between(before, after)
        inside = set(region)
        uses: dict[int, int] = {}
        for at in region:
            for other in self.nodes[at].inputs:
                uses[other] = uses.get(other, 0) + 1
        terms, waiting = [], list(self.nodes[after].inputs)
        while waiting:
            at = waiting.pop(0)
            node = self.nodes[at]
            single = uses.get(at) == 1 and at in inside and at != before
            if single and node.op in ADDITIONS and node.tensor.shape == self.nodes[after].tensor.shape:
                waiting[:0] = node.inputs
            else:
                terms.append(at)
        trunks = [at for at in terms if at in inside and self.passes(before, at)]
        branches = tuple(at for at in terms if at in inside and at not in trunks)
        return Residual(before, after, branches) if len(trunks) == 1 and branches else None
