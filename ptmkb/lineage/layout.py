"""Where each model stands: time runs from left to right, near relatives stand at near heights, no two boxes overlap.

A year is as wide as its models need (2019 brought more of them than 2017), so the axis is monotone but not linear; the year lines are part of
the layout. Everything is computed once, at build time: the page only draws.
"""

from __future__ import annotations

import calendar
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from ptmkb.lineage.graph import Graph, literature

BOX_WIDTH = 150.0  # pixels at zoom 1: the longest name with its padding
BOX_HEIGHT = 34.0
ROW = 58.0  # distance of rows: a box and room for edges to pass
COLUMN = 176.0  # distance of neighbours in a row
ROWS_WANTED = (
    12  # a year is widened until its models fit into about so many rows: makes the picture about 5:3
)
SWEEPS = 8  # passes that pull each model towards its relatives; the picture settles after about five


@dataclass(frozen=True)
class Layout:
    """Positions in pixels at zoom 1.

    Attributes:
        positions: Centre of each model's box.
        years: Where each year begins, and one entry more for the end of the last.
        top: Upper edge of the picture.
        bottom: Lower edge of the picture.
    """

    positions: Mapping[str, tuple[float, float]]
    years: Mapping[int, float]
    top: float
    bottom: float

    def __getitem__(self, model_id: str) -> tuple[float, float]:
        return self.positions[model_id]


def place(graph: Graph) -> Layout:
    """Compute the layout of a lineage graph.

    Args:
        graph: As `build_graph` gives it; `code` edges do not pull.

    Returns:
        The same layout for the same graph, always.
    """
    dates = {node: _fraction(data["released"]) for node, data in graph.nodes(data=True)}
    years = _years(dates)
    x = {
        node: years[int(date)] + (date % 1) * (years[int(date) + 1] - years[int(date)])
        for node, date in dates.items()
    }
    order = sorted(graph.nodes, key=lambda node: (x[node], node))
    neighbours = literature(graph).to_undirected()
    rows: dict[str, int] = {}
    wanted = dict.fromkeys(order, 0.0)
    for _ in range(SWEEPS):
        rows = _settle(order, x, wanted)
        for node in order:
            near = [rows[other] for other in neighbours[node]]
            wanted[node] = fmean([*near, rows[node]])
    positions = {node: (round(x[node], 1), rows[node] * ROW) for node in order}
    heights = [y for _, y in positions.values()] or [0.0]
    return Layout(positions, years, min(heights) - ROW, max(heights) + ROW)


def _fraction(date: str) -> float:
    """A date as a year with a fraction; what is not known is taken as its middle."""
    parts = [int(part) for part in date.split("-")]
    year, month = parts[0], parts[1] if len(parts) > 1 else None
    if month is None:
        return year + 0.5
    day = (parts[2] if len(parts) > 2 else 15) - 1
    return year + (month - 1 + day / calendar.monthrange(year, month)[1]) / 12


def _years(dates: Mapping[str, float]) -> dict[int, float]:
    """Where each year begins, each as wide as its models need."""
    count = Counter(int(date) for date in dates.values())
    if not count:
        return {}
    edges, x = {}, 0.0
    for year in range(min(count), max(count) + 2):
        edges[year] = round(x, 1)  # as positions are: none may slip over an edge
        x += COLUMN * max(0.8, count[year] / ROWS_WANTED * 2)
    return edges


def _settle(order: list[str], x: Mapping[str, float], wanted: Mapping[str, float]) -> dict[str, int]:
    """Give each model the free row nearest to the one it wants, oldest first."""
    rows: dict[str, int] = {}
    for i, node in enumerate(order):
        taken = {rows[other] for other in order[:i] if x[node] - x[other] < COLUMN}
        distances = range(len(order) + 1)
        candidates = (round(wanted[node]) + sign * step for step in distances for sign in (1, -1))
        rows[node] = next(row for row in candidates if row not in taken)
    return rows
