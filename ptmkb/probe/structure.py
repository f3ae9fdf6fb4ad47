"""The structure of a model as a small graph, read from one recorded run: stacks of blocks, and what each block does in which order.

Nothing is read from class names. A block's path is cut at its norms and at its residual additions (`regions`); what lies between is
named by what ran there (`elements`).
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import torch

from ptmkb.probe.dataflow import INPUT, NORM, Call, Node, Recorder, record
from ptmkb.probe.elements import Classifier, Element
from ptmkb.probe.entrance import FEW, Entrance
from ptmkb.probe.numerics import tensors_in
from ptmkb.probe.outline import input_name, residual_blocks
from ptmkb.probe.regions import ADDITIONS, Graph, Normed, Piece, Residual
from ptmkb.probe.subject import Subject

_STATES = {
    "hidden_states", "attentions", "past_key_values", "cache_params", "mems", "encoder_hidden_states", "decoder_hidden_states",
    "encoder_attentions", "decoder_attentions", "cross_attentions", "language_hidden_states", "vision_hidden_states",
}  # fmt: skip
_NEAR = 16  # nodes after a block among which its residual addition is
_LONG = 4  # elements: a longer head is drawn as what it mostly is


def structure(subject: Subject) -> dict[str, Any]:
    """A model's structure.

    Args:
        subject: A tiny model.

    Where the subject names no layers, its blocks are found by their residual sums (`residuals`), and where there are none of these, either,
    the bare path from the inputs to the first output is drawn (`path`); the result says so as `drawn_from`.

    Returns:
        `stacks`, each with its `name`, `width`, what runs `before` its first block and `after` its last, and its `blocks`, alike ones
        that follow one another counted; `order`, in which the blocks of several stacks take turns; `heads`, what is made of the last
        states. Elements are described in `elements` and in the measure `structure`.
    """
    if any(subject.blocks.values()):
        return _Reader(record(subject)).read()
    blocks = residual_blocks(subject)
    reader = _Reader(record(replace(subject, blocks=blocks)))
    if reader.calls:
        found = reader.read()
        for stack in found["stacks"]:
            if not _attends(stack["blocks"]):
                stack["widths"] = []  # of a picture or a wave, the last dimension is a length
        return {**found, "drawn_from": "residuals"}
    return {**reader.path(subject), "drawn_from": "path"}


class _Reader:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.nodes = recorder, recorder.nodes
        begins = {taken: call.opened for call in reversed(recorder.calls) for taken in call.taken}
        self.graph = Graph(recorder.nodes, begins)
        self.calls = [call for call in recorder.calls if self._paths(call)]
        self.owner: dict[int, str] = {}
        self.ends: dict[int, int] = {}
        self._name_streams()
        given = {at for call in self.calls for at in call.given}
        self.entrance = Entrance(recorder, self.graph, self.owner, given)
        self.classifier = Classifier(recorder, self.graph, self._made_by)

    def read(self) -> dict[str, Any]:
        stacks: dict[tuple[str, ...], list[int]] = {}
        for index, call in enumerate(self.calls):
            stacks.setdefault(call.stacks, []).append(index)
        found = [self._stack(names, calls) for names, calls in stacks.items()]
        order = [list(stacks).index(call.stacks) for call in self.calls]
        result: dict[str, Any] = {"stacks": found, "heads": self._heads(found)}
        if len(found) > 1:
            result["order"] = _runs(order)
        return result

    def path(self, subject: Subject) -> dict[str, Any]:
        """A model without blocks: all that runs from its inputs to its first output, in one path."""
        outputs = [self.recorder.node(tensor) for _, tensor in tensors_in(self.recorder.output)]
        end = next((at for at in outputs if not self.nodes[at].fixed), None)
        if end is None:
            raise LookupError("nothing that it returns is made of its inputs")
        above = self.graph.above([end])
        fed = [str(self.nodes[at].about["name"]) for at in sorted(above) if self.nodes[at].op == INPUT]
        name = input_name(fed[0].partition(".")[0], subject) if fed else "input"
        stack = {
            "name": name,
            "streams": [name],
            "widths": [],
            "before": [self.entrance.before(end)],
            "blocks": [],
            "after": [],
        }
        return {"stacks": [stack], "heads": []}

    def _stack(self, names: tuple[str, ...], calls: list[int]) -> dict[str, Any]:
        first = self.calls[calls[0]]
        paths = self._paths(first)
        blocks = [self._block(index) for index in calls]
        streams = [self.owner[given] for _, given in paths]
        if len(set(streams)) < len(
            paths
        ):  # sequences that cannot be told apart by name: the first one alone is drawn
            paths, blocks, streams = paths[:1], [block[:1] for block in blocks], streams[:1]
        stack: dict[str, Any] = {
            "name": " ".join(names),
            "streams": streams if len(paths) > 1 else [_column(name) for name in names],
            "widths": [
                int(tensor.shape[-1])
                for tensor in (self.nodes[taken].tensor for taken, _ in paths)
                if tensor.ndim == 3
            ],
            "before": [self.entrance.before(taken) for taken, _ in paths],
            "blocks": [{"times": times, "paths": paths} for paths, times in _counted(blocks)],
        }
        if len(paths) == 1 and not any(
            e["kind"] == "residual" for block in blocks for path in block for e in path
        ):
            stack["blocks"] = self._around(paths[0][0], calls[-1]) or stack["blocks"]
        modules = {id(self.calls[index].module) for index in calls}
        if len(modules) < len(calls):
            stack["shared"] = len(modules)
        return stack

    def _name_streams(self) -> None:
        """Which stream each block's results belong to; where streams meet, that which they came from or go to."""
        takers = {
            at: _column(call.stacks[0])
            for call in reversed(self.calls)
            for at in call.taken
            if len(self._paths(call)) == 1
        }
        for call in self.calls:
            paths = self._paths(call)
            for taken, given in paths:
                name = _column(call.stacks[0])
                if len(paths) > 1:
                    name = self.owner.get(taken) or takers.get(given, name)
                    self.owner.setdefault(taken, name)
                self.owner.setdefault(given, name)

    # ---- blocks

    def _paths(self, call: Call) -> list[tuple[int, int]]:
        """Each sequence that a block takes, with what becomes of it."""
        pairs: list[tuple[int, int]] = []
        for given in dict.fromkeys(call.given):
            shape = self.nodes[given].tensor.shape
            for taken in dict.fromkeys(call.taken):
                free = all(taken != pair[0] for pair in pairs)
                if (
                    free
                    and given > taken
                    and self.nodes[taken].tensor.shape == shape
                    and self.graph.between(taken, given)
                ):
                    pairs.append((taken, given))
                    break
        return [pair for pair in pairs if pair is pairs[0] or self._is_stream(*pair)]

    def _is_stream(self, taken: int, given: int) -> bool:
        """Whether a second sequence is worked on by the block as the first is."""
        return any(isinstance(piece, Residual) for piece in self.graph.pieces(taken, given))

    def _block(self, index: int) -> list[list[Element]]:
        call = self.calls[index]
        layer = next((at for at, other in enumerate(self.recorder.calls) if other is call), None)
        return [self._path(start, end, layer) for start, end in self._paths(call)]

    def _path(self, start: int, end: int, layer: int | None) -> list[Element]:
        elements: list[Element] = []
        for piece in self.graph.pieces(start, end):
            elements += self._elements(piece, layer)
        return elements

    def _elements(self, piece: Piece, layer: int | None) -> list[Element]:
        if isinstance(piece, Normed):
            return [{"kind": "norm", "norm": self.nodes[piece.at].about["kind"]}]
        if isinstance(piece, Residual):
            return self._residual(piece, layer)
        tensor = self.nodes[piece.start].tensor
        return self.classifier.elements(piece, int(tensor.shape[1 if tensor.ndim > 2 else 0]), layer)

    def _residual(self, piece: Residual, layer: int | None) -> list[Element]:
        start, before = piece.trunk, []
        if len(piece.terms) > 1:
            shared = set(self.graph.gates(piece.trunk, piece.terms[0]))
            for term in piece.terms[1:]:
                shared &= set(self.graph.gates(piece.trunk, term))
            start = max(shared)
            before = self._path(piece.trunk, start, layer)
        branches = [branch for term in piece.terms if (branch := self._path(start, term, layer))]
        experts = next((b for b in branches if len(b) == 1 and b[0]["kind"] == "experts"), None)
        beside = next((b for b in branches if len(b) == 1 and b[0]["kind"] == "feed-forward"), None)
        if experts and beside and len(branches) == 2:
            experts[0]["shared"] = beside[0].get("width", True)
            branches = [experts]
        if not branches:  # a sum with nothing but arithmetic on it
            return before
        if len(branches) == 1:
            return [{"kind": "residual", "branches": [before + branches[0]]}]
        return [{"kind": "residual", **({"before": before} if before else {}), "branches": branches}]

    def _around(self, start: int, last: int) -> list[dict[str, Any]]:
        """The blocks of a stack whose residual additions stand outside of its modules; empty where there are none."""
        given = self._paths(self.calls[last])[0][1]
        ends = [given]
        for at in range(given + 1, min(given + _NEAR, len(self.nodes))):
            inputs = self.nodes[at].inputs
            added = self.nodes[at].op in ADDITIONS and any(
                self.graph.passes(given, one) for one in inputs if one >= given
            )
            if len(ends) == 1 and added:
                ends.append(at)
            elif len(ends) > 1 and self.nodes[at].op == NORM and ends[1] in inputs:
                ends[2:] = [at]  # a norm's module stands for the function that ran in it
        found = [(end, _periods(self._path(start, end, None))) for end in ends]
        end, blocks = max(found, key=lambda one: (one[1][0]["times"], _additions(one[1])))
        if not _additions(blocks):
            return []
        self.ends[given] = end
        return blocks

    # ---- what comes before and after

    def _made_by(self, at: int) -> str | None:
        """The stack whose last state went into a node without passing another block."""
        seen = self.graph.above([at], list(self.owner))
        owners = sorted((n for n in seen if n in self.owner), reverse=True)
        return self.owner[owners[0]] if owners else None

    def _heads(self, stacks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What is made of the last states of each stack; the norms and maps that all of a stack's heads share go to its `after`."""
        last = {call.stacks: call for call in self.calls}
        ends: dict[int, int] = {}
        for index, call in enumerate(last.values()):
            for _, given in self._paths(call):
                ends[self.ends.get(given, given)] = index
        tables = {self.recorder.node(_table(node)) for node in self.nodes if node.op == "embedding"}
        heads: list[dict[str, Any]] = []
        for name, tensor in tensors_in(self.recorder.output):
            at = self.recorder.node(tensor)
            if name.partition(".")[0] in _STATES or "." in name or self.nodes[at].fixed:
                continue
            if head := self._head(name, at, ends, tables):
                heads.append({**head, "at": at})
        for index, stack in enumerate(stacks):
            own = [head for head in heads if head["stacks"] == [index]]
            plain = [head for head in own if head["name"].endswith(("last_hidden_state", "_embeds"))]
            chosen = (
                next((head for head in plain if head["name"].endswith("_embeds")), None)
                or (plain or own or [{"elements": []}])[0]
            )
            stack["after"] = chosen["elements"] if chosen in plain else _norms(chosen["elements"])
            for head in own:
                if head["elements"][: len(stack["after"])] == stack["after"]:
                    head["elements"] = head["elements"][len(stack["after"]) :]
        distinct = _distinct([head for head in heads if not self._used(head, heads)])
        for head in distinct:
            del head["at"]
        return distinct

    def _used(self, head: dict[str, Any], heads: list[dict[str, Any]]) -> bool:
        """Whether what a head makes goes on into another head: it is a step on the way."""
        return any(self.graph.between(head["at"], other["at"]) for other in heads if other["at"] > head["at"])

    def _head(self, name: str, at: int, ends: dict[int, int], tables: set[int]) -> dict[str, Any] | None:
        above = self.graph.above([at], ends)
        met = sorted(end for end in ends if end in above)
        if not met:
            return None
        streams = list(dict.fromkeys(self._stream(end) for end in met))
        head: dict[str, Any] = {
            "name": name,
            "stacks": sorted({ends[end] for end in met}),
            "streams": streams,
        }
        if len(met) > 1:
            return {**head, "elements": [{"kind": "similarity" if self._compares(at, met) else "joined"}]}
        products = [n for n in sorted(above) if self.nodes[n].product is not None and met[0] < n]
        if products:
            product = self.nodes[products[-1]]
            head["tied"] = bool(self.graph.above(n for n in product.inputs if self.nodes[n].fixed) & tables)
            head["width"] = int(product.tensor.shape[-1])
            head["vocabulary"] = head["tied"] or any(
                head["width"] == len(self.nodes[t].tensor) > FEW for t in tables
            )
        return {**head, "elements": _short(self._path(met[0], at, None))}

    def _stream(self, end: int) -> str:
        """The stream of a stack's last state."""
        given = next((given for given, later in self.ends.items() if later == end), end)
        return self.owner[given]

    def _compares(self, at: int, ends: list[int]) -> bool:
        """Whether a node is a product of features of several stacks."""
        region = self.graph.above([at], ends)
        return any(
            node.op in ("matmul", "__matmul__", "einsum", "bmm") and node.product is None and not node.fixed
            for node in (self.nodes[n] for n in region if n > max(ends))
        )


def _column(name: str) -> str:
    """The stream of a stack: what stands before the number of its stage, where it has one."""
    return name.partition("/")[0]


def _table(node: Node) -> torch.Tensor:
    args, kwargs = node.about["arguments"]
    table: torch.Tensor = args[1] if len(args) > 1 else kwargs["weight"]
    return table


def _short(elements: list[Element]) -> list[Element]:
    """A long path of convolutions as one element."""
    if len(elements) <= _LONG:
        return elements
    inner = [
        one
        for element in elements
        for one in (itertools.chain(*element["branches"]) if "branches" in element else [element])
    ]
    convolutions = sum(one["kind"] == "convolution" for one in inner)
    return [{"kind": "convolution", "layers": convolutions}] if convolutions else elements[:_LONG]


def _norms(elements: list[Element]) -> list[Element]:
    """The norms that a path begins with."""
    return list(itertools.takewhile(lambda element: element["kind"] == "norm", elements))


def _distinct(heads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Heads that say something of their own: those that make or compare something, each kind of comparison once."""
    compared = [head for head in heads if head["elements"] == [{"kind": "similarity"}]]
    if compared:
        return compared[:1]
    return [head for head in heads if head["elements"] and "last_hidden_state" not in head["name"]]


def _counted(blocks: list[Any]) -> list[tuple[Any, int]]:
    """Runs of equal ones."""
    runs: list[tuple[Any, int]] = []
    for block in blocks:
        if runs and runs[-1][0] == block:
            runs[-1] = (block, runs[-1][1] + 1)
        else:
            runs.append((block, 1))
    return runs


def _additions(blocks: list[dict[str, Any]]) -> int:
    return sum(
        element["kind"] == "residual" for block in blocks for path in block["paths"] for element in path
    )


def _attends(blocks: list[dict[str, Any]]) -> bool:
    return any(
        one["kind"] == "attention"
        for block in blocks
        for path in block["paths"]
        for element in path
        for one in itertools.chain([element], *element.get("branches", []))
    )


def _periods(elements: list[Element]) -> list[dict[str, Any]]:
    """A long path as one block that repeats, or as it is."""
    for length in range(1, len(elements) // 2 + 1):
        times = len(elements) // length
        if elements == elements[:length] * times:
            return [{"times": times, "paths": [elements[:length]]}]
    return [{"times": 1, "paths": [elements]}]


def _runs(order: list[int]) -> list[list[int]]:
    return [[stack, times] for stack, times in _counted(order)]
