"""The small drawings: each shows what the evidence says, and another picture where the evidence says otherwise."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

import pytest

from ptmkb.probe.record import Measurement, read_evidence
from ptmkb.site.chapters import ChapterError, expand
from ptmkb.site.drawings import drawn_measures, measured_drawing
from ptmkb.site.knowledge import gather
from ptmkb.site.values import count

RECORD = read_evidence()
assert RECORD is not None
FOUND = [(model, finding) for model in RECORD.models for finding in model.measured]


def drawn(finding: Measurement, measured: Any = (), language: str = "en") -> ElementTree.Element:
    svg = measured_drawing(finding, measured, language, "a model")
    assert svg is not None, finding
    return ElementTree.fromstring(svg)


def texts(svg: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in svg.iter("text")]


def classes(svg: ElementTree.Element) -> list[str]:
    return [element.get("class", "") for element in svg.iter()]


def of(measure: str, model_id: str, part: str | None = None) -> Measurement:
    return next(
        f for m, f in FOUND if (m.id, f.measure, f.part, f.variant) == (model_id, measure, part, None)
    )


@pytest.mark.parametrize("measure", drawn_measures())
def test_every_drawing_is_labelled_in_its_language_and_fits_a_phone(measure: str) -> None:
    pictures = 0
    for model, finding in FOUND:
        if finding.measure != measure:
            continue
        for language in ("en", "zh"):
            text = measured_drawing(finding, model.measured, language, f"{model.id} {measure}")
            if text is None:
                continue
            svg = ElementTree.fromstring(text)
            title, described = svg.findtext("title"), svg.findtext("desc")
            assert title == f"{model.id} {measure}"
            assert described
            chinese = re.search(r"[\u4e00-\u9fff]", described + " ".join(texts(svg)))
            assert bool(chinese) == (language == "zh") or (language == "zh" and measure in ("sharing",)), (
                described
            )
            assert float(svg.get("width", 0)) <= 372, (model.id, finding.part)
            assert not re.search(r"(fill|stroke)=", text), "colours are classes"
            pictures += 1
    assert pictures, measure


def test_cost_curves_have_a_point_a_length_and_the_exponent_s_slope() -> None:
    for _, finding in FOUND:
        if finding.measure != "cost":
            continue
        svg, detail = drawn(finding), finding.detail
        assert len(list(svg.iter("circle"))) == 2 * len(detail["lengths"]) - 1
        (slope,) = (float(text.split()[1]) for text in texts(svg) if text.startswith("slope"))
        assert abs(slope - finding.value["exponent"]) < 0.15, finding.value
        bends = [text for text in texts(svg) if text.startswith("bends at")]
        assert bends == ([f"bends at {finding.value['bend']}"] if finding.value["bend"] else [])
        assert f"{detail['lengths'][-1]}: {count(detail['needed'][-1])}" in texts(svg)
    bent = of("cost", "mistral")
    straight = bent.model_copy(update={"value": {"exponent": 1, "bend": None}})
    assert "kb-arc-warm kb-dashed" in classes(drawn(bent))
    assert "kb-arc-warm kb-dashed" not in classes(drawn(straight))


def test_streams_fill_the_layers_that_carry_another_stream_and_mark_the_first() -> None:
    for _, finding in FOUND:
        if finding.measure != "streams":
            continue
        svg = drawn(finding)
        layers = finding.detail["layers"]
        rows = [list(row) for _, row in groupby(layers, key=lambda layer: layer["layer"])]
        joint = sum(len(row) - 1 for row in rows if len(row) > 1 and all(layer["joint"] for layer in row))
        assert len(list(svg.iter("rect"))) == len(layers) - joint
        filled = sum(bool(layer["changed_by"]) for layer in layers)
        assert classes(svg).count("kb-box-warm kb-filled") == filled - (joint if filled else 0)
        first = [f"layer {n} on" for way, n in finding.value.items() if way != "kind" and n]
        described = svg.findtext("desc") or ""
        assert sorted(re.findall(r"layer \d+ on", described)) == sorted(first)
        assert classes(svg).count("kb-head-warm") == len(first)


def test_norms_stand_where_they_were_found() -> None:
    bars = {"pre": 1, "post": 1, "res-post": 1, "sandwich": 2, "pre+post": 2, "none": 0}
    for model, finding in FOUND:
        if finding.measure != "norm" or not any(
            row["sub_layers"] for row in finding.detail.get("by_layer", [])
        ):
            continue
        kinds = [row for row, _ in groupby(finding.detail["by_layer"]) if row["sub_layers"]]
        svg = drawn(finding, model.measured)
        rings = [float(ring.get("cx", 0)) for ring in svg.iter("circle")]
        assert len(rings) == sum(len(row["sub_layers"]) for row in kinds)
        expected = sum(bars[sub["placement"]] for row in kinds for sub in row["sub_layers"])
        named = {kind for row in kinds for sub in row["sub_layers"] for kind in sub["kinds"]}
        assert sum(kind.startswith("kb-norm") for kind in classes(svg)) == expected + len(named)
        assert named <= set(texts(svg))

    def places(placement: str) -> list[str]:
        sub = {"placement": placement, "kinds": ["RMSNorm"], "attends": True}
        row = {"sub_layers": [sub]}
        svg = drawn(Measurement(measure="norm", value={}, detail={"by_layer": [row]}))
        ring = float(next(svg.iter("circle")).get("cx", 0))
        box = float(next(r for r in svg.iter("rect") if r.get("class") == "kb-box").get("x", 0))
        found = [float(r.get("x", 0)) for r in svg.iter("rect") if r.get("class") == "kb-norm"][:-1]
        return ["before" if x < box else "behind" if x < ring else "on the sum" for x in found]

    assert places("pre") == ["before"]
    assert places("post") == ["on the sum"]
    assert places("sandwich") == ["before", "behind"]
    assert places("res-post") == ["behind"]
    assert places("pre+post") == ["before", "on the sum"]


def test_routing_shows_each_expert_s_share() -> None:
    finding = of("routing", "mixtral")
    layer = finding.detail["by_layer"][0]
    svg = drawn(finding)
    shares = [text for text in texts(svg) if text.endswith("%")]
    used = [sum(expert in chosen for chosen in layer["used"][:24]) for expert in range(layer["experts"])]
    assert shares == [f"{times / 24:.0%}" for times in used]
    filled = next(path for path in svg.iter("path") if path.get("class") == "kb-cells kb-cells-on")
    assert sum(map(int, re.findall(r"h(\d+)", filled.get("d") or ""))) == sum(used) == 24 * layer["per_token"]


def test_layers_bear_their_windows() -> None:
    window = of("layers", "mistral").value[0]["window"]
    assert any(f"window {window}" in text for text in texts(drawn(of("layers", "mistral"))))
    runs = [
        {"count": 3, "mixer": "sliding-window", "window": 4096},
        {"count": 1, "mixer": "full", "feed_forward": "experts"},
    ]
    svg = drawn(Measurement(measure="layers", variant="large", value=runs * 6))
    assert classes(svg).count("kb-kind-0") == 18 + 1
    assert classes(svg).count("kb-kind-1") == 6 + 1
    assert "18 × sliding-window attention, window 4096" in texts(svg)
    assert "6 × full attention · experts" in texts(svg)


def test_shapes_and_parameters_are_drawn_to_scale() -> None:
    shape = of("shape", "mixtral").model_copy(
        update={"value": {"layers": 32, "width": 4096, "heads": 32, "key_value_heads": 8, "head_size": 128,
                          "feed_forward": 14336, "gated": True}}
    )  # fmt: skip
    bars = [float(r.get("width", 0)) for r in drawn(shape).iter("rect") if r.get("height") == "10"]
    assert bars[0] / bars[1] == pytest.approx(4096 / 14336, abs=0.01)
    assert sum(r.get("height") == "8" for r in drawn(shape).iter("rect")) == 32
    total = next(
        f for m, f in FOUND if m.id == "mixtral" and f.measure == "parameters" and f.variant and not f.part
    )
    widths = [float(r.get("width", 0)) for r in drawn(total).iter("rect")]
    assert widths[1] / widths[0] == pytest.approx(total.detail["active"] / total.value, abs=0.01)


def test_losses_caches_and_objectives_show_their_numbers() -> None:
    learns = of("learns", "bert")
    assert len(list(drawn(learns).iter("circle"))) == len(learns.detail["losses"])
    assert {f"{learns.detail['losses'][0]:g}", f"{learns.detail['losses'][-1]:g}"} <= set(
        texts(drawn(learns))
    )
    cache = of("cache", "gpt2")
    assert f"{cache.detail['elements'][-1]:,}" in texts(drawn(cache))
    objective = of("objective", "gpt2")
    assert any(str(objective.detail["loss"]) in text for text in texts(drawn(objective)))
    arrows = {
        kind: classes(drawn(objective.model_copy(update={"value": kind}))).count("kb-head-warm")
        for kind in ("causal", "masked")
    }
    assert arrows == {"causal": 5, "masked": 2}


def test_what_lacks_its_detail_is_not_drawn() -> None:
    for measure in drawn_measures():
        bare = Measurement(measure=measure, value="unknown", detail={})
        assert measured_drawing(bare, (), "en", "a model") is None, measure


@pytest.mark.parametrize("language", ["en", "zh"])
def test_chapters_may_ask_for_any_measured_picture(language: Any) -> None:
    knowledge = gather(language)
    asked = "<!-- drawing:cost:mistral -->\n<!-- drawing:parameters:mixtral@mixtral-8x7b-v0.1 -->\n\nthen\n\n<!-- drawing:structure:t5 -->\n"
    text = expand(asked, "method/index.md", knowledge)
    assert text.count("<figure") == 3
    assert text.count('<div class="kb-figures"') == 2
    assert "46,702,792,704" in text
    with pytest.raises(ChapterError, match="cost of `mistral:decoder`"):
        expand("<!-- drawing:cost:mistral:decoder -->", "method/index.md", knowledge)
