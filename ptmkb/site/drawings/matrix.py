"""A measured flow matrix as a picture: rows are outputs, columns are the inputs that were replaced."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

_SQUARE = 12.0  # pixels a cell, gap included
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
    described = f"<desc>{escape(description)}</desc>" if description else ""
    return (
        f'<svg class="kb-matrix" role="img" viewBox="0 0 {columns} {len(rows)}" width="{columns * square:g}" '
        f'height="{len(rows) * square:g}"><title>{escape(label)}</title>{described}{cells(rows)}</svg>'
    )


def cells(rows: Sequence[str]) -> str:
    """The cells of a matrix, each one unit wide: filled and empty ones as two paths, a dashed line for each run of equal cells.

    Hundreds of pages have matrices, and a run is ten bytes where a rectangle a cell would be a hundred.
    """
    paths = {"1": "", "0": ""}
    for i, row in enumerate(rows):
        at = 0
        for moved, run in groupby(row):
            length = len(list(run))
            paths[moved] += f"M{at} {i}.43h{length}"
            at += length
    return "".join(
        f'<path class="kb-cells kb-cells-{name}" d="{paths[key]}"/>'
        for key, name in (("1", "on"), ("0", "off"))
        if paths[key]
    )
