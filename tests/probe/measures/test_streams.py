from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as t

from ptmkb.catalogue import load_catalogue
from ptmkb.probe import subjects
from ptmkb.probe.measures import Unmeasurable, streams
from ptmkb.probe.subject import Stream, Subject

Build = Callable[..., Subject]


def met(subject: Subject) -> dict[str, Any]:
    value: dict[str, Any] = streams.measure(subject)[None].value
    return value


def entry(name: str) -> Subject:
    return subjects.subject_for(load_catalogue().models[name])


@pytest.mark.parametrize("name", ["uniter", "vl_bert", "unicoder_vl", "visual_bert", "vilt"])
def test_single_streams(name: str) -> None:
    assert met(entry(name)) == {"kind": "single-stream", "text>image": 1, "image>text": 1}


def test_two_towers(subject: Build) -> None:
    assert met(subject("clip")) == {"kind": "dual-encoder", "text>image": None, "image>text": None}


def test_co_attention_begins_behind_the_text_layers() -> None:
    """ViLBERT's regions enter co-attention at once, its words after two layers of their own."""
    given = entry("vilbert")
    assert met(given) == {"kind": "dual-stream", "text>image": 1, "image>text": 3}
    given = entry("lxmert")
    assert met(given) == {"kind": "dual-stream", "text>image": 3, "image>text": 3}


@pytest.mark.parametrize("name", ["t5", "whisper"])
def test_encoder_decoders(subject: Build, name: str) -> None:
    assert met(subject(name)) == {"kind": "cross-attention", "encoder>decoder": 1, "decoder>encoder": None}


@pytest.mark.parametrize("model_type", ["llava", "git", "internvl"])
def test_pictures_before_words(model_type: str) -> None:
    value = met(subjects.subject_of_type(model_type))
    assert value["kind"] == "prefix-fusion"
    assert value["image>text"] == 1


def test_words_that_look_at_a_picture() -> None:
    value = met(subjects.subject_of_type("blip"))
    assert value == {"kind": "cross-attention", "text>image": None, "image>text": 1}


