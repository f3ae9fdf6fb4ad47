"""The committed walks are what the real code does: each is taken again and compared."""

from __future__ import annotations

import ast
import json

import pytest

from ptmkb.labs.recording import shown
from ptmkb.labs.walks import package, take, walk_names
from ptmkb.probe.walks import Walk, WalkRecord, differences, read_walks

TOLERANCE = 2e-3
"""Of numbers that machines round differently: losses, shares of time-honoured arithmetic. Whole numbers, shapes and words must agree."""


@pytest.fixture(scope="module")
def record() -> WalkRecord:
    found = read_walks()
    assert found is not None, "run `ptmkb walk --all --evidence`"
    return found


def test_every_walk_is_in_the_record(record: WalkRecord) -> None:
    assert tuple(walk.name for walk in record.walks) == walk_names()


@pytest.mark.parametrize("name", walk_names())
def test_a_new_walk_sees_what_the_record_says(name: str, record: WalkRecord) -> None:
    committed = record.walk(name)
    assert committed is not None
    found = differences(
        committed.model_dump(mode="json"), take(name).model_dump(mode="json"), TOLERANCE, name
    )
    assert not found, "\n".join(["run `ptmkb walk --all --evidence` if this is right:", *found[:20]])


def test_a_difference_is_found_wherever_it_is(record: WalkRecord) -> None:
    walk = record.walk("bert-flow")
    assert walk is not None
    data = walk.model_dump(mode="json")
    other = json.loads(json.dumps(data))
    assert differences(data, other, TOLERANCE) == []
    other["steps"]["attention"][1]["shape"][1] += 1
    other["facts"]["loss"] *= 1.01
    del other["facts"]["labelled"]
    assert len(differences(data, other, TOLERANCE, "walk")) == 3


def test_each_step_quotes_the_statement_that_stands_at_its_line(record: WalkRecord) -> None:
    trees: dict[str, dict[int, list[str]]] = {}
    steps = [step for walk in record.walks for part in walk.steps.values() for step in part]
    assert len(steps) > 40
    for step in steps:
        if step.file not in trees:
            lines = trees.setdefault(step.file, {})
            for node in ast.walk(ast.parse((package() / step.file).read_text(encoding="utf-8"))):
                if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef | ast.ClassDef):
                    lines.setdefault(node.lineno, []).append(shown(node))
        assert step.code in trees[step.file].get(step.line, []), (step.file, step.line)


def test_bert_is_walked_in_sizes_that_cannot_be_confused(record: WalkRecord) -> None:
    walk = record.walk("bert-flow")
    assert walk is not None
    sizes = walk.setting["sizes"]
    assert len(set(sizes.values())) == len(sizes)
    queries = next(step for step in walk.steps["attention"] if step.name == "query_layer")
    assert queries.shape == tuple(sizes[key] for key in ("batch", "heads", "length", "head_size"))
    assert queries.full == (16, 12, 128, 64)
    weights = [step for step in walk.steps["attention"] if step.name == "attn_weights"]
    assert all(
        step.shape == tuple(sizes[key] for key in ("batch", "heads", "length", "length")) for step in weights
    )


def test_the_record_is_read_as_it_was_written(record: WalkRecord) -> None:
    assert WalkRecord.model_validate_json(record.to_json()) == record
    empty = WalkRecord(transformers="5", torch="2", walks=(Walk(name="nothing"),))
    assert WalkRecord.model_validate_json(empty.to_json()) == empty
