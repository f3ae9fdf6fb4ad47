"""Sizes drawn to scale: widths and heads, parameters by what they are for, and what a loss compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptmkb.site.drawings.canvas import Canvas
from ptmkb.site.drawings.scene import Scene
from ptmkb.site.values import count

_FULL = 300.0  # the widest bar, in pixels
_HEAD = 8.0
_IN_ROW = 32  # heads in a row


def shape(scene: Scene) -> str | None:
    """Width and feed-forward as bars to one scale; query heads in the groups that share keys and values."""
    value: Mapping[str, Any] = scene.finding.value
    if not isinstance(value, Mapping) or "width" not in value:
        return None
    canvas = Canvas(_FULL + 6, 0)
    y, texts = 0.0, []
    widest = max(value["width"], value.get("feed_forward", 0))
    for name in ("width", "feed_forward"):
        if name in value:
            text = f"{scene.name('shape', name)} {value[name]:,}"
            if name == "feed_forward" and value.get("gated"):
                text += f" · {scene.name('shape', 'gated')}"
            texts.append(text)
            canvas.label(0, y + 10, text, anchor="start", kind="kb-label-small")
            kind = "kb-on" if name == "width" else "kb-warm"
            canvas.elements.append(
                f'<rect class="{kind}" x="0" y="{y + 14:g}" width="{_FULL * value[name] / widest:.1f}" height="10" rx="2"/>'
            )
            y += 34
    heads, groups = value.get("heads"), value.get("key_value_heads")
    if heads and groups and heads <= 4 * _IN_ROW and heads % groups == 0:
        text = scene.word("shape.heads", heads=heads, groups=groups, size=value.get("head_size", "?"))
        texts.append(text)
        canvas.label(0, y + 10, text, anchor="start", kind="kb-label-small")
        for head in range(heads):
            row, column = divmod(head, _IN_ROW)
            other = head * groups // heads % 2
            canvas.elements.append(
                f'<rect class="kb-{("on", "warm")[other]}" x="{column * (_HEAD + 1.3):g}" y="{y + 15 + row * 11:g}" width="{_HEAD:g}" height="{_HEAD:g}" rx="1"/>'
            )
        y += 20 + ((heads - 1) // _IN_ROW + 1) * 11
    if value.get("layers"):
        texts.insert(0, f"{scene.name('shape', 'layers')} {value['layers']}")
        canvas.label(0, y + 10, texts[0], anchor="start", kind="kb-label-small")
        y += 16
    canvas.height = y
    return canvas.svg(scene.title, "; ".join(texts))


def parameters(scene: Scene) -> str | None:
    """All parameters as one bar: embeddings, and for mixtures of experts what is active for a token."""
    total, detail = scene.finding.value, scene.finding.detail
    if not isinstance(total, int) or scene.finding.part or not total:
        return None
    embeddings, active = detail.get("embeddings", 0), detail.get("active")
    canvas = Canvas(_FULL + 6, 0)
    bars = [(scene.word("parameters.total"), total, "kb-on")]
    if active:
        bars.append((scene.word("parameters.active"), active, "kb-warm"))
    if embeddings:
        bars.append((scene.word("parameters.embeddings"), embeddings, "kb-soft-bar"))
    y, texts = 0.0, []
    for name, number, kind in bars:
        text = f"{name}: {count(number)} ({number:,})"
        texts.append(text)
        canvas.label(0, y + 10, text, anchor="start", kind="kb-label-small")
        canvas.elements.append(
            f'<rect class="{kind}" x="0" y="{y + 14:g}" width="{max(1.0, _FULL * number / total):.1f}" height="10" rx="2"/>'
        )
        y += 34
    canvas.height = y - 6
    return canvas.svg(scene.title, "; ".join(texts))


_COMPARED = {"causal": 1, "anti-causal": -1, "masked": 0}
"""How many positions the label that a position's scores are compared with stands behind it."""


def objective(scene: Scene) -> str | None:
    """Which label each position's scores are compared with, and the loss that both ways of computing it gave."""
    value, detail = scene.finding.value, scene.finding.detail
    if not isinstance(value, str) or value not in _COMPARED or "loss" not in detail:
        return None
    step, number, shift = 52.0, 6, _COMPARED[value]
    canvas = Canvas(number * step + 8, 128)
    for at in range(number):
        x = 18 + at * step
        canvas.box(x - 14, 66, 28, 24, "kb-token", str(at + 1))
        hidden = value == "masked" and at not in (1, 4)
        compared = 0 <= at + shift < number and not hidden
        canvas.box(
            x - 14, 8, 28, 24, "kb-token-warm" if value != "masked" or not hidden else "kb-token", str(at + 1)
        )
        if compared:
            canvas.arrow(x, 66, x + shift * step, 34, "kb-arc-warm")
    canvas.label(4, 106, scene.word("objective.scores"), anchor="start", kind="kb-label-small")
    canvas.label(
        canvas.width - 8,
        106,
        scene.word("objective.loss", loss=detail["loss"]),
        anchor="end",
        kind="kb-label-small",
    )
    canvas.label(
        4,
        122,
        scene.word("objective.formula", part=scene.word(f"objective.{value}")),
        anchor="start",
        kind="kb-label-small",
    )
    return canvas.svg(
        scene.title, scene.word("objective.desc", kind=scene.name("objective", value), loss=detail["loss"])
    )
