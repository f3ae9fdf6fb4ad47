"""The committed walks are what the real code does: each is taken again and compared."""

from __future__ import annotations

import ast
import json
from itertools import pairwise

import pytest

from ptmkb.labs.recording import shown
from ptmkb.labs.walks import one_file, package, take, walk_names
from ptmkb.probe.walks import Walk, WalkRecord, differences, read_walks
from ptmkb.source.releases import kept_releases

TOLERANCE = 2e-3
"""Of numbers with a fractional part, which machines may round differently. Whole numbers, shapes and words must agree."""


@pytest.fixture(scope="module")
def record() -> WalkRecord:
    found = read_walks()
    assert found is not None, "run `ptmkb walk --all --evidence`"
    return found


def test_every_walk_is_in_the_record(record: WalkRecord) -> None:
    assert tuple(walk.name for walk in record.walks) == walk_names()


@pytest.mark.parametrize("name", walk_names())
def test_a_new_walk_sees_what_the_record_says(
    name: str, record: WalkRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = record.walk(name)
    assert committed is not None
    if name == "one-file" and not set(one_file.RELEASES) <= set(kept_releases()):
        # Sixty megabytes of old wheels are not fetched for a test; all that is read from the installed release is compared.
        monkeypatch.setattr(one_file, "_releases", lambda *_: committed.pictures["releases"])
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


def test_a_token_comes_from_one_place_a_step_and_the_source_is_read_once(record: WalkRecord) -> None:
    walk = record.walk("token")
    assert walk is not None
    rows = walk.pictures["greedy"]["rows"]
    assert [row[1] for row in rows] == [walk.facts["prompt_length"]] + [1] * (len(rows) - 1)
    assert [row[4] for row in rows] == list(range(5, 5 + len(rows)))
    assert walk.facts["output_length"] == walk.facts["cache_length"] + 1
    assert {row[3] for row in walk.pictures["crossed"]["rows"]} == {walk.facts["source_length"]}
    assert (walk.facts["encoder_runs"], walk.facts["cross_keys_made"]) == (1, walk.facts["decoder_layers"])


def test_the_odds_are_those_of_the_paper_where_the_code_follows_it(record: WalkRecord) -> None:
    walk = record.walk("masked-batch")
    assert walk is not None
    shares = {row["name"]: row["value"] for row in walk.pictures["odds"]["rows"]}
    assert abs(shares["odds_chosen"] - 0.15) < 0.005
    assert abs(shares["odds_masked"] - 0.8) < 0.01
    assert shares["odds_random"] < 0.1 < shares["odds_kept"]
    assert shares["odds_whole_masked"] == 1
    assert sum(walk.facts["targets"].values()) == pytest.approx(1, abs=1e-3)
    query, content = (matrix["rows"] for matrix in walk.pictures["permuted-mask"]["matrices"])
    opened = sum(
        a != b for row, other in zip(query, content, strict=True) for a, b in zip(row, other, strict=True)
    )
    assert opened == walk.facts["permuted_targets"]


def test_a_class_of_the_longest_line_inherits_from_the_next(record: WalkRecord) -> None:
    walk = record.walk("one-file")
    assert walk is not None
    rows = walk.pictures["chain"]["rows"]
    assert len(rows) == walk.facts["longest_classes"] + 1 > 5
    for row, parent in pairwise(rows):
        text = (package() / row["modular"]).read_text(encoding="utf-8")
        bases = {
            node.name: [ast.unparse(base) for base in node.bases]
            for node in ast.parse(text).body
            if isinstance(node, ast.ClassDef)
        }
        assert parent["symbol"] in bases[row["symbol"]]
        line = (package() / row["file"]).read_text(encoding="utf-8").splitlines()[row["line"] - 1 :]
        assert next(one for one in line if not one.startswith("@")).startswith(f"class {row['symbol']}(")


def test_the_record_is_read_as_it_was_written(record: WalkRecord) -> None:
    assert WalkRecord.model_validate_json(record.to_json()) == record
    empty = WalkRecord(transformers="5", torch="2", walks=(Walk(name="nothing"),))
    assert WalkRecord.model_validate_json(empty.to_json()) == empty
