import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch
import transformers

from ptmkb.catalogue import load_catalogue
from ptmkb.probe import probing
from ptmkb.probe.children import GIB, Limits, TaskFailedError
from ptmkb.probe.measures import load_measure
from ptmkb.probe.record import ProbeRecord, read_record, write_record
from ptmkb.probe.runner import Watcher, children, probe_all, timeless

CATALOGUE = load_catalogue()


def entries(*ids: str):
    return [CATALOGUE.models[model_id].model_copy(update={"variants": []}) for model_id in ids]


def test_a_run_probes_its_entries_and_says_what_held(tmp_path) -> None:
    record, whole = probe_all(entries("bert", "gpt2"), CATALOGUE)
    assert whole
    assert record.transformers == transformers.__version__
    assert torch.__version__.startswith(record.torch)
    assert [model.id for model in record.models] == ["bert", "gpt2"]
    for model, flow in zip(record.models, ("bidirectional", "causal"), strict=True):
        assert model.seconds > 0
        claims = [claim for claim in model.claims if claim.measure == "flow"]
        assert {claim.origin for claim in claims} == {"entry", "category"}
        assert {(claim.claimed, claim.verdict) for claim in claims} == {(flow, "verified")}
        assert {m.measure for m in model.measured} >= {"flow", "shape"}
    write_record(record, tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"transformers", "torch", "models"} <= set(report)
    assert {"id", "status", "why", "seconds", "claims"} <= set(report["models"][0])
    assert {"measure", "claimed", "measured", "verdict"} <= set(report["models"][0]["claims"][0])
    assert read_record(tmp_path / "report.json") == record


def test_two_runs_give_the_same_bytes() -> None:
    chosen = entries("xlnet", "clip", "vits", "mixtral")
    first, second = (timeless(probe_all(chosen, CATALOGUE)[0]).to_json() for _ in range(2))
    assert first == second
    assert '"seconds": 0.0' in first


def misbehave(entry) -> bytes:
    if entry.id == "bert":
        os.kill(os.getpid(), signal.SIGSEGV)
    if entry.id == "gpt2":
        while True:
            time.sleep(0.01)
    if entry.id == "t5":
        raise TaskFailedError("for a reason")
    return probing.probe_offline(entry)


def test_what_was_measured_before_a_child_died_counts(monkeypatch) -> None:
    def crash(subject):
        os.kill(os.getpid(), signal.SIGSEGV)

    monkeypatch.setattr(load_measure("objective"), "measure", crash)
    (model,) = probe_all(entries("bert"), CATALOGUE)[0].models
    assert model.status == "failed"
    assert model.why == "killed by signal 11 (SIGSEGV) (while measuring `objective`)"
    verdicts = {claim.measure: claim.verdict for claim in model.claims}
    assert verdicts["flow"] == "verified"  # came before
    assert verdicts["objective"] == verdicts["sharing"] == "unmeasured"


def test_a_measure_that_raises_leaves_the_others_their_verdicts(monkeypatch) -> None:
    def stumble(subject):
        raise IndexError("out of\nrange")

    whole = probe_all(entries("bert"), CATALOGUE)[0].models[0]
    monkeypatch.setattr(load_measure("flow"), "measure", stumble)
    (model,) = probe_all(entries("bert"), CATALOGUE)[0].models
    assert (model.status, model.why) == ("failed", "measure `flow`: IndexError: out of range")
    for before, after in zip(whole.claims, model.claims, strict=True):
        if after.measure == "flow":
            assert (after.verdict, after.why) == ("unmeasured", "measure `flow`: IndexError: out of range")
        else:
            assert after == before
    assert {m.measure for m in model.measured} == {m.measure for m in whole.measured} - {"flow"}


