import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as t

from ptmkb.catalogue import load_catalogue
from ptmkb.probe import subjects
from ptmkb.probe.measures import Reading, Unmeasurable, cache, routing
from ptmkb.probe.meta import runnable
from ptmkb.probe.subject import Subject

Build = Callable[..., Subject]


def cached(subject: Subject) -> Reading:
    return cache.measure(subject)[None]


@pytest.mark.parametrize(
    ("name", "growth"),
    [
        ("gpt2", "linear"),
        ("llama", "linear"),
        ("mistral", "bounded"),
        ("gemma2", "mixed"),
        ("mixtral", "linear"),
        ("mamba", "constant"),
        ("t5", "linear"),
        ("whisper", "linear"),
    ],
)
def test_decoders(subject: Build, name: str, growth: str) -> None:
    reading = cached(subject(name))
    assert reading.value == {"equal": True, "growth": growth}
    assert max(reading.detail["differences"].values()) <= reading.detail["threshold"] < 1e-8


@pytest.mark.parametrize(
    ("model_type", "value"),
    [
        ("deepseek_v3", {"equal": True, "growth": "linear"}),
        ("qwen3_moe", {"equal": True, "growth": "linear"}),
        ("gpt_oss", {"equal": True, "growth": "mixed"}),
        ("bart", {"equal": True, "growth": "linear"}),
        ("llava", {"equal": True, "growth": "linear"}),
        ("qwen3_next", {"equal": True, "growth": "mixed"}),
        ("minicpmv4_7", {"equal": True}),  # the prompt goes on behind its picture
        (
            "paligemma",
            {"equal": True, "growth": "linear"},
        ),  # the prompt, all of which sees all of it, is whole
        ("axk2", {"equal": True, "growth": "linear"}),  # no two positions score alike
        ("qwen2_audio", {"equal": True, "growth": "linear"}),  # the prompt holds the whole sound
        ("voxtral_realtime_text", {"equal": True, "growth": "bounded"}),  # each step is told the delay anew
        # What it remembers is seen from one side only, while a run of all positions lets each see every other.
        ("xlnet", {"equal": False, "growth": "linear"}),
    ],
)
def test_other_architectures(model_type: str, value: dict[str, Any]) -> None:
    assert cached(subjects.subject_of_type(model_type)).value == value


def test_memory_of_a_reference_model() -> None:
    given = subjects.subject_for(load_catalogue().models["transfo_xl"])
    assert cached(given).value == {"equal": True, "growth": "linear"}


def test_cache_of_fixed_size_is_tried_too(subject: Build) -> None:
    assert set(cached(subject("llama")).detail["differences"]) == {"from_one", "from_most", "static"}


@pytest.mark.parametrize("model_type", ["aria", "vibevoice_asr"])
def test_prompt_holds_the_picture_and_the_sound(model_type: str) -> None:
    """They would take a prompt that ends before, and leave out what has no place in it."""
    reading = cached(subjects.subject_of_type(model_type))
    assert reading.value == {"equal": True, "growth": "linear"}
    assert set(reading.detail["differences"]) <= {"from_half", "static"}
    assert reading.detail["threshold"] < 1e-10


def noisy(subject: Subject, size: float) -> Subject:
    """One whose logits differ from run to run, by a number that is never the same."""
    calls = itertools.count(1)

    def stir(_: Any, args: Any, output: Any) -> Any:
        output.logits = output.logits + size * (next(calls) * 0.618 % 1)
        return output

    subject.model.register_forward_hook(stir)
    return subject


def test_noise_is_no_difference(subject: Build) -> None:
    reading = cached(noisy(subject("gpt2"), 1e-9))
    assert reading.value == {"equal": True, "growth": "linear"}
    assert 1e-11 < reading.detail["noise"] <= 1e-9
    assert reading.detail["threshold"] == pytest.approx(100 * reading.detail["noise"], rel=0.1)


def test_nothing_is_equal_that_is_drawn_by_lot(subject: Build) -> None:
    reading = cached(noisy(subject("gpt2"), 1.0))
    assert reading.value == {"growth": "linear"}
    assert not cache.agrees(cache.parse({"equal": True}), reading.value)
    assert not cache.agrees(cache.parse({"equal": False}), reading.value)


def test_noise_is_not_measured_where_it_does_not_matter(subject: Build) -> None:
    assert "noise" not in cached(subject("gpt2")).detail


def test_what_is_no_number_is_not_equal(subject: Build) -> None:
    given = subject("gpt2")

    def spoil(_: Any, args: Any, kwargs: Any, output: Any) -> Any:
        if kwargs.get("past_key_values") is not None:
            output.logits = output.logits * float("nan")
        return output

    given.model.register_forward_hook(spoil, with_kwargs=True)
    assert cached(given).value["equal"] is False


def test_size_of_a_window(subject: Build) -> None:
    """A window of 4 keeps 3 positions (the fourth is the one decoded): 2 layers × 2 heads × 8 features × (keys and values)."""
    elements = cached(subject("mistral")).detail["elements"]
    assert elements == [64, 128] + [192] * 10


@pytest.mark.parametrize("name", ["gpt2", "mistral", "mamba", "t5"])
def test_corrupted_entry_is_seen(subject: Build, name: str) -> None:
    given = subject(name)

    def corrupt(_: Any, args: Any, kwargs: Any) -> None:
        held = kwargs.get("past_key_values") or kwargs.get("cache_params")
        if held is None:
            return
        layer = getattr(held, "self_attention_cache", held).layers[0]
        states = getattr(layer, "recurrent_states", None) or [layer.values]
        values = states[0] if isinstance(states, list) else next(iter(states.values()))
        if isinstance(values, torch.Tensor) and values.numel():
            values[(0,) * values.ndim] += 1e-6

    given.model.register_forward_pre_hook(corrupt, with_kwargs=True)
    reading = cached(given)
    assert reading.value["equal"] is False
    assert not cache.agrees(cache.parse({"equal": True}), reading.value)


