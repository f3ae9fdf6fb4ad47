"""Measured curves: what a length costs, what a cache holds, how a loss falls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ptmkb.site.drawings.canvas import Canvas
from ptmkb.site.drawings.scene import Scene
from ptmkb.site.values import count

_WIDE, _HIGH = 146.0, 116.0  # of one panel's inside, in pixels
_TOP, _LEFT = 24.0, 8.0
_FAR = 10_000  # positions up to which a measured law is continued
_DOT = 2.2

Point = tuple[float, float]


class _Panel:
    """One pair of axes on a canvas; gives pixels for values."""

    def __init__(
        self, canvas: Canvas, left: float, title: str, xs: Point, ys: Point, log: bool = False
    ) -> None:
        self.canvas, self.left, self.log = canvas, left, log
        self.xs, self.ys = (self._scaled(xs), self._scaled(ys))
        bottom = _TOP + _HIGH
        canvas.label(left, 12, title, anchor="start", kind="kb-label-small")
        canvas.path(f"M{left:g} {_TOP:g}V{bottom:g}H{left + _WIDE:g}", "kb-arc-faint")

    def _scaled(self, values: Point) -> Point:
        return (math.log10(values[0]), math.log10(values[1])) if self.log else values

    def at(self, x: float, y: float) -> Point:
        """The pixel of a point."""
        x, y = self._scaled((x, y))
        across = (x - self.xs[0]) / ((self.xs[1] - self.xs[0]) or 1)
        up = (y - self.ys[0]) / ((self.ys[1] - self.ys[0]) or 1)
        return self.left + across * _WIDE, _TOP + _HIGH - up * _HIGH

    def dots(self, points: Sequence[Point], kind: str = "kb-head") -> None:
        """Measured points."""
        for x, y in (self.at(*point) for point in points):
            self.canvas.elements.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{_DOT}"/>')

    def line(self, points: Sequence[Point], kind: str) -> None:
        """A line through points."""
        pixels = [self.at(*point) for point in points]
        self.canvas.path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels), kind)

    def note(self, x: float, y: float, text: str, anchor: str = "start", dy: float = 0.0) -> None:
        """A small label at a point."""
        left, top = self.at(x, y)
        self.canvas.label(round(left, 1), round(top + dy, 1), text, anchor=anchor, kind="kb-label-small")

    def foot(self, first: str, last: str, what: str = "") -> None:
        """What stands below the axis."""
        bottom = _TOP + _HIGH + 13
        self.canvas.label(self.left, bottom, first, anchor="start", kind="kb-label-small")
        self.canvas.label(self.left + _WIDE, bottom, last, anchor="end", kind="kb-label-small")
        self.canvas.label(self.left + _WIDE / 2, bottom, what, kind="kb-label-small")


def cost(scene: Scene) -> str | None:
    """FLOPs against length on logarithmic axes with the law that they follow; beside it the cost of each further position."""
    lengths, needed = scene.finding.detail.get("lengths", []), scene.finding.detail.get("needed", [])
    if len(lengths) < 3 or min(needed) <= 0:
        return None
    exponent, bend = scene.finding.value["exponent"], scene.finding.value["bend"]
    further = _continued(lengths, needed)
    canvas = Canvas(2 * _WIDE + 56, _TOP + _HIGH + 16)
    total = _Panel(
        canvas, _LEFT, scene.word("cost.total"), (lengths[0], _FAR), (needed[0], further[-1][1]), log=True
    )
    total.line([(lengths[-1], needed[-1]), *further], "kb-arc-ahead")
    total.dots(list(zip(lengths, needed, strict=True)))
    total.note(_FAR, needed[0], scene.word("cost.slope", slope=f"{_slope(further):.2f}"), "end", -34)
    total.foot(str(lengths[0]), f"{_FAR:,}", scene.word("cost.length"))
    total.note(lengths[-1], needed[-1], f"{lengths[-1]}: {count(needed[-1])}", "start", 14)
    steps = [
        ((x + y + 1) / 2, (b - a) / (y - x))  # between lengths that are apart, what the one half way costs
        for (x, y), (a, b) in zip(pairwise(lengths), pairwise(needed), strict=True)
    ]
    low, high = min(y for _, y in steps), max(y for _, y in steps)
    room = (high - low) * 0.15 or high * 0.1
    each = _Panel(
        canvas,
        _LEFT + _WIDE + 40,
        scene.word("cost.step"),
        (lengths[0], lengths[-1]),
        (low - room, high + room),
    )
    if bend:
        each.line([(bend, low - room), (bend, high + room)], "kb-arc-warm kb-dashed")
        each.note(
            bend + (lengths[-1] - lengths[0]) * 0.03,
            low - room,
            scene.word("cost.bend", bend=bend),
            "start",
            -5,
        )
    each.line(steps, "kb-arc")
    each.dots(steps)
    each.note(*steps[-1], count(steps[-1][1]), "end", -7)
    if high > low and not bend:
        each.note(steps[0][0] + 0.3, low, count(low), "start", 12)
    each.foot(str(lengths[0]), str(lengths[-1]), scene.word("cost.length"))
    bends = scene.word("cost.desc.bend", bend=bend) if bend else ""
    described = scene.word(
        "cost.desc",
        exponent=exponent,
        first=lengths[0],
        last=lengths[-1],
        low=needed[0],
        high=needed[-1],
        bends=bends,
    )
    return canvas.svg(scene.title, described)


def _continued(lengths: Sequence[int], costs: Sequence[int]) -> list[Point]:
    """The curve beyond what was run, by the law that its last half follows: equal steps, or steps that grow by a constant."""
    steps = [(b - a) / (y - x) for (x, y), (a, b) in zip(pairwise(lengths), pairwise(costs), strict=True)]
    gaps = [(after - before) / 2 for before, after in zip(lengths, lengths[2:], strict=False)]
    half = [(b - a) / gap for (a, b), gap in zip(pairwise(steps), gaps, strict=True)][len(gaps) // 2 :]
    if len(set(half)) == 1:
        turn = half[-1]
        step = steps[-1] + turn * (lengths[-1] - lengths[-2] - 1) / 2
    else:
        turn, step = 0.0, sum(steps[len(steps) // 2 :]) / len(steps[len(steps) // 2 :])
    points = []
    for length in (16, 24, 36, 64, 100, 180, 320, 560, 1000, 1800, 3200, 5600, _FAR):
        n = length - lengths[-1]
        if n > 0:
            points.append((float(length), costs[-1] + n * step + turn * n * (n + 1) / 2))
    return points


def _slope(points: Sequence[Point]) -> float:
    (x1, y1), (x2, y2) = points[-2:]
    return math.log(y2 / y1) / math.log(x2 / x1)


def cache(scene: Scene) -> str | None:
    """How many numbers the cache holds after each position."""
    held = scene.finding.detail.get("elements", [])
    if len(held) < 2:
        return None
    points = [(float(at), float(size)) for at, size in enumerate(held, 1)]
    canvas = Canvas(_WIDE + 44, _TOP + _HIGH + 16)
    panel = _Panel(canvas, _LEFT, scene.word("cache.held"), (0, len(held)), (0, max(held) * 1.12 or 1))
    panel.line(points, "kb-arc")
    panel.dots(points)
    panel.note(*points[-1], f"{held[-1]:,}", "end", -7)
    panel.foot("0", str(len(held)), scene.word("cache.steps"))
    described = scene.word("cache.desc", first=held[0], last=held[-1], steps=len(held))
    return canvas.svg(scene.title, described)


def learns(scene: Scene) -> str | None:
    """How the loss on one batch falls from step to step."""
    losses = scene.finding.detail.get("losses", [])
    if len(losses) < 2:
        return None
    points = [(float(step), float(loss)) for step, loss in enumerate(losses)]
    low, high = min(losses), max(losses)
    room = (high - low) * 0.2 or 1.0
    canvas = Canvas(_WIDE + 44, _TOP + _HIGH + 16)
    panel = _Panel(canvas, _LEFT, scene.word("learns.loss"), (0, len(losses) - 1), (low - room, high + room))
    panel.line(points, "kb-arc")
    panel.dots(points)
    panel.note(*points[0], f"{losses[0]:g}", "start", -7)
    panel.note(*points[-1], f"{losses[-1]:g}", "end", 15)
    panel.foot("0", str(len(losses) - 1), scene.word("learns.steps"))
    described = scene.word("learns.desc", steps=len(losses) - 1, first=losses[0], last=losses[-1])
    return canvas.svg(scene.title, described)
