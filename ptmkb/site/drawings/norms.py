"""Where the norms stand around the residual stream: the stream runs from left to right, each sub-layer is a branch above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ptmkb.site.drawings.canvas import Canvas
from ptmkb.site.drawings.scene import Scene

_BAR, _TALL = 8.0, 20.0  # a norm
_BOX = 64.0  # a sub-layer
_STREAM, _BRANCH = 74.0, 28.0  # y of the stream and of the branches
_RING = 6.0
_KINDS = ("kb-norm", "kb-norm kb-norm-other")
_MOST = 4  # blocks of different kinds that are drawn


def norm(scene: Scene) -> str | None:
    """The blocks of a stack, alike ones once, with the norms before, behind and between their sub-layers."""
    layers = scene.finding.detail.get("by_layer", [])
    rows = [(row, len(list(same))) for row, same in groupby(layers) if row["sub_layers"]]
    if not rows or len(rows) > _MOST:
        return None
    kinds = sorted({kind for row, _ in rows for sub in row["sub_layers"] for kind in sub["kinds"]})
    names = _names(scene)
    canvas = Canvas(0, 0)
    top, legend = 0.0, []
    for row, times in rows:
        drawn = _Block(canvas, scene, row, kinds, names if len(rows) == 1 else [], top)
        canvas.width = max(canvas.width, drawn.draw(times))
        top += _STREAM + 34
        legend += [scene.name("norm", sub["placement"]) for sub in row["sub_layers"]]
    _legend(canvas, scene, kinds, top, any("qk_norm" in row for row, _ in rows))
    canvas.height = top + (14 if kinds else 0)
    places = "、" if scene.language == "zh" else ", "
    described = scene.word(
        "norm.desc", kinds=places.join(kinds) or "—", places=places.join(dict.fromkeys(legend))
    )
    return canvas.svg(scene.title, described)


def _names(scene: Scene) -> list[str]:
    """What the sub-layers are, as the traced structure has them."""
    found = []
    for element in scene.block():
        if element["kind"] != "residual":
            continue
        inner = [one for branch in element["branches"] for one in branch if one["kind"] != "norm"]
        main = inner[0] if inner else {"kind": ""}
        kind = "cross" if "cross" in main else main["kind"]
        found.append(scene.word(f"norm.{kind}" if kind in _NAMED else "norm.sub-layer"))
    return found


_NAMED = (
    "attention",
    "cross",
    "feed-forward",
    "experts",
    "state-space",
    "convolution",
    "linear-attention",
    "recurrence",
)


class _Block:
    """One block, drawn at a height."""

    def __init__(
        self,
        canvas: Canvas,
        scene: Scene,
        row: Mapping[str, Any],
        kinds: Sequence[str],
        names: Sequence[str],
        top: float,
    ) -> None:
        self.canvas, self.scene, self.row, self.kinds, self.top = canvas, scene, row, kinds, top
        subs = row["sub_layers"]
        self.names = (
            names
            if len(names) == len(subs)
            else [scene.word("norm.sub", number=at) for at, _ in enumerate(subs, 1)]
        )

    def draw(self, times: int) -> float:
        """Draw it; gives how wide it is."""
        x, y = 4.0, self.top + _STREAM
        for sub, name in zip(self.row["sub_layers"], self.names, strict=True):
            x = self._sub(sub, name, x)
        self.canvas.arrow(x, y, x + 16, y)
        self.canvas.label(x + 16, y + 22, f"× {times}", anchor="end", kind="kb-label-small")
        self.canvas.label(2, y + 22, self.scene.word("norm.stream"), anchor="start", kind="kb-label-small")
        return x + 18

    def _sub(self, sub: Mapping[str, Any], name: str, x: float) -> float:
        placement, stream, branch = sub["placement"], self.top + _STREAM, self.top + _BRANCH
        before = placement in ("pre", "sandwich", "pre+post")
        behind = placement in ("sandwich", "res-post")
        fork, x0 = x + 8, x
        x = fork + 8
        self.canvas.line(x0, stream, fork, stream)
        end = x + (before + behind) * (_BAR + 4) + _BOX + 8
        self.canvas.path(
            f"M{fork:g} {stream:g}V{branch + 5:g}Q{fork:g} {branch:g} {fork + 5:g} {branch:g}H{end - 5:g}Q{end:g} {branch:g} {end:g} {branch + 5:g}V{stream - _RING - 4:g}"
        )
        self.canvas.arrow(end, stream - _RING - 6, end, stream - _RING)
        if before:
            self._bar(sub, x, branch)
            x += _BAR + 4
        self.canvas.box(x, branch - 14, _BOX, 28, "kb-box")
        self.canvas.label(x + _BOX / 2, branch + 4, name, kind="kb-label-name")
        x += _BOX
        if behind:
            self._bar(sub, x + 4, branch)
        self.canvas.line(fork, stream, end - _RING, stream)
        self.canvas.ring(end, stream, _RING)
        x = end + _RING
        if placement in ("post", "pre+post"):
            self.canvas.line(x, stream, x + 18, stream)
            self._bar(sub, x + 5, stream)
            x += 18
        return x

    def _bar(self, sub: Mapping[str, Any], x: float, y: float) -> None:
        other = sub["kinds"] and self.kinds.index(sub["kinds"][0]) > 0
        self.canvas.elements.append(
            f'<rect class="{_KINDS[bool(other)]}" x="{x:g}" y="{y - _TALL / 2:g}" width="{_BAR:g}" height="{_TALL:g}" rx="2"/>'
        )


def _legend(canvas: Canvas, scene: Scene, kinds: Sequence[str], y: float, normed: bool) -> None:
    x = 4.0
    for at, kind in enumerate(kinds):
        canvas.elements.append(
            f'<rect class="{_KINDS[at > 0]}" x="{x:g}" y="{y - 3:g}" width="{_BAR:g}" height="14" rx="2"/>'
        )
        canvas.label(x + 14, y + 8, kind, anchor="start", kind="kb-label-small")
        x += 24 + 6.2 * len(kind)
    if normed:
        canvas.label(x + 4, y + 8, scene.word("norm.qk"), anchor="start", kind="kb-label-small")
        x += 150
    canvas.width = max(canvas.width, x)
