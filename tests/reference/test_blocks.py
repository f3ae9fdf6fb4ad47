"""The shared blocks against the equations, computed a second time without them."""

import math

import pytest
import torch
from torch.nn import functional as F

from ptmkb.reference.blocks import (
    FeedForward,
    MultiHeadAttention,
    TransformerBlock,
    TransformerEncoder,
    causal_mask,
    init_bert_weights,
    padding_mask,
    sinusoids,
)


def attention_by_hand(layer, queries_from, keys_from, allowed):
    """Eq. 1, head by head, query by query, key by key."""
    batch, length, _ = queries_from.shape
    heads = []
    for head in range(layer.num_heads):
        rows = slice(head * layer.head_size, (head + 1) * layer.head_size)
        query = queries_from @ layer.query.weight[rows].T + layer.query.bias[rows]
        key = keys_from @ layer.key.weight[rows].T + layer.key.bias[rows]
        value = keys_from @ layer.value.weight[rows].T + layer.value.bias[rows]
        result = torch.zeros(batch, length, layer.head_size, dtype=torch.float64)
        for b in range(batch):
            for i in range(length):
                keys = [j for j in range(keys_from.shape[1]) if allowed(b, head, i, j)]
                scores = [
                    math.exp((query[b, i] @ key[b, j]).item() / math.sqrt(layer.head_size)) for j in keys
                ]
                for j, score in zip(keys, scores, strict=True):
                    result[b, i] += score / sum(scores) * value[b, j]
        heads.append(result)
    return torch.cat(heads, dim=-1) @ layer.output.weight.T + layer.output.bias


def test_self_attention_is_equation_1():
    layer = MultiHeadAttention(12, 3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    expected = attention_by_hand(layer, x, x, lambda b, h, i, j: j <= i)
    torch.testing.assert_close(layer(x, causal_mask(5)), expected)


def test_attention_to_another_source_of_another_width_with_a_mask_a_head():
    layer = MultiHeadAttention(12, 2, key_value_size=7, attention_size=8).double()
    x = torch.randn(2, 4, 12, dtype=torch.float64)
    source = torch.randn(2, 6, 7, dtype=torch.float64)
    mask = torch.rand(2, 2, 4, 6) < 0.6
    mask[..., 0] = True
    expected = attention_by_hand(layer, x, source, lambda b, h, i, j: mask[b, h, i, j])
    result = layer(x, mask, source)
    assert result.shape == (2, 4, 12)
    torch.testing.assert_close(result, expected)


def test_a_query_that_may_see_nothing_gets_the_mean_and_no_nan():
    layer = MultiHeadAttention(8, 2).double()
    x = torch.randn(1, 3, 8, dtype=torch.float64)
    result = layer(x, torch.zeros(1, 1, 3, 3, dtype=torch.bool))
    torch.testing.assert_close(result[0, 0], layer.output(layer.value(x).mean(dim=1))[0])


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="10 is not a multiple of num_heads 3"):
        MultiHeadAttention(10, 3)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_feed_forward_is_equation_2(activation):
    layer = FeedForward(4, 9, activation).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    inner = x @ layer.widen.weight.T + layer.widen.bias
    if activation == "relu":
        inner = inner.clamp(min=0)
    else:
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    torch.testing.assert_close(layer(x), inner @ layer.narrow.weight.T + layer.narrow.bias)


def test_block_is_sublayer_then_sum_then_norm_three_times():
    block = TransformerBlock(8, 2, 16, cross_attention=True, layer_norm_eps=1e-5).double().eval()
    x = torch.randn(2, 4, 8, dtype=torch.float64)
    memory = torch.randn(2, 6, 8, dtype=torch.float64)
    expected = F.layer_norm(x + block.attention(x, causal_mask(4)), (8,))
    expected = F.layer_norm(expected + block.cross_attention(expected, None, memory), (8,))
    expected = F.layer_norm(expected + block.feed_forward(expected), (8,))
    torch.testing.assert_close(block(x, causal_mask(4), memory), expected)


def test_encoder_returns_its_input_and_every_layer():
    encoder = TransformerEncoder(3, 8, 2, 16).double().eval()
    x = torch.randn(2, 4, 8, dtype=torch.float64)
    states = encoder(x)
    assert len(states) == 4
    assert states[0] is x
    torch.testing.assert_close(states[3], encoder.layers[2](encoder.layers[1](encoder.layers[0](x))))


def test_padding_is_not_attended_to():
    encoder = TransformerEncoder(2, 8, 2, 16).double().eval()
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    padded = torch.cat((x, torch.randn(1, 3, 8, dtype=torch.float64)), dim=1)
    mask = padding_mask(torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]]))
    torch.testing.assert_close(encoder(padded, mask)[-1][:, :5], encoder(x)[-1])


def test_sinusoids_are_the_formula():
    table = sinusoids(torch.arange(50), 16, torch.float64)
    for position in (0, 1, 7, 49):
        for i in range(8):
            angle = position / 10000 ** (2 * i / 16)
            assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


def test_a_shift_of_position_is_one_linear_map_of_the_sinusoids():
    """The property that made the authors choose them (section 3.5): PE(pos + k) is linear in PE(pos)."""
    table = sinusoids(torch.arange(60), 16, torch.float64)
    shift = torch.linalg.lstsq(table[:40], table[5:45]).solution
    torch.testing.assert_close(table[10:50] @ shift, table[15:55], atol=1e-9, rtol=0)


def test_sinusoids_stay_exact_far_out_in_float32():
    far = torch.tensor([100_003])
    assert sinusoids(far, 4, torch.float32)[0, 0].item() == pytest.approx(math.sin(100_003), abs=1e-6)


def test_bert_weights_are_narrow_and_cut_off():
    encoder = TransformerEncoder(2, 64, 4, 128)
    init_bert_weights(encoder)
    weight = encoder.layers[0].feed_forward.widen.weight
    assert weight.abs().max() <= 0.04
    assert 0.016 < weight.std() < 0.02  # cutting at two deviations takes the deviation from 0.02 to 0.0176
    assert not encoder.layers[0].feed_forward.widen.bias.any()
