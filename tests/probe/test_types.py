"""Every model type builds and runs, but for those that `data/unbuilt.yaml` names; here a sample, `make survey` runs them all."""

import dataclasses
import importlib.util
import json
import random
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModel

from benchmarks import survey_types
from ptmkb.catalogue import load_catalogue
from ptmkb.probe import targets, tiny
from ptmkb.probe.numerics import tensors_in
from ptmkb.probe.survey import survey

TYPES = tiny.model_types()
LISTED = tiny.unbuilt()
CATALOGUED = sorted(
    {
        model.implementation.model_type
        for model in load_catalogue().models.values()
        if model.implementation.kind == "transformers"
    }
)
SAMPLE = sorted({*random.Random(20).sample(sorted(set(TYPES) - set(LISTED)), 60), *CATALOGUED})


def test_at_least_98_of_100_types_are_not_listed() -> None:
    assert len(TYPES) > 600
    assert len(LISTED) <= 0.02 * len(TYPES)


@pytest.mark.parametrize("model_type", SAMPLE)
def test_a_type_builds_and_runs(model_type: str) -> None:
    row = survey(model_type)
    assert row.why is None
    assert row.runs
    assert row.lossless is None
    assert row.parameters <= survey_types.SMALL
    assert row.streams is not None
    for value in row.losses.values():
        assert value == value
        assert abs(value) < 1e6


@pytest.mark.parametrize("model_type", sorted(LISTED))
def test_a_listed_type_still_fails(model_type: str) -> None:
    assert model_type in TYPES
    entry = LISTED[model_type]
    assert set(entry) <= {"why", "needs"}
    if "needs" in entry and importlib.util.find_spec(entry["needs"]) is not None:
        pytest.skip(f"{entry['needs']} is here, so that this type may run")
    row = survey(model_type)
    assert not row.runs, f"{model_type} runs: take it off data/unbuilt.yaml"
    if "needs" in entry:
        assert entry["needs"] in str(row.why), "the package is the reason"


def loaded_again(model_type: str, folder: Path) -> None:
    """Save a type's tiny base model and load it by the automatic class: the same class, the same weights."""
    model = tiny.build(model_type, tiny.base_architecture(model_type))
    model.save_pretrained(folder)
    loaded = AutoModel.from_pretrained(folder)
    assert type(loaded) is type(model)
    weights = dict(loaded.named_parameters())
    assert weights.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name]), name


RELOADED = sorted(set(TYPES) - set(LISTED) - set(tiny.unloaded()))[::9]


def test_many_types_are_saved_and_loaded_here() -> None:
    assert len(RELOADED) >= 60
    assert len(tiny.unloaded()) <= 0.02 * len(TYPES)


@pytest.mark.parametrize("model_type", RELOADED)
def test_a_saved_model_loads_again(model_type: str, tmp_path: Path) -> None:
    loaded_again(model_type, tmp_path)


@pytest.mark.parametrize("model_type", sorted(tiny.unloaded()))
def test_a_type_that_is_listed_still_does_not_load(model_type: str, tmp_path: Path) -> None:
    assert model_type in TYPES
    with pytest.raises((ValueError, AttributeError, ImportError)):
        loaded_again(model_type, tmp_path)


def test_a_survey_says_why_a_type_does_not_run(monkeypatch) -> None:
    def broken(model_type: str) -> torch.nn.Module:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(tiny, "build", broken)
    row = survey("bert")
    assert not row.runs
    assert row.parameters is None
    assert row.why == "RuntimeError: no such luck"


def test_a_survey_sees_numbers_that_are_not_finite(monkeypatch) -> None:
    model = tiny.build("bert")
    with torch.no_grad():
        next(model.parameters())[:] = float("nan")
    monkeypatch.setattr(tiny, "build", lambda model_type: model)
    row = survey("bert")
    assert not row.runs
    assert "not finite" in str(row.why)


def test_tensors_are_found_wherever_they_are() -> None:
    @dataclasses.dataclass
    class Returned:
        state: torch.Tensor
        steps: int

    one, two, three, four = (torch.ones(count) for count in (1, 2, 3, 4))
    held = {"a": one, "b": [two, 7, (three, None)], "c": Returned(four, 2), "d": Returned, "e": "text"}
    found = [(name, tensor.numel()) for name, tensor in tensors_in(held)]
    assert found == [("a", 1), ("b.0", 2), ("b.2.0", 3), ("c.state", 4)]
    assert [tensor.numel() for _, tensor in tensors_in(Returned(four, 2), "returned")] == [4]


def test_a_stopped_survey_goes_on(tmp_path, capsys) -> None:
    file = tmp_path / "rows.jsonl"
    row = {"model_type": "bert", "parameters": 7, "runs": True, "losses": {}, "why": None, "seconds": 1.0}
    file.write_text(json.dumps(row) + "\n" + json.dumps(row)[:20], encoding="utf-8")
    assert survey_types.main(file, ["bert", "gpt2"]) == 0
    kept = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [found["model_type"] for found in kept] == ["bert", "gpt2"]
    assert kept[0]["parameters"] == 7, "what was known is not done again"
    assert kept[1]["runs"]
    assert "2 types: 2 build, 2 run (100.0%)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path", sorted((Path(targets.__file__).parent / "data").glob("*.yaml")), ids=lambda p: p.stem
)
def test_no_data_file_says_a_thing_twice(path: Path) -> None:
    """Of two equal keys YAML keeps the last without a word."""
    nodes = [yaml.compose(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), sorted(key for key in keys if keys.count(key) > 1)
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
