"""A path of a block diagram: boxes one above the other, residual branches that go round them, and paths that join."""

from __future__ import annotations

from collections.abc import Sequence

from ptmkb.site.drawings.canvas import Canvas
from ptmkb.site.drawings.elements import Box, Boxes, Element

GAP = 15.0  # pixels between boxes
SIDE = 13.0  # pixels from a box to the residual line beside it
_RING = 7.0  # radius of a ⊕
_LONG = 10  # elements of a path that are drawn; of a longer one, the first and the last
_BRANCH = 112.0  # a box of one of two branches side by side
_BETWEEN = 12.0  # pixels between branches
_ROOM = 318.0  # for branches side by side; a phone's width, less the lines beside them


class Paths:
    """Draws paths on a canvas.

    Args:
        canvas: To draw on.
        boxes: Makes boxes of elements.
        width: Of a box, in pixels.
        room: How wide a column is.
        floor: The height of the lowest edge; nothing leads to a box that stands there.
    """

    def __init__(self, canvas: Canvas, boxes: Boxes, width: float, room: float, floor: float) -> None:
        self.canvas, self.boxes, self.width, self.room, self.floor = canvas, boxes, width, room, floor
        self.readers: list[tuple[str, float, float]] = []

    def draw(
        self, elements: Sequence[Element], x: float, y: float, parts: tuple[str, ...], width: float = 0
    ) -> float:
        """Draw elements one above the other from y up; gives where the last one ends."""
        width = width or self.width
        left_out = len(elements) - _LONG if len(elements) > _LONG else 0
        for at, element in enumerate(elements):
            if left_out and _LONG // 2 <= at < _LONG // 2 + left_out:
                if at == _LONG // 2:
                    y = self.gap(x, y, self.boxes.word("left-out.steps", steps=left_out))
                continue
            if element["kind"] == "residual":
                y = self._residual(element, x, y, parts, width)
            elif element["kind"] in ("concatenate", "sum"):
                y = self._joined(element, x, y, parts)
            else:
                y = self.box(self.boxes.box(element, parts), x, y, width, element.get("cross"))
        return y

    def gap(self, x: float, y: float, text: str) -> float:
        """A gap in a path with what it stands for; gives where the path goes on."""
        self.canvas.line(x, y, x, y - 8)
        self.canvas.label(x, y - 19, text, kind="kb-label-small")
        self.canvas.line(x, y - 30, x, y - 38)
        return y - 38

    def box(
        self, box: Box, x: float, y: float, width: float, reads: str | None = None, arrow: bool = True
    ) -> float:
        """Draw a box above y; gives its upper edge. `reads` is the stack that it takes states from."""
        top = y - GAP - box.height
        if arrow and y < self.floor - 5:
            self.canvas.arrow(x, y, x, top + box.height + 1)
        left = x - width / 2
        if box.stacked:
            for shift in (6, 3):
                self.canvas.box(left + shift, top - shift, width, box.height, box.kind)
        self.canvas.box(left, top, width, box.height, box.kind)
        self.canvas.label(x, top + 15, box.title)
        for index, line in enumerate(box.lines):
            self.canvas.label(x, top + 28 + 13 * index, line, kind="kb-label-small")
        if reads:
            self.readers.append((reads, x, top + box.height / 2))
        return top - (6 if box.stacked else 0)

    def _residual(self, element: Element, x: float, y: float, parts: tuple[str, ...], width: float) -> float:
        branches = element["branches"]
        fork = y - 5
        self.canvas.line(x, y, x, fork)
        if len(branches) == 1:
            top = self.draw(branches[0], x, fork, parts, width)
            edge = x - width / 2 - SIDE
        else:
            base = self.draw(element.get("before", ()), x, fork, parts, width)
            narrow = self._narrow(len(branches))
            xs = _side_by_side(x, len(branches), narrow + _BETWEEN)
            base -= 6
            self.canvas.line(x, base + 6, x, base)
            self.canvas.line(xs[0], base, xs[-1], base)
            tops = [
                self.draw(branch, at, base, parts, narrow) for at, branch in zip(xs, branches, strict=True)
            ]
            top = min(tops) - 10
            for at, reached in zip(xs, tops, strict=True):
                self.canvas.line(at, reached, at, top)
            self.canvas.line(xs[0], top, xs[-1], top)
            edge = xs[0] - narrow / 2 - SIDE + 3
        centre = top - 10 - _RING
        self.canvas.arrow(x, top, x, centre + _RING)
        self.canvas.path(
            f"M{x:g} {fork:g}H{edge + 6:g}Q{edge:g} {fork:g} {edge:g} {fork - 6:g}V{centre + 6:g}Q{edge:g} {centre:g} {edge + 6:g} {centre:g}H{x - _RING - 4:g}"
        )
        self.canvas.arrow(x - _RING - 6, centre, x - _RING, centre)
        self.canvas.ring(x, centre, _RING)
        return centre - _RING

    def _joined(self, element: Element, x: float, y: float, parts: tuple[str, ...]) -> float:
        """Paths side by side that end in one sequence or in a sum."""
        sides = element["of"]
        count = len(sides)
        width = min(self.width, self.room / count - 8)
        xs = _side_by_side(x, count, width + 8)
        tops = [self.draw(side, at, y, parts, width) for at, side in zip(xs, sides, strict=True)]
        top = min(tops) - 10
        for at, reached in zip(xs, tops, strict=True):
            self.canvas.line(at, reached, at, top)
        self.canvas.line(xs[0], top, xs[-1], top)
        if element["kind"] == "concatenate":
            return self.box(Box(self.boxes.word("concatenate"), (), "kb-token"), x, top, 90)
        centre = top - 10 - _RING
        self.canvas.arrow(x, top, x, centre + _RING)
        self.canvas.ring(x, centre, _RING)
        return centre - _RING

    def _narrow(self, branches: int) -> float:
        """How wide each of several branches side by side is."""
        return min(_BRANCH, _ROOM / branches - _BETWEEN)

    def span(self, path: Sequence[Element]) -> float:
        """How wide a path is drawn, residual lines included on both sides."""
        widest = self.width
        for element in path:
            if element["kind"] == "residual" and len(element["branches"]) > 1:
                count = len(element["branches"])
                widest = max(widest, count * (self._narrow(count) + _BETWEEN) - _BETWEEN)
        return widest + 2 * SIDE


def _side_by_side(x: float, count: int, step: float) -> list[float]:
    """Centres around x."""
    return [x + (index - (count - 1) / 2) * step for index in range(count)]
