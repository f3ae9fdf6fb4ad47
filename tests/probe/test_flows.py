"""What `flow` says of real, tiny models: words among which pictures stand, windows, chunks, and layers of several kinds."""

import pytest
import torch

from ptmkb.probe import tiny
from ptmkb.probe.measures import load_measure
from ptmkb.probe.subject import Subject
from ptmkb.probe.subjects import subject_of

FLOW = load_measure("flow")


def subject(model_type: str, **overrides: object) -> Subject:
    return subject_of(tiny.build(model_type, **overrides), model_type)


def flows(model_type: str, **overrides: object) -> dict[str | None, dict]:
    return {part: reading.value for part, reading in FLOW.measure(subject(model_type, **overrides)).items()}


@pytest.mark.parametrize(
    ("model_type", "overrides", "expected"),
    [
        ("llama", {}, {"kind": "causal"}),
        ("mistral", {"sliding_window": 5}, {"kind": "sliding-window", "window": 5}),
        ("longformer", {}, {"kind": "sliding-window", "window": 5, "ahead": 2}),
        ("modernbert", {}, {"kind": "local-global", "window": 5, "ahead": 2, "whole": "bidirectional"}),
        ("gemma2", {}, {"kind": "local-global", "window": 4, "whole": "causal"}),
        ("llama4_text", {}, {"kind": "local-global", "chunk": 4, "whole": "causal"}),
        ("llama4_text", {"attention_chunk_size": 8}, {"kind": "local-global", "chunk": 8, "whole": "causal"}),
    ],
)
def test_windows_chunks_and_alternation(model_type: str, overrides: dict, expected: dict) -> None:
    assert flows(model_type, **overrides)[None] == expected


def test_a_picture_whose_places_see_each_other_among_words() -> None:
    found = FLOW.measure(subject("gemma3"))
    assert found["text"].value == {"kind": "causal"}
    assert found["image>text"].value == found["text>image"].value == {"kind": "causal"}
    assert found["sequence"].value == {
        "kind": "local-global",
        "window": 4,
        "whole": "causal-with-bidirectional-spans",
    }
    assert found["sequence"].detail["spans"] == [[2, 5]], "the places of the picture"


def test_a_picture_and_a_prompt_that_see_each_other() -> None:
    found = flows("paligemma")
    assert found["sequence"] == {"kind": "prefix", "prefix": 24}, "16 places and 8 of 12 words"
    assert found["text"] == {"kind": "prefix", "prefix": 8}


@pytest.mark.parametrize("model_type", ["qwen2_vl", "llava", "blip-2"])
def test_a_picture_among_words_that_is_read_in_order(model_type: str) -> None:
    found = flows(model_type)
    assert found["sequence"] == found["text"] == {"kind": "causal"}
    assert found["image"] == {"kind": "bidirectional"}, "by way of the picture's own encoder"


@pytest.mark.parametrize("model_type", ["gemma3", "qwen2_vl", "idefics3", "voxtral", "fuyu"])
def test_pictures_and_sounds_come_out_where_their_places_are(model_type: str) -> None:
    found = subject(model_type)
    other = next(name for name in found.streams if name != "text")
    places, words = found.places[other], found.places["text"]
    assert sorted([*places, *words]) == list(range(found.inputs["input_ids"].shape[1]))
    assert found.streams[other].positions == len(places) > 0
    generator = torch.Generator().manual_seed(1)
    before = found.outputs()
    for position in (0, len(places) - 1):
        changed = found.streams[other].replaced(found.inputs, position, generator)
        assert torch.equal(changed["input_ids"], found.inputs["input_ids"])
        assert not torch.equal(found.outputs(changed)[other], before[other])
    changed = found.streams["text"].replaced(found.inputs, 3, generator)
    different = (changed["input_ids"] != found.inputs["input_ids"]).nonzero()
    assert different[:, 1].tolist() == [words[3]] * 2, "a word, never a place"


def test_a_picture_that_a_text_only_looks_at_has_no_output() -> None:
    found = subject("mllama")
    assert set(found.streams) == {"text", "image"}
    assert set(found.outputs()) == {"text"}
    assert flows("mllama") == {"text": {"kind": "causal"}, "image>text": {"kind": "full"}}
