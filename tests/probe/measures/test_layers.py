from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ptmkb.probe import reach
from ptmkb.probe.measures import Unmeasurable, layers
from ptmkb.probe.subject import Subject
from ptmkb.probe.subjects import subject_of_type
from ptmkb.probe.tiny import build

Build = Callable[..., Subject]


def kinds(subject: Subject) -> dict[str | None, list[dict[str, Any]]]:
    return {part: reading.value for part, reading in layers.measure(subject).items()}


def kind(text: str) -> list[dict[str, Any]]:
    return [item for line in text.split(";") for item in layers.parse(line.strip())]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", "2 × full multi-head dense"),
        ("albert", "3 × full multi-head dense"),
        ("gpt2", "2 × full multi-head dense"),
        ("xlnet", "2 × full multi-head dense"),
        ("vit", "2 × full multi-head dense"),
        ("wav2vec2", "2 × full multi-head dense"),
        ("llama", "2 × full grouped-query dense"),
        ("mistral", "2 × sliding-window 4 grouped-query dense"),
        ("gemma2", "1 × sliding-window 4 grouped-query dense; 1 × full grouped-query dense"),
        ("mixtral", "2 × full grouped-query experts"),
        ("mamba", "2 × state-space none"),
    ],
)
def test_models_of_one_stack(subject: Build, name: str, expected: str) -> None:
    found = [{k: v for k, v in run.items() if k != "cross"} for run in kinds(subject(name))[None]]
    wanted = kind(expected)
    if name == "mamba":
        wanted = [{"count": 2, "mixer": "state-space", "feed_forward": "none"}]
    assert found == wanted


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("deberta", "2 × full multi-head dense"),
        ("falcon", "2 × full multi-query dense"),
        ("gemma3_text", "1 × sliding-window 4 grouped-query dense; 1 × full grouped-query dense"),
        # A picture, whose places see each other, makes no other layer of one with a window.
        ("gemma3", "1 × sliding-window 4 grouped-query dense; 1 × full grouped-query dense"),
        ("llama4_text", "1 × chunked 4 grouped-query experts; 1 × full grouped-query experts"),
        ("deepseek_v3", "1 × full latent dense; 1 × full latent experts"),
        ("minimax", "1 × full grouped-query experts; 1 × linear-attention experts"),
        ("qwen3_next", "1 × linear-attention experts; 1 × full grouped-query experts"),
        ("jamba", "1 × state-space dense; 1 × state-space experts"),
        ("fnet", "2 × fourier dense"),
        ("hunyuan_vl", "2 × full multi-head dense"),  # a sample's place in the batch changes what it gives
        ("granite_speech", "2 × full multi-head dense"),  # without those of its encoder
    ],
)
def test_further_architectures(model_type: str, expected: str) -> None:
    assert kinds(subject_of_type(model_type)) == {None: kind(expected)}


def test_a_window_to_both_sides() -> None:
    (run,) = kinds(subject_of_type("longformer"))[None]
    assert (run["mixer"], run["window"], run["ahead"]) == ("sliding-window", 5, 2)


def test_decoders_attend_to_their_encoder(subject: Build) -> None:
    readings = layers.measure(subject("t5"))
    assert readings["encoder"].value == kind("2 × full multi-head dense")
    assert readings["decoder"].value == [
        {"count": 2, "mixer": "full", "heads": "multi-head", "cross": True, "feed_forward": "dense"}
    ]
    assert readings["decoder"].detail["others"] == [["encoder"], ["encoder"]]
    rows = readings["decoder"].detail["matrices"][1]
    assert rows == ["1" * at + "0" * (12 - at) for at in range(1, 13)]


def test_co_attention_reaches_the_other_stream_only() -> None:
    found = kinds(subject_of_type("lxmert"))
    assert found["cross"][0]["cross"] is True
    assert "cross" not in found["text"][0]


def test_a_wider_window_is_seen(subject: Build) -> None:
    assert kinds(subject("mistral", window=5))[None] == kind("2 × sliding-window 5 grouped-query dense")


def test_one_later_window_is_seen(subject: Build) -> None:
    """The model as a whole sees all; the reach of a later layer is its own."""
    given = subject("gpt2")
    band = torch.ones(12, 12).tril().triu(-2).bool()[None, None]

    def narrow(_: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "attention_mask": band}

    given.blocks["text"][1].attn.register_forward_pre_hook(narrow, with_kwargs=True)  # type: ignore[union-attr]
    assert kinds(given)[None] == kind("1 × full multi-head dense; 1 × sliding-window 3 multi-head dense")


