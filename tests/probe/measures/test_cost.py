from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as t
from torch.utils.flop_counter import FlopCounterMode

from ptmkb.catalogue import load_catalogue
from ptmkb.probe import counting, subjects
from ptmkb.probe.measures import Reading, Unmeasurable, cost
from ptmkb.probe.subject import Subject

Build = Callable[..., Subject]
LINEAR, QUADRATIC = {"exponent": 1, "bend": None}, {"exponent": 2, "bend": None}


def costs(subject: Subject) -> Reading:
    return cost.measure(subject)[None]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bert", QUADRATIC),
        ("gpt2", QUADRATIC),
        ("llama", QUADRATIC),
        ("mixtral", QUADRATIC),
        ("xlnet", QUADRATIC),
        ("mamba", LINEAR),
        ("mistral", {"exponent": 1, "bend": 4}),
        ("gemma2", {"exponent": 2, "bend": 4}),
    ],
)
def test_models_of_one_stream(subject: Build, name: str, value: dict[str, Any]) -> None:
    assert costs(subject(name)).value == value


@pytest.mark.parametrize("window", [3, 5])
def test_bend_is_the_window(subject: Build, window: int) -> None:
    assert costs(subject("mistral", window=window)).value == {"exponent": 1, "bend": window}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_written_out_or_called(subject: Build, attention: str) -> None:
    given = subject("mistral")
    given.model.set_attn_implementation(attention)  # type: ignore[operator]
    assert costs(given).value == {"exponent": 1, "bend": 4}


def test_sinks_beside_the_scores() -> None:
    assert costs(subjects.subject_of_type("gpt_oss")).value == {"exponent": 2, "bend": 4}


def test_recurrent_network() -> None:
    assert costs(subjects.subject_for(load_catalogue().models["elmo"])).value == LINEAR


def test_each_stream_by_itself(subject: Build) -> None:
    found = cost.measure(subject("t5"))
    assert {part: reading.value for part, reading in found.items()} == {
        "encoder": QUADRATIC,
        "decoder": QUADRATIC,
    }
    assert set(cost.measure(subject("whisper"))) == {"decoder"}


def test_window_made_unbounded_is_seen(subject: Build) -> None:
    given = subject("mistral")
    given.model.config.sliding_window = None  # type: ignore[union-attr,assignment]
    reading = costs(given)
    assert reading.value == QUADRATIC
    assert not cost.agrees(cost.parse("linear"), reading.value)


def test_attention_taken_away_is_seen(subject: Build) -> None:
    given = subject("gpt2")
    for block in given.blocks["text"]:
        block.attn.forward = lambda hidden_states, *_, **__: (hidden_states, None)  # type: ignore[union-attr,method-assign]
    assert costs(given).value == LINEAR


def test_products_are_those_of_the_counter(subject: Build) -> None:
    """Outside of layers elementwise work does not count, and what is left is what PyTorch's own counter says."""
    given = subject("bert")
    given.model.set_attn_implementation("eager")  # type: ignore[operator]
    with torch.no_grad(), FlopCounterMode(display=False) as theirs:
        given.model(**given.inputs)
    with torch.no_grad(), counting.Counter([torch.nn.Identity()]) as ours:
        given.model(**given.inputs)
    assert ours.counted == theirs.get_total_flops() > 0


def test_needed_share_of_a_causal_mask() -> None:
    """Of 12 × 12 scores a causal mask leaves 78; both products of attention shrink to that share."""
    query = torch.randn(2, 4, 12, 8)
    with counting.Counter([torch.nn.Identity()]) as fused:
        torch.nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True)
    full = 2 * 4 * 12 * 12 * 8 * 4
    assert (fused.counted, fused.needed) == (full, full * 78 // 144)
    mask = torch.full((12, 12), float("-inf")).triu(1)
    with counting.Counter([torch.nn.Identity()]) as written:
        weights = (query @ query.transpose(-1, -2) + mask).softmax(-1)
        weights @ query
    assert written.counted == full
    assert written.needed == full * 78 // 144
    with counting.Counter([]) as everywhere:
        weights = (query @ query.transpose(-1, -2) + mask).softmax(-1)
        weights @ query
    elementwise = 2 * (2 * 4 * 12 * 12)  # the mask's addition and the softmax
    assert everywhere.counted == full + elementwise
    assert everywhere.needed == (full + elementwise) * 78 // 144


def test_curves_are_kept(subject: Build) -> None:
    detail = costs(subject("mistral")).detail
    assert detail["lengths"] == [1, 2, 3, 4, 5, 7, 12]  # from 3 on, 7 and 12 lie where 3, 4 and 5 lead
    assert all(needed <= counted for needed, counted in zip(detail["needed"], detail["counted"], strict=True))
    assert detail["needed"][-1] < detail["counted"][-1]


@pytest.mark.parametrize("name", ["vit", "wav2vec2"])
def test_streams_of_one_length(subject: Build, name: str) -> None:
    with pytest.raises(Unmeasurable, match="length cannot be changed"):
        cost.measure(subject(name))


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([7 * n for n in range(2, 12)], (1, None)),
        ([7 * n + n * n for n in range(2, 12)], (2, None)),
        ([n * n if n < 5 else 25 + 9 * (n - 5) for n in range(2, 12)], (1, 5)),
        ([7 * n + sum(m % 3 for m in range(n)) for n in range(2, 14)], (1, None)),  # chunks of 3
    ],
)
def test_growth(curve: list[int], expected: tuple[int, int | None]) -> None:
    assert cost.growth(list(range(2, 2 + len(curve))), curve) == expected


