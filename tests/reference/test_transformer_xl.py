"""Transformer-XL against its paper: recurrence, relative scores, adaptive words, sizes."""

import dataclasses
import math

import pytest
import torch

from ptmkb.reference.blocks import sinusoids
from ptmkb.reference.transformer_xl import (
    AdaptiveEmbedding,
    AdaptiveSoftmax,
    RelativeAttention,
    TransformerXL,
    TransformerXLConfig,
    relative_shift,
)

TINY = TransformerXLConfig.tiny()


@pytest.fixture
def model(build):
    model = build(TransformerXL)
    for bias in (model.content_bias, model.position_bias):
        torch.nn.init.normal_(bias)  # large, so that no test passes without them
    return model


@pytest.fixture
def segments():
    return torch.randint(TINY.vocab_size, (2, 36)).split(12, dim=1)


def test_a_segment_is_causal(model, segments, changed):
    for position in (0, 5, 11):
        seen_by = changed(lambda ids: model(ids).last_hidden_state, segments[0], position, TINY.vocab_size)
        assert seen_by == set(range(position, 12))


def test_with_memory_a_segment_sees_the_one_before_and_still_no_future(model, segments, changed):
    first, second, _ = segments

    def after(ids):
        return model(second, memory=model(ids).memory).last_hidden_state

    for position in (0, 11):
        assert changed(after, first, position, TINY.vocab_size) == set(range(12))

    memory = model(first).memory

    def within(ids):
        return model(ids, memory=memory).last_hidden_state

    for position in (0, 5, 11):
        assert changed(within, second, position, TINY.vocab_size) == set(range(position, 12))


def test_two_segments_with_memory_are_one_long_segment(model, segments):
    """A causal model over joined keys: with a memory that holds everything, cutting the text changes nothing."""
    together = model(torch.cat(segments[:2], dim=1))
    first = model(segments[0])
    second = model(segments[1], memory=first.memory)
    for whole, start, rest in zip(
        together.hidden_states, first.hidden_states, second.hidden_states, strict=True
    ):
        torch.testing.assert_close(whole, torch.cat((start, rest), dim=1))
    torch.testing.assert_close(together.logits, torch.cat((first.logits, second.logits), dim=1))


def test_memory_is_the_last_inputs_of_every_layer_and_no_gradient_enters_it(model, segments):
    first = model(segments[0])
    for i, kept in enumerate(first.memory):
        assert torch.equal(kept, first.hidden_states[i])
        assert not kept.requires_grad
    assert len(first.memory) == TINY.num_layers
    second = model(segments[1][:, :5], memory=first.memory)
    for i, kept in enumerate(second.memory):
        expected = torch.cat((first.hidden_states[i][:, 5:], second.hidden_states[i]), dim=1)
        torch.testing.assert_close(kept, expected)


def test_context_grows_by_one_segment_a_layer(segments, changed):
    """Section 3.2: what a state depends on reaches back N segments, though each looks back one only."""
    for layers, third_sees_first in ((1, False), (2, True)):
        model = TransformerXL(dataclasses.replace(TINY, num_layers=layers)).double().eval()

        def third(ids, model=model):
            memory = model(ids).memory
            return model(segments[2], memory=model(segments[1], memory=memory).memory).last_hidden_state

        assert bool(changed(third, segments[0], 11, TINY.vocab_size)) == third_sees_first


def four_terms(layer, u, v, segment, memory, b, head, i, j):
    """A^rel_{i,j} of section 3.3, written out with its weight matrices."""
    rows = slice(head * layer.head_size, (head + 1) * layer.head_size)
    query_matrix, key_matrix = layer.query.weight[rows], layer.key.weight[rows]
    position_matrix = layer.position_key.weight[rows]
    content = torch.cat((memory, segment), dim=1)
    distance = memory.shape[1] + i - j
    width = segment.shape[-1]
    encoding = torch.tensor(
        [
            (math.cos if column % 2 else math.sin)(distance / 10000 ** ((column - column % 2) / width))
            for column in range(width)
        ],
        dtype=torch.float64,
    )
    query = query_matrix @ segment[b, i]
    return (
        query @ (key_matrix @ content[b, j])
        + query @ (position_matrix @ encoding)
        + u[head] @ (key_matrix @ content[b, j])
        + v[head] @ (position_matrix @ encoding)
    )


@pytest.mark.parametrize("memory_length", [0, 3])
def test_attention_is_the_four_terms(memory_length):
    layer = RelativeAttention(TINY).double().eval()
    segment = torch.randn(2, 5, 32, dtype=torch.float64)
    memory = torch.randn(2, memory_length, 32, dtype=torch.float64)
    u, v = torch.randn(2, TINY.num_heads, TINY.head_size, dtype=torch.float64)
    content = torch.cat((memory, segment), dim=1)
    heads = []
    for head in range(TINY.num_heads):
        rows = slice(head * TINY.head_size, (head + 1) * TINY.head_size)
        values = content @ layer.value.weight[rows].T
        result = torch.zeros(2, 5, TINY.head_size, dtype=torch.float64)
        for b in range(2):
            for i in range(5):
                visible = range(memory_length + i + 1)
                scores = torch.stack(
                    [four_terms(layer, u, v, segment, memory, b, head, i, j) for j in visible]
                )
                result[b, i] = (scores / math.sqrt(TINY.head_size)).softmax(0) @ values[b, : len(visible)]
        heads.append(result)
    expected = torch.cat(heads, dim=-1) @ layer.output.weight.T
    distances = sinusoids(torch.arange(memory_length + 4, -1, -1), 32, torch.float64)
    torch.testing.assert_close(layer(segment, memory, distances, u, v), expected)