def test_fewer_key_heads_are_seen(subject: Build) -> None:
    for heads, expected in ((4, "multi-head"), (2, "grouped-query"), (1, "multi-query")):
        model = build("llama", num_attention_heads=4, num_key_value_heads=heads, head_dim=8)
        given = replace(subject("llama"), model=model, blocks={"text": tuple(model.model.layers)})
        given = replace(given, read=lambda output: {"text": output.logits})
        given = replace(given, inputs={"input_ids": given.inputs["input_ids"], "use_cache": False})
        assert {run["heads"] for run in kinds(given)[None]} == {expected}


def test_cut_cross_attention_is_seen(subject: Build) -> None:
    broken = subject("t5")
    for block in broken.blocks["decoder"]:
        block.layer[1].register_forward_hook(  # type: ignore[index,operator]
            lambda _, args, kwargs, output: (
                kwargs.get("hidden_states", args[0] if args else None),
                *output[1:],
            ),
            with_kwargs=True,
        )
    assert "cross" not in kinds(broken)["decoder"][0]


def test_an_attention_that_sees_only_itself_is_none(subject: Build) -> None:
    given = subject("bert")
    mask = torch.eye(12).bool().expand(2, 1, -1, -1)
    found = kinds(replace(given, inputs={**given.inputs, "attention_mask": mask}))
    assert found[None][0]["mixer"] == "none"


def test_feed_forward_taken_away_is_seen(subject: Build) -> None:
    broken = subject("gpt2")
    broken.blocks["text"][1].mlp = nn.Identity()
    assert [run["feed_forward"] for run in kinds(broken)[None]] == ["dense", "none"]


def test_one_at_a_time_gives_the_same(subject: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("mistral", "t5", "xlnet")
    at_once = {name: layers.measure(subject(name)) for name in names}
    monkeypatch.setattr(reach, "_at_once", lambda *_: None)
    for name in names:
        assert layers.measure(subject(name)) == at_once[name]


def test_model_is_left_as_it_was(subject: Build) -> None:
    given = subject("gpt2")
    given.outputs()  # the model itself hooks some of its modules when it first runs
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in given.model.modules()]
    before = {name: tensor.clone() for name, tensor in given.model.state_dict().items()}
    layers.measure(given)
    assert all(torch.equal(before[name], tensor) for name, tensor in given.model.state_dict().items())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in given.model.modules()]


def test_without_layers(subject: Build) -> None:
    with pytest.raises(Unmeasurable, match="no repeated layers"):
        layers.measure(replace(subject("bert"), blocks={}))


MEASURED = [
    {"count": 1, "mixer": "sliding-window", "window": 4, "heads": "grouped-query", "feed_forward": "dense"},
    {"count": 1, "mixer": "full", "heads": "grouped-query", "feed_forward": "dense"},
]


@pytest.mark.parametrize(
    ("claimed", "holds"),
    [
        ("grouped-query dense", True),
        ("multi-head", False),
        ("full", False),
        (["sliding-window", "full"], True),
        (["full", "sliding-window"], False),
        (["1 × sliding-window 4", "1 × full"], True),
        (["1 × sliding-window 5", "1 × full"], False),
        (["2 × sliding-window", "1 × full"], False),
        (["sliding-window", "full", "full"], False),
        ({"feed_forward": "experts"}, False),
        ({"cross": False}, True),
        ({"cross": True}, False),
    ],
)
def test_agreement(claimed: Any, holds: bool) -> None:
    assert layers.agrees(layers.parse(claimed), MEASURED) is holds


def test_a_state_space_may_run_in_its_dual_form() -> None:
    dual = [{"count": 2, "mixer": "linear-attention", "feed_forward": "none"}]
    assert layers.agrees(layers.parse("state-space"), dual)
    assert not layers.agrees(layers.parse("linear-attention"), [{**dual[0], "mixer": "state-space"}])


@pytest.mark.parametrize(
    ("claimed", "message"),
    [
        ("sideways", "says nothing"),
        (3, "not 3"),
        ([], "not an empty"),
        ({"mixer": "dense"}, "one of"),
        ({"window": 0}, "1 or more"),
        ({"cross": "yes"}, "true or false"),
        ({"depth": 3}, "says nothing"),
        (["2 × full", "sliding-window"], "have a count or none"),
    ],
)
def test_claims_that_are_none(claimed: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layers.parse(claimed)
