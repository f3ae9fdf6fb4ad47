from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ptmkb.probe.measures import Unmeasurable, norm
from ptmkb.probe.norm_kinds import kind_of
from ptmkb.probe.subject import Subject
from ptmkb.probe.subjects import subject_of_type

Build = Callable[..., Subject]


def norms(subject: Subject) -> dict[str | None, dict[str, Any]]:
    return {part: reading.value for part, reading in norm.measure(subject).items()}


def value(kind: str, placement: str, **flags: bool) -> dict[str, Any]:
    return {"kind": kind, "placement": placement, "parallel": False, "qk_norm": False, **flags}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", value("LayerNorm", "post")),
        ("albert", value("LayerNorm", "post")),
        ("xlnet", value("LayerNorm", "post")),
        ("gpt2", value("LayerNorm", "pre")),
        ("vit", value("LayerNorm", "pre")),
        ("wav2vec2", value("LayerNorm", "post")),
        ("llama", value("RMSNorm", "pre")),
        ("mixtral", value("RMSNorm", "pre")),
        ("mamba", value("RMSNorm", "pre")),
        ("gemma2", value("RMSNorm", "sandwich")),
    ],
)
def test_models_of_one_stack(subject: Build, name: str, expected: dict[str, Any]) -> None:
    assert norms(subject(name)) == {None: expected}


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("deberta", value("LayerNorm", "post")),
        ("bloom", value("LayerNorm", "pre")),
        ("mpt", value("LayerNorm", "pre")),
        ("falcon", value("LayerNorm", "pre", parallel=True)),
        ("gpt_neox", value("LayerNorm", "pre", parallel=True)),
        ("cohere", value("LayerNorm", "pre", parallel=True)),
        ("deepseek_v3", value("RMSNorm", "pre")),
        ("qwen3", value("RMSNorm", "pre", qk_norm=True)),
        ("olmo2", value("RMSNorm", "res-post", qk_norm=True)),
        ("swinv2", value("LayerNorm", "res-post", qk_norm=True)),
        ("minimax", value("RMSNorm", "post")),
        ("jamba", value("RMSNorm", "pre")),
        ("wav2vec2-conformer", value("LayerNorm", "mixed")),
    ],
)
def test_further_architectures(model_type: str, expected: dict[str, Any]) -> None:
    assert norms(subject_of_type(model_type)) == {None: expected}


@pytest.mark.parametrize(
    ("name", "kind", "parts"),
    [
        ("t5", "RMSNorm", {"encoder", "decoder", None}),
        ("whisper", "LayerNorm", {"encoder", "decoder", None}),
        ("clip", "LayerNorm", {"text", "image", None}),
    ],
)
def test_models_of_two_stacks(subject: Build, name: str, kind: str, parts: set[str | None]) -> None:
    assert norms(subject(name)) == dict.fromkeys(parts, value(kind, "pre"))


def test_post_norm_made_pre_norm_is_seen(subject: Build) -> None:
    broken = subject("bert")
    for layer in broken.blocks["text"]:
        _make_pre_norm(layer)
    assert norms(broken) == {None: value("LayerNorm", "pre")}


def test_one_sub_layer_made_pre_norm_is_mixed(subject: Build) -> None:
    broken = subject("bert")
    layer = broken.blocks["text"][1]
    sub_layer: Any = layer.attention
    _move_norm(sub_layer, sub_layer.self, sub_layer.output)
    readings = norm.measure(broken)
    assert readings[None].value["placement"] == "mixed"
    placements = [
        [sub["placement"] for sub in row["sub_layers"]] for row in readings[None].detail["by_layer"]
    ]
    assert placements == [["post", "post"], ["pre", "post"]]


def _move_norm(sub_layer: Any, first: Any, output: Any) -> None:
    """The norm on the sum goes before the branch; the sum itself stays as it is."""
    moved, output.LayerNorm = output.LayerNorm, nn.Identity()
    first.register_forward_pre_hook(
        lambda _, args, kwargs: (tuple(moved(a) if i == 0 else a for i, a in enumerate(args)), kwargs),
        with_kwargs=True,
    )
    sub_layer.moved = moved  # stays a part of the model


