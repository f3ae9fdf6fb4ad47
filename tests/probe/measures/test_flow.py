import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers.models.gpt2 import modeling_gpt2

from ptmkb.probe import influence
from ptmkb.probe.measures import Unmeasurable, flow, load_measure, measure_names
from ptmkb.probe.subject import Subject

Build = Callable[..., Subject]


def kinds(subject: Subject) -> dict[str | None, Any]:
    return {part: reading.value for part, reading in flow.measure(subject).items()}


def test_measures_are_found_by_their_place() -> None:
    assert {
        "flow",
        "layers",
        "learns",
        "norm",
        "objective",
        "parameters",
        "position",
        "shape",
        "sharing",
    } <= {*measure_names()}
    for name in measure_names():
        module = load_measure(name)
        assert set(module.SCALES) <= {"tiny", "variant"}
        assert "Source." in str(module.__doc__)
        with pytest.raises(ValueError, match="not"):
            module.parse(object())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", {"kind": "bidirectional"}),
        ("gpt2", {"kind": "causal"}),
        ("llama", {"kind": "causal"}),
        ("mistral", {"kind": "sliding-window", "window": 4}),
        ("gemma2", {"kind": "local-global", "window": 4, "whole": "causal"}),
        ("mixtral", {"kind": "causal"}),
        ("mamba", {"kind": "causal"}),
        ("vit", {"kind": "bidirectional"}),
        ("wav2vec2", {"kind": "bidirectional"}),
    ],
)
def test_models_of_one_stream(subject: Build, name: str, expected: dict[str, Any]) -> None:
    assert kinds(subject(name)) == {None: expected}


@pytest.mark.parametrize("name", ["t5", "whisper"])
def test_encoder_decoders(subject: Build, name: str) -> None:
    assert kinds(subject(name)) == {
        "encoder": {"kind": "bidirectional"},
        "decoder": {"kind": "causal"},
        "encoder>decoder": {"kind": "full"},
        "decoder>encoder": {"kind": "none"},
    }


def test_clip_is_two_models(subject: Build) -> None:
    assert kinds(subject("clip")) == {
        "text": {"kind": "causal"},
        "image": {"kind": "bidirectional"},
        "text>image": {"kind": "none"},
        "image>text": {"kind": "none"},
    }


def test_xlnet_permutes_the_order(subject: Build) -> None:
    readings = flow.measure(subject("xlnet"))
    assert {part: reading.value["kind"] for part, reading in readings.items()} == {
        None: "bidirectional",
        "content": "permuted",
        "query": "permuted",
    }
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3)).tolist()
    assert readings["content"].detail["order"] == readings["query"].detail["order"] == order
    assert readings["query"].detail["sees_itself"] is False


def test_window_of_five_is_not_four(subject: Build) -> None:
    value = kinds(subject("mistral", window=5))[None]
    assert value == {"kind": "sliding-window", "window": 5}
    assert not flow.agrees({"kind": "sliding-window", "window": 4}, value)