@pytest.mark.parametrize(("length", "width"), [(1, 1), (1, 4), (4, 4), (3, 7)])
def test_shift_puts_every_distance_under_its_key(length, width):
    distances = torch.arange(width - 1, -1, -1.0).expand(2, 3, length, width)
    shifted = relative_shift(distances)
    for i in range(length):
        for j in range(width - length + i + 1):
            assert (shifted[:, :, i, j] == width - length + i - j).all()


def test_embeddings_of_each_cluster_are_projected_and_scaled():
    embedding = AdaptiveEmbedding(TINY).double()
    assert [tuple(table.weight.shape) for table in embedding.tables] == [(32, 32), (32, 16), (32, 8)]
    ids = torch.tensor([[0, 31, 32, 63, 64, 95]])
    for column, (cluster, row) in enumerate(((0, 0), (0, 31), (1, 0), (1, 31), (2, 0), (2, 31))):
        vector = embedding.projections[cluster].weight @ embedding.tables[cluster].weight[row]
        torch.testing.assert_close(embedding(ids)[0, column], vector * math.sqrt(32))


@pytest.mark.parametrize("divisor", [1, 2])
def test_adaptive_softmax_is_a_distribution_made_in_two_steps(divisor):
    config = dataclasses.replace(TINY, embedding_divisor=divisor)
    embedding, softmax = AdaptiveEmbedding(config).double(), AdaptiveSoftmax(config).double()
    torch.nn.init.normal_(softmax.bias)
    hidden = torch.randn(1, 1, 32, dtype=torch.float64)
    result = softmax(hidden, embedding)[0, 0]
    assert result.shape == (96,)
    torch.testing.assert_close(result.exp().sum(), torch.tensor(1.0, dtype=torch.float64))

    x = hidden[0, 0]
    vectors = [x, x, x]
    if divisor > 1:
        vectors = [softmax.projection.weight @ x] + [embedding.projections[i].weight.T @ x for i in (1, 2)]
    scores = [embedding.tables[i].weight @ vectors[i] + softmax.bias[32 * i : 32 * (i + 1)] for i in range(3)]
    cluster_scores = softmax.clusters.weight @ vectors[0] + softmax.clusters.bias
    normaliser = scores[0].exp().sum() + cluster_scores.exp().sum()
    for word in (0, 31, 40, 95):
        cluster, row = divmod(word, 32)
        if cluster == 0:
            probability = scores[0][row].exp() / normaliser
        else:
            probability = cluster_scores[cluster - 1].exp() / normaliser * scores[cluster].softmax(0)[row]
        torch.testing.assert_close(result[word].exp(), probability)


def test_loss_is_that_of_the_next_token(model, segments):
    output = model(segments[0], labels=segments[0])
    expected = [-output.logits[b, t, segments[0][b, t + 1]] for b in range(2) for t in range(11)]
    torch.testing.assert_close(output.loss, torch.stack(expected).mean())


def test_every_layer_is_told_the_distances_down_to_zero(model, segments):
    told = []
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda _, arguments: told.append(arguments[2]))
    memory = model(segments[0]).memory
    told.clear()
    model(segments[1][:, :5], memory=memory)
    assert len(told) == TINY.num_layers
    for distances in told:
        assert distances.shape == (17, 32)
        for row, distance in ((0, 16), (10, 6), (16, 0)):
            assert distances[row, 0].item() == pytest.approx(math.sin(distance))
            assert distances[row, 1].item() == pytest.approx(math.cos(distance))


@pytest.mark.parametrize("name", ["content_bias", "position_bias"])
def test_unshared_biases_belong_to_one_layer_each(segments, name):
    model = TransformerXL(dataclasses.replace(TINY, shared_biases=False)).double().eval()
    before = model(segments[0]).hidden_states
    with torch.no_grad():
        torch.nn.init.normal_(getattr(model, name)[1])
    after = model(segments[0]).hidden_states
    assert torch.equal(before[1], after[1])
    assert not torch.allclose(before[2], after[2])


def test_biases_are_shared_by_the_layers_or_not():
    with torch.device("meta"):
        standard, large = TransformerXL(TransformerXLConfig()), TransformerXL(TransformerXLConfig.large())
    assert standard.content_bias.shape == standard.position_bias.shape == (1, 10, 41)
    assert large.content_bias.shape == large.position_bias.shape == (18, 16, 64)


def test_standard_model_has_the_published_size(parameters_at_full_size):
    count = parameters_at_full_size(TransformerXL, TransformerXLConfig())
    assert count == 151_107_538
    assert f"{count / 1e6:.0f}" == "151"  # table 1: 151M


def test_large_model_of_the_script_is_larger_than_the_published_size(parameters_at_full_size):
    """Table 1 says 257M. The authors' script for it has 18 layers and gives 285M; the same with 16 would give 257.9M."""
    large = TransformerXLConfig.large()
    assert parameters_at_full_size(TransformerXL, large) == 285_205_322
    assert parameters_at_full_size(TransformerXL, dataclasses.replace(large, num_layers=16)) == 257_919_818