def _make_pre_norm(layer: Any) -> None:
    _move_norm(layer.attention, layer.attention.self, layer.attention.output)
    _move_norm(layer, layer.intermediate, layer.output)


def test_rms_norm_for_layer_norm_is_seen(subject: Build) -> None:
    broken = subject("gpt2")
    for block in broken.blocks["text"]:
        block.ln_1, block.ln_2 = nn.RMSNorm(16), nn.RMSNorm(16)
    assert norms(broken)[None] == value("RMSNorm", "pre")
    broken.blocks["text"][0].ln_1 = nn.LayerNorm(16)
    assert norms(broken)[None] == value("mixed", "pre")


def test_layer_norm_without_centring_is_seen(subject: Build) -> None:
    """The module is called LayerNorm, and is none."""
    broken = subject("bert")
    for module in broken.model.modules():
        if isinstance(module, nn.LayerNorm):
            module.forward = lambda x: x * x.pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt()  # type: ignore[method-assign]
    assert norms(broken)[None] == value("RMSNorm", "post")


def test_without_norms(subject: Build) -> None:
    broken = subject("llama")
    for block in broken.blocks["text"]:
        block.input_layernorm, block.post_attention_layernorm = nn.Identity(), nn.Identity()
    assert norms(broken)[None] == value("none", "none")


def test_a_norm_behind_the_branch_is_seen(subject: Build) -> None:
    changed = subject("gpt2")
    for block in changed.blocks["text"]:
        block.attn.c_proj = nn.Sequential(block.attn.c_proj, nn.LayerNorm(16))
        block.mlp.c_proj = nn.Sequential(block.mlp.c_proj, nn.LayerNorm(16))
    assert norms(changed)[None] == value("LayerNorm", "sandwich")


class _Divides(nn.Module):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden / hidden.abs().max(dim=-1, keepdim=True).values


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.LayerNorm(8), "LayerNorm"),
        (nn.LayerNorm(8, elementwise_affine=False), "LayerNorm"),
        (nn.RMSNorm(8), "RMSNorm"),
        (nn.GroupNorm(1, 5), "GroupNorm"),
        (_Divides(), "RMSNorm"),
        (nn.Tanh(), None),
        (nn.Sigmoid(), None),
        (nn.ReLU(), None),
        (nn.GELU(), None),
        (nn.Softmax(dim=-1), None),
        (nn.Identity(), None),
        (nn.Linear(8, 8), None),
    ],
)
def test_kinds_of_modules(module: nn.Module, kind: str | None) -> None:
    with torch.no_grad():
        assert kind_of(module, torch.zeros(2, 5, 8)) == kind


def test_without_layers(subject: Build) -> None:
    with pytest.raises(Unmeasurable, match="no repeated layers"):
        norm.measure(replace(subject("bert"), blocks={}))


def test_model_is_left_as_it_was(subject: Build) -> None:
    given = subject("gpt2")
    given.outputs()  # the model itself hooks some of its modules when it first runs
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in given.model.modules()]
    norm.measure(given)
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in given.model.modules()]


@pytest.mark.parametrize(
    ("claimed", "holds"),
    [
        ("post", True),
        ("pre", False),
        ("LayerNorm", True),
        ("post LayerNorm", True),
        ("post RMSNorm", False),
        ("none", False),
        ({"placement": "post", "qk_norm": False}, True),
        ({"parallel": True}, False),
    ],
)
def test_agreement(claimed: Any, holds: bool) -> None:
    assert norm.agrees(norm.parse(claimed), value("LayerNorm", "post")) is holds


@pytest.mark.parametrize(
    ("claimed", "message"),
    [
        ("sideways", "one of"),
        (3, "not 3"),
        ({"kind": "pre"}, "one of"),
        ({"qk_norm": "yes"}, "true or false"),
        ({"width": 3}, "says nothing"),
    ],
)
def test_claims_that_are_none(claimed: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        norm.parse(claimed)
