"""A sample of the mutation test over live models; `python -m benchmarks model_mutations` runs the whole of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from benchmarks import bench_model_mutations as bench
from benchmarks.bench_model_mutations import Trial, equal, summary, trials
from benchmarks.mutations import MUTATIONS, attention, patches
from ptmkb.catalogue import load_catalogue
from ptmkb.probe.measures import Reading, load_measure, measure_names
from ptmkb.probe.subject import Subject
from ptmkb.probe.subjects import subject_for, subject_of_type

CATALOGUE = load_catalogue()
FAST = (
    "masks dropped", "causal mask added", "window of 3", "each position alone in the last layers", "embeddings untied", "a layer used twice",
    "key-value heads halved", "feed-forward one narrower", "first norm of each layer removed", "LayerNorm replaced by RMSNorm",
    "RMSNorm replaced by LayerNorm", "norm moved from before a layer to behind it", "position table zeroed", "rotary positions off",
    "relative positions zeroed", "router frozen", "one expert more a token", "cross-attention blocked", "one stream reads the other",
    "last key of the cache lost", "labels one position off", "a parameter detached", "encoder's and decoder's tables parted",
)  # fmt: skip


def subject(name: str) -> Subject:
    return subject_for(CATALOGUE.models[name])


@pytest.fixture(scope="module")
def found() -> dict[str, list[Trial]]:
    return {name: trials(subject(name), FAST) for name in ("gpt2", "mixtral", "t5", "clip", "bert")}


def fates(found: Mapping[str, list[Trial]], mutation: str) -> dict[str, set[str]]:
    return {
        name: {trial.fate for trial in rows if trial.mutation == mutation}
        for name, rows in found.items()
        if any(trial.mutation == mutation for trial in rows)
    }


def test_every_patch_of_the_sample_is_noticed(found: Mapping[str, list[Trial]]) -> None:
    missed = [
        trial for rows in found.values() for trial in rows if trial.fate not in ("noticed", "equivalent")
    ]
    assert missed == []
    assert sum(trial.fate == "noticed" for rows in found.values() for trial in rows) > 70
    assert {trial.mutation for rows in found.values() for trial in rows} == set(FAST)


def test_patches_apply_where_there_is_something_to_change(found: Mapping[str, list[Trial]]) -> None:
    assert set(fates(found, "masks dropped")) == {"gpt2", "mixtral", "t5", "clip"}  # BERT has none
    assert set(fates(found, "router frozen")) == {"mixtral"}
    assert set(fates(found, "cross-attention blocked")) == {"t5"}
    assert set(fates(found, "one stream reads the other")) == {"clip"}
    assert set(fates(found, "rotary positions off")) == {"mixtral"}
    assert fates(found, "causal mask added")["gpt2"] == {"equivalent"}  # it has one
    assert fates(found, "causal mask added")["bert"] == {"noticed"}


def test_every_measure_is_tried_but_for_the_one_that_only_draws() -> None:
    assert {measure for mutation in MUTATIONS.values() for measure in mutation.measures} == set(
        measure_names()
    )


@pytest.mark.parametrize(
    ("measure", "mutation"),
    [
        ("flow", "causal mask added"),
        ("norm", "first norm of each layer removed"),
        ("sharing", "a layer used twice"),
        ("parameters", "feed-forward one narrower"),
        ("position", "position table zeroed"),
    ],
)
def test_a_measure_that_always_says_the_same_is_found_out(
    monkeypatch: pytest.MonkeyPatch, measure: str, mutation: str
) -> None:
    one = subject("bert")
    assert {trial.fate for trial in trials(one, [mutation]) if trial.measure == measure} == {"noticed"}
    monkeypatch.setattr(load_measure(measure), "measure", lambda _: {None: Reading("always so")})
    blind = trials(one, [mutation])
    assert {trial.fate for trial in blind if trial.measure == measure} == {"survives"}
    assert summary(blind)["score"] < 1


def test_a_patch_stays_in_copies_and_leaves_the_subject_alone() -> None:
    one = subject("bert")
    before = one.doubled().outputs()["text"]
    patched = MUTATIONS["window of 3"].patch(patches.copied(one))
    assert patched is not None
    with torch.no_grad():
        assert not torch.allclose(patched.doubled().outputs()["text"], before)
        assert torch.equal(one.doubled().outputs()["text"], before)
    assert type(patched.model).__name__ == type(one.model).__name__


def test_what_is_called_equivalent_is_so() -> None:
    one = subject("gpt2")
    assert equal(one, patches.copied(one), "flow") is not None
    other = patches.copied(one)
    with torch.no_grad():
        next(other.model.parameters()).mul_(1.01)
    assert equal(one, other, "norm") is None
    assert "by gradients" in str(equal(one, other, "flow"))  # other numbers, but nobody sees anybody else
    dropped = MUTATIONS["masks dropped"].patch(patches.copied(one))
    assert dropped is not None
    assert equal(one, dropped, "flow") is None


def test_gradients_know_who_sees_whom() -> None:
    one = subject("gpt2")
    rows = torch.stack([mask[0] for mask in attention.reached(one) if mask.ndim == 2])
    assert torch.equal(rows, torch.ones_like(rows).tril())


def test_attention_that_is_written_out_is_changed_too() -> None:
    """A softmax over scores, with a mask that is added, one that is filled in, and one column that is no position."""
    scores = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    later = torch.ones(9, 9).triu(1)
    hits: list[int] = []
    with attention.Attention(attention.Change(drop=True), hits):
        assert torch.equal(scores + later * -1e9, scores)
        assert torch.equal(scores.masked_fill(later.bool(), -1e9), scores)
        assert torch.equal(scores + later, scores + later.clone())
    assert len(hits) == 2
    with attention.Attention(attention.Change(keep=attention.window(1)), hits):
        kept = F.pad(scores, (0, 1)).softmax(-1)
        heads = torch.randn(2, 9, 4, 5).softmax(-1)
    assert bool((kept[..., :-1].tril(-2) == 0).all())
    assert bool((kept[..., -1] > 0).all())
    assert bool((heads > 0).all())


def test_a_router_gives_every_token_the_same_experts() -> None:
    one = subject_of_type("qwen3_moe")
    patched: Any = MUTATIONS["router frozen"].patch(patches.copied(one))
    used = load_measure("routing").measure(patched)[None].detail["by_layer"][0]["used"]
    assert len(set(map(tuple, used))) == 1
    assert len(set(map(tuple, load_measure("routing").measure(one)[None].detail["by_layer"][0]["used"]))) > 1


def test_the_benchmark_runs_in_children_and_tells_what_it_found() -> None:
    result = json.loads(json.dumps(bench.run(["mamba"])))
    assert result["models"] == 1
    assert result["failed"] == {}
    assert result["noticed"] == result["applied"] > 15
    told = bench.report(result)
    assert "score 100.00%" in told[0]
    assert sum("→" in line for line in told) == len(result["by_mutation"])
