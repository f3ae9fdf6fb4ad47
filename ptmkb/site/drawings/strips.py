"""Rows of small pictures, one a layer or a token: what each layer does, where order comes from, which experts run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ptmkb.site.drawings.canvas import Canvas
from ptmkb.site.drawings.matrix import cells
from ptmkb.site.drawings.scene import Scene

_MINI = 62.0  # a layer's matrix
_ACROSS = 5  # matrices beside one another
_CELL, _CELLS = 14.0, 24  # a layer in a strip, and how many stand in a row
_MIXERS = ("full", "sliding-window", "chunked", "linear-attention", "state-space")
_TOKENS = 24


def layers(scene: Scene) -> str | None:
    """Who sees whom in each layer by itself; for a published size, one cell a layer in the colour of its kind."""
    runs = scene.finding.value
    if not isinstance(runs, Sequence) or not runs or not all("count" in run for run in runs):
        return None
    kinds = [run for run in runs for _ in range(run["count"])]
    matrices = scene.finding.detail.get("matrices", [])
    texts = "；" if scene.language == "zh" else "; "
    described = texts.join(f"{run['count']} × {layer_text(run, scene)}" for run in runs)
    canvas = Canvas(0, 0)
    if len(matrices) == len(kinds) and len(kinds) <= 3 * _ACROSS:
        _matrices(canvas, scene, kinds, matrices)
    else:
        _strip(canvas, scene, kinds)
    return canvas.svg(scene.title, described)


def layer_text(run: Mapping[str, Any], scene: Scene) -> str:
    """A kind of layer in a few words, with its numbers."""
    text = scene.name("layers", run["mixer"])
    apart = "，" if scene.language == "zh" else ", "
    for number in ("window", "chunk", "dilation"):
        if number in run:
            text += f"{apart}{scene.name('shape', number)} {run[number]}"
    if run.get("feed_forward") == "experts":
        text += f" · {scene.name('layers', 'experts')}"
    return text


def _matrices(
    canvas: Canvas, scene: Scene, kinds: Sequence[Any], matrices: Sequence[Sequence[str] | None]
) -> None:
    step = _MINI + 10
    texts = [layer_text(kind, scene) for kind in kinds]
    for at, rows in enumerate(matrices):
        x, y = at % _ACROSS * step, at // _ACROSS * (_MINI + 24)
        canvas.label(
            x, y + 10, scene.word("layers.number", layer=at + 1), anchor="start", kind="kb-label-small"
        )
        if not rows:  # a layer whose input cannot be changed position by position
            canvas.box(x, y + 15, _MINI, _MINI, "kb-frame kb-frame-outer", "?")
            continue
        square = _MINI / max(len(rows), *map(len, rows))
        canvas.elements.append(
            f'<g transform="translate({x:g} {y + 15:g}) scale({square:.3g})">{cells(rows)}</g>'
        )
    high = (len(kinds) + _ACROSS - 1) // _ACROSS * (_MINI + 24) + 4
    at = 1
    for text, same in groupby(texts):
        last = at + len(list(same)) - 1
        one = at == last
        label = scene.word(f"layers.{'number' if one else 'numbers'}", layer=at if one else f"{at}–{last}")
        canvas.label(0, high + 10, f"{label}: {text}", anchor="start", kind="kb-label-small")
        high, at = high + 15, last + 1
    canvas.width, canvas.height = max(min(len(kinds), _ACROSS) * step - 10, 230), high


def _strip(canvas: Canvas, scene: Scene, kinds: Sequence[Any]) -> None:
    seen = list(dict.fromkeys(layer_text(kind, scene) for kind in kinds))
    colour = {text: at for at, text in enumerate(seen)}
    for at, kind in enumerate(kinds):
        x, y = at % _CELLS * _CELL, at // _CELLS * (_CELL + 4)
        canvas.elements.append(
            f'<rect class="kb-kind-{colour[layer_text(kind, scene)] % 6}" x="{x:g}" y="{y:g}" width="{_CELL - 2:g}" height="{_CELL:g}" rx="2"/>'
        )
    high = (len(kinds) + _CELLS - 1) // _CELLS * (_CELL + 4) + 6
    for text, at in colour.items():
        times = sum(layer_text(kind, scene) == text for kind in kinds)
        canvas.elements.append(
            f'<rect class="kb-kind-{at % 6}" x="0" y="{high:g}" width="10" height="10" rx="2"/>'
        )
        canvas.label(16, high + 9, f"{times} × {text}", anchor="start", kind="kb-label-small")
        high += 16
    canvas.width, canvas.height = max(min(len(kinds), _CELLS) * _CELL, 250), high


def position(scene: Scene) -> str | None:
    """Where order comes in: before the layers, or inside of each."""
    by_layer, before = scene.finding.detail.get("by_layer"), scene.finding.detail.get("before", {})
    if by_layer is None or len(by_layer) > 2 * _ACROSS:
        return None
    apart = "、" if scene.language == "zh" else ", "
    entries = [
        (
            scene.word("position.before"),
            list(dict.fromkeys(one for found in before.values() for one in found)),
        )
    ]
    entries += [(scene.word("layers.number", layer=at), found) for at, found in enumerate(by_layer, 1)]
    canvas = Canvas(300, len(entries) * 30 + 4)
    for at, (label, found) in enumerate(entries):
        y = canvas.height - (at + 1) * 30
        canvas.box(0, y, 96, 22, "kb-box-warm kb-filled" if found else "kb-box", label)
        if at + 1 < len(entries):
            canvas.arrow(48, y, 48, y - 7)
        if found:
            canvas.arrow(122, y + 11, 98, y + 11, "kb-arc-warm")
            text = apart.join(scene.name("position", one) for one in found)
            canvas.label(128, y + 15, text, anchor="start", kind="kb-label")
    described = "; ".join(
        f"{label}: {apart.join(scene.name('position', one) for one in found) or '—'}"
        for label, found in entries
    )
    return canvas.svg(scene.title, described)


def routing(scene: Scene) -> str | None:
    """Which experts ran for which token in the first layer that has them, and each expert's share."""
    layer = next((row for row in scene.finding.detail.get("by_layer", ()) if row.get("used")), None)
    if layer is None or layer["experts"] > 16:
        return None
    used, experts = layer["used"][:_TOKENS], layer["experts"]
    step = 11.0
    left, right = 58.0, 58.0 + len(used) * step + 6
    rows = ["".join("1" if expert in chosen else "0" for chosen in used) for expert in range(experts)]
    canvas = Canvas(right + 34, experts * step + 34)
    canvas.elements.append(f'<g transform="translate({left:g} 16) scale({step:g})">{cells(rows)}</g>')
    canvas.label(
        left, 10, scene.word("routing.tokens", tokens=len(used)), anchor="start", kind="kb-label-small"
    )
    shares = []
    for expert, row in enumerate(rows):
        y = 16 + expert * step + 9
        share = row.count("1") / len(row)
        shares.append(f"{share:.0%}")
        canvas.label(
            left - 5, y, scene.word("routing.expert", expert=expert + 1), anchor="end", kind="kb-label-small"
        )
        canvas.label(right, y, shares[-1], anchor="start", kind="kb-label-small")
    described = scene.word(
        "routing.desc", experts=experts, chosen=layer["per_token"], shares=", ".join(shares)
    )
    canvas.label(
        left,
        experts * step + 30,
        scene.word("routing.each", chosen=layer["per_token"], experts=experts),
        anchor="start",
        kind="kb-label-small",
    )
    return canvas.svg(scene.title, described)


def sharing(scene: Scene) -> str | None:
    """Two tables that are one matrix, or two; layers that are one module, or several."""
    value = scene.finding.value
    if value not in ("tied", "untied"):
        return None
    tied = value == "tied"
    canvas = Canvas(300, 76)
    ends = {
        "embeddings": ("sharing.words", "sharing.scores"),
        "encoder-decoder": ("sharing.encoder", "sharing.decoder"),
        "layers": ("sharing.first", "sharing.last"),
    }
    if scene.finding.part not in ends:
        return None
    first, last = (scene.word(key) for key in ends[scene.finding.part])
    canvas.box(0, 8, 118, 26, "kb-box-warm kb-filled" if tied else "kb-box", first)
    canvas.box(182, 8, 118, 26, "kb-box-warm kb-filled" if tied else "kb-box", last)
    canvas.label(150, 26, "=" if tied else "≠")
    tables = scene.finding.detail.get("tables") or []
    size = " × ".join(str(number) for number in tables[0]) if tables else ""
    key = "sharing.one" if tied else "sharing.two"
    canvas.label(150, 56, " · ".join(text for text in (scene.word(key), size) if text), kind="kb-label-small")
    return canvas.svg(scene.title, f"{first} {'=' if tied else '≠'} {last}")