def test_window_made_unbounded_is_seen(subject: Build) -> None:
    given = subject("mistral")
    given.model.config.sliding_window = None  # type: ignore[union-attr,assignment]
    assert cached(given).value == {"equal": True, "growth": "linear"}


def test_dropped_causal_mask_is_seen(subject: Build) -> None:
    """Positions that see what comes later cannot be decoded from what came before."""
    given = subject("gpt2")
    given.model.set_attn_implementation("eager")  # type: ignore[operator]
    given.model.register_forward_pre_hook(
        lambda _, args, kwargs: (
            (
                args,
                kwargs
                | {
                    "attention_mask": torch.zeros(
                        len(kwargs["input_ids"]), 1, kwargs["input_ids"].shape[1], 1
                    )
                },
            )
            if kwargs.get("past_key_values") is None
            else None
        ),
        with_kwargs=True,
    )
    assert cached(given).value["equal"] is False


def test_positions_forgotten_while_decoding_are_seen(subject: Build) -> None:
    given = subject("gpt2")

    def always_first(_: Any, args: Any, kwargs: Any) -> Any:
        return args, kwargs | {"position_ids": torch.zeros_like(kwargs["input_ids"])} if kwargs.get(
            "past_key_values"
        ) else kwargs

    given.model.register_forward_pre_hook(always_first, with_kwargs=True)
    assert cached(given).value["equal"] is False


@pytest.mark.parametrize("name", ["bert", "vit", "clip"])
def test_models_without_a_cache(subject: Build, name: str) -> None:
    with pytest.raises(Unmeasurable, match=r"cache|no tokens"):
        cache.measure(subject(name))


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("modernvbert", "no cache that"),  # what it gives and takes are the features of its pictures
        ("pi0", "no place for each token"),  # it gives actions
    ],
)
def test_what_comes_back_is_no_cache_of_the_tokens(model_type: str, why: str) -> None:
    with pytest.raises(Unmeasurable, match=why):
        cache.measure(subjects.subject_of_type(model_type))


@pytest.mark.parametrize(
    ("series", "growth"),
    [
        ([4, 4, 4], "constant"),
        ([2, 4, 6, 8], "linear"),
        ([2, 4, 4, 4], "bounded"),
        ([2, 4, 3, 5], "mixed"),
        ([2, 4, 8, 16], "mixed"),
    ],
)
def test_growth(series: list[int], growth: str) -> None:
    assert cache.growth(series) == growth


def full_size(model: Any) -> Subject:
    inputs = {"input_ids": torch.zeros(2, 12, dtype=torch.long, device="meta")}
    return Subject("full", model, inputs, {}, lambda _: {}, scale="full")


def test_bytes_at_full_size() -> None:
    """32 layers × 8 heads × 128 features × (keys and values) × 2 bytes."""
    with torch.device("meta"):
        reading = cached(full_size(t.MistralModel(t.MistralConfig()).eval()))
    assert reading.value == {"bytes_per_token": 32 * 8 * 128 * 2 * 2}
    assert reading.detail == {"fixed_bytes": 0, "layers": 32, "growing": 32}


def test_a_state_takes_no_bytes_a_token() -> None:
    entry = load_catalogue().models["mamba"]
    reading = cached(subjects.subject_for(entry, "mamba-130m"))
    assert reading.value == {"bytes_per_token": 0}
    assert reading.detail["growing"] == 0
    assert reading.detail["fixed_bytes"] == 24 * 1536 * (16 + 4) * 2


def test_same_result_twice(subject: Build) -> None:
    assert cache.measure(subject("t5")) == cache.measure(subject("t5"))


def test_agreement() -> None:
    measured = {"equal": True, "growth": "bounded"}
    assert cache.agrees(cache.parse({"equal": True}), measured)
    assert cache.agrees(cache.parse({"growth": "bounded"}), measured)
    assert not cache.agrees(cache.parse({"growth": "linear"}), measured)
    assert not cache.agrees(cache.parse({"bytes_per_token": 8}), measured)


@pytest.mark.parametrize(
    "value", ["linear", {}, {"equal": "yes"}, {"growth": "fast"}, {"bytes_per_token": "1K"}, {"size": 3}]
)
def test_claims_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"not|nothing"):
        cache.parse(value)


def test_latent_cache_of_a_model_of_671_billion_parameters() -> None:
    """61 layers keep 512 latent features and 64 rotary ones a token, whatever the number of heads; one forward pass tells the routing."""
    config = t.DeepseekV3Config()
    config._experts_implementation = "eager"
    with torch.device("meta"):
        model = runnable(t.DeepseekV3Model(config).eval())
    given = subjects.subject_of(model, "deepseek_v3", "full")
    assert cached(given).value == {"bytes_per_token": 61 * (512 + 64) * 2}
    assert routing.measure(given)[None].value == {"experts": 256, "per_token": 8, "shared": 1}


def test_full_window_behind_a_picture_tells_no_growth() -> None:
    """The prompt holds more positions than the window: the cache no longer grows, and might be a state as well."""
    assert cached(subjects.subject_of_type("idefics2")).value == {"equal": True}
