"""A sample of the mutation test over the catalogue; `python -m benchmarks mutations` runs the whole of it."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from ptmkb.catalogue import load_catalogue
from ptmkb.probe.measures import load_measure
from ptmkb.probe.record import read_evidence

PATH = Path(__file__).parents[2] / "benchmarks" / "bench_mutations.py"
SPEC = importlib.util.spec_from_file_location("bench_mutations", PATH)
assert SPEC is not None
bench = importlib.util.module_from_spec(SPEC)
sys.modules["bench_mutations"] = bench
SPEC.loader.exec_module(bench)

CATALOGUE, EVIDENCE = load_catalogue(), read_evidence()
SAMPLE = {"bert", "gpt2", "t5", "clip", "mistral", "mixtral", "unilm", "albert"}
FOUND = list(bench.mutants(CATALOGUE, EVIDENCE, SAMPLE))


def tried(model_id: str, measure: str, value, part: str | None = None, variant: str | None = None) -> bool:
    """Whether this mutant was made, and refuted."""
    (mutant,) = [
        m
        for m in FOUND
        if (m.model_id, m.claim.measure, m.claim.part, m.claim.origin) == (model_id, measure, part, "entry")
        and (variant is None or m.claim.variant == variant)
        and m.value == value
    ]
    return mutant.refuted


def test_what_is_false_is_refuted() -> None:
    assert len(FOUND) > 700
    assert {m.model_id for m in FOUND} == SAMPLE
    assert [str(m) for m in FOUND if not m.refuted] == []


def test_a_family_that_holds_what_was_measured_is_no_falsehood() -> None:
    """`absolute` of learned positions says less, and nothing false; `bias` of them is false."""
    found = ["absolute-sinusoidal", "convolution"]
    assert bench._true_too("position", "absolute", found)
    assert bench._true_too("position", ["absolute"], ["absolute-learned"])
    assert not bench._true_too("position", "bias", found)
    assert not bench._true_too("position", "absolute", ["absolute-learned", "rotary"])


def test_the_plausible_falsehoods_are_among_the_mutants() -> None:
    assert tried("bert", "flow", "causal")
    assert tried("gpt2", "flow", "bidirectional")
    assert tried("mistral", "flow", {"kind": "sliding-window", "window": 5})
    assert tried("bert", "objective", "causal", part="masked-lm")
    assert tried("bert", "sharing", "untied", part="embeddings")
    assert tried("albert", "sharing", "untied", part="layers")
    assert tried("clip", "flow", "full", part="image>text")
    assert tried("bert", "parameters", "131.4M", variant="bert-base-uncased")  # + 20 %
    assert tried("bert", "parameters", "87.59M", variant="bert-base-uncased")  # - 20 %
    variant = CATALOGUE.models["mixtral"].variants[0].name
    shape = next(
        c.value for c in CATALOGUE.models["mixtral"].claims if c.measure == "shape" and c.variant == variant
    )
    assert shape["key_value_heads"] == 8
    assert tried("mixtral", "shape", {**shape, "key_value_heads": 16}, variant=variant)


def test_a_noted_discrepancy_is_falsified_too() -> None:
    noted = [m for m in FOUND if m.claim.discrepancy is not None]
    assert {m.model_id for m in noted} >= {"gpt2", "albert"}
    assert all(m.refuted for m in noted)


@pytest.mark.parametrize("measure", ["flow", "shape", "parameters", "sharing"])
def test_a_measure_that_agrees_to_everything_is_found_out(monkeypatch, measure: str) -> None:
    monkeypatch.setattr(load_measure(measure), "agrees", lambda claimed, measured: True)
    found = [m for m in bench.mutants(CATALOGUE, EVIDENCE, SAMPLE) if m.claim.measure == measure]
    assert found
    assert not any(m.refuted for m in found)


def test_the_benchmark_reports_its_score_and_names_survivors() -> None:
    result = json.loads(json.dumps(bench.run()))
    assert result["refuted"] + len(result["survivors"]) == result["mutants"]
    assert result["score"] == 1.0
    told = bench.report(result)
    assert f"{result['score']:.2%}" in told[0]
    assert sum(line.startswith("survives: ") for line in told) == len(result["survivors"])
