"""What the traced run of real models shows, and that a change of the live model changes it."""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ptmkb.catalogue import DATA, load_catalogue
from ptmkb.probe import tiny
from ptmkb.probe.dataflow import norm_kind
from ptmkb.probe.measures import structure
from ptmkb.probe.subject import Subject
from ptmkb.probe.subjects import subject_for, subject_of, subject_of_type


def read(subject: Subject) -> dict[str, Any]:
    return dict(structure.measure(subject)[None].detail)


def of_type(model_type: str) -> dict[str, Any]:
    return read(subject_of_type(model_type))


def of_entry(entry: str) -> dict[str, Any]:
    return read(subject_for(load_catalogue(DATA).models[entry]))


def spelled(path: list[dict[str, Any]]) -> str:
    """A path in short: what stands in brackets is a residual branch."""
    words = []
    for element in path:
        if element["kind"] == "residual":
            before = "".join(f"{spelled([one])} " for one in element.get("before", []))
            words.append(f"({before}{' | '.join(spelled(branch) for branch in element['branches'])})")
        else:
            words.append(element.get("norm", element["kind"]))
    return " ".join(words)


def blocks(found: dict[str, Any], stack: int = 0) -> list[tuple[int, str]]:
    return [(block["times"], spelled(block["paths"][0])) for block in found["stacks"][stack]["blocks"]]


