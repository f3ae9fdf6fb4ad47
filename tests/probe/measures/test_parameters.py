from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as t

from ptmkb.probe.measures import parameters
from ptmkb.probe.subject import Subject

Build = Callable[..., Subject]


def on_meta(model_class: Any, config: Any, blocks: str) -> Subject:
    with torch.device("meta"):
        model = model_class(config).eval()
    inputs = {"input_ids": torch.zeros(2, 12, dtype=torch.long, device="meta")}
    return Subject(
        "full",
        model,
        inputs,
        {},
        lambda _: {},
        blocks={"text": tuple(model.get_submodule(blocks))},
        scale="full",
    )


def test_published_sizes() -> None:
    assert parameters.measure(on_meta(t.BertModel, t.BertConfig(), "encoder.layer"))[None].value == 109482240
    assert parameters.measure(on_meta(t.GPT2Model, t.GPT2Config(), "h"))[None].value == 124439808


def test_mixture_at_full_size() -> None:
    readings = parameters.measure(on_meta(t.MixtralForCausalLM, t.MixtralConfig(), "model.layers"))
    assert readings[None].value == 46702792704
    assert readings["active"].value == 12879925248
    assert readings["active"].detail == {"experts": [8], "used": [2], "layers": 32}


def test_active_is_counted_from_gradients(subject: Build) -> None:
    readings = parameters.measure(subject("mixtral"))
    expert = 3 * 16 * 40
    assert readings[None].value - readings["active"].value == 2 * (4 - 2) * expert
    one = subject("mixtral")
    for block in one.blocks["text"]:
        block.mlp.gate.top_k = 1  # type: ignore[union-attr]
    assert parameters.measure(one)["active"].value == readings[None].value - 2 * (4 - 1) * expert


def test_gradients_count_what_a_router_really_uses(subject: Build) -> None:
    """A router that chooses two experts but weighs one of them with nothing uses one."""
    broken = subject("mixtral")
    for block in broken.blocks["text"]:
        block.mlp.experts.register_forward_pre_hook(  # type: ignore[union-attr]
            lambda _, args: (args[0], args[1], args[2] * torch.tensor([1.0, 0.0]))
        )
    assert parameters.measure(broken)["active"].detail["used"] == [1]


@pytest.mark.parametrize("norm", ["centred", "LayerNorm"])
def test_active_is_seen_behind_a_norm_that_takes_the_mean_away(subject: Build, norm: str) -> None:
    """The sum of such an output is 0 whatever the experts do, so that its gradient says nothing."""
    plain, normed = subject("mixtral"), subject("mixtral")
    for block in normed.blocks["text"]:
        block.register_forward_hook(
            lambda _, args, hidden: (
                hidden - hidden.mean(-1, keepdim=True)
                if norm == "centred"
                else torch.nn.functional.layer_norm(hidden, hidden.shape[-1:])
            )
        )
    assert parameters.measure(normed)["active"].value == parameters.measure(plain)["active"].value
    assert parameters.measure(normed)["active"].detail["used"] == [2]


def test_tied_weights_count_once(subject: Build) -> None:
    tied = subject("gpt2")
    before = parameters.measure(tied)
    tied.model.lm_head.weight = torch.nn.Parameter(tied.model.lm_head.weight.detach().clone())  # type: ignore[union-attr]
    after = parameters.measure(tied)
    assert after[None].value - before[None].value == 50 * 16
    assert after["embeddings"].value == before["embeddings"].value == (50 + 32) * 16
    assert "active" not in after


def test_towers_of_clip(subject: Build) -> None:
    given = subject("clip")
    readings = parameters.measure(given)
    for stack, module in (("text", given.model.text_model), ("image", given.model.vision_model)):
        assert readings[stack].value == sum(p.numel() for p in module.parameters())  # type: ignore[union-attr]


def test_towers_that_share_a_table_count_it_both(subject: Build) -> None:
    readings = parameters.measure(subject("t5"))
    assert readings["encoder"].value + readings["decoder"].value - readings[None].value == 50 * 16
    assert set(parameters.measure(subject("gpt2"))) == {None, "embeddings"}


def test_views_of_one_storage_count_once() -> None:
    whole = torch.zeros(6, 4)
    assert sum(p.numel() for p in parameters.unique_parameters([whole[:2], whole, whole.T])) == 24


def test_parameters_that_are_views_count_once(subject: Build) -> None:
    """`Module.parameters` knows one tensor twice, but not two views of one storage."""
    given = subject("gpt2")
    before = parameters.measure(given)[None].value
    given.model.lm_head.weight = torch.nn.Parameter(given.model.transformer.wte.weight.detach().view(50, 16))  # type: ignore[union-attr]
    assert sum(p.numel() for p in given.model.parameters()) > before
    assert parameters.measure(given)[None].value == before


def test_without_layers_known_there_is_no_active(subject: Build) -> None:
    assert "active" not in parameters.measure(replace(subject("mixtral"), blocks={}))


@pytest.mark.parametrize(
    ("published", "counted", "holds"),
    [
        ("110M", 109482240, True),
        ("140M", 109482240, False),
        ("88M", 109482240, False),
        ("132M", 109482240, False),
        ("345M", 354823168, False),
        ("1.5B", 1557611200, False),
        ("1.5B", 1542000000, True),
        ("47B", 46702792704, True),
        ("46.7B", 46702792704, True),
        ("13B", 12879925248, True),
        ("1B", 1490000000, True),
        ("117M", 124439808, False),
        (109482240, 109482240, True),
        (100000000, 103000000, False),
    ],
)
def test_agreement(published: Any, counted: int, holds: bool) -> None:
    assert parameters.agrees(parameters.parse(published), counted) is holds


@pytest.mark.parametrize(
    ("value", "form"), [("110m", "110M"), ("1.50B", "1.50B"), ("7", 7), (12, 12), ("109,482,240", 109482240)]
)
def test_normal_form(value: Any, form: Any) -> None:
    assert parameters.parse(value) == form


@pytest.mark.parametrize("value", ["about 110M", "M", "", "-3M", "0M", True, -5, 1.5, None, ["110M"]])
def test_claims_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match="110M"):
        parameters.parse(value)
