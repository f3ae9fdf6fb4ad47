"""Layer by layer, where the streams of a model meet: a column a stream, time runs upwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ptmkb.site.drawings.canvas import Canvas
from ptmkb.site.drawings.scene import Scene

_BOX, _ROW, _GAP = 22.0, 31.0, 62.0  # a layer's height, the distance of layers, of columns
_WIDE = {2: 132.0, 3: 84.0}  # a layer's width by the number of columns
_FEW = 16  # rows: of more, the middle ones are left out

Row = Sequence[Mapping[str, Any]]


def streams(scene: Scene) -> str | None:
    """Which stream changes which from which layer: layers that carry something of another stream are filled."""
    layers = scene.finding.detail.get("layers", [])
    names = list(dict.fromkeys(layer["stream"] for layer in layers))
    if scene.finding.part:
        names = [name for name in names if name in scene.finding.part.split("+")]
    names.sort(key=lambda name: name not in ("encoder", "text"))
    if not 2 <= len(names) <= max(_WIDE):
        return None
    own = [layer for layer in layers if layer["stream"] in names]
    rows = [list(row) for _, row in groupby(own, key=lambda layer: layer["layer"])]
    return _Meeting(scene, names, rows).draw()


class _Meeting:
    def __init__(self, scene: Scene, names: list[str], rows: list[list[Mapping[str, Any]]]) -> None:
        self.scene, self.names = scene, names
        self.rows: list[Row | None] = [*rows]
        if len(rows) > _FEW:
            self.rows = [*rows[: _FEW // 2], None, *rows[-_FEW // 2 :]]
        self.wide = _WIDE[len(names)]
        gap = _GAP if len(names) == 2 else 38.0
        self.x = {name: 4 + self.wide / 2 + at * (self.wide + gap) for at, name in enumerate(names)}
        self.width = 8 + len(names) * self.wide + (len(names) - 1) * gap
        self.floor = 20 + len(self.rows) * _ROW
        self.canvas = Canvas(self.width, self.floor + 22)
        self.met: set[tuple[str, str]] = set()
        self.first: list[str] = []

    def draw(self) -> str:
        for name, x in self.x.items():
            self.canvas.arrow(x, self.floor + 4, x, 6)
            self.canvas.label(x, self.floor + 18, self.scene.name("part", name), soft=True)
        numbers: dict[str, int] = {}
        for at, row in enumerate(self.rows):
            top = self.floor - (at + 1) * _ROW + 4
            if row is None:
                for x in self.x.values():
                    self.canvas.label(x + 8, top + 15, "⋮", kind="kb-label-small")
                continue
            for layer in row:
                numbers[layer["stream"]] = numbers.get(layer["stream"], 0) + 1
            if len(row) > 1 and all(layer["joint"] for layer in row):
                self._joint(row, top, numbers)
            else:
                for layer in row:
                    self._box(layer, self.x[layer["stream"]], top, numbers[layer["stream"]])
            beside = {layer["stream"] for layer in row}
            for layer in row:
                self._arrows(layer, top, numbers[layer["stream"]], beside)
        described = self.scene.word(
            "streams.desc", kind=self.scene.name("value", self.scene.finding.value["kind"])
        )
        apart = "；" if self.scene.language == "zh" else "; "
        return self.canvas.svg(self.scene.title, apart.join([described, *self.first]))

    def _label(self, number: int) -> str:
        return self.scene.word("streams.layer", layer=number)

    def _box(self, layer: Mapping[str, Any], x: float, top: float, number: int) -> None:
        kind = "kb-box-warm kb-filled" if self._others(layer) else "kb-box"
        self.canvas.box(x - self.wide / 2, top, self.wide, _BOX, kind, self._label(number))

    def _joint(self, row: Row, top: float, numbers: Mapping[str, int]) -> None:
        xs = [self.x[layer["stream"]] for layer in row]
        kind = "kb-box-warm kb-filled" if any(self._others(layer) for layer in row) else "kb-box"
        left, right = min(xs) - self.wide / 2, max(xs) + self.wide / 2
        self.canvas.box(left, top, right - left, _BOX, kind)
        for layer in row:
            self.canvas.label(self.x[layer["stream"]], top + 15, self._label(numbers[layer["stream"]]))

    def _others(self, layer: Mapping[str, Any]) -> list[str]:
        return [name for name in layer["changed_by"] if name in self.x and name != layer["stream"]]

    def _arrows(self, layer: Mapping[str, Any], top: float, number: int, beside: set[str]) -> None:
        """An arrow from each stream that changes this one here for the first time; `beside` are those with a layer in this row."""
        target = layer["stream"]
        for source in self._others(layer):
            if (source, target) in self.met:
                continue
            self.met.add((source, target))
            back = (target, source) in self.met
            y = top + (_BOX - 5 if back else 6)
            start, end = self.x[source], self.x[target]
            way = 1 if end > start else -1
            inset = self.wide / 2 - (8 if layer["joint"] else 0)
            begin = start + way * inset if source in beside else start
            self.canvas.arrow(begin, y, end - way * inset, y, "kb-arc-warm")
            self.first.append(
                self.scene.word(
                    "streams.from",
                    source=self.scene.name("part", source),
                    target=self.scene.name("part", target),
                    layer=number,
                )
            )
