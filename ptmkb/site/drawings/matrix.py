"""A measured flow matrix as a picture: rows are outputs, columns are the inputs that were replaced."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_SQUARE = 12  # pixels a cell, gap included
_GAP = 2
_LARGEST = 240  # pixels: larger matrices shrink their cells


def flow_matrix(rows: Sequence[str], label: str) -> str:
    """Draw a flow matrix.

    Args:
        rows: One string of `0` and `1` an output position; the characters are input positions.
        label: What a screen reader says.

    Returns:
        An `<svg>` element of one line.
    """
    columns = max(map(len, rows), default=0)
    square = min(_SQUARE, _LARGEST / max(columns, len(rows), 1))
    size = square - (_GAP if square >= 6 else 0.5)
    cells = [
        f'<rect class="kb-{"on" if moved == "1" else "off"}" x="{j * square:g}" y="{i * square:g}" '
        f'width="{size:g}" height="{size:g}" rx="{min(2, size / 4):g}"/>'
        for i, row in enumerate(rows)
        for j, moved in enumerate(row)
    ]
    width, height = columns * square, len(rows) * square
    return (
        f'<svg class="kb-matrix" role="img" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">'
        f"<title>{escape(label)}</title>{''.join(cells)}</svg>"
    )
