from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as t

from ptmkb.probe import subjects
from ptmkb.probe.measures import Reading, Unmeasurable, routing
from ptmkb.probe.subject import Subject

Build = Callable[..., Subject]
MIXTRAL = {"experts": 4, "per_token": 2, "shared": 0, "scoring": "softmax", "by_token": True}


def routed(subject: Subject) -> Reading:
    return routing.measure(subject)[None]


def routers(subject: Subject) -> list[Any]:
    return [layer.mlp.gate for layer in subject.blocks["text"]]


def test_mixtral(subject: Build) -> None:
    reading = routed(subject("mixtral"))
    assert reading.value == MIXTRAL
    assert [layer["layer"] for layer in reading.detail["by_layer"]] == [0, 1]
    for layer in reading.detail["by_layer"]:
        assert len(layer["used"]) == 24
        assert {len(used) for used in layer["used"]} == {2}
        assert layer["scored"] == "all"


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("deepseek_v3", {"shared": 1, "scoring": "sigmoid"}),
        ("qwen3_moe", {}),
        ("qwen2_moe", {"shared": 1}),
        ("ernie4_5_moe", {"shared": 2}),
        ("gpt_oss", {}),
        ("jamba", {}),
        ("switch_transformers", {"per_token": 1}),
        # Four residual streams run side by side.
        ("hy_v4", {"experts": 4, "per_token": 2, "shared": 1, "scoring": "sigmoid", "by_token": True}),
    ],
)
def test_other_mixtures(model_type: str, expected: dict[str, Any]) -> None:
    assert routed(subjects.subject_of_type(model_type)).value == MIXTRAL | expected


def test_scores_of_the_chosen_alone() -> None:
    """GPT-OSS takes the softmax of the chosen logits; Mixtral of all."""
    layers = routed(subjects.subject_of_type("gpt_oss")).detail["by_layer"]
    assert {layer["scored"] for layer in layers} == {"chosen"}


def test_tokens_beyond_the_capacity_go_through_none() -> None:
    layers = routed(subjects.subject_of_type("switch_transformers")).detail["by_layer"]
    assert {len(used) for layer in layers for used in layer["used"]} == {0, 1}


def test_router_frozen_to_the_same_experts_is_seen(subject: Build) -> None:
    given = subject("mixtral")
    for router in routers(given):
        with torch.no_grad():
            router.weight.zero_()
    reading = routed(given)
    assert reading.value == MIXTRAL | {"by_token": False}
    assert not routing.agrees(routing.parse({"by_token": True}), reading.value)


def test_one_expert_a_token_instead_of_two_is_seen(subject: Build) -> None:
    given = subject("mixtral")
    for router in routers(given):
        router.top_k = 1
    assert routed(given).value == MIXTRAL | {"per_token": 1}


def test_layers_that_differ_have_no_common_number(subject: Build) -> None:
    given = subject("mixtral")
    routers(given)[0].top_k = 1
    reading = routed(given)
    assert "per_token" not in reading.value
    assert [layer["per_token"] for layer in reading.detail["by_layer"]] == [1, 2]


def test_expert_whose_result_is_thrown_away_is_not_used(subject: Build) -> None:
    given = subject("mixtral")
    for layer in given.blocks["text"]:
        layer.mlp.experts.register_forward_hook(lambda _, args, output: output * 0)  # type: ignore[union-attr]
    reading = routed(given)
    assert all(used == [] for layer in reading.detail["by_layer"] for used in layer["used"])


def test_shared_expert_taken_away_is_seen() -> None:
    given = subjects.subject_of_type("deepseek_v3")
    for layer in given.blocks["text"]:
        if hasattr(layer.mlp, "shared_experts"):
            layer.mlp.shared_experts = torch.nn.Identity()  # type: ignore[union-attr]
    assert routed(given).value["shared"] == 0


def test_published_size_on_meta() -> None:
    with torch.device("meta"):
        model = t.MixtralModel(t.MixtralConfig()).eval()
    inputs = {"input_ids": torch.zeros(2, 12, dtype=torch.long, device="meta")}
    given = Subject(
        "mixtral", model, inputs, {}, lambda _: {}, blocks={"text": tuple(model.layers)}, scale="full"
    )
    assert routed(given).value == {"experts": 8, "per_token": 2, "shared": 0}


@pytest.mark.parametrize("name", ["bert", "gpt2", "mamba", "t5"])
def test_models_without_experts(subject: Build, name: str) -> None:
    with pytest.raises(Unmeasurable, match="no layer chooses"):
        routing.measure(subject(name))


def test_same_result_twice_and_the_model_left_alone(subject: Build) -> None:
    given = subject("mixtral")
    assert routing.measure(given) == routing.measure(given)
    assert all(parameter.grad is None for parameter in given.model.parameters())


def test_agreement() -> None:
    assert routing.agrees(routing.parse({"experts": 4, "per_token": 2}), MIXTRAL)
    for wrong in ({"experts": 8}, {"per_token": 1}, {"shared": 1}, {"scoring": "sigmoid"}):
        assert not routing.agrees(routing.parse(wrong), MIXTRAL)
    assert not routing.agrees(
        routing.parse({"scoring": "softmax"}), {"experts": 8, "per_token": 2, "shared": 0}
    )


@pytest.mark.parametrize(
    "value",
    [
        8,
        {},
        {"experts": 0},
        {"per_token": "2"},
        {"shared": -1},
        {"scoring": "relu"},
        {"by_token": 1},
        {"top": 2},
    ],
)
def test_claims_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"not|nothing"):
        routing.parse(value)