def attended(width: int) -> Callable[[int], int]:
    """Scores of a causal window, with what each position costs by itself."""
    return lambda length: 5 * length + sum(min(at + 1, width) for at in range(length))


def chunked(width: int) -> Callable[[int], int]:
    return lambda length: 5 * length + sum(at % width + 1 for at in range(length))


@pytest.mark.parametrize("width", range(1, 13))
@pytest.mark.parametrize("kind", [attended, chunked])
@pytest.mark.parametrize(
    "extra", [lambda n: 0, lambda n: n == 1, lambda n: n // 4, lambda n: 7 * (n >= 9), lambda n: n * n]
)
def test_lengths_left_out_would_change_nothing(
    subject: Build, width: int, kind: Any, extra: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows, chunks, summaries of some positions each: whatever lengths suffice, all together say the same."""
    given, ran = subject("bert"), []

    def run(_: Subject, inputs: Any) -> tuple[int, int]:
        length = inputs["input_ids"].shape[1]
        ran.append(length)
        return 10**6 * length, kind(width)(length) + extra(length)

    def outcome() -> Any:
        try:
            return costs(given).value
        except Unmeasurable as reason:
            return str(reason)

    monkeypatch.setattr(counting, "run_counted", run)
    some = outcome()
    assert len(ran) == len(set(ran)) <= 12
    monkeypatch.setattr(cost, "_follows", lambda *_: False)
    assert outcome() == some
    assert sorted(ran[-12:]) == list(range(1, 13))


def test_few_lengths_suffice_for_a_parabola(subject: Build) -> None:
    assert costs(subject("gpt2")).detail["lengths"] == [1, 2, 3, 7, 12]
    assert len(costs(subject("mistral", window=8)).detail["lengths"]) == 12


def test_curve_without_a_rule() -> None:
    with pytest.raises(Unmeasurable, match="no rule"):
        cost.growth(list(range(2, 10)), [1, 2, 4, 8, 16, 31, 70, 99])


def test_longer_inputs_end_in_the_last_position(subject: Build) -> None:
    given = subject("t5")
    longer = counting.at_length(given.inputs, given.streams["decoder"], 14)
    assert longer is not None
    assert longer["decoder_input_ids"].shape == (2, 14)
    assert torch.equal(longer["decoder_input_ids"][:, 12:], given.inputs["decoder_input_ids"][:, [-1, -1]])
    assert longer["input_ids"] is given.inputs["input_ids"]


def test_same_result_twice(subject: Build) -> None:
    assert cost.measure(subject("mixtral")) == cost.measure(subject("mixtral"))


def test_agreement() -> None:
    assert cost.agrees(cost.parse("quadratic"), QUADRATIC)
    assert cost.agrees(cost.parse({"exponent": 1, "bend": 4}), {"exponent": 1, "bend": 4})
    assert not cost.agrees(cost.parse({"exponent": 1, "bend": 4}), LINEAR)
    assert not cost.agrees(cost.parse({"bend": None}), {"exponent": 1, "bend": 4})
    assert not cost.agrees(cost.parse("linear"), QUADRATIC)


@pytest.mark.parametrize(
    "value", ["cubic", {}, 2, {"exponent": None}, {"exponent": 0}, {"bend": "4"}, {"slope": 1}]
)
def test_claims_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match="not"):
        cost.parse(value)


def test_local_attention_of_an_encoder() -> None:
    config = t.ModernBertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, local_attention=4,
        global_attn_every_n_layers=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    given = subjects.subject_of(t.ModernBertForMaskedLM(config).eval(), "modernbert")
    value = costs(given).value
    assert value == {"exponent": 2, "bend": 3}  # every second layer sees all, the others two to each side
