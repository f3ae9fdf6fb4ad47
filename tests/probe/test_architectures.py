"""Every architecture is measured, claimed or not: the command, the committed record, and what it rests on."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import transformers

from benchmarks import bench_architectures
from ptmkb.catalogue import load_catalogue
from ptmkb.probe import memory, probing, targets, tiny
from ptmkb.probe.children import GIB
from ptmkb.probe.findings import joined, unclaimed
from ptmkb.probe.measures import flow, load_measure, measure_names
from ptmkb.probe.record import (
    EVIDENCE,
    Built,
    Measurement,
    ModelRecord,
    ProbeRecord,
    Unmeasured,
    packed,
    read_architectures,
    unpacked,
    write_architectures,
)
from ptmkb.probe.runner import probe_types, timeless
from ptmkb.probe.streamless import subject_without_streams
from ptmkb.probe.subjects import subject_of_type

CATALOGUE = load_catalogue()
TYPES = targets.model_types()
SAMPLE = ["bert", "mixtral", "gemma3"]
SAMPLE += sorted(random.Random(605).sample(sorted(set(TYPES) - set(targets.unbuilt()) - set(SAMPLE)), 9))


@pytest.fixture(scope="module")
def record() -> ProbeRecord:
    found = read_architectures()
    assert found is not None
    return found


def test_the_types_are_those_of_the_installed_transformers() -> None:
    assert tiny.model_types() == TYPES
    assert len(TYPES) > 600
    assert set(targets.unbuilt()) <= set(tiny.unbuilt())


def test_the_record_is_of_the_installed_transformers_and_of_every_type(record: ProbeRecord) -> None:
    assert record.transformers == transformers.__version__
    assert [model.id for model in record.models] == sorted(TYPES)
    listed = targets.unbuilt()
    for model in record.models:
        if model.id in listed:
            assert model.status == "skipped"
            assert listed[model.id] in str(model.why)
            continue
        assert model.built is not None, model.id
        assert model.built.file.startswith("transformers/models/"), model.id
        measured = {one.measure for one in model.measured}
        silent = {one.measure: one.why for one in model.unmeasured}
        assert measured.isdisjoint(silent), model.id
        wanted = {name for name in measure_names() if "tiny" in load_measure(name).SCALES}
        assert measured | set(silent) == wanted, f"{model.id}: run `ptmkb probe --types --evidence`"
        assert all(silent.values()), model.id
        assert "parameters" in measured or model.status == "failed", model.id


def test_nearly_every_type_shows_its_flow_and_its_structure(record: ProbeRecord) -> None:
    def share(measure: str) -> float:
        return sum(any(one.measure == measure for one in m.measured) for m in record.models) / len(
            record.models
        )

    assert share("parameters") >= 0.97
    assert share("flow") >= 0.85
    assert share("shape") >= 0.75
    assert share("structure") >= 0.6


NOT_CAUSAL = {
    "cpmant": "its forward pass marks all tokens of its input as context, which each of them sees",
}
"""Classes named `…ForCausalLM` whose positions see later ones when they are run as here, and why."""


def test_what_is_named_causal_looks_back_alone(record: ProbeRecord) -> None:
    def causal(flows: dict[str | None, Any]) -> bool:
        own = [value for part, value in flows.items() if part in (None, "text")]
        return bool(own) and all(flow.agrees({"kind": "causal"}, value) for value in own)

    named = [m for m in record.models if m.built and m.built.architecture.endswith("ForCausalLM")]
    assert len(named) > 130
    recorded = {m.id: {one.part: one.value for one in m.measured if one.measure == "flow"} for m in named}
    # The record may be older than what builds the models: whatever is not causal there is measured again.
    again = {
        name: {part: reading.value for part, reading in flow.measure(subject_of_type(name)).items()}
        for name, flows in recorded.items()
        if not causal(flows)
    }
    assert {name for name, flows in again.items() if not causal(flows)} == set(NOT_CAUSAL), again


def test_the_record_is_small_and_every_type_one_line(record: ProbeRecord) -> None:
    path = EVIDENCE / f"architectures-{record.transformers}.json"
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 4e6
    lines = text.splitlines()
    assert sum(line.startswith('"bert": {') for line in lines) == 1
    assert packed(record) == text, "what is read and written again is the same file"
    assert {model.seconds for model in record.models} == {0.0}


@pytest.mark.parametrize("model_type", SAMPLE)
def test_a_type_measured_again_is_as_recorded(model_type: str, record: ProbeRecord) -> None:
    (target,) = targets.of_types([model_type], CATALOGUE)
    found = unclaimed(model_type, joined(probing.findings(target)))
    again = unpacked(packed(ProbeRecord(transformers="0", torch="0", models=(found,))))
    assert again.models == (record.model(model_type),), "run `ptmkb probe --types --evidence`"


def _type(name: str, matrix: list[str]) -> ModelRecord:
    return ModelRecord(
        id=name,
        status="passed",
        built=Built(architecture="A", file="transformers/models/a/modeling_a.py"),
        measured=(
            Measurement(measure="flow", value={"kind": "causal"}, detail={"matrix": matrix}),
            Measurement(measure="flow", part="b", value={"kind": "other"}, detail={"matrix": matrix, "n": 1}),
        ),
        unmeasured=(Unmeasured(measure="learns", why="no loss"),),
    )


def test_packing_shares_what_is_there_twice_and_loses_nothing(tmp_path) -> None:
    matrix = ["1" * 30] * 30
    skipped = [ModelRecord(id=name, status="skipped", why="no " + "x" * 80) for name in ("y", "z")]
    whole = ProbeRecord(
        transformers="9.9.9", torch="1", models=(_type("a", matrix), _type("b", matrix), *skipped)
    )
    text = packed(whole)
    assert unpacked(text) == whole
    assert text.count("1" * 30) == 30, "the matrix is written once"
    assert packed(whole.model_copy(update={"models": whole.models[::-1]})) == text, "in whatever order"
    write_architectures(whole, tmp_path)
    assert read_architectures(tmp_path) == whole
    assert read_architectures(tmp_path / "nowhere") is None


def test_types_are_measured_and_what_cannot_be_built_says_why(tmp_path) -> None:
    skipped = next(iter(targets.unbuilt()))
    record, whole = probe_types(["vit", skipped], CATALOGUE)
    assert whole
    vit, left_out = record.models
    assert (vit.id, vit.status, vit.claims) == ("vit", "passed", ())
    assert vit.built is not None
    assert vit.built.file == "transformers/models/vit/modeling_vit.py"
    assert {one.measure for one in vit.measured} >= {"flow", "structure", "parameters", "norm"}
    assert {"cache", "routing"} <= {one.measure for one in vit.unmeasured}
    assert left_out.status == "skipped"
    assert targets.unbuilt()[skipped] in str(left_out.why)
    again, _ = probe_types(["vit", skipped], CATALOGUE)
    assert packed(timeless(again)) == packed(timeless(record))


def test_a_catalogued_type_is_built_as_its_entry_is() -> None:
    speech, bert, unknown = targets.of_types(["speecht5", "bert", "convnext"], CATALOGUE)
    assert speech.implementation == CATALOGUE.models["speecht5"].implementation
    assert (bert.held_as, unknown.held_as) == ("bert", "convnext.type")


def test_a_model_without_streams_is_measured_without_them() -> None:
    model = subject_of_type("bert").model
    subject = subject_without_streams(model, "bert", LookupError("no output for text"))
    found = joined(probing.measurements(subject))
    measured = {one.measure: one.value for one in found.measured}
    plain = {one.measure: one.value for one in joined(probing.measurements(subject_of_type("bert"))).measured}
    for name in ("norm", "shape", "layers", "structure"):
        assert name in measured
        if name != "structure":
            assert measured[name] == plain[name]
    silent = {one.measure: one for one in found.silences}
    assert {"flow", "position", "streams", "cost"} <= silent.keys()
    assert not any(one.failed for one in found.silences), [one.why for one in found.silences if one.failed]
    assert "position" in silent["flow"].why


def test_shared_work_is_done_once_and_only_while_it_is_kept() -> None:
    subject = subject_of_type("vit")
    assert subject.doubled() is not subject.doubled()
    with memory.kept():
        first = subject.doubled()
        assert subject.doubled() is first
        assert first.doubled() is not first
    assert subject.doubled() is not first, "a model may have been changed since"


def test_the_benchmark_measures_both_loops() -> None:
    result = bench_architectures.run(["vit", "gpt2"])
    assert result["types"] == 2
    assert result["bare"]["failed"] == result["all_measures"]["failed"] == {}
    assert 0 < result["bare"]["cpu"] < result["all_measures"]["cpu"]
    assert result["ratio_cpu"] == pytest.approx(
        result["all_measures"]["cpu"] / result["bare"]["cpu"], rel=0.1
    )
    assert 0.05 * GIB < result["bare"]["peak"] < 6 * GIB
    assert {"flow", "learns", "build"} <= set(result["cpu_by_measure"])
    assert set(result["slowest"]) == {"vit", "gpt2"}
    json.dumps(result)
    assert any("× the bare loop" in line for line in bench_architectures.report(result))


def test_models_with_odd_parts_are_measured() -> None:
    for model_type, measure in (("idefics", "learns"), ("higgs_audio_v2", "norm")):
        subject = subject_of_type(model_type)  # a configuration that is a mapping; a norm that gets nothing
        assert load_measure(measure).measure(subject), model_type
