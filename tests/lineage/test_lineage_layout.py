"""The layout: no two boxes overlap, time runs from left to right, the same graph looks the same."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptmkb.catalogue import load_catalogue
from ptmkb.lineage import build_graph, place
from ptmkb.lineage.layout import BOX_HEIGHT, BOX_WIDTH


def _earliest(date: str) -> str:
    return date + "-00-00"[len(date) - 4 :]


def _latest(date: str) -> str:
    return date + "-99-99"[len(date) - 4 :]


def check(graph) -> None:
    layout = place(graph)
    assert set(layout.positions) == set(graph.nodes)
    boxes = sorted((x, y, name) for name, (x, y) in layout.positions.items())
    for i, (x, y, name) in enumerate(boxes):
        for other_x, other_y, other in boxes[i + 1 :]:
            if other_x - x >= BOX_WIDTH:
                break
            assert abs(other_y - y) >= BOX_HEIGHT, f"{name} overlaps {other}"
    dates = {name: data["released"] for name, data in graph.nodes(data=True)}
    farthest, at = "", float("-inf")
    for name in sorted(dates, key=lambda name: layout[name][0]):
        # whoever stands further right is not surely older than whoever stands left of it
        assert _latest(dates[name]) >= farthest
        assert layout[name][0] >= at
        farthest, at = max(farthest, _earliest(dates[name])), layout[name][0]
    for name, (x, y) in layout.positions.items():
        year = int(dates[name][:4])
        assert layout.years[year] <= x <= layout.years[year + 1]
        assert layout.top + BOX_HEIGHT / 2 <= y <= layout.bottom - BOX_HEIGHT / 2
    edges = list(layout.years.items())
    assert edges == sorted(edges)
    assert all(right > left for (_, left), (_, right) in pairwise(edges))
    assert place(graph) == layout


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 60),
    seed=st.integers(0, 10**6),
    years=st.sampled_from([(2019, 2019), (1950, 2100), (2015, 2026)]),
)
def test_random_graphs(random_graph, count, seed, years):
    check(random_graph(count, seed, *years))


@pytest.mark.parametrize("seed", [1, 2, 119])
def test_six_hundred_models(random_graph, seed):
    graph = random_graph(600, seed)
    start = time.process_time()
    place(graph)
    assert time.process_time() - start < 10
    check(graph)


def test_own_catalogue():
    graph = build_graph(load_catalogue())
    assert len(graph) >= 35
    check(graph)


@pytest.mark.parametrize("date", ["2018", "2018-12", "2018-12-31", "2020-02-29"])
def test_one_model(make_graph, date):
    check(make_graph({"a": date}))


def test_no_model(make_graph):
    layout = place(make_graph({}))
    assert layout.positions == layout.years == {}
    assert layout.top < layout.bottom


def test_many_on_one_day(make_graph):
    check(make_graph({f"m{i}": "2019-10-10" for i in range(60)}))


def test_exact_dates_are_strictly_ordered(make_graph):
    layout = place(
        make_graph({"a": "2019-12-31", "b": "2020-01-01", "c": "2020-01", "d": "2020", "e": "2020-12-31"})
    )
    assert [layout[name][0] for name in "abcde"] == sorted({layout[name][0] for name in "abcde"})


def test_relatives_are_pulled_together(make_graph):
    """Against the same models without their edges, relatives stand clearly nearer to each other."""
    dates = {f"{name}{i:02}": f"20{10 + i // 2}-{1 + 6 * (i % 2):02}" for i in range(24) for name in "pqrst"}
    edges = [(f"{name}{i:02}", f"{name}{i + 1:02}", "architecture") for i in range(23) for name in "pqrst"]

    def distance(layout) -> float:
        return sum(abs(layout[one][1] - layout[other][1]) for one, other, _ in edges)

    assert distance(place(make_graph(dates, edges))) < 0.8 * distance(place(make_graph(dates)))
