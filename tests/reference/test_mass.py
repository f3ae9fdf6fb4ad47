"""MASS: what the encoder reads, what the decoder is given, and what it has to write."""

import dataclasses

import pytest
import torch

from ptmkb.reference.mass import MASS, MASSConfig

TINY = MASSConfig.tiny()


@pytest.fixture
def model(build):
    return build(MASS)


@pytest.fixture
def inputs(model):
    return model.dummy_inputs(torch.Generator().manual_seed(0))


@pytest.fixture
def sentences():
    return torch.randint(2, TINY.vocab_size, (2, 12))


def test_the_fragment_is_half_the_sentence_and_its_own_only_target(model, sentences):
    cut = model.mask_fragment(sentences, 3, torch.Generator().manual_seed(0))
    assert torch.equal(cut["labels"], sentences[:, 3:9])
    assert torch.equal(cut["decoder_input_ids"], sentences[:, 2:8])  # each token's predecessor
    assert cut["decoder_position_ids"].tolist() == [[2, 3, 4, 5, 6, 7]] * 2
    outside = [0, 1, 2, 9, 10, 11]
    assert torch.equal(cut["input_ids"][:, outside], sentences[:, outside])


def test_fragment_tokens_are_masked_replaced_or_kept_as_in_bert(model):
    sentences = torch.randint(2, TINY.vocab_size, (4000, 12))
    cut = model.mask_fragment(sentences, 3, torch.Generator().manual_seed(0))
    shown, real = cut["input_ids"][:, 3:9], cut["labels"]
    masked = (shown == TINY.mask_token_id).double().mean().item()
    kept = (shown == real).double().mean().item()
    assert masked == pytest.approx(0.8, abs=0.01)
    assert kept == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("start", [0, 7, -1])
def test_a_fragment_has_to_fit_behind_the_first_token(model, sentences, start):
    with pytest.raises(ValueError, match="does not fit"):
        model.mask_fragment(sentences, start, torch.Generator())


def test_encoder_is_bidirectional(model, inputs, changed):
    def run(ids):
        return model(**{**inputs, "input_ids": ids}).encoder_last_hidden_state

    for position in (0, 5, 11):
        assert changed(run, inputs["input_ids"], position, TINY.vocab_size) == set(range(12))


def test_decoder_is_causal_over_the_fragment(model, inputs, changed):
    def run(ids):
        return model(**{**inputs, "decoder_input_ids": ids}).last_hidden_state

    for position in range(6):
        assert changed(run, inputs["decoder_input_ids"], position, TINY.vocab_size) == set(range(position, 6))


def test_words_that_are_left_reach_the_whole_fragment(model, inputs, changed):
    def run(ids):
        return model(**{**inputs, "input_ids": ids}).last_hidden_state

    for position in (0, 11):
        assert changed(run, inputs["input_ids"], position, TINY.vocab_size) == set(range(6))


def test_the_decoder_reads_no_encoder_state_of_a_mask(model, inputs):
    masked = inputs["input_ids"] == TINY.mask_token_id
    assert masked.any()
    plain = model(**inputs).logits

    def disturbed_at(where):
        handle = model.encoder.register_forward_hook(
            lambda _, __, states: (*states[:-1], states[-1] + 5.0 * where[..., None])
        )
        logits = model(**inputs).logits
        handle.remove()
        return logits

    assert torch.equal(disturbed_at(masked), plain)
    assert not torch.allclose(disturbed_at(~masked), plain)


def test_padding_of_the_source_is_not_read(model, inputs):
    padded = {**inputs, "input_ids": torch.cat((inputs["input_ids"], inputs["input_ids"][:, :3]), dim=1)}
    mask = torch.tensor([[1] * 12 + [0] * 3] * 2)
    torch.testing.assert_close(model(**padded, attention_mask=mask).logits, model(**inputs).logits)


def test_fragment_positions_are_those_of_the_sentence(model, inputs):
    moved = {**inputs, "decoder_position_ids": inputs["decoder_position_ids"] + 1}
    assert not torch.allclose(model(**moved).logits, model(**inputs).logits)
    embedded = model(**inputs).hidden_states[0]
    tables = model.decoder_embeddings
    summed = (
        tables.token(inputs["decoder_input_ids"][:, 0])
        + tables.position(torch.tensor([2, 2]))
        + tables.language(inputs["language_ids"])
    )
    torch.testing.assert_close(embedded[:, 0], tables.norm(summed))


def test_the_language_is_told_to_both_sides(model, inputs):
    other = model(**{**inputs, "language_ids": 1 - inputs["language_ids"]})
    assert not torch.allclose(other.encoder_hidden_states[0], model(**inputs).encoder_hidden_states[0])
    assert not torch.allclose(other.hidden_states[0], model(**inputs).hidden_states[0])


def test_loss_is_the_mean_log_likelihood_of_the_fragment(model, inputs):
    output = model(**inputs)
    torch.testing.assert_close(
        output.logits,
        output.last_hidden_state @ model.decoder_embeddings.token.weight.T + model.output_bias,
    )
    expected = [
        -output.logits[b, t].log_softmax(-1)[inputs["labels"][b, t]] for b in range(2) for t in range(6)
    ]
    torch.testing.assert_close(output.loss, torch.stack(expected).mean())


def test_one_token_fragment_is_masked_language_modelling_and_a_full_one_is_language_modelling():
    """k = 1 gives BERT's task, k = m gives GPT's: the two ends of the paper's range of k."""
    for share, size in ((1 / 12, 1), (11 / 12, 11)):
        model = MASS(dataclasses.replace(TINY, fragment_share=share))
        sentences = torch.randint(2, TINY.vocab_size, (2, 12))
        cut = model.mask_fragment(sentences, 1, torch.Generator().manual_seed(0))
        assert cut["labels"].shape == (2, size)
        assert torch.equal(cut["decoder_input_ids"], sentences[:, :size])


def test_size_is_the_sum_of_the_parts(parameters_at_full_size):
    """The paper gives the sizes of the layers and of the vocabulary, and no total."""
    width, inner = 1024, 4096
    attention = 4 * (width**2 + width)
    feed_forward = 2 * width * inner + inner + width
    norm = 2 * width
    encoder = 6 * (attention + feed_forward + 2 * norm)
    decoder = 6 * (2 * attention + feed_forward + 3 * norm)
    embeddings = (60000 + 512 + 2) * width + norm
    total = encoder + decoder + 2 * embeddings + 60000
    assert parameters_at_full_size(MASS, MASSConfig()) == total == 300_354_144
