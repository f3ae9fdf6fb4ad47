"""The block diagram of a model, drawn from the structure that a traced run showed; data flows upwards.

Each stream is a column: embeddings at the bottom, repeated blocks as frames with how often they run, outputs on top. Residual
connections run at the left of what they go round and end in a ⊕. Streams that meet share a frame or are joined by an arrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ptmkb.site.drawings.canvas import Canvas
from ptmkb.site.drawings.elements import Box, Boxes, Element, Sizes
from ptmkb.site.drawings.paths import GAP, SIDE, Paths
from ptmkb.site.values import part_text

_WIDE, _NARROW = 156.0, 122.0  # a box where there is one column, where there are two
_COLUMNS = (88.0, 266.0)  # centres of two columns; 354 pixels fit a phone
_ONE = 172.0  # the centre of a single column
_KINDS = 4  # of blocks in one stack that are drawn; of more, the first and the last


def block_diagram(structure: Mapping[str, Any], sizes: Sizes, language: str, title: str) -> str:
    """Draw a structure.

    Args:
        structure: What the measure `structure` gave as its detail.
        sizes: Of the variant whose numbers are shown.
        language: `en` or `zh`.
        title: What a screen reader says.

    Returns:
        An `<svg>` element of one line.
    """
    height = _Diagram(structure, sizes, language, 0.0).draw()
    diagram = _Diagram(structure, sizes, language, -height)
    diagram.draw()
    diagram.canvas.height = -height
    return diagram.canvas.svg(title)


class _Diagram:
    """One drawing; `top` is where the lowest edge stands, so that a first pass from 0 tells how high it is."""

    def __init__(self, structure: Mapping[str, Any], sizes: Sizes, language: str, floor: float) -> None:
        self.structure, self.language = structure, language
        self.boxes = Boxes(language, sizes)
        self.sizes = sizes
        self.floor = floor
        self.streams = _ordered(structure["stacks"])
        two = len(self.streams) > 1
        self.box_width = _NARROW if two else _WIDE
        self.x = dict(zip(self.streams, _COLUMNS if two else (_ONE,), strict=False))
        self.y = dict.fromkeys(self.x, floor - 16.0)
        self.tops: dict[str, tuple[float, float]] = {}
        self.canvas = Canvas(354.0 if two else 2 * _ONE, 0.0)
        self.paths = Paths(self.canvas, self.boxes, self.box_width, 172.0 if two else 2 * _ONE, floor)

    def draw(self) -> float:
        """Draw everything from the floor up; gives the height, negative."""
        for stream, x in self.x.items():
            if len(self.x) > 1:
                self.canvas.label(x, self.floor - 2, part_text(stream, self.language), soft=True)
            else:
                self.y[stream] = self.floor - 4
        prefix, cycle, times = _cycle(self.structure.get("order") or [[0, 1]])
        started: set[int] = set()
        for at, _ in prefix:
            self._start(at, started)
            self._stack(at, self._times(at, cycle, times))
        if cycle:
            self._cycle(cycle, started, times)
        for stack in self.structure["stacks"]:
            for stream in stack["streams"]:
                if stream in self.x and len(stack["streams"]) == 1 and stack.get("after"):
                    self.y[stream] = self.paths.draw(
                        stack["after"], self.x[stream], self.y[stream], (stack["name"], stream)
                    )
                if stream in self.x:
                    self.tops[stream] = (self.x[stream], self.y[stream])
        self._across()
        self._heads()
        return min(self.y.values()) - 6

    # ---- stacks

    def _start(self, at: int, started: set[int]) -> None:
        """What runs before a stack's first block, once."""
        if at in started:
            return
        started.add(at)
        stack = self.structure["stacks"][at]
        for stream, before in zip(stack["streams"], stack["before"], strict=False):
            if stream in self.x:
                self.y[stream] = self.paths.draw(
                    before, self.x[stream], self.y[stream], (stack["name"], stream)
                )

    def _stack(self, at: int, times: str) -> None:
        stack = self.structure["stacks"][at]
        streams = [stream for stream in stack["streams"] if stream in self.x]
        if not streams or not stack["blocks"]:
            return
        if len(stack["blocks"]) == 1:
            self._frame(stack, streams, stack["blocks"][0]["paths"], times)
            return
        bottom = min(self.y[stream] for stream in streams) - 6
        slot = len(self.canvas.elements)
        shown = stack["blocks"]
        if len(shown) > _KINDS:
            shown = [*shown[: _KINDS // 2], *shown[-_KINDS // 2 :]]
        for number, block in enumerate(shown):
            if number == _KINDS // 2 and len(shown) < len(stack["blocks"]):
                left_out = sum(one["times"] for one in stack["blocks"]) - sum(one["times"] for one in shown)
                self._left_out(streams, self.boxes.word("left-out", layers=left_out))
            alike = f"× {block['times']}" if self.sizes.own and block["times"] > 1 else ""
            self._frame(stack, streams, block["paths"], alike)
        top = min(self.y[stream] for stream in streams) - 22
        for stream in streams:
            self.canvas.line(self.x[stream], self.y[stream], self.x[stream], top)
            self.y[stream] = top
        span = max(self.paths.span(path) for block in stack["blocks"] for path in block["paths"])
        half = 87.0 if len(self.x) > 1 else span / 2 + 14
        left, right = self.x[streams[0]] - half, self.x[streams[-1]] + half
        self._outline(slot, left, top, right, bottom)
        self.canvas.label(right - 8, top + 15, times, anchor="end", kind="kb-label-small")

    def _left_out(self, streams: Sequence[str], text: str) -> None:
        """A gap in a column where blocks are not drawn, with how many they are."""
        for stream in streams:
            self.y[stream] = self.paths.gap(self.x[stream], self.y[stream], text)

    def _outline(self, slot: int, left: float, top: float, right: float, bottom: float) -> None:
        """A dashed frame behind what was drawn from a slot on."""
        frame = Canvas(0, 0)
        frame.box(left, top, right - left, bottom - top, "kb-frame kb-frame-outer")
        self.canvas.elements[slot:slot] = frame.elements

    def _frame(
        self, stack: Mapping[str, Any], streams: Sequence[str], paths: Sequence[Sequence[Element]], label: str
    ) -> None:
        """One block in its frame: one column, or several where streams meet in it."""
        bottom = min(self.y[stream] for stream in streams) - GAP + 4
        slot = len(self.canvas.elements)
        tops = []
        for stream, path in zip(streams, paths, strict=False):
            x = self.x[stream]
            self.canvas.line(x, self.y[stream], x, bottom - 2)
            tops.append(self.paths.draw(path, x, bottom - 2, (stack["name"], stream)))
        top = min(tops) - (22 if label else 10)
        for stream, reached in zip(streams, tops, strict=False):
            self.canvas.line(self.x[stream], reached, self.x[stream], top)
            self.y[stream] = top
        half = max(self.paths.span(path) for path in paths) / 2 + 8
        left, right = self.x[streams[0]] - half, self.x[streams[-1]] + half
        if len(self.x) > 1:
            left, right = self.x[streams[0]] - 85, self.x[streams[-1]] + 85
        frame = Canvas(0, 0)
        frame.box(left, top, right - left, bottom - top, "kb-frame")
        self.canvas.elements[slot:slot] = frame.elements
        if label:
            self.canvas.label(right - 8, top + 16, label, anchor="end")
            width = self.sizes.of((stack["name"], streams[0]), "width", next(iter(stack["widths"]), None))
            if width and len(streams) == 1:
                note = self.boxes.word("width.shared" if stack.get("shared") == 1 else "width", width=width)
                self.canvas.label(left + 8, top + 16, note, anchor="start", kind="kb-label-small")

    def _cycle(self, cycle: list[list[int]], started: set[int], times: int) -> None:
        """Stacks that take turns, in a frame of their own."""
        bottom = min(self.y.values()) - 8
        slot = len(self.canvas.elements)
        for at, _ in cycle:
            self._start(at, started)
        bottom = min(self.y.values()) - 8
        for stream in self.y:
            self.canvas.line(self.x[stream], self.y[stream], self.x[stream], bottom)
            self.y[stream] = bottom
        for at, count in cycle:
            self._stack(at, f"× {count}" if count > 1 else "")
        top = min(self.y.values()) - 22
        for stream in self.y:
            self.canvas.line(self.x[stream], self.y[stream], self.x[stream], top)
            self.y[stream] = top
        self._outline(slot, 0, top, self.canvas.width, bottom)
        self.canvas.label(
            self.canvas.width - 8, top + 16, f"× {self._turns(cycle, times) or 'N'}", anchor="end"
        )

    def _turns(self, cycle: list[list[int]], times: int) -> int | None:
        """How often stacks take turns in the variant: as often as one that runs only there has layers; None where that is not known."""
        if self.sizes.own:
            return times
        for at, count in cycle:
            small, large = self.sizes.layers((self.structure["stacks"][at]["name"],))
            if large and small == times * count:
                return large // count
        return None

    def _times(self, at: int, cycle: list[list[int]], times: int) -> str:
        """How often a stack's block runs, as its frame says."""
        stack = self.structure["stacks"][at]
        if self.sizes.own:
            own = sum(block["times"] for block in stack["blocks"])
            own -= times * sum(count for other, count in cycle if other == at)
            return self.boxes.word("kinds", layers=own) if len(stack["blocks"]) > 1 else f"× {own}"
        small, large = self.sizes.layers((stack["name"],))
        blocks = stack["blocks"]
        later = sum(count for other, count in cycle if other == at)
        turns = self._turns(cycle, times) or 0
        total = large - later * turns if large and (turns or not later) else None
        if len(blocks) > 1:
            return self.boxes.word("kinds", layers=total or "N")
        if small > 1 and blocks[0]["times"] == 1:
            return self.boxes.word("layers", layers=total or "N")
        each = max(1, small // blocks[0]["times"]) if small and not later else 1
        return f"× {total // each if total else 'N'}"

    # ---- between columns, and outputs

    def _across(self) -> None:
        """Arrows to attention that reads another stack's states."""
        half = self.box_width / 2
        for source, x, y in self.paths.readers:
            if source not in self.tops or self.x[source] == x:
                continue
            other = self.x[source]
            if any(
                one == self._stream_at(x) and there == other and abs(high - y) < 1
                for one, there, high in self.paths.readers
            ):
                shift = 4 if other < x else -4
                start, end = (other + half, x - half) if other < x else (other - half, x + half)
                self.canvas.arrow(start, y + shift, end, y + shift, "kb-arc-warm")
                continue
            top = self.y[source] - 12
            gap = (x + other) / 2
            self.canvas.path(
                f"M{other:g} {self.y[source]:g}V{top + 6:g}Q{other:g} {top:g} {other + 6:g} {top:g}H{gap - 6:g}Q{gap:g} {top:g} {gap:g} {top + (6 if y > top else -6):g}V{y:g}",
                "kb-arc-warm",
            )
            self.canvas.arrow(gap, y, x - half, y, "kb-arc-warm")

    def _stream_at(self, x: float) -> str:
        return next(stream for stream, at in self.x.items() if at == x)

    def _heads(self) -> None:
        """Outputs of one stream above it; what is made of several in the middle, between their own."""
        heads = [head for head in self.structure["heads"] if set(head["streams"]) <= set(self.x)]
        joint = next((head for head in heads if len(head["streams"]) > 1), None)
        level = 0.0
        if joint:
            level = min(self.y[stream] for stream in joint["streams"]) - 8
            for stream in joint["streams"]:
                self.canvas.line(self.x[stream], self.y[stream], self.x[stream], level)
                self.y[stream] = level
        for stream, x in self.x.items():
            own = [head for head in heads if head["streams"] == [stream]]
            boxes = [self.boxes.head(head, (stream,), self.box_width - 10) for head in own]
            if len(boxes) == 1:
                self.y[stream] = self.paths.box(boxes[0], x, self.y[stream], self.box_width)
            elif boxes:
                self._bus(boxes, stream, x)
        if joint:
            xs = [self.x[stream] for stream in joint["streams"]]
            middle, reached = sum(xs) / len(xs), min(self.y.values())
            self.canvas.line(min(xs), level, max(xs), level)
            if reached < level:
                self.canvas.line(middle, level, middle, reached)
            top = self.paths.box(self.boxes.head(joint, (), _WIDE), middle, reached, _WIDE)
            self.y = dict.fromkeys(self.y, top)

    def _bus(self, boxes: Sequence[Box], stream: str, x: float) -> None:
        """Several outputs of one stream: a line beside them leads to each."""
        side = x - self.box_width / 2 - SIDE
        start = self.y[stream]
        y = start - 8
        self.canvas.line(x, start, x, y)
        self.canvas.line(x, y, side, y)
        middle = y
        for box in boxes:
            y = self.paths.box(box, x, y + (2 if box is not boxes[0] else 8), self.box_width, arrow=False)
            middle = y + box.height / 2
            self.canvas.arrow(side, middle, x - self.box_width / 2, middle)
        self.canvas.line(side, start - 8, side, middle)
        self.y[stream] = y


def _ordered(stacks: Sequence[Mapping[str, Any]]) -> list[str]:
    """At most two streams, those of most blocks; the encoder and the text on the left."""
    sizes: dict[str, int] = {}
    for stack in stacks:
        for stream in stack["streams"]:
            sizes[stream] = sizes.get(stream, 0) + sum(block["times"] for block in stack["blocks"])
    streams = sorted(sizes, key=lambda stream: -sizes[stream])[:2]
    streams.sort(key=list(sizes).index)
    return sorted(streams, key=lambda stream: stream not in ("encoder", "forward", "text"))


def _cycle(order: list[list[int]]) -> tuple[list[list[int]], list[list[int]], int]:
    """Split the order of stacks into what runs first and what then takes turns, with how often it does."""
    runs = [list(run) for run in order]
    for skip in range(len(runs)):
        for length in range(2, (len(runs) - skip) // 2 + 1):
            rest = runs[skip:]
            if len(rest) % length == 0 and rest == rest[:length] * (len(rest) // length):
                return runs[:skip], rest[:length], len(rest) // length
    return runs, [], 1
