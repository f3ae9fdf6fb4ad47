"""Graphs made by hand or at random."""

import random
from collections.abc import Callable, Iterable

import pytest

from ptmkb.catalogue import Catalogue, Model
from ptmkb.catalogue.schema import Relation
from ptmkb.lineage import CodeEdge, build_graph

RELATIONS: tuple[str, ...] = Relation.__args__
Edge = tuple[str, str, str]


def _model(name: str, released: str, edges: Iterable[Edge]) -> Model:
    note = {"en": "all of it", "zh": "全部"}
    return Model.model_validate(
        {
            "id": name,
            "name": name.upper(),
            "status": "indexed",
            "released": released,
            "organisation": "x",
            "category": "decoder-ar",
            "modalities": ["text"],
            "summary": note,
            "implementation": {"kind": "none", "why": note},
            "lineage": [
                {"from": source, "relation": relation, "note": note, "source": {"paper": "p", "at": "§1"}}
                for source, target, relation in edges
                if target == name
            ],
        }
    )


@pytest.fixture(scope="session")
def make_graph() -> Callable:
    def make(dates: dict[str, str], edges: Iterable[Edge] = (), code: Iterable[CodeEdge] = ()):
        edges = list(edges)
        models = {name: _model(name, date, edges) for name, date in dates.items()}
        return build_graph(Catalogue(directory=None, models=models, papers={}, categories={}), code)

    return make


@pytest.fixture(scope="session")
def random_graph(make_graph) -> Callable:
    def make(count: int, seed: int, first: int = 2015, last: int = 2026):
        chance = random.Random(seed)
        dates = {}
        for i in range(count):
            year, month, day = chance.randint(first, last), chance.randint(1, 12), chance.randint(1, 28)
            full = f"{year}-{month:02}-{day:02}"
            dates[f"m{i}"] = full[: chance.choice([4, 7, 10, 10, 10])]
        order = sorted(dates, key=lambda name: (dates[name], name))
        edges = {
            (order[chance.randrange(i)], order[i], chance.choice(RELATIONS))
            for i in range(1, count)
            for _ in range(chance.choice([0, 1, 1, 2]))
        }
        return make_graph(dates, sorted(edges))

    return make
