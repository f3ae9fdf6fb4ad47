"""UniLM: one set of weights, and the mask alone makes it an encoder, a decoder or both."""

import pytest
import torch

from ptmkb.reference.unilm import UniLM, UniLMConfig, attention_pattern

TINY = UniLMConfig.tiny()
MODES = ["bidirectional", "left-to-right", "right-to-left", "sequence-to-sequence"]


@pytest.fixture
def model(build):
    return build(UniLM)


@pytest.fixture
def inputs(model):
    return model.dummy_inputs(torch.Generator().manual_seed(0))


def seen_by(mode, position):
    """The positions that an input at `position` may change, with a source of 6 and a target of 6 tokens."""
    if mode == "left-to-right":
        return set(range(position, 12))
    if mode == "right-to-left":
        return set(range(position + 1))
    if mode == "sequence-to-sequence" and position >= 6:
        return set(range(position, 12))
    return set(range(12))


@pytest.mark.parametrize("mode", MODES)
def test_flow_is_the_masks(model, inputs, changed, mode):
    def run(ids):
        return model(**{**inputs, "input_ids": ids}, mode=mode).last_hidden_state

    for position in range(12):
        assert changed(run, inputs["input_ids"], position, TINY.vocab_size) == seen_by(mode, position)


def test_the_example_of_section_2_3():
    """[SOS] t1 t2 [EOS] t3 t4 t5 [EOS]: t1 and t2 see the first four tokens, t4 the first six."""
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    pattern = attention_pattern("sequence-to-sequence", segments)[0, 0]
    t1, t2, t4 = pattern[1], pattern[2], pattern[5]
    assert t1.tolist() == t2.tolist() == [True] * 4 + [False] * 4
    assert t4.tolist() == [True] * 6 + [False] * 2


def test_segments_may_differ_within_a_batch():
    segments = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    pattern = attention_pattern("sequence-to-sequence", segments)
    assert pattern.shape == (2, 1, 4, 4)
    assert pattern[0, 0].long().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert pattern[1, 0].long().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_an_unknown_mode_is_refused(model, inputs):
    with pytest.raises(ValueError, match="unknown mode 'prefix'"):
        model(**inputs, mode="prefix")


@pytest.mark.parametrize("mode", MODES)
def test_padding_is_not_read(model, inputs, mode):
    padded = {
        name: torch.cat((inputs[name], inputs[name][:, -3:]), dim=1)
        for name in ("input_ids", "token_type_ids")
    }
    mask = torch.tensor([[1] * 12 + [0] * 3] * 2)
    result = model(**padded, attention_mask=mask, mode=mode)
    plain = model(inputs["input_ids"], inputs["token_type_ids"], mode=mode)
    torch.testing.assert_close(result.logits[:, :12], plain.logits)


@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        ("bidirectional", {0, 1}),
        ("left-to-right", {2}),
        ("right-to-left", {3}),
        ("sequence-to-sequence", {4, 5}),
    ],
)
def test_segment_embeddings_name_the_objective(model, inputs, mode, rows):
    model(**inputs, mode=mode).loss.backward()
    used = model.segment_embedding.weight.grad.abs().amax(dim=1).nonzero().flatten()
    assert set(used.tolist()) == rows


@pytest.mark.parametrize("mode", MODES)
def test_every_objective_is_the_same_cloze_task(model, inputs, mode):
    output = model(**inputs, mode=mode)
    labels = inputs["labels"]
    masked = (labels != -100).nonzero().tolist()
    assert len(masked) == 8
    assert all(inputs["input_ids"][b, t] == TINY.mask_token_id for b, t in masked)
    expected = [-output.logits[b, t].log_softmax(-1)[labels[b, t]] for b, t in masked]  # at their own places
    torch.testing.assert_close(output.masked_lm_loss, torch.stack(expected).mean())


def test_only_the_bidirectional_objective_judges_the_next_sentence(model, inputs):
    both = model(**inputs)
    picked = both.next_sentence_logits.log_softmax(-1)[torch.arange(2), inputs["next_sentence_label"]]
    torch.testing.assert_close(both.next_sentence_loss, -picked.mean())
    torch.testing.assert_close(both.loss, both.masked_lm_loss + both.next_sentence_loss)
    for mode in MODES[1:]:
        one = model(**inputs, mode=mode)
        assert one.next_sentence_loss is None
        assert one.next_sentence_logits is None
        assert torch.equal(one.loss, one.masked_lm_loss)


def test_the_softmax_is_tied_to_the_tokens(model, inputs):
    vocab_matrices = [
        name
        for name, parameter in model.named_parameters()
        if TINY.vocab_size in parameter.shape and parameter.dim() == 2
    ]
    assert vocab_matrices == ["token_embedding.weight"]
    absent = next(i for i in range(TINY.vocab_size) if i not in inputs["input_ids"])
    before = model(**inputs)
    with torch.no_grad():
        model.token_embedding.weight[absent] += 0.5
    after = model(**inputs)
    assert torch.equal(before.last_hidden_state, after.last_hidden_state)
    moved = (after.logits != before.logits).any(dim=0).any(dim=0).nonzero().flatten().tolist()
    assert moved == [absent]


@pytest.mark.parametrize(
    ("config", "exact", "published"),
    [(UniLMConfig(), 334_666_054, 340e6), (UniLMConfig.base(), 108_936_006, 110e6)],
    ids=["large", "base"],
)
def test_sizes_are_the_published_ones(config, exact, published, parameters_at_full_size):
    """Section 2.4 says about 340M for BERT-large's shape with 28,996 word pieces; the README of unilm-v1 110M for base."""
    count = parameters_at_full_size(UniLM, config)
    assert count == exact
    assert abs(count / published - 1) < 0.02