def idefics() -> Subject:
    vision = {
        "embed_dim": 24,
        "image_size": 12,
        "patch_size": 4,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    config = t.IdeficsConfig(
        vocab_size=50, additional_vocab_size=0, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        cross_layer_interval=2, use_resampler=False, pad_token_id=0, bos_token_id=1, eos_token_id=2, vision_config=vision,
    )  # fmt: skip
    model = t.IdeficsForVisionText2Text(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() == 1:
                parameter.fill_(0.5)  # gates start closed
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "input_ids": torch.randint(4, 50, (2, 12), generator=generator),
        "attention_mask": torch.ones(2, 12, dtype=torch.long),
        "pixel_values": torch.randn(2, 1, 3, 12, 12, generator=generator),
        "image_attention_mask": torch.ones(2, 12, 1, dtype=torch.long),
        "output_hidden_states": True,
        "use_cache": False,
    }

    def words(given: Any, position: int, generator: torch.Generator) -> dict[str, Any]:
        ids = given["input_ids"].clone()
        ids[:, position] = 4 + (ids[:, position] - 3) % 46
        return {**given, "input_ids": ids}

    def picture(given: Any, position: int, generator: torch.Generator) -> dict[str, Any]:
        pixels = given["pixel_values"]
        new = torch.randn(pixels.shape, generator=generator, dtype=torch.float64).to(pixels.dtype)
        return {**given, "pixel_values": new}

    return Subject(
        "idefics", model, inputs, {"text": Stream("text", 12, words), "image": Stream("image", 1, picture)},
        lambda output: {"text": output.hidden_states[-1]},
    )  # fmt: skip


def test_gates() -> None:
    given = idefics()
    value = met(given)
    assert value["kind"] == "gated-cross-attention"
    assert value["text>image"] is None
    assert value["image>text"] == 1
    closed = idefics()
    with torch.no_grad():
        for parameter in closed.model.parameters():
            if parameter.numel() == 1:
                parameter.zero_()
    assert met(closed)["kind"] == "dual-encoder"


def test_gates_are_put_back() -> None:
    given = idefics()
    before = [parameter.clone() for parameter in given.model.parameters()]
    assert met(given) == met(given)
    assert all(torch.equal(old, new) for old, new in zip(before, given.model.parameters(), strict=True))


def test_layer_table(subject: Build) -> None:
    layers = streams.measure(subject("t5"))[None].detail["layers"]
    assert [(row["stack"], row["stream"], row["changed_by"]) for row in layers] == [
        ("encoder.block", "encoder", []),
        ("encoder.block", "encoder", []),
        ("decoder.block", "decoder", ["encoder"]),
        ("decoder.block", "decoder", ["encoder"]),
    ]
    assert not any(row["joint"] for row in layers)


def test_cross_attention_taken_away_is_seen(subject: Build) -> None:
    given = subject("t5")
    for block in given.blocks["decoder"]:
        block.layer[1].register_forward_hook(lambda _, args, output: (args[0], *output[1:]))  # type: ignore[union-attr,index]
    assert met(given) == {"kind": "dual-encoder", "encoder>decoder": None, "decoder>encoder": None}


def test_cross_attention_in_the_second_layer_alone_is_seen(subject: Build) -> None:
    given = subject("t5")
    first = given.blocks["decoder"][0]
    first.layer[1].register_forward_hook(lambda _, args, output: (args[0], *output[1:]))  # type: ignore[union-attr,index]
    assert met(given)["encoder>decoder"] == 2


def test_one_way_of_co_attention_taken_away_is_seen() -> None:
    given = entry("vilbert")
    for block in given.blocks["cross"]:

        def keep_regions(_: Any, args: Any, kwargs: Any, output: Any) -> Any:
            regions = next(v for v in (*args, *kwargs.values()) if v.shape == output[1].shape)
            return output[0], regions

        block.register_forward_hook(keep_regions, with_kwargs=True)
    assert met(given) == {"kind": "cross-attention", "text>image": None, "image>text": 3}


def test_towers_that_look_at_each_other_are_seen(subject: Build) -> None:
    given = subject("clip")
    words: list[torch.Tensor] = []
    # The text tower runs first or last: whichever comes second gets a little of the other.
    given.blocks["image"][1].register_forward_hook(
        lambda _, args, output: words.append(output.mean()) or None
    )
    given.blocks["text"][1].register_forward_hook(lambda _, args, output: output + words[-1] * 1e-3)
    value = met(given)
    assert value == {"kind": "cross-attention", "text>image": None, "image>text": 2}


@pytest.mark.parametrize("name", ["bert", "vit", "mamba"])
def test_models_of_one_stream(subject: Build, name: str) -> None:
    with pytest.raises(Unmeasurable, match="one stream"):
        streams.measure(subject(name))


def test_same_result_twice() -> None:
    given = entry("vilbert")
    assert streams.measure(given) == streams.measure(given)


def test_agreement() -> None:
    measured = {"kind": "dual-stream", "text>image": 1, "image>text": 3}
    assert streams.agrees(streams.parse("dual-stream"), measured)
    assert streams.agrees(streams.parse({"kind": "dual-stream", "image>text": 3}), measured)
    assert not streams.agrees(streams.parse("single-stream"), measured)
    assert not streams.agrees(streams.parse({"kind": "dual-stream", "image>text": 1}), measured)
    assert streams.agrees(streams.parse("cross-attention"), {"kind": "gated-cross-attention"})
    assert not streams.agrees(streams.parse("gated-cross-attention"), {"kind": "cross-attention"})


@pytest.mark.parametrize(
    "value",
    ["two", {}, {"kind": "twin"}, {"kind": "dual-stream", "text": 1}, {"kind": "dual-stream", "a>b": 0}, 2],
)
def test_claims_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"not|no "):
        streams.parse(value)
