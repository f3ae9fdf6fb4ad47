"""A measured flow matrix as a picture: rows are outputs, columns are the inputs that were replaced."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_SQUARE = 12.0  # pixels a cell, gap included
_GAP = 2.0
_LARGEST = 240  # pixels: larger matrices shrink their cells


def flow_matrix(rows: Sequence[str], label: str, description: str = "") -> str:
    """Draw a flow matrix.

    Args:
        rows: One string of `0` and `1` an output position; the characters are input positions.
        label: What a screen reader says first.
        description: How the picture is to be read.

    Returns:
        An `<svg>` element of one line.
    """
    columns = max(map(len, rows), default=0)
    square = min(_SQUARE, _LARGEST / max(columns, len(rows), 1))
    width, height = columns * square, len(rows) * square
    described = f"<desc>{escape(description)}</desc>" if description else ""
    return (
        f'<svg class="kb-matrix" role="img" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">'
        f"<title>{escape(label)}</title>{described}{cells(rows, square)}</svg>"
    )


def cells(rows: Sequence[str], square: float) -> str:
    """The cells of a matrix as two paths, filled and empty ones: a cell is a few bytes there, and hundreds of pages have matrices.

    Args:
        rows: As in `flow_matrix`.
        square: The side of a cell in pixels, gap included.
    """
    size = square - (_GAP if square >= 6 else 0.5)
    paths = {"1": "", "0": ""}
    for i, row in enumerate(rows):
        for j, moved in enumerate(row):
            paths["1" if moved == "1" else "0"] += (
                f"M{j * square:.4g} {i * square:.4g}h{size:.4g}v{size:.4g}h-{size:.4g}z"
            )
    return "".join(
        f'<path class="kb-{name}" d="{paths[key]}"/>'
        for key, name in (("1", "on"), ("0", "off"))
        if paths[key]
    )