def test_gpt2_without_its_mask_is_bidirectional(subject: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = subject("gpt2")
    monkeypatch.setattr(modeling_gpt2, "create_causal_mask", lambda **_: None)
    for block in broken.blocks["text"]:
        block.attn.is_causal = False  # type: ignore[union-attr]
    assert kinds(broken) == {None: {"kind": "bidirectional"}}


def test_bert_with_a_causal_mask_is_causal(subject: Build) -> None:
    whole = subject("bert")
    mask = torch.ones(12, 12).tril().bool().expand(2, 1, -1, -1)
    assert kinds(replace(whole, inputs={**whole.inputs, "attention_mask": mask})) == {
        None: {"kind": "causal"}
    }


def test_only_the_mask_of_the_second_layer_dropped(subject: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = subject("gpt2")
    monkeypatch.setattr(modeling_gpt2, "create_causal_mask", lambda **_: None)
    broken.blocks["text"][1].attn.is_causal = False  # type: ignore[union-attr]
    reading = flow.measure(broken)[None]
    assert reading.value == {"kind": "bidirectional"}
    assert reading.detail["first_layer"][0] == "1" + "0" * 11


def test_samples_that_leak_are_reported(subject: Build) -> None:
    leaking = subject("gpt2")
    leaking.blocks["text"][0].register_forward_pre_hook(
        lambda _, args: (args[0] + 0.01 * args[0].flip(0), *args[1:])
    )
    reading = flow.measure(leaking)[None]
    assert reading.detail["leaks"] is True
    assert reading.value == {"kind": "causal"}
    assert flow.measure(subject("gpt2"))[None].detail["leaks"] is False


def test_random_draws_do_not_look_like_influence(subject: Build) -> None:
    noisy = subject("gpt2")
    noisy.blocks["text"][0].register_forward_pre_hook(
        lambda _, args: (args[0] + torch.randn_like(args[0]), *args[1:])
    )
    reading = flow.measure(noisy)[None]
    assert reading.value == {"kind": "causal"}
    assert reading.detail["batch_order"] is True


def test_influence_below_float32_is_seen(subject: Build) -> None:
    """A norm in float32 would round an influence of 1e-9 to nothing."""
    faint = subject("bert")
    mask = torch.eye(12).bool().expand(2, 1, -1, -1)
    faint = replace(faint, inputs={**faint.inputs, "attention_mask": mask})
    assert kinds(faint) == {None: {"kind": "pointwise"}}

    def mix(_: Any, args: Any) -> Any:
        hidden = args[0]
        return ((hidden + 1e-9 * hidden.roll(1, dims=1)).float().to(hidden.dtype), *args[1:])

    faint.blocks["text"][0].register_forward_pre_hook(mix)
    assert kinds(faint) != {None: {"kind": "pointwise"}}


def test_one_at_a_time_gives_the_same(subject: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = {name: flow.measure(subject(name)) for name in ("mistral", "clip")}
    monkeypatch.setattr(influence._Experiment, "moved_at_once", lambda *_: None)
    for name, expected in at_once.items():
        found = flow.measure(subject(name))
        assert {p: (r.value, r.detail["matrix"]) for p, r in found.items()} == {
            p: (r.value, r.detail["matrix"]) for p, r in expected.items()
        }


def test_class_tokens_do_not_shift_the_first_layer(subject: Build) -> None:
    assert flow.measure(subject("vit"))[None].detail["first_layer"] == ["1" * 9] * 9


def test_model_is_left_as_it_was(subject: Build) -> None:
    given = subject("mistral")
    before = copy.deepcopy(given.model.state_dict())
    flow.measure(given)
    assert all(torch.equal(before[name], value) for name, value in given.model.state_dict().items())
    assert next(given.model.parameters()).dtype is torch.float32
    assert torch.get_default_dtype() is torch.float32


def test_outputs_that_are_not_finite_are_unmeasurable(subject: Build) -> None:
    broken = subject("bert")
    with torch.no_grad():
        next(broken.blocks["text"][0].parameters()).fill_(float("nan"))
    with pytest.raises(Unmeasurable, match="not finite"):
        flow.measure(broken)


@pytest.mark.parametrize(
    ("claimed", "measured", "holds"),
    [
        ("causal", {"kind": "causal"}, True),
        ("causal", {"kind": "bidirectional"}, False),
        ("bidirectional", {"kind": "causal"}, False),
        ("causal", {"kind": "sliding-window", "window": 4}, True),
        ("causal", {"kind": "sliding-window", "window": 7, "ahead": 3}, False),
        ("bidirectional", {"kind": "sliding-window", "window": 7, "ahead": 3}, True),
        ("sliding-window", {"kind": "sliding-window", "window": 4}, True),
        ({"kind": "sliding-window", "window": 5}, {"kind": "sliding-window", "window": 4}, False),
        ("sliding-window", {"kind": "causal"}, False),
        ("causal", {"kind": "chunked", "chunk": 4, "causal": True}, True),
        ("causal", {"kind": "chunked", "chunk": 4, "causal": False}, False),
        ("causal", {"kind": "local-global", "window": 4, "whole": "causal"}, True),
        ("prefix", {"kind": "prefix", "prefix": 6}, True),
        ({"kind": "prefix", "prefix": 5}, {"kind": "prefix", "prefix": 6}, False),
        ("full", {"kind": "none"}, False),
        ("causal", {"kind": "other"}, False),
    ],
)
def test_agreement(claimed: Any, measured: dict[str, Any], holds: bool) -> None:
    assert flow.agrees(flow.parse(claimed), measured) is holds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sideways", "is one of"),
        (3, "is one of"),
        ({"kind": "causal", "window": 4}, "takes nothing"),
        ({"kind": "sliding-window", "window": 0}, "1 or more"),
        ({"kind": "chunked", "causal": "yes"}, "true or false"),
    ],
)
def test_claims_that_are_none(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flow.parse(value)
