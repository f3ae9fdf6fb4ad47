import pytest
import torch

from ptmkb.probe import samples, tiny
from ptmkb.probe.inputs import described, ordinary_words, sample_inputs
from ptmkb.probe.subjects import inputs_of
from ptmkb.probe.wanted import Wanted


def test_samples_are_the_same_every_time_and_never_constant() -> None:
    makers = [
        lambda: samples.tokens(12, range(8, 100)),
        lambda: samples.images(3, 16, 16),
        lambda: samples.waveforms(4000),
        lambda: samples.spectrograms(16, 24),
        lambda: samples.vectors(6, 32),
        lambda: samples.boxes(6),
    ]
    for make in makers:
        first, again = make(), make()
        assert torch.equal(first, again)
        assert first.shape[0] == samples.BATCH
        assert not torch.equal(first[0], first[1]), "the two samples differ"
        assert torch.isfinite(first.double()).all()
        assert first.double().std() > 0.05


def test_shapes_and_ranges_of_samples() -> None:
    assert samples.images(3, 16, 20).shape == (2, 3, 16, 20)
    assert samples.spectrograms(16, 24).shape == (2, 24, 16)
    assert samples.waveforms(1000).abs().max() <= 1
    boxes = samples.boxes(6, 7)
    assert boxes.shape == (2, 6, 7)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[..., 0] < boxes[..., 2]).all()
    assert (boxes[..., 1] < boxes[..., 3]).all()
    assert torch.allclose(boxes[..., 6], boxes[..., 4] * boxes[..., 5])


def test_a_waveform_is_voiced_like_speech() -> None:
    spectrum = torch.fft.rfft(samples.waveforms(16_000)[0]).abs()
    low, high = spectrum[:4000].pow(2).sum(), spectrum[4000:].pow(2).sum()
    assert low > 50 * high, "energy lies below 4 kHz"
    assert spectrum[90:2600].max() > 30 * spectrum[90:2600].median(), "harmonics stand out"


def test_words_are_never_special() -> None:
    model = tiny.build("gpt2")
    words = set(ordinary_words(model))
    assert len(words) > 50
    assert model.config.eos_token_id not in words
    assert max(words) < model.config.vocab_size


@pytest.mark.parametrize(
    ("model_type", "names"),
    [
        ("bert", {"input_ids"}),
        ("t5", {"input_ids", "decoder_input_ids"}),
        ("vit", {"pixel_values"}),
        ("clip", {"input_ids", "pixel_values"}),
        ("wav2vec2", {"input_values"}),
        ("whisper", {"input_features", "decoder_input_ids"}),
        ("speecht5", {"input_values", "decoder_input_ids"}),
        ("lxmert", {"input_ids", "visual_feats", "visual_pos"}),
    ],
)
def test_a_model_gets_what_its_signature_wants(model_type: str, names: set[str]) -> None:
    inputs = sample_inputs(tiny.build(model_type))
    assert {name for name, value in inputs.items() if isinstance(value, torch.Tensor)} == names
    assert "labels" not in inputs


def test_an_argument_that_nobody_can_make_is_named() -> None:
    class Odd(torch.nn.Module):
        config = tiny.tiny_config("bert")

        def forward(self, input_ids: torch.Tensor, moon_phase: torch.Tensor) -> None: ...

    with pytest.raises(ValueError, match="Odd wants `moon_phase`"):
        sample_inputs(Odd())


def test_arguments_made_as_the_data_says() -> None:
    wanted = Wanted(tiny.build("bert"))
    assert described([3, "hidden_size"], wanted).shape == (2, 3, wanted.model.config.hidden_size)
    assert described({"words": [2, 4, 3]}, wanted).shape == (2, 4, 3)
    assert described({"all": [2, 2]}, wanted).dtype == torch.bool
    assert not described({"never": [2, 2]}, wanted).any()
    assert described({"some": [2, 6]}, wanted).sum(1).tolist() == [2, 2]
    assert described({"places": [2, 2, 2]}, wanted)[1].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert described({"steps": [2, 3]}, wanted).tolist() == [[0, 1, 2], [0, 1, 2]]
    assert described({"value": 3}, wanted) == 3
    assert described("none", wanted) is None


@pytest.mark.parametrize(
    ("model_type", "token"), [("gemma3", "image_token_id"), ("voxtral", "audio_token_id")]
)
def test_as_many_placeholders_as_the_model_makes_features(model_type: str, token: str) -> None:
    model = tiny.build(model_type)
    inputs = inputs_of(model)
    held = inputs["input_ids"] == getattr(model.config, token)
    assert held.sum(1).tolist() == [held[0].sum().item()] * 2
    assert held[0].any()
    assert not held[:, -1].any(), "the text ends in words"
    model(**inputs)
