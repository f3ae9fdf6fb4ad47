"""Block diagrams on the models' pages: every box of a structure is drawn, with the sizes of the variant, in both languages."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from ptmkb.probe.record import Measurement, read_evidence
from ptmkb.site import Knowledge, gather, sections
from ptmkb.site.drawings import Sizes, block_diagram

NORM = {"kind": "norm", "norm": "rms"}
ATTENTION = {
    "kind": "attention",
    "heads": 4,
    "key_value_heads": 2,
    "sees": {"kind": "causal"},
    "positions": ["rotary"],
}
WIDE = {"kind": "feed-forward", "width": 64, "gated": True, "activation": "silu"}
SMALL = {"layers": 2, "width": 32, "heads": 4, "key_value_heads": 2, "feed_forward": 64}
LARGE = {"layers": 40, "width": 5120, "heads": 48, "key_value_heads": 8, "feed_forward": 13824}


def around(*branch: Any) -> dict[str, Any]:
    return {"kind": "residual", "branches": [list(branch)]}


def stack(name: str, path: list[Any], **more: Any) -> dict[str, Any]:
    before = [[{"kind": "embedding", "of": ["token"]}]]
    blocks = [{"times": 2, "paths": [path]}]
    return {
        "name": name,
        "streams": [name],
        "widths": [32],
        "before": before,
        "blocks": blocks,
        "after": [NORM],
        **more,
    }


def head(stream: str) -> dict[str, Any]:
    elements = [{"kind": "linear", "width": 128}]
    return {
        "name": "logits",
        "stacks": [0],
        "streams": [stream],
        "tied": True,
        "vocabulary": True,
        "elements": elements,
    }


DECODER = {"stacks": [stack("text", [around(NORM, ATTENTION), around(NORM, WIDE)])], "heads": [head("text")]}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_element_is_drawn_with_the_variant_s_sizes(language: str) -> None:
    svg = block_diagram(DECODER, Sizes({None: (SMALL, LARGE)}), language, "a model")
    found = texts(svg)
    assert found.count("RMSNorm") == 3
    assert "× 40" in found
    assert any("13824" in text and "SiLU" in text for text in found)
    assert any("48" in text and "8" in text for text in found)
    assert svg.count('class="kb-ring"') == 2
    assert ("rotary positions" if language == "en" else "旋转位置编码") in found


def test_sizes_of_the_tiny_model_are_never_shown_as_the_variant_s() -> None:
    found = " ".join(texts(block_diagram(DECODER, Sizes({None: (SMALL, None)}), "en", "a model")))
    assert not re.search(r"\b(32|64|4 heads)\b", found)
    other = {**SMALL, "feed_forward": 80}
    assert "13824" not in " ".join(
        texts(block_diagram(DECODER, Sizes({None: (other, LARGE)}), "en", "a model"))
    )


def test_numbers_of_the_traced_model_are_shown_where_they_are_asked_for() -> None:
    path = [around(NORM, ATTENTION), around({"kind": "experts", "experts": 8, "chosen": 2, "width": 24})]
    window = {**ATTENTION, "sees": {"kind": "sliding-window", "window": 5}}
    kernel = {"kind": "convolution", "kernel": 7}
    mixed = {
        "stacks": [
            stack("text", path)
            | {"blocks": [{"times": 3, "paths": [path]}, {"times": 1, "paths": [[around(window), kernel]]}]}
        ],
        "heads": [],
    }
    found = texts(block_diagram(mixed, Sizes({}, own=True), "en", "a model"))
    assert {"4 layers, mixed", "× 3", "8 experts", "router chooses 2 a token", "sliding window 5"} <= set(
        found
    )
    assert {"4 heads, 2 key-value", "kernel 7"} <= set(found)
    large = Sizes({None: ({**SMALL, "experts": 8}, {**LARGE, "experts": 64})}, 6, {"sliding-window": 4096})
    found = texts(block_diagram(mixed, large, "en", "a model"))
    assert {"64 experts", "router chooses 6 a token", "sliding window 4,096"} <= set(found)
    assert not any("kernel" in text or "× 3" in text for text in found)


def test_many_kinds_of_blocks_and_long_paths_are_cut_with_what_is_left_out() -> None:
    kinds = [{"times": 1, "paths": [[around({"kind": "convolution", "kernel": n})]]} for n in range(1, 9)]
    many = {"stacks": [stack("image", []) | {"blocks": kinds}], "heads": []}
    found = texts(block_diagram(many, Sizes({}, own=True), "en", "a model"))
    assert "⋮ 4 more" in found
    assert [text for text in found if text.startswith("kernel")] == [f"kernel {n}" for n in (1, 2, 7, 8)]
    long = stack("image", [around(WIDE)]) | {"before": [[{"kind": "linear", "width": n} for n in range(14)]]}
    found = texts(block_diagram({"stacks": [long], "heads": []}, Sizes({}), "en", "a model"))
    assert "⋮ 4 more steps" in found
    assert found.count("Linear") == 10


def test_stages_stand_one_above_the_other_and_a_bare_path_alone() -> None:
    stages = [stack(f"image/{n}", [around(WIDE)]) | {"streams": ["image"]} for n in (1, 2)]
    svg = ElementTree.fromstring(
        block_diagram(
            {"stacks": stages, "heads": [], "order": [[0, 2], [1, 2]]}, Sizes({}, own=True), "en", "a model"
        )
    )
    frames = [rect for rect in svg.iter("rect") if rect.get("class") == "kb-frame"]
    assert len({rect.get("x") for rect in frames}) == 1
    first, second = (float(rect.get("y", 0)) for rect in frames)
    assert second + float(frames[1].get("height", 0)) < first
    bare = {"stacks": [stack("image", []) | {"blocks": [], "widths": [], "after": []}], "heads": []}
    assert texts(block_diagram(bare, Sizes({}, own=True), "en", "a model")) == ["Embedding", "words"]


def test_of_three_streams_the_two_with_most_blocks_are_drawn() -> None:
    def of(name: str, times: int) -> dict[str, Any]:
        return stack(name, [around(WIDE)]) | {"blocks": [{"times": times, "paths": [[around(WIDE)]]}]}

    structure = {
        "stacks": [of("text", 4), of("audio", 1), of("image", 3)],
        "heads": [head("audio"), head("text")],
        "order": [[0, 4], [1, 1], [2, 3]],
    }
    found = texts(block_diagram(structure, Sizes({}, own=True), "en", "a model"))
    assert {"text", "image", "× 4", "× 3"} <= set(found)
    assert "audio" not in found
    assert found.count("Vocabulary") == 1


def test_a_norm_that_moves_moves_in_the_drawing() -> None:
    def order(path: list[Any]) -> list[str]:
        structure = {"stacks": [stack("text", path)], "heads": []}
        svg = ElementTree.fromstring(block_diagram(structure, Sizes({}), "en", "a model"))
        rows = [
            (float(text.get("y", 0)), text.text or "")
            for text in svg.iter("text")
            if text.get("class") == "kb-label"
        ]
        return [name for _, name in sorted(rows, reverse=True)][1:4]

    assert order([around(NORM, WIDE)]) == ["RMSNorm", "Feed-forward", "× N"]
    assert order([around(WIDE), NORM]) == ["Feed-forward", "RMSNorm", "× N"]


def test_an_encoder_decoder_stands_side_by_side() -> None:
    across = {"kind": "attention", "heads": 4, "key_value_heads": 4, "cross": "encoder"}
    structure = {
        "stacks": [
            stack("encoder", [around(ATTENTION)]),
            stack("decoder", [around(ATTENTION), around(across)]),
        ],
        "heads": [head("decoder")],
        "order": [[0, 2], [1, 2]],
    }
    svg = block_diagram(
        structure, Sizes({"encoder": (SMALL, LARGE), "decoder": (SMALL, LARGE)}), "en", "a model"
    )
    found = ElementTree.fromstring(svg)
    assert "reads encoder" in texts(svg)
    assert [path.get("class") for path in found.iter("path")].count("kb-arc-warm") >= 2
    assert float(found.get("width", 0)) <= 360


def test_branches_side_by_side_stay_inside_the_picture() -> None:
    path = [{"kind": "residual", "before": [NORM], "branches": [[ATTENTION], [WIDE]]}]
    svg = ElementTree.fromstring(
        block_diagram({"stacks": [stack("text", path)], "heads": []}, Sizes({}), "en", "a model")
    )
    left, top, width, height = map(float, svg.get("viewBox", "").split())
    for box in svg.iter("rect"):
        x, y, w, h = (float(box.get(name, 0)) for name in ("x", "y", "width", "height"))
        assert left <= x <= x + w <= left + width
        assert top <= y <= y + h <= top + height


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_page_shows_the_diagram_where_the_evidence_has_one(language: Any) -> None:
    def page(knowledge: Knowledge) -> str:
        return next(p.text for s in sections(knowledge) for p in s.pages if p.path == "models/llama.md")

    record = read_evidence()
    assert record is not None
    without = [
        model.model_copy(update={"measured": tuple(m for m in model.measured if m.measure != "structure")})
        for model in record.models
    ]
    bare = replace(gather(language), record=record.model_copy(update={"models": tuple(without)}))
    heading = f"## {bare.word('model.structure')}"
    assert heading not in page(bare)
    measured = Measurement(measure="structure", value={"text": 2}, detail=DECODER)
    models = tuple(
        model.model_copy(update={"measured": (*model.measured, measured)}) if model.id == "llama" else model
        for model in without
    )
    shown = page(replace(bare, record=record.model_copy(update={"models": models})))
    assert heading in shown
    section = shown.split(heading)[1].split("\n## ")[0]
    assert "× 32" in section
    assert "11008" in section
    assert "llama-7b" in section
