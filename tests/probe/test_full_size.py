"""Published sizes on `meta`: what their masks and layers show, and what they cost."""

from __future__ import annotations

import multiprocessing
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING

from ptmkb.catalogue import load_catalogue
from ptmkb.probe import probing, spans, tiny
from ptmkb.probe.measures import Unmeasurable, layers, load_measure, measure_names
from ptmkb.probe.meta import runnable
from ptmkb.probe.probing import measurements
from ptmkb.probe.subject import Subject
from ptmkb.probe.subjects import subject_of
from ptmkb.probe.targets import of_entry


def full(model_type: str, **settings: Any) -> Subject:
    """The default configuration of a type, which is a published one, on `meta`."""
    config = tiny._plain_experts(CONFIG_MAPPING[model_type](**settings))
    with torch.device("meta"):
        model = runnable(tiny.model_class(tiny.base_architecture(model_type))(config).eval())
    return subject_of(model, model_type, "full")


def kinds(model_type: str, **settings: Any) -> list[dict[str, Any]]:
    return layers.measure(full(model_type, **settings))[None].value


def test_windows_are_exact_at_full_size() -> None:
    assert kinds("mistral") == [
        {
            "count": 32,
            "mixer": "sliding-window",
            "window": 4096,
            "heads": "grouped-query",
            "feed_forward": "dense",
        }
    ]
    assert [row.get("window") for row in kinds("mistral", sliding_window=1000, num_hidden_layers=2)] == [1000]
    assert [row["mixer"] for row in kinds("mistral", sliding_window=None, num_hidden_layers=2)] == ["full"]


def test_layers_alternate_at_full_size_as_they_do() -> None:
    sinks = kinds("gpt_oss", num_hidden_layers=4)
    assert [(row["count"], row["mixer"], row.get("window")) for row in sinks] == [
        (1, "sliding-window", 128),
        (1, "full", None),
    ] * 2
    both_ways = kinds("modernbert", num_hidden_layers=4)
    assert [(row["count"], row["mixer"], row.get("window"), row.get("ahead")) for row in both_ways] == [
        (1, "full", None, None),
        (2, "sliding-window", 129, 64),
        (1, "full", None, None),
    ]
    chunks = kinds("llama4_text", num_hidden_layers=4, attention_chunk_size=512)
    assert [(row["count"], row["mixer"], row.get("chunk")) for row in chunks] == [
        (3, "chunked", 512),
        (1, "full", None),
    ]


def test_a_table_of_places_that_ends_early_is_no_hindrance() -> None:
    assert kinds("bert") == [{"count": 12, "mixer": "full", "heads": "multi-head", "feed_forward": "dense"}]


def test_layers_without_attention_have_no_mixer_and_a_claim_of_one_is_unmeasured() -> None:
    mixed = kinds("jamba", num_hidden_layers=8)
    assert [row.get("mixer") for row in mixed].count("full") == 1
    assert {row.get("mixer") for row in mixed} == {None, "full"}
    with pytest.raises(Unmeasurable, match="state-space"):
        layers.agrees(layers.parse("state-space"), mixed)
    with pytest.raises(Unmeasurable, match="nothing of their kind"):
        layers.measure(full("mamba", num_hidden_layers=2))


def test_masks_by_hand() -> None:
    far = torch.arange(40)[:, None] - torch.arange(40)
    piece = torch.arange(40) // 8
    chunk = piece[:, None] == piece
    assert spans.named(far >= 0) == {"mixer": "full"}
    assert spans.named(far > -99) == {"mixer": "full"}
    assert spans.named((far >= 0) & (far < 5)) == {"mixer": "sliding-window", "window": 5}
    assert spans.named(far.abs() <= 3) == {"mixer": "sliding-window", "window": 7, "ahead": 3}
    assert spans.named(chunk) == {"mixer": "chunked", "chunk": 8}
    assert spans.named(chunk & (far >= 0)) == {"mixer": "chunked", "chunk": 8}
    assert spans.named((far >= 0) & (far % 2 == 0)) is None
    assert spans.named((far >= 0) & (far < 5) | (far == 9)) is None


def test_one_build_serves_all_measures_of_a_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    plain = tiny.variant
    monkeypatch.setattr(
        "ptmkb.probe.subjects.tiny.variant", lambda entry, name: built.append(name) or plain(entry, name)
    )
    entry = load_catalogue().models["mixtral"]
    found = [one for piece in probing.findings(of_entry(entry)) for one in piece.measured if one.variant]
    assert built == [variant.name for variant in entry.variants]
    at_full_size = {name for name in measure_names() if "variant" in load_measure(name).SCALES}
    assert {one.measure for one in found} == at_full_size
    assert {"layers", "shape", "cache", "routing"} <= at_full_size


def _peak() -> int:
    """The most memory that this process has held, in bytes; unlike `getrusage` it knows nothing of the parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def _measured(model_type: str, sender: Any) -> None:
    """All measures of a full-size model, CPU seconds and the rise of the peak of memory; and its counts, taken from its parts."""
    torch.set_num_threads(1)
    full("llama", num_hidden_layers=1)
    before, start = _peak(), time.process_time()
    subject = full(model_type)
    found = {
        (one.measure, one.part): one.value
        for piece in measurements(subject, "full")
        for one in piece.measured
    }
    seconds, rise = time.process_time() - start, _peak() - before
    total = sum(p.numel() for p in subject.model.parameters())
    stacked = [p for name, p in subject.model.named_parameters() if ".experts." in name]
    among, used = found["routing", None]["experts"], found["routing", None]["per_token"]
    assert all(p.shape[0] == among for p in stacked)
    idle = sum(p.numel() for p in stacked) // among * (among - used)
    sender.send((found, seconds, rise, total, total - idle))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("model_type", "least", "cache"),
    [
        (
            "deepseek_v3",
            670e9,
            61 * (512 + 64) * 2,
        ),  # layers, the latent vector and the rotary key, two bytes
        ("gpt_oss", 116e9, 36 * 2 * 8 * 64 * 2),  # layers, keys and values, heads, features, two bytes
    ],
)
def test_hundreds_of_billions_take_seconds_and_no_memory(model_type: str, least: float, cache: int) -> None:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(model_type, sender))
    process.start()
    found, seconds, rise, total, active = receiver.recv()
    process.join()
    assert least < total == found["parameters", None]
    assert found["parameters", "active"] == active < total / 15
    assert found["cache", None]["bytes_per_token"] == cache
    assert sum(row["count"] for row in found["layers", None]) == found["shape", None]["layers"]
    assert found["layers", None][-1]["feed_forward"] == "experts"
    assert 0 < rise < 1.5 * 2**30
    assert seconds < 30