def test_a_measure_that_eats_memory_is_stopped_and_named(monkeypatch) -> None:
    def eat(subject):
        torch.ones(6 * GIB // 4)

    monkeypatch.setattr(load_measure("learns"), "measure", eat)
    (model,) = probe_all(entries("bert"), CATALOGUE)[0].models
    assert model.status == "failed"
    assert "measure `learns`: out of memory" in model.why
    assert {claim.verdict for claim in model.claims if claim.measure == "flow"} == {"verified"}


def test_a_child_that_dies_is_its_models_failure_and_nobody_elses() -> None:
    chosen = entries("bert", "gpt2", "t5", "llama")
    record, whole = probe_all(chosen, CATALOGUE, children(limits=Limits(seconds=10), task=misbehave))
    assert whole
    bert, gpt2, t5, llama = record.models
    assert (bert.status, bert.why) == ("failed", "killed by signal 11 (SIGSEGV)")
    assert (gpt2.status, gpt2.why) == ("failed", "took longer than 10 s and was stopped")
    assert (t5.status, t5.why) == ("failed", "for a reason")
    assert {(claim.verdict, claim.why) for claim in t5.claims} == {("unmeasured", "for a reason")}
    assert llama.status == "passed"


def test_a_model_that_reaches_for_the_hub_fails_with_a_clear_line(monkeypatch) -> None:
    def from_hub(entry, variant=None):
        return transformers.AutoModel.from_pretrained("google-bert/bert-base-uncased")

    monkeypatch.setattr(probing, "subject_for", from_hub)
    (model,) = probe_all(entries("bert"), CATALOGUE)[0].models
    assert model.status == "failed"
    assert "tried to reach" in model.why
    assert "probes run offline" in model.why


def test_a_hidden_attempt_to_reach_the_network_fails_the_model_too(monkeypatch) -> None:
    real = probing.subject_for

    def sneaky(entry, variant=None):
        with contextlib.suppress(OSError):
            socket.create_connection(("example.org", 443), timeout=1)
        return real(entry, variant)

    monkeypatch.setattr(probing, "subject_for", sneaky)
    (model,) = probe_all(entries("bert"), CATALOGUE)[0].models
    assert (model.status, model.why) == ("failed", "tried to reach example.org:443; probes run offline")


@pytest.mark.parametrize(
    "program",
    [
        [sys.executable, "-c", "import socket; socket.create_connection(('10.1.2.3', 80), timeout=1)"],
        ["getent", "ahostsv4", "example.org"],
    ],
)
def test_a_program_that_reaches_for_the_network_fails_the_model(monkeypatch, program: list[str]) -> None:
    def sneaky(subject):
        subprocess.run(program, capture_output=True)
        return {}

    monkeypatch.setattr(load_measure("learns"), "measure", sneaky)
    (model,) = probe_all(entries("bert"), CATALOGUE)[0].models
    assert (model.status, model.why) == (
        "failed",
        "a program it started, or C code, tried to reach the network; probes run offline",
    )
    assert {claim.verdict for claim in model.claims if claim.measure == "flow"} == {"verified"}


def test_an_interruption_keeps_what_is_done(request: pytest.FixtureRequest) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    class Interrupt(Watcher):
        def ends(self, record) -> None:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    def one_is_quick(entry) -> bytes:
        if entry.id != "bert":
            time.sleep(60)
        return probing.probe_offline(entry)

    start = time.monotonic()
    record, whole = probe_all(entries("bert", "gpt2"), CATALOGUE, children(2, task=one_is_quick), Interrupt())
    assert not whole
    assert isinstance(record, ProbeRecord)
    assert [model.id for model in record.models] == ["bert"]
    assert time.monotonic() - start < 40


def test_what_cannot_be_built_is_skipped_with_its_reason() -> None:
    bert = CATALOGUE.models["bert"]
    none = type(bert).model_validate(
        bert.model_dump(by_alias=True)
        | {
            "variants": [],
            "implementation": {"kind": "none", "why": {"en": "never published", "zh": "从未公开"}},
        }
    )
    (model,) = probe_all([none], CATALOGUE)[0].models
    assert (model.status, model.why) == ("skipped", "never published")
    assert {claim.verdict for claim in model.claims} == {"unmeasured"}
