"""ELMo against its paper and against torch's own LSTM: directions, characters, mix, losses, sizes."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ptmkb.reference.elmo import CharacterEncoder, ELMo, ELMoConfig, ProjectedLSTM

CHARACTERS = ELMoConfig.tiny().num_characters
WIDTH = ELMoConfig.tiny().hidden_size


@pytest.fixture
def model(build):
    return build(ELMo)


@pytest.fixture
def inputs(model):
    return model.dummy_inputs(torch.Generator().manual_seed(0))


def test_each_half_reads_in_its_own_direction(model, inputs, changed):
    for layer in (1, 2):
        for position in (0, 4, 11):

            def forward_half(ids, layer=layer):
                return model(ids).hidden_states[layer][..., :WIDTH]

            def backward_half(ids, layer=layer):
                return model(ids).hidden_states[layer][..., WIDTH:]

            ids = inputs["character_ids"]
            assert changed(forward_half, ids, position, CHARACTERS) == set(range(position, 12))
            assert changed(backward_half, ids, position, CHARACTERS) == set(range(position + 1))


def test_word_vectors_know_no_neighbours_and_the_mix_knows_all(model, inputs, changed):
    ids = inputs["character_ids"]
    assert changed(lambda ids: model(ids).hidden_states[0], ids, 4, CHARACTERS) == {4}
    assert changed(lambda ids: model(ids).elmo, ids, 4, CHARACTERS) == set(range(12))


def test_no_prediction_sees_the_word_that_it_predicts(model, inputs, changed):
    ids = inputs["character_ids"]
    assert changed(lambda ids: model(ids).logits[:, :-1], ids, 4, CHARACTERS) == set(
        range(4, 11)
    )  # words 5, 6, ...
    assert changed(lambda ids: model(ids).backward_logits[:, 1:], ids, 4, CHARACTERS) == set(
        range(4)
    )  # 0, ..., 3


def test_the_directions_are_two_networks_over_shared_words(model, inputs):
    """Reading a sentence that is turned round with the directions exchanged gives the same, turned round."""
    straight = model(inputs["character_ids"])
    model.forward_layers, model.backward_layers = model.backward_layers, model.forward_layers
    turned = model(inputs["character_ids"].flip(1))
    torch.testing.assert_close(turned.logits.flip(1), straight.backward_logits)
    torch.testing.assert_close(turned.backward_logits.flip(1), straight.logits)


def test_lstm_with_projection_is_torchs(build):
    ours = ProjectedLSTM(6, 10, clip=100.0).double()
    theirs = nn.LSTM(6, 10, proj_size=6, batch_first=True).double()
    write, candidate, keep, read = ours.gates.weight.chunk(4)
    write_bias, candidate_bias, keep_bias, read_bias = ours.gates.bias.chunk(4)
    with torch.no_grad():
        joint = torch.cat((write, keep, candidate, read))  # torch's order: input, forget, cell, output
        theirs.weight_ih_l0.copy_(joint[:, :6])
        theirs.weight_hh_l0.copy_(joint[:, 6:])
        theirs.weight_hr_l0.copy_(ours.projection.weight)
        theirs.bias_ih_l0.copy_(torch.cat((write_bias, keep_bias, candidate_bias, read_bias)))
        theirs.bias_hh_l0.zero_()
    x = torch.randn(3, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x)[0])


def test_cells_and_states_are_clipped():
    lstm = ProjectedLSTM(6, 10, clip=0.05).double()
    x = 10 * torch.randn(3, 9, 6, dtype=torch.float64)
    states = lstm(x)
    assert states.abs().max() == 0.05
    # With a projection that adds up all units, unclipped cells would show: ten of tanh(0.05) at most are left.
    with torch.no_grad():
        lstm.projection.weight.fill_(0.01)
    assert lstm(x).abs().max() <= 10 * 0.01 * torch.tensor(0.05, dtype=torch.float64).tanh()


def test_a_word_is_its_characters_ngrams(build):
    config = ELMoConfig.tiny()
    encoder = CharacterEncoder(config).double()
    word = torch.randint(1, CHARACTERS, (1, 1, 8))
    vectors = encoder.embedding.weight[word[0, 0]]  # (8, 8)
    features = []
    for (width, number), convolution in zip(config.filters, encoder.convolutions, strict=True):
        for f in range(number):
            kernel = convolution.weight[f].T  # (width, character_size)
            found = [
                (kernel * vectors[i : i + width]).sum() + convolution.bias[f] for i in range(8 - width + 1)
            ]
            features.append(torch.stack(found).max().clamp(min=0))
    x = torch.stack(features)
    for highway in encoder.highways:
        gate = 1 / (1 + torch.exp(-(highway.gate.weight @ x + highway.gate.bias)))
        x = gate * (highway.transform.weight @ x + highway.transform.bias).clamp(min=0) + (1 - gate) * x
    expected = encoder.projection.weight @ x + encoder.projection.bias
    torch.testing.assert_close(encoder(word)[0, 0], expected)


def test_from_the_second_layer_on_inputs_are_added(model, inputs):
    results = {}
    for index, layer in enumerate(model.forward_layers):
        layer.register_forward_hook(lambda _, __, result, index=index: results.__setitem__(index, result))
    states = model(inputs["character_ids"]).hidden_states
    torch.testing.assert_close(states[1][..., :WIDTH], results[0])
    torch.testing.assert_close(states[2][..., :WIDTH], results[0] + results[1])


def test_mix_is_equation_1(model, inputs):
    with torch.no_grad():
        model.scalar_mix.weights.copy_(torch.tensor([0.3, -1.0, 2.0]))
        model.scalar_mix.gamma.fill_(1.7)
    output = model(inputs["character_ids"])
    exponentials = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64).exp()
    expected = sum(
        1.7 * share * state
        for share, state in zip(exponentials / exponentials.sum(), output.hidden_states, strict=True)
    )
    torch.testing.assert_close(output.elmo, expected)


def test_losses_are_the_two_likelihoods(model, inputs):
    output = model(**inputs)
    labels = inputs["labels"]
    ahead = [-output.logits[b, k].log_softmax(-1)[labels[b, k + 1]] for b in range(2) for k in range(11)]
    behind = [
        -output.backward_logits[b, k].log_softmax(-1)[labels[b, k - 1]]
        for b in range(2)
        for k in range(1, 12)
    ]
    torch.testing.assert_close(output.forward_loss, torch.stack(ahead).mean())
    torch.testing.assert_close(output.backward_loss, torch.stack(behind).mean())
    torch.testing.assert_close(output.loss, (output.forward_loss + output.backward_loss) / 2)


def test_both_directions_predict_with_one_softmax(model, inputs):
    output = model(**inputs)
    halves = output.last_hidden_state.split(WIDTH, dim=-1)
    for half, logits in zip(halves, (output.logits, output.backward_logits), strict=True):
        torch.testing.assert_close(logits, F.linear(half, model.softmax.weight, model.softmax.bias))


def test_padding_changes_neither_direction(model, inputs):
    ids = inputs["character_ids"].clone()
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 7:] = 0
    batch = model(ids, attention_mask=mask)
    alone = model(ids[1:, :7])
    torch.testing.assert_close(batch.last_hidden_state[1, :7], alone.last_hidden_state[0])
    torch.testing.assert_close(batch.last_hidden_state[0], model(ids[:1]).last_hidden_state[0])


def test_labels_need_a_softmax():
    model = ELMo(dataclasses.replace(ELMoConfig.tiny(), vocab_size=None))
    assert "labels" not in model.dummy_inputs(torch.Generator())
    ids = model.dummy_inputs(torch.Generator())["character_ids"]
    assert model(ids).logits is None
    with pytest.raises(ValueError, match="vocab_size"):
        model(ids, labels=torch.zeros(2, 12, dtype=torch.long))


@pytest.mark.parametrize(
    ("config", "exact", "published"),
    [
        (ELMoConfig(), 93_600_864, "93.6"),
        (ELMoConfig.small(), 13_593_312, "13.6"),
        (ELMoConfig.medium(), 28_027_744, "28.0"),
    ],
    ids=["original", "small", "medium"],
)
def test_released_models_have_the_published_sizes(config, exact, published, parameters_at_full_size):
    """The table at allennlp.org/elmo counts the words' network and the four LSTMs: no softmax, no mix."""
    mix = config.num_layers + 2
    count = parameters_at_full_size(ELMo, config) - mix
    assert count == exact
    assert f"{count / 1e6:.1f}" == published
    with_softmax = parameters_at_full_size(ELMo, dataclasses.replace(config, vocab_size=1000))
    assert with_softmax - count - mix == 1000 * (config.hidden_size + 1)


def test_where_the_parameters_are():
    with torch.device("meta"):
        model = ELMo(ELMoConfig())
    lstms = [
        sum(p.numel() for p in layer.parameters())
        for layer in (*model.forward_layers, *model.backward_layers)
    ]
    assert lstms == [4 * 4096 * (512 + 512 + 1) + 4096 * 512] * 4
    characters = 262 * 16 + sum(number * (width * 16 + 1) for width, number in ELMoConfig().filters)
    highways = 2 * 2 * (2048 * 2048 + 2048)
    projection = 2048 * 512 + 512
    assert sum(p.numel() for p in model.character_encoder.parameters()) == characters + highways + projection
