from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ptmkb.catalogue import load_catalogue
from ptmkb.probe.measures import Unmeasurable, position
from ptmkb.probe.subject import Subject
from ptmkb.probe.subjects import subject_for, subject_of_type

Build = Callable[..., Subject]


def kinds(subject: Subject) -> dict[str | None, list[str]]:
    return {part: reading.value for part, reading in position.measure(subject).items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", ["absolute-learned"]),
        ("albert", ["absolute-learned"]),
        ("gpt2", ["absolute-learned"]),
        ("vit", ["absolute-learned"]),
        ("llama", ["rotary"]),
        ("mistral", ["rotary"]),
        ("gemma2", ["rotary"]),
        ("xlnet", ["relative"]),
        ("mamba", ["convolution", "recurrence"]),
        ("wav2vec2", ["convolution"]),
    ],
)
def test_models_of_one_stack(subject: Build, name: str, expected: list[str]) -> None:
    assert kinds(subject(name)) == {None: expected}


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("deberta", ["relative"]),
        ("bloom", ["bias-linear"]),
        ("mpt", ["bias-linear"]),
        ("gptj", ["rotary"]),
        ("gpt_neox", ["rotary"]),
        ("falcon", ["rotary"]),
        ("deepseek_v3", ["rotary"]),
        ("qwen3_next", ["convolution", "recurrence", "rotary"]),
        ("funnel", ["relative"]),
        ("longformer", ["absolute-learned"]),
        ("vits", ["convolution", "relative"]),
        ("fnet", ["absolute-learned", "other"]),
    ],
)
def test_further_architectures(model_type: str, expected: list[str]) -> None:
    assert kinds(subject_of_type(model_type)) == {None: expected}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("transformer", {key: ["absolute-sinusoidal"] for key in ("encoder", "decoder", None)}),
        ("transfo_xl", {None: ["relative"]}),
        ("elmo", {key: ["recurrence"] for key in ("forward", "backward", None)}),
        ("vilt", {None: ["absolute-learned"]}),
        ("vilbert", {"text": ["absolute-learned"], "image": ["none"]}),
    ],
)
def test_catalogued_models(entry: str, expected: dict[str | None, list[str]]) -> None:
    assert kinds(subject_for(load_catalogue().models[entry])) == expected


def test_models_of_two_stacks(subject: Build) -> None:
    assert kinds(subject("t5")) == {key: ["bias-learned"] for key in ("encoder", "decoder", None)}
    assert kinds(subject("clip")) == {key: ["absolute-learned"] for key in ("text", "image", None)}
    assert kinds(subject("whisper")) == {
        "encoder": ["absolute-sinusoidal", "convolution"],
        "decoder": ["absolute-learned"],
    }


def test_the_table_is_named(subject: Build) -> None:
    reading = position.measure(subject("bert"))[None]
    assert reading.detail["tables"] == {"text": [[32, 16]]}
    assert reading.detail["by_layer"] == [[], []]


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_without_its_table_there_is_none(subject: Build, name: str) -> None:
    broken = subject(name)
    with torch.no_grad():
        for parameter in broken.model.parameters():
            if parameter.shape == (32, 16):
                parameter.zero_()
    assert kinds(broken) == {None: ["none"]}


def test_a_frozen_table_is_not_learned(subject: Build) -> None:
    broken = subject("gpt2")
    for parameter in broken.model.parameters():
        if parameter.shape == (32, 16):
            parameter.requires_grad_(False)
    assert kinds(broken) == {None: ["absolute-fixed"]}


def test_sinusoids_in_the_frozen_table_are_seen(subject: Build) -> None:
    broken = subject("gpt2")
    angles = torch.arange(32)[:, None] * 10.0 ** -torch.arange(8)[None] / 3
    for parameter in broken.model.parameters():
        if parameter.shape == (32, 16):
            parameter.requires_grad_(False).copy_(torch.cat([angles.sin(), angles.cos()], dim=1))
    assert kinds(broken) == {None: ["absolute-sinusoidal"]}


def test_rotation_taken_away_is_seen(subject: Build) -> None:
    broken = subject("llama")
    turn: Any = broken.model.model.rotary_emb  # type: ignore[union-attr]
    turn.register_forward_hook(
        lambda _, args, output: (torch.ones_like(output[0]), torch.zeros_like(output[1]))
    )
    assert kinds(broken) == {None: ["none"]}


