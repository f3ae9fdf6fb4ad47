import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from ptmkb.probe.measures import Unmeasurable, learns
from ptmkb.probe.subject import Subject

Build = Callable[..., Subject]
FINE = {"lowers": True, "finite": True, "unreached": 0}


@pytest.mark.parametrize(
    "name", ["bert", "gpt2", "mistral", "mixtral", "mamba", "t5", "whisper", "clip", "vit", "wav2vec2"]
)
def test_models_learn(subject: Build, name: str) -> None:
    reading = learns.measure(subject(name))[None]
    assert reading.value == FINE
    assert learns.agrees(True, reading.value)
    losses = reading.detail["losses"]
    assert learns.LOWERED < len(losses) <= learns.STEPS + 1
    assert all(loss < 0.99 * losses[0] for loss in losses[-learns.LOWERED :])


def losing(subject: Subject, *factors: float) -> Subject:
    """One whose loss is multiplied from call to call; as itself behind the last factor."""
    calls = itertools.count()

    def scale(_: Any, args: Any, output: Any) -> Any:
        output.loss = output.loss * dict(enumerate(factors)).get(next(calls), 1.0)
        return output

    subject.model.register_forward_hook(scale)
    return subject


def test_steps_end_with_three_lower_losses_in_a_row(subject: Build) -> None:
    """A loss that falls and rises again has not been lowered yet."""
    calm, wild = subject("bert"), losing(subject("bert"), 1.0, 0.5, 0.5, 2.0, 0.5, 0.5, 0.5)
    assert len(learns.measure(calm)[None].detail["losses"]) == 4
    reading = learns.measure(wild)[None]
    assert len(reading.detail["losses"]) == 7
    assert reading.value == FINE
    rising = losing(subject("bert"), 1.0, *[0.5, 0.5, 2.0] * 4)
    reading = learns.measure(rising)[None]
    assert len(reading.detail["losses"]) == learns.STEPS + 1
    assert reading.value == FINE | {"lowers": False}


def test_gradient_of_zero_is_waited_for(subject: Build) -> None:
    """A part that opens late is reached all the same; one that the loss never uses holds nothing up."""
    late, calls = subject("bert"), itertools.count()
    late.model.extra = torch.nn.Parameter(torch.ones(3))

    def opened(module: Any, args: Any, output: Any) -> Any:
        output.loss = output.loss + module.extra.sum() * float(next(calls) >= 7)
        return output

    late.model.register_forward_hook(opened)
    reading = learns.measure(late)[None]
    assert reading.value["unreached"] == 0
    assert len(reading.detail["losses"]) > 8
    unused = subject("bert")
    unused.model.extra = torch.nn.Parameter(torch.ones(3))
    reading = learns.measure(unused)[None]
    assert reading.detail["unreached"] == ["extra"]
    assert len(reading.detail["losses"]) == 4


def test_last_loss_is_finite_too(subject: Build) -> None:
    assert learns.measure(losing(subject("bert"), 1.0, 1.0, float("inf")))[None].value["finite"] is False


def test_parameters_that_nothing_uses_are_named(subject: Build) -> None:
    reading = learns.measure(subject("xlnet"))[None]
    assert reading.value["unreached"] == len(reading.detail["unreached"]) == 4
    assert all(name.endswith(("r_s_bias", "seg_embed")) for name in reading.detail["unreached"])


def test_frozen_parameters_are_listed_apart(subject: Build) -> None:
    reading = learns.measure(subject("whisper"))[None]
    assert reading.detail["frozen"] == ["model.encoder.embed_positions.weight"]


def test_without_steps_nothing_is_learned(subject: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learns, "LEARNING_RATE", 0.0)
    reading = learns.measure(subject("bert"))[None]
    assert reading.value == FINE | {"lowers": False}
    assert not learns.agrees(True, reading.value)
    assert learns.agrees(False, reading.value)


def test_frozen_model_does_not_learn(subject: Build) -> None:
    frozen = subject("bert")
    frozen.model.requires_grad_(False)
    assert learns.measure(frozen)[None].value["lowers"] is False


def test_part_cut_off_from_the_loss_is_unreached(subject: Build) -> None:
    cut = subject("gpt2")
    cut.blocks["text"][0].register_forward_hook(lambda _, args, output: output.detach())
    unreached = learns.measure(cut)[None].detail["unreached"]
    assert "transformer.h.0.mlp.c_fc.weight" in unreached
    assert not any(name.startswith("transformer.h.1") for name in unreached)


def test_loss_that_is_not_finite(subject: Build) -> None:
    broken = subject("bert")

    def spoil(_: Any, args: Any, output: Any) -> Any:
        output.loss = output.loss / 0
        return output

    broken.model.register_forward_hook(spoil)
    assert learns.measure(broken)[None].value["finite"] is False


def test_dropout_is_off_and_the_model_left_alone(subject: Build) -> None:
    """With dropout on, the losses of a model that cannot move would differ from step to step."""
    given = subject("bert")
    before = copy.deepcopy(given.model.state_dict())
    for module in given.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    still = copy.deepcopy(given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learns, "LEARNING_RATE", 0.0)
        still_losses = learns.measure(still)[None].detail["losses"]
    with torch.no_grad():
        plain = float(given.model(**given.losses[0].inputs).loss)
    assert set(still_losses) == {float(f"{plain:.4g}")}
    learns.measure(given)
    assert not given.model.training
    assert all(torch.equal(before[name], value) for name, value in given.model.state_dict().items())


def test_same_result_twice(subject: Build) -> None:
    given = subject("wav2vec2")
    assert learns.measure(given) == learns.measure(given)


def test_without_a_loss(subject: Build) -> None:
    with pytest.raises(Unmeasurable, match="no loss"):
        learns.measure(replace(subject("bert"), losses=()))


def test_claims() -> None:
    assert learns.parse(True) is True
    for value in ("yes", 1, None):
        with pytest.raises(ValueError, match="true or false"):
            learns.parse(value)