def inside(path: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for element in path:
        yield element
        for branch in element.get("branches", []):
            yield from inside(branch)


def first(found: dict[str, Any], kind: str, stack: int = 0) -> dict[str, Any]:
    path = found["stacks"][stack]["blocks"][0]["paths"][0]
    return next(element for element in inside(path) if element["kind"] == kind)


@pytest.mark.parametrize(
    ("model_type", "block"),
    [
        ("bert", "(attention) layer (feed-forward) layer"),
        ("gpt2", "(layer attention) (layer feed-forward)"),
        ("llama", "(rms attention) (rms feed-forward)"),
        ("mixtral", "(rms attention) (rms experts)"),
        ("mamba", "(rms state-space)"),
        ("olmo2", "(attention rms) (feed-forward rms)"),
        ("gptj", "(layer attention | feed-forward)"),
        ("gpt_neox", "(layer feed-forward | layer attention)"),
        ("fnet", "(fourier) layer (feed-forward) layer"),
        ("xlm", "(attention) layer (feed-forward) layer"),
    ],
)
def test_where_norms_and_additions_stand(model_type: str, block: str) -> None:
    assert blocks(of_type(model_type)) == [(2, block)]


def test_what_is_made_of_the_same_tensor_beside_a_block_is_none_of_its_paths() -> None:
    # Each layer of Gemma 4 gets an input of its own, made from the words, too; a DETR's decoder asks with its queries again and again.
    three = "(rms attention rms) (rms feed-forward rms) (feed-forward rms)"
    assert blocks(of_type("gemma4_text")) == [(1, three), (1, three)]
    decoder = "(attention) layer (attention) layer (feed-forward) layer"
    assert blocks(of_type("conditional_detr"), 1) == [(2, decoder)]


def test_layers_that_differ() -> None:
    sandwich = "(rms attention rms) (rms feed-forward rms)"
    found = of_type("gemma2")
    assert blocks(found) == [(1, sandwich), (1, sandwich)]
    sees = [
        next(inside(block["paths"][0][0]["branches"][0][1:2]))["sees"]["kind"]
        for block in found["stacks"][0]["blocks"]
    ]
    assert sees == ["sliding-window", "causal"]
    assert blocks(of_type("deepseek_v3")) == [
        (1, "(rms attention) (rms feed-forward)"),
        (1, "(rms attention) (rms experts)"),
    ]


def test_what_attention_is() -> None:
    plain = {"kind": "attention", "heads": 4, "key_value_heads": 4}
    assert first(of_type("bert"), "attention") == plain | {"sees": {"kind": "bidirectional"}}
    assert first(of_type("gpt2"), "attention") == plain | {"sees": {"kind": "causal"}}
    assert first(of_type("llama"), "attention") == plain | {
        "sees": {"kind": "causal"},
        "positions": ["rotary"],
    }
    assert first(of_type("mistral"), "attention") == {
        **plain,
        "key_value_heads": 2,
        "sees": {"kind": "sliding-window", "window": 4},
        "positions": ["rotary"],
    }
    assert first(of_type("mpt"), "attention")["positions"] == ["fixed-bias"]
    assert first(of_type("bloom"), "attention")["positions"] == ["fixed-bias"]
    assert first(of_type("xlnet"), "attention")["positions"] == ["relative"]
    assert first(of_type("deberta"), "attention")["positions"] == ["relative"]
    assert first(of_type("qwen3"), "attention")["query_key_norm"] == "rms"
    assert first(of_type("deepseek_v3"), "attention")["latent"] == 16


def test_what_feed_forward_is() -> None:
    assert first(of_type("bert"), "feed-forward") == {
        "kind": "feed-forward",
        "width": 64,
        "gated": False,
        "activation": "gelu",
    }
    assert first(of_type("llama"), "feed-forward") == {
        "kind": "feed-forward",
        "width": 64,
        "gated": True,
        "activation": "silu",
    }
    assert first(of_type("t5"), "feed-forward")["activation"] == "relu"
    assert first(of_type("mixtral"), "experts") == {
        "kind": "experts", "experts": 4, "chosen": 2, "width": 64, "gated": True, "activation": "silu",
    }  # fmt: skip
    assert of_type("deepseek_v3")["stacks"][0]["blocks"][1]["paths"][0][1]["branches"][0][1]["shared"] == 24


def test_an_encoder_decoder() -> None:
    found = of_type("t5")
    assert [stack["name"] for stack in found["stacks"]] == ["encoder", "decoder"]
    assert blocks(found) == [(2, "(rms attention) (rms feed-forward)")]
    assert blocks(found, 1) == [(2, "(rms attention) (rms attention) (rms feed-forward)")]
    own, across = (branch["branches"][0][1] for branch in found["stacks"][1]["blocks"][0]["paths"][0][:2])
    assert (own["sees"], own["positions"]) == ({"kind": "causal"}, ["bias"])
    assert across["cross"] == "encoder"
    assert [head["tied"] for head in found["heads"]] == [True]


def test_two_streams_that_read_each_other() -> None:
    found = of_entry("vilbert")
    names = [stack["name"] for stack in found["stacks"]]
    cross = found["stacks"][names.index("cross")]
    assert cross["streams"] == ["text", "image"]
    assert [path[0]["branches"][0][0]["cross"] for path in cross["blocks"][0]["paths"]] == ["image", "text"]
    assert [run for run in found["order"] if run[0] == names.index("cross")] == [[1, 1], [1, 1]]


def test_two_towers_that_are_compared() -> None:
    for model_type in ("clip", "siglip"):
        found = of_type(model_type)
        assert {stack["name"] for stack in found["stacks"]} == {"text", "image"}
        assert [head["elements"] for head in found["heads"]] == [[{"kind": "similarity"}]]


def test_recurrence_with_an_addition_from_the_second_layer_on() -> None:
    found = of_entry("elmo")
    assert [stack["name"] for stack in found["stacks"]] == ["forward", "backward"]
    assert blocks(found) == [(1, "recurrence (recurrence)")]
    assert found["stacks"][0]["before"][0][0] == {"kind": "embedding", "of": ["character"]}


def test_one_block_that_runs_twice() -> None:
    assert of_type("albert")["stacks"][0]["shared"] == 1
    assert "shared" not in of_type("bert")["stacks"][0]


def test_what_stands_before_and_after() -> None:
    found = of_type("gpt2")
    assert found["stacks"][0]["before"] == [[{"kind": "embedding", "of": ["token", "position"]}]]
    assert found["stacks"][0]["after"] == [{"kind": "norm", "norm": "layer"}]
    assert of_type("wav2vec2")["stacks"][0]["before"][0][-2] == {"kind": "embedding", "of": ["convolution"]}
    assert of_entry("speecht5")["stacks"][1]["before"] == [
        [{"kind": "embedding", "of": ["token", "fixed-position"]}]
    ]
    joined = of_entry("uniter")["stacks"][0]["before"][0][0]
    assert joined["kind"] == "concatenate"
    assert [spelled(side) for side in joined["of"]] == ["embedding layer", "linear layer"]


def pre_norm(layer: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A BERT layer's forward pass with its norms before attention and feed-forward."""
    own = layer.attention
    normed = own.output.LayerNorm(hidden_states)
    hidden_states = hidden_states + own.output.dense(own.self(normed)[0])
    normed = layer.output.LayerNorm(hidden_states)
    return hidden_states + layer.output.dense(layer.intermediate(normed))


def test_a_norm_that_is_moved_moves_in_the_structure() -> None:
    model: Any = tiny.build("bert")
    for layer in model.bert.encoder.layer:
        layer.forward = MethodType(pre_norm, layer)
    assert blocks(read(subject_of(model, "moved"))) == [(2, "(layer attention) (layer feed-forward)")]


def test_a_norm_is_what_it_does() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.square().mean(-1, keepdim=True).sqrt()

    given = torch.randn(2, 5, 16)
    assert norm_kind(nn.LayerNorm(16), given, (), {}) == "layer"
    assert norm_kind(nn.RMSNorm(16), given, (), {}) == "rms"
    assert norm_kind(Named(), given, (), {}) == "rms"
    assert norm_kind(nn.GELU(), given, (), {}) is None
    assert norm_kind(nn.Sigmoid(), given, (), {}) is None
    assert norm_kind(nn.Softmax(-1), given, (), {}) is None


def test_other_changes_of_a_live_model() -> None:
    model: Any = tiny.build("llama")
    for layer in model.model.layers:
        layer.input_layernorm = nn.LayerNorm(32)
        layer.mlp.act_fn = nn.Tanh()
        layer.post_attention_layernorm = nn.Identity()
    model.model.rotary_emb.register_buffer("inv_freq", torch.zeros_like(model.model.rotary_emb.inv_freq))
    found = read(subject_of(model, "changed"))
    assert blocks(found) == [(2, "(layer attention) (feed-forward)")]
    assert "positions" not in first(found, "attention")
    assert first(found, "feed-forward")["activation"] == "tanh"