def test_rotation_in_one_layer_only(subject: Build) -> None:
    broken = subject("llama")

    def still(_: Any, args: Any, kwargs: Any) -> Any:
        cos, sin = kwargs["position_embeddings"]
        return args, {**kwargs, "position_embeddings": (torch.ones_like(cos), torch.zeros_like(sin))}

    broken.blocks["text"][1].register_forward_pre_hook(still, with_kwargs=True)
    reading = position.measure(broken)[None]
    assert reading.value == ["rotary"]
    assert reading.detail["by_layer"] == [["rotary"], []]


def test_bias_made_equal_everywhere_is_none(subject: Build) -> None:
    broken = subject("t5")
    with torch.no_grad():
        for name, parameter in broken.model.named_parameters():
            if "relative_attention_bias" in name and name.startswith("encoder"):
                parameter.fill_(0.3)
    assert kinds(broken) == {"encoder": ["none"], "decoder": ["bias-learned"]}


class _WithPlaces(nn.Module):
    """An embedding of words with a table of positions."""

    def __init__(self, words: nn.Module) -> None:
        super().__init__()
        self.words, self.places = words, nn.Parameter(torch.randn(12, 16))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.words(ids) + self.places  # type: ignore[no-any-return]


def test_a_table_added_to_a_rotary_model_is_seen_too(subject: Build) -> None:
    changed = subject("llama")
    inner: Any = changed.model.model
    inner.embed_tokens = _WithPlaces(inner.embed_tokens)
    assert kinds(changed) == {None: ["absolute-learned", "rotary"]}


def test_a_shift_of_neighbours_is_not_overlooked(subject: Build) -> None:
    """Position that enters by a way that the measure does not know is `other`, never `none`."""
    broken = subject("bert")
    with torch.no_grad():
        for parameter in broken.model.parameters():
            if parameter.shape == (32, 16):
                parameter.zero_()
    for block in broken.blocks["text"]:
        block.register_forward_hook(lambda _, args, output: output + 0.1 * args[0].roll(1, dims=1) * args[0])
    assert kinds(broken) == {None: ["other"]}


def test_model_is_left_as_it_was(subject: Build) -> None:
    given = subject("t5")
    given.outputs()  # the model itself hooks some of its modules when it first runs
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in given.model.modules()]
    before = {name: tensor.clone() for name, tensor in given.model.state_dict().items()}
    position.measure(given)
    assert all(torch.equal(before[name], tensor) for name, tensor in given.model.state_dict().items())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in given.model.modules()]
    assert all(parameter.grad is None for parameter in given.model.parameters())


def test_without_layers(subject: Build) -> None:
    with pytest.raises(Unmeasurable, match="no repeated layers"):
        position.measure(replace(subject("bert"), blocks={}))


@pytest.mark.parametrize(
    ("claimed", "measured", "holds"),
    [
        ("absolute", ["absolute-learned"], True),
        ("absolute-sinusoidal", ["absolute-learned"], False),
        ("rotary", ["absolute-learned", "rotary"], False),
        (["rotary", "absolute"], ["absolute-learned", "rotary"], True),
        (["rotary", "absolute"], ["rotary"], False),
        ("absolute-sinusoidal", ["absolute-sinusoidal", "convolution"], True),
        ("convolution", ["convolution"], True),
        ("bias", ["bias-linear"], True),
        ("none", ["none"], True),
        ("none", ["convolution"], False),
        ("none", ["rotary"], False),
        ("rotary", ["other", "rotary"], False),
    ],
)
def test_agreement(claimed: Any, measured: list[str], holds: bool) -> None:
    assert position.agrees(position.parse(claimed), measured) is holds


@pytest.mark.parametrize("claimed", ["sideways", 3, [], ["none", "rotary"], {"kind": "rotary"}])
def test_claims_that_are_none(claimed: Any) -> None:
    with pytest.raises(ValueError, match=r"position is one of|stands alone"):
        position.parse(claimed)


def test_nothing_seen_is_not_none() -> None:
    """Masked patches never reach the layers, so that positions cannot be followed; the others have sinusoids."""
    with pytest.raises(Unmeasurable, match="cannot be followed"):
        position.measure(subject_of_type("vit_mae"))
