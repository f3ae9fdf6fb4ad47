"""Sections of pictures of what was measured: the block diagram, the flow matrices, and the small drawings; for entries and for architectures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ptmkb.probe.record import Measurement
from ptmkb.site.drawings import Sizes, block_diagram, measured_drawing
from ptmkb.site.knowledge import Knowledge
from ptmkb.site.values import caption_text, part_text

_SHOWN = ("streams", "norm", "layers", "cost")
"""Measures that have a section of pictures, in the order of the page; the method page shows one of every measure."""

_NAMES = re.compile(r"<title>.*?</title>|<desc>.*?</desc>")

Measured = Sequence[Measurement]


def block_section(name: str, measured: Measured, variant: str | None, kb: Knowledge) -> str:
    """The block diagram under its heading, with the sizes of a variant or else those of the small model; empty where no structure was found."""
    found = next((m for m in measured if m.measure == "structure" and not m.variant), None)
    if found is None:
        return ""
    drawn, large = blocks(found, name, measured, variant, kb)
    caption = kb.word("model.structure.sizes", variant=variant) if large else ""
    captions = [caption] if caption else []
    if drawn_from := found.detail.get("drawn_from"):
        captions.append(kb.word(f"model.structure.{drawn_from}"))
    if variant is None:
        captions.append(kb.word("model.structure.own"))
    caption = ("" if kb.language == "zh" else " ").join(captions)
    shown = f'<figcaption markdown="span">{caption}</figcaption>' if caption else ""
    figure = f'<figure class="kb-blocks" markdown>{drawn}{shown}</figure>'
    return f"## {kb.word('model.structure')}\n\n{kb.word('model.structure.lead')}\n\n{figure}"


def blocks(
    found: Measurement, name: str, measured: Measured, variant: str | None, kb: Knowledge
) -> tuple[str, bool]:
    """The block diagram of a structure, and whether it bears the sizes of the variant."""
    shapes: dict[str | None, tuple[Any, Any]] = {
        m.part: (m.value, next((v.value for v in measured if _is_shape(v, m.part, variant)), None))
        for m in measured
        if _is_shape(m, m.part, None)
    }
    if variant is None:
        sizes = Sizes(shapes, own=True)
    else:
        sizes = Sizes(shapes, _chosen(measured, variant), _windows(measured, variant))
    drawn = block_diagram(found.detail, sizes, kb.language, f"{kb.word('model.structure')}: {name}")
    return drawn, variant is not None and any(large for _, large in shapes.values())


def _chosen(measured: Measured, variant: str) -> int | None:
    """How many experts each token goes through at full size."""
    found = {m.value.get("per_token") for m in measured if m.measure == "routing" and m.variant == variant}
    return found.pop() if len(found) == 1 else None


def _windows(measured: Measured, variant: str) -> dict[str, int]:
    """How far windows and chunks reach at full size, where all layers of a kind reach as far."""
    found: dict[str, set[int]] = {}
    for m in measured:
        for run in m.value if m.measure == "layers" and m.variant == variant else ():
            if reach := run.get("window") or run.get("chunk"):
                found.setdefault(run["mixer"], set()).add(reach)
    return {kind: reaches.pop() for kind, reaches in found.items() if len(reaches) == 1}


def _is_shape(measurement: Measurement, part: str | None, variant: str | None) -> bool:
    return (measurement.measure, measurement.part, measurement.variant) == ("shape", part, variant)


def flow_section(measured: Measured, kb: Knowledge) -> str:
    """The measured matrices under their heading; empty where there are none."""
    flows = [m for m in measured if m.measure == "flow" and "matrix" in m.detail]
    if not flows:
        return ""
    return f"## {kb.word('model.flow')}\n\n{kb.word('model.flow.lead')}\n\n{row(flows, measured, kb)}"


def picture_sections(name: str, measured: Measured, kb: Knowledge) -> str:
    """What the other measures found that is best seen: streams, norms, layers that differ, cost."""
    parts = []
    for measure in _SHOWN:
        found = [m for m in measured if m.measure == measure and m.detail and _worth_seeing(m)]
        if figures := row(found, measured, kb, name):
            parts.append(
                f"## {kb.word(f'model.picture.{measure}')}\n\n{kb.word(f'model.picture.{measure}.lead')}\n\n{figures}"
            )
    return "\n\n".join(parts)


def _worth_seeing(found: Measurement) -> bool:
    """Layers are drawn where they differ, or see less than all."""
    return (
        found.measure != "layers" or len(found.value) > 1 or found.value[0]["mixer"] not in ("full", "none")
    )


def row(found: Measured, measured: Measured, kb: Knowledge, name: str = "") -> str:
    """Pictures side by side, equal ones of several parts once; empty where none can be drawn."""
    drawn: dict[str, str] = {}
    captions: dict[str, list[str]] = {}
    for finding in found:
        value = (
            caption_text(finding.measure, finding.value, kb.language) if finding.measure != "layers" else ""
        )
        part = part_text(finding.part, kb.language)
        words = [word for word in (part, f"`{finding.variant}`" if finding.variant else "") if word]
        title = ": ".join(word for word in (name, " ".join(words), value) if word)
        if picture := measured_drawing(finding, measured, kb.language, title):
            colon = kb.colon if words and value else ""
            same = _NAMES.sub("", picture)
            drawn.setdefault(same, picture)
            captions.setdefault(same, []).append(f"{' '.join(words)}{colon}{value}")
    figures = "\n".join(
        f'<figure>{picture}<figcaption markdown="span">{"<br>".join(captions[same])}</figcaption></figure>'
        for same, picture in drawn.items()
    )
    return f'<div class="kb-figures" markdown>\n{figures}\n</div>' if figures else ""
