from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as t

from ptmkb.probe.measures import Unmeasurable, shape
from ptmkb.probe.subject import Subject

Build = Callable[..., Subject]
PLAIN = {
    "layers": 2,
    "width": 16,
    "heads": 4,
    "key_value_heads": 4,
    "head_size": 4,
    "feed_forward": 40,
    "gated": False,
}
GROUPED = PLAIN | {"key_value_heads": 2, "head_size": 8, "gated": True}


def shapes(subject: Subject) -> dict[str | None, Any]:
    return {part: reading.value for part, reading in shape.measure(subject).items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", PLAIN),
        ("gpt2", PLAIN),
        ("xlnet", PLAIN),
        ("wav2vec2", PLAIN),
        ("albert", PLAIN | {"layers": 3}),
        ("llama", GROUPED),
        ("mistral", GROUPED),
        ("mixtral", GROUPED | {"experts": 4}),
        ("mamba", {"layers": 2, "width": 16, "feed_forward": 32, "gated": False}),
    ],
)
def test_models_of_one_stack(subject: Build, name: str, expected: dict[str, Any]) -> None:
    assert shapes(subject(name)) == {None: expected}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "mistral"])
def test_attention_written_out_or_called(subject: Build, name: str, attention: str) -> None:
    given = subject(name)
    given.model.set_attn_implementation(attention)  # type: ignore[operator]
    assert shapes(given) == {None: GROUPED if name == "mistral" else PLAIN}


def test_stacks_of_an_encoder_decoder(subject: Build) -> None:
    assert shapes(subject("t5")) == {"encoder": PLAIN, "decoder": PLAIN}


def test_towers_of_clip(subject: Build) -> None:
    image = {
        "layers": 3,
        "width": 24,
        "heads": 2,
        "key_value_heads": 2,
        "head_size": 12,
        "feed_forward": 56,
        "gated": False,
    }
    assert shapes(subject("clip")) == {"text": PLAIN, "image": image}


def test_one_layer_more_is_seen(subject: Build) -> None:
    given = subject("gpt2")
    layers = given.model.transformer.h  # type: ignore[union-attr]
    layers.append(layers[0])
    assert shapes(replace(given, blocks={"text": tuple(layers)}))[None]["layers"] == 3


def test_gate_taken_away_is_seen(subject: Build) -> None:
    given = subject("llama")
    for layer in given.blocks["text"]:
        mlp = layer.mlp
        mlp.forward = lambda x, mlp=mlp: mlp.down_proj(mlp.act_fn(mlp.up_proj(x)))  # type: ignore[method-assign,union-attr,operator]
    assert shapes(given)[None]["gated"] is False


def test_fused_projection_of_gate_and_values() -> None:
    config = t.Phi3Config(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=40,
        pad_token_id=0,
    )
    model = t.Phi3ForCausalLM(config).eval()
    inputs = {"input_ids": torch.arange(24).view(2, 12), "use_cache": False}
    given = Subject("phi3", model, inputs, {}, lambda _: {}, blocks={"text": tuple(model.model.layers)})
    assert shapes(given) == {None: PLAIN | {"key_value_heads": 2, "gated": True}}


def test_fused_attention_kernel() -> None:
    layer = torch.nn.TransformerEncoderLayer(16, 4, 40, batch_first=True)
    given = Subject(
        "torch", layer.train(), {"src": torch.randn(2, 12, 16)}, {}, lambda _: {}, blocks={"text": (layer,)}
    )
    assert shapes(given)[None] | {"layers": 2} == PLAIN


def test_published_size_on_meta() -> None:
    with torch.device("meta"):
        model = t.MixtralModel(t.MixtralConfig()).eval()
    inputs = {"input_ids": torch.zeros(2, 12, dtype=torch.long, device="meta")}
    given = Subject(
        "mixtral", model, inputs, {}, lambda _: {}, blocks={"text": tuple(model.layers)}, scale="full"
    )
    assert shapes(given)[None] == {
        "layers": 32, "width": 4096, "heads": 32, "key_value_heads": 8, "head_size": 128, "feed_forward": 14336, "gated": True, "experts": 8,
    }  # fmt: skip


def test_layers_that_differ_are_listed(subject: Build) -> None:
    given = subject("llama")
    wider = (
        torch.nn.Linear(16, 56, bias=False),
        torch.nn.Linear(16, 56, bias=False),
        torch.nn.Linear(56, 16, bias=False),
    )
    mlp = given.blocks["text"][1].mlp
    mlp.gate_proj, mlp.up_proj, mlp.down_proj = wider  # type: ignore[union-attr]
    reading = shape.measure(given)[None]
    assert "feed_forward" not in reading.value
    assert [layer["feed_forward"] for layer in reading.detail["by_layer"]] == [40, 56]


def test_without_layers_known() -> None:
    given = Subject("none", torch.nn.Linear(2, 2), {}, {}, lambda _: {})
    with pytest.raises(Unmeasurable, match="layers"):
        shape.measure(given)


def test_agreement() -> None:
    assert shape.agrees(shape.parse({"layers": 2, "heads": 4}), PLAIN)
    assert not shape.agrees(shape.parse({"layers": 2, "heads": 8}), PLAIN)
    assert not shape.agrees(shape.parse({"experts": 8}), PLAIN)
    assert not shape.agrees(shape.parse({"gated": True}), PLAIN)


@pytest.mark.parametrize(
    "value", ["12 layers", {}, {"depth": 12}, {"layers": 0}, {"layers": "12"}, {"gated": 1}, {"heads": True}]
)
def test_claims_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match="not"):
        shape.parse(value)
