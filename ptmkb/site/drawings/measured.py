"""The drawing of each measure: a function of what it found, by the measure's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ptmkb.probe.record import Measurement
from ptmkb.site.drawings import curves, meetings, norms, sizes, strips
from ptmkb.site.drawings.matrix import flow_matrix
from ptmkb.site.drawings.scene import Scene


def _flow(scene: Scene) -> str | None:
    rows = scene.finding.detail.get("matrix")
    return flow_matrix(rows, scene.title, scene.word("flow.desc")) if rows else None


_DRAWN: dict[str, Callable[[Scene], str | None]] = {
    "cache": curves.cache,
    "cost": curves.cost,
    "flow": _flow,
    "layers": strips.layers,
    "learns": curves.learns,
    "norm": norms.norm,
    "objective": sizes.objective,
    "parameters": sizes.parameters,
    "position": strips.position,
    "routing": strips.routing,
    "shape": sizes.shape,
    "sharing": strips.sharing,
    "streams": meetings.streams,
}


def drawn_measures() -> tuple[str, ...]:
    """The measures that have a drawing."""
    return tuple(_DRAWN)


def measured_drawing(
    finding: Measurement, measured: Sequence[Measurement], language: str, title: str
) -> str | None:
    """What a measure found, as a picture.

    Args:
        finding: Of one measure, for one part.
        measured: All that was measured of the model; a drawing may take names and numbers from it.
        language: Of the labels, `en` or `zh`.
        title: What a screen reader says first.

    Returns:
        An `<svg>` element of one line; None where the finding lacks what the drawing needs.
    """
    draw = _DRAWN.get(finding.measure)
    return draw(Scene(finding, measured, language, title)) if draw else None
