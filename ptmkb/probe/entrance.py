"""What runs between a model's inputs and the first block of a stack: embeddings, patches, convolutions, and how they come together."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Set
from functools import cached_property

import torch

from ptmkb.probe.dataflow import INPUT, NORM, Recorder
from ptmkb.probe.elements import Element
from ptmkb.probe.regions import ADDITIONS, PASSING, Graph

FEW = 4
"""Rows of a table: as many kinds of segments there may be, not words."""
_JOINING = {
    "cat",
    "concat",
    "masked_scatter",
    "masked_scatter_",
    "where",
    "index_put",
    "index_put_",
    "__setitem__",
}


class Entrance:
    """Reads the way in.

    Args:
        recorder: The run.
        graph: Its graph.
        owner: The stream that a block's sequence belongs to, by node.
        given: What blocks gave.
    """

    def __init__(self, recorder: Recorder, graph: Graph, owner: Mapping[int, str], given: Set[int]) -> None:
        self.recorder, self.nodes, self.graph = recorder, recorder.nodes, graph
        self.owner, self.given = owner, given
        self._makers: dict[int, Element | None] = {}

    def before(self, start: int) -> list[Element]:
        """What runs between the model's inputs, or another stack's results, and a first block."""
        if start in self.owner and start in self.given:
            return []
        region = self.graph.above([start], self.owner.keys() - {start})
        ours = sorted(at for at in region if at not in self.owner or at == start)
        for joint in reversed(ours):
            sides = self._sides(joint)
            if len(sides) > 1:
                above = self.graph.above([joint])
                rest = self._made([at for at in ours if at not in above])
                return [
                    {"kind": "concatenate" if self.nodes[joint].op in _JOINING else "sum", "of": sides},
                    *rest,
                ]
        return self._made(ours)

    def _sides(self, at: int) -> list[list[Element]]:
        """What is joined or summed in a node, where that comes from different inputs and is more than embeddings."""
        op = self.nodes[at].op
        if op in _JOINING:
            sides = [self._side(term) for term in self._sources(at)]
            return sides if all(sides) else []
        if op not in ADDITIONS or self.nodes[at].fixed or not self._looks_up:
            return []
        terms, sides = [], []
        waiting = list(self.nodes[at].inputs)
        while waiting:
            term = waiting.pop(0)
            if (
                self.nodes[term].op in ADDITIONS
                and self.nodes[term].tensor.shape == self.nodes[at].tensor.shape
            ):
                waiting[:0] = self.nodes[term].inputs
            elif side := self._side(term):
                terms.append(side)
        lookups = [
            name
            for side in terms
            if len(side) == 1
            for name in side[0].get("of", [])
            if side[0]["kind"] == "embedding"
        ]
        sides = [side for side in terms if not (len(side) == 1 and side[0]["kind"] == "embedding")]
        if (
            "token" not in lookups
            or not sides
            or any(name == "token" for side in sides for e in side for name in e.get("of", []))
        ):
            return []
        return [[{"kind": "embedding", "of": list(dict.fromkeys(lookups))}], *sides]

    def _side(self, at: int) -> list[Element]:
        region = self.graph.above([at], self.owner.keys())
        stacks = sorted({self.owner[n] for n in region if n in self.owner})
        made = self._made(
            sorted(n for n in region if n not in self.owner and (not stacks or self._after_stack(n)))
        )
        return [*({"kind": "stack", "name": name} for name in stacks), *made]

    @cached_property
    def _looks_up(self) -> bool:
        """Whether anything is looked up in a table, as words are."""
        return any(node.op == "embedding" for node in self.nodes)

    def _after_stack(self, at: int) -> bool:
        return at in self._behind

    @cached_property
    def _behind(self) -> set[int]:
        """The nodes of the stacks and all that anything of theirs went into; nodes are numbered in the order in which they ran."""
        found = set(self.owner)
        for at, node in enumerate(self.nodes):
            if not found.isdisjoint(node.inputs):
                found.add(at)
        return found

    def _sources(self, at: int) -> list[int]:
        """What a node joins, where that comes from different inputs of the model; empty where it joins nothing of that kind."""
        found: list[int] = []
        used: set[int] = set()
        for other in dict.fromkeys(self.nodes[at].inputs):
            if self.nodes[other].fixed or not self.nodes[other].tensor.is_floating_point():
                continue
            inputs = {n for n in self.graph.above([other]) if self.nodes[n].op == INPUT}
            if not inputs <= used and not inputs & used:
                found.append(other)
                used |= inputs
        return found if len(found) > 1 else []

    def _made(self, nodes: list[int]) -> list[Element]:
        attentions = [at for at in nodes if self.nodes[at].attention is not None]
        if attentions:  # layers of their own, such as an image encoder's or earlier stages
            first = next((at for at in nodes if self.nodes[at].op == NORM), attentions[0])
            return [*self._made([at for at in nodes if at < min(first, attentions[0])]), {"kind": "stages"}]
        elements: list[Element] = []
        convolved = [at for at in nodes if self._convolves(at)]
        for at in nodes:
            element = self._maker(at)
            if element == {"kind": "embedding", "of": ["convolution"]} and at != convolved[-1]:
                element = {"kind": "convolution"}  # a residual unit: positions are made last
            last: Element = elements[-1] if elements else {"kind": None}
            if element is None:
                continue
            if element["kind"] == "embedding" == last["kind"]:
                last["of"] += [name for name in element["of"] if name not in last["of"]]
            elif element["kind"] in ("convolution", "patches") and last["kind"] in ("convolution", "patches"):
                elements[-1] = {"kind": "convolution", "layers": last.get("layers", 1) + 1}
            elif element["kind"] == "norm" and last["kind"] == "convolution" and element["norm"] != "layer":
                continue
            else:
                elements.append(element)
        return _once(elements)

    def _maker(self, at: int) -> Element | None:
        """What a node before the first block does, None for nothing to speak of; a new element every time."""
        if at not in self._makers:
            self._makers[at] = self._found(at)
        return copy.deepcopy(self._makers[at])

    def _found(self, at: int) -> Element | None:
        node = self.nodes[at]
        if node.op == NORM:
            return {"kind": "norm", "norm": node.about["kind"]}
        if node.op == "embedding":
            return {"kind": "embedding", "of": [self._looked_up(at)]}
        if self._convolves(at):
            args, kwargs = node.about["arguments"]
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            kernel = [int(size) for size in weight.shape[2:]]
            stride = args[3] if len(args) > 3 else kwargs.get("stride", 1)
            steps = [stride] * len(kernel) if isinstance(stride, int) else [int(size) for size in stride]
            if self._added_back(at):
                return {"kind": "embedding", "of": ["convolution"]}
            return {"kind": "patches" if steps == kernel and kernel[0] > 1 else "convolution"}
        if node.product is not None and not node.fixed and node.tensor.ndim > 2:
            return {"kind": "linear"}
        if node.op in ADDITIONS and not node.fixed:
            for other in node.inputs:
                added = self.nodes[other]
                made = added.fixed or self._selected(other)
                if made and added.op != "embedding" and _varies(added.tensor, node.tensor):
                    return {"kind": "embedding", "of": ["position" if added.learned else "fixed-position"]}
        return None

    def _convolves(self, at: int) -> bool:
        node = self.nodes[at]
        return node.op.startswith("conv") and node.product is not None and not node.fixed

    def _selected(self, at: int) -> bool:
        """Whether a tensor is rows of a table of positions, picked by numbers that were counted from the input."""
        while len(self.nodes[at].inputs) == 1 and self.nodes[at].op in PASSING:
            (at,) = self.nodes[at].inputs
        node = self.nodes[at]
        return node.op == "index_select" and self.nodes[node.inputs[0]].fixed

    def _added_back(self, at: int) -> bool:
        """Whether the result of a convolution is added to what went into it."""
        given = next(other for other in self.nodes[at].inputs if not self.nodes[other].fixed)
        for later in range(at + 1, min(at + 16, len(self.nodes))):
            node = self.nodes[later]
            if node.op in ADDITIONS and node.tensor.ndim == 3 and self.graph.between(at, later):
                return any(not set(self.graph.above([given])).isdisjoint({n}) for n in node.inputs)
        return False

    def _looked_up(self, at: int) -> str:
        """Words, positions (numbers that count up), or segments (always the same number)."""
        args, kwargs = self.nodes[at].about["arguments"]
        indices = args[0] if args else kwargs["input"]
        row = indices.reshape(-1, indices.shape[-1])[0].long() if indices.ndim else indices.reshape(1)
        steps = row.diff()
        table = args[1] if len(args) > 1 else kwargs["weight"]
        fixed = self.nodes[self.recorder.node(indices)].fixed
        if (len(row) > 1 and bool((steps == 0).all())) or table.shape[0] <= FEW:
            return "segment"
        if any(
            self.nodes[n].op == INPUT and self.nodes[n].tensor.ndim > 2
            for n in self.graph.above([self.recorder.node(indices)])
        ):
            return "character"
        if fixed or (len(row) > FEW and bool((steps >= 0).all())):
            return "position" if self.nodes[self.recorder.node(table)].learned else "fixed-position"
        return "token"


def _once(elements: list[Element]) -> list[Element]:
    """A path without what repeats at once: linear, norm, linear, norm is linear, norm."""
    for period in (1, 2, 3):
        at = 0
        while at + 2 * period <= len(elements):
            if elements[at : at + period] == elements[at + period : at + 2 * period]:
                del elements[at + period : at + 2 * period]
            else:
                at += 1
    return elements


def _varies(added: torch.Tensor, to: torch.Tensor) -> bool:
    """Whether a tensor of as many features as another has a row of its own for each of several positions."""
    if (
        added.ndim < 2
        or added.shape[-1] != to.shape[-1]
        or added.shape[-2] != to.shape[-2]
        or added.shape[-2] < 2
    ):
        return False
    rows = added.reshape(-1, added.shape[-2], added.shape[-1])[0]
    return not torch.equal(rows[0], rows[1])
