from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as t
from torch import nn
from torch.nn import functional as F

from ptmkb.probe.measures import Unmeasurable, sharing
from ptmkb.probe.subject import Subject

Build = Callable[..., Subject]


def shared(subject: Subject) -> dict[str | None, Any]:
    return {part: reading.value for part, reading in sharing.measure(subject).items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", {"embeddings": "tied", "layers": "untied"}),
        ("gpt2", {"embeddings": "tied", "layers": "untied"}),
        ("xlnet", {"embeddings": "tied", "layers": "untied"}),
        ("llama", {"embeddings": "untied", "layers": "untied"}),
        ("albert", {"embeddings": "tied", "layers": "tied"}),
        ("electra", {"layers": "untied"}),
        ("t5", {"embeddings": "tied", "layers": "untied", "encoder-decoder": "tied"}),
        ("whisper", {"embeddings": "tied", "layers": "untied"}),
        ("clip", {"layers": "untied"}),
    ],
)
def test_models(subject: Build, name: str, expected: dict[str, str]) -> None:
    assert shared(subject(name)) == expected


def test_untied_embeddings_are_seen(subject: Build) -> None:
    given = subject("gpt2")
    head = given.model.lm_head
    head.weight = nn.Parameter(head.weight.detach().clone())  # type: ignore[union-attr]
    assert shared(given)["embeddings"] == "untied"


def test_untied_encoder_and_decoder_are_seen(subject: Build) -> None:
    given = subject("t5")
    encoder = given.model.encoder
    encoder.set_input_embeddings(nn.Embedding(50, 16))  # type: ignore[operator,union-attr]
    assert shared(given) == {"embeddings": "tied", "layers": "untied", "encoder-decoder": "untied"}


def test_output_made_from_the_table_is_tied_without_one_storage(subject: Build) -> None:
    given = subject("llama")
    model = given.model
    model.lm_head.forward = lambda hidden: F.linear(hidden, 2 * model.model.embed_tokens.weight)  # type: ignore[union-attr,method-assign]
    reading = sharing.measure(given)["embeddings"]
    assert reading.value == "tied"
    assert reading.detail["same_storage"] is False


def test_layers_that_share_all_or_some(subject: Build) -> None:
    given = subject("gpt2")
    first, second = given.blocks["text"]
    second.mlp = first.mlp
    assert shared(given)["layers"] == "partly"
    second.attn, second.ln_1, second.ln_2 = first.attn, first.ln_1, first.ln_2
    assert shared(given)["layers"] == "tied"


def test_albert_with_groups_of_layers(subject: Build) -> None:
    config = t.AlbertConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=4,
        num_hidden_groups=2,
        num_attention_heads=4,
        intermediate_size=40,
    )
    model = t.AlbertForMaskedLM(config).eval()
    given = replace(
        subject("albert"), model=model, blocks={"text": tuple(model.albert.encoder.albert_layer_groups)}
    )
    assert shared(given)["layers"] == "partly"


def test_on_meta_storages_decide() -> None:
    for tied in (True, False):
        with torch.device("meta"):
            model = t.GPT2LMHeadModel(t.GPT2Config(tie_word_embeddings=tied)).eval()
            model.tie_weights()
        inputs = {"input_ids": torch.zeros(2, 12, dtype=torch.long, device="meta")}
        given = Subject(
            "gpt2", model, inputs, {}, lambda _: {}, blocks={"text": tuple(model.transformer.h)}, scale="full"
        )
        assert shared(given)["embeddings"] == ("tied" if tied else "untied")


def test_weights_are_put_back(subject: Build) -> None:
    given = subject("gpt2")
    before = given.model.transformer.wte.weight.detach().clone()  # type: ignore[union-attr]
    sharing.measure(given)
    assert torch.equal(given.model.transformer.wte.weight, before)  # type: ignore[union-attr]


def test_without_two_of_anything(subject: Build) -> None:
    given = subject("vit")
    with pytest.raises(Unmeasurable, match="second"):
        sharing.measure(replace(given, blocks={}))


def test_claims() -> None:
    assert sharing.agrees(sharing.parse("tied"), "tied")
    assert not sharing.agrees(sharing.parse("tied"), "untied")
    with pytest.raises(ValueError, match="tied, untied"):
        sharing.parse("shared")
