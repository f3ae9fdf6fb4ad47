"""Unicoder-VL: one stream from the first layer on; its region embedding; its three objectives; sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from ptmkb.reference.unicoder_vl import UnicoderVL, UnicoderVLConfig


@pytest.fixture
def model() -> UnicoderVL:
    torch.manual_seed(0)
    return UnicoderVL(UnicoderVLConfig.tiny()).double().eval()


@pytest.fixture
def inputs(model: UnicoderVL) -> dict[str, Tensor]:
    return model.dummy_inputs(torch.Generator().manual_seed(1))


def changes(before: tuple[Tensor, ...], after: tuple[Tensor, ...], part: slice) -> list[float]:
    """The largest change of any entry at these positions, layer by layer."""
    return [(a - b)[:, part].abs().max().item() for a, b in zip(before, after, strict=True)]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


WORDS, REGIONS = slice(0, 12), slice(12, 18)


def test_shapes_and_finite_losses(model: UnicoderVL, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)
    assert count(model) < 200_000
    assert output.logits.shape == (2, 12, 99)
    assert output.region_logits.shape == (2, 6, 11)
    assert output.matching_logits.shape == (2,)
    assert [tuple(x.shape) for x in output.hidden_states] == [(2, 18, 32)] * (1 + 3)
    assert output.last_hidden_state is output.hidden_states[-1]
    parts = [output.masked_lm_loss, output.masked_region_loss, output.matching_loss]
    assert all(part.isfinite() and part > 0 for part in parts)
    assert output.loss.item() == pytest.approx(sum(part.item() for part in parts))


def test_single_stream_both_ways_from_layer_1(model: UnicoderVL, inputs: dict[str, Tensor]) -> None:
    before = model(**inputs).hidden_states
    moved = {**inputs, "region_boxes": inputs["region_boxes"] * 0.5}
    to_words = changes(before, model(**moved).hidden_states, WORDS)
    assert to_words[0] == 0.0
    assert all(change > 1e-6 for change in to_words[1:])

    reworded = {**inputs, "input_ids": inputs["input_ids"].clone()}
    reworded["input_ids"][:, 11] = (inputs["input_ids"][:, 11] + 1) % 99
    after = model(**reworded).hidden_states
    assert changes(before, after, REGIONS)[0] == 0.0
    assert all(change > 1e-6 for change in changes(before, after, REGIONS)[1:])
    assert all(change > 1e-6 for change in changes(before, after, slice(0, 11))[1:])  # and to earlier words


def test_region_embedding_is_feature_plus_5d_location_normalised(
    model: UnicoderVL, inputs: dict[str, Tensor]
) -> None:
    inputs["masked_regions"][:] = False
    embedded = model(**inputs).hidden_states[0]
    layers = model.image_embedding
    for sample, region in ((0, 0), (1, 5)):
        x1, y1, x2, y2 = inputs["region_boxes"][sample, region].tolist()
        location = torch.tensor([x1, y1, x2, y2, (y2 - y1) * (x2 - x1)]).double()
        summed = (
            layers.features.weight @ inputs["region_features"][sample, region]
            + layers.features.bias
            + layers.locations.weight @ location
            + layers.locations.bias
        )
        normalised = (summed - summed.mean()) / summed.var(correction=0).sqrt()
        torch.testing.assert_close(embedded[sample, 12 + region], normalised, rtol=1e-6, atol=1e-6)


def test_regions_have_no_order_but_words_do(model: UnicoderVL, inputs: dict[str, Tensor]) -> None:
    plain = model(**inputs)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    names = ("region_features", "region_boxes", "region_mask", "masked_regions", "region_labels")
    shuffled = model(**{**inputs, **{name: inputs[name][:, order] for name in names}})
    torch.testing.assert_close(shuffled.logits, plain.logits)
    torch.testing.assert_close(shuffled.region_logits, plain.region_logits[:, order])
    torch.testing.assert_close(shuffled.loss, plain.loss)
    reversed_words = model(**{**inputs, "input_ids": inputs["input_ids"].flip(1)})
    assert (reversed_words.logits.flip(1) - plain.logits).abs().max() > 1e-4


def test_padding_changes_nothing(model: UnicoderVL, inputs: dict[str, Tensor]) -> None:
    plain = model(**inputs)
    padded = dict(inputs)
    for name in ("input_ids", "attention_mask"):
        padded[name] = pad(inputs[name], (0, 3))
    padded["labels"] = pad(inputs["labels"], (0, 3), value=-100)
    for name in ("region_features", "region_boxes"):
        padded[name] = pad(inputs[name], (0, 0, 0, 2))
    padded["region_features"][:, 6:] = 7.0
    for name in ("region_mask", "masked_regions"):
        padded[name] = pad(inputs[name], (0, 2))
    padded["region_labels"] = pad(inputs["region_labels"], (0, 2), value=-100)
    output = model(**padded)
    torch.testing.assert_close(output.logits[:, :12], plain.logits)
    torch.testing.assert_close(output.region_logits[:, :6], plain.region_logits)
    torch.testing.assert_close(output.loss, plain.loss)


def test_objective_is_mlm_plus_moc_over_matching_pairs_plus_vlm(
    model: UnicoderVL, inputs: dict[str, Tensor]
) -> None:
    """L = (L_MLM + L_MOC) · I[y = 1] + L_VLM, from logits and labels alone; sample 1 does not match."""
    assert inputs["matching_labels"].tolist() == [1, 0]
    output = model(**inputs)

    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        kept = [-row.log_softmax(-1)[label] for row, label in zip(logits, labels, strict=True) if label >= 0]
        assert len(kept) == 2
        return torch.stack(kept).mean()

    masked_words = cross_entropy(output.logits[0], inputs["labels"][0])
    masked_objects = cross_entropy(output.region_logits[0], inputs["region_labels"][0])
    score = output.matching_logits.sigmoid()
    matching = -(score[0].log() + (1 - score[1]).log()) / 2
    torch.testing.assert_close(output.masked_lm_loss, masked_words)
    torch.testing.assert_close(output.masked_region_loss, masked_objects)
    torch.testing.assert_close(output.loss, masked_words + masked_objects + matching)

    none_match = model(**{**inputs, "matching_labels": torch.tensor([0, 0])})
    assert none_match.masked_lm_loss == none_match.masked_region_loss == 0
    torch.testing.assert_close(none_match.loss, none_match.matching_loss)


def test_match_is_read_off_cls(model: UnicoderVL, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)
    expected = (
        output.last_hidden_state[:, 0] @ model.matching_classifier.weight[0] + model.matching_classifier.bias
    )
    torch.testing.assert_close(output.matching_logits, expected)


def test_hidden_regions_are_zeros(model: UnicoderVL, inputs: dict[str, Tensor]) -> None:
    hidden = inputs["masked_regions"]
    plain = model(**inputs).hidden_states[-1]
    inputs["region_features"][hidden] = 100.0
    assert torch.equal(model(**inputs).hidden_states[-1], plain)
    inputs["region_features"][hidden] = 0.0
    inputs["masked_regions"] = torch.zeros_like(hidden)
    assert torch.equal(model(**inputs).hidden_states[-1], plain)


def test_losses_need_their_labels(model: UnicoderVL, inputs: dict[str, Tensor]) -> None:
    for name in ("labels", "region_labels", "matching_labels"):
        del inputs[name]
    output = model(**inputs)
    assert output.loss is output.masked_lm_loss is output.masked_region_loss is output.matching_loss is None


def test_size_is_bert_base_and_the_projections_of_regions() -> None:
    """The paper publishes layers, width and heads, and begins from BERT-base; it gives no count."""
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        model = UnicoderVL(UnicoderVLConfig())
        bert = BertModel(BertConfig(), add_pooling_layer=False)
    segments = 2 * 768  # BERT's segment embeddings, which the paper's linguistic embedding has not
    assert count(model.linguistic_embedding) + count(model.encoder) == count(bert) - segments
    assert count(model.image_embedding) == (2048 + 1) * 768 + (5 + 1) * 768 + 2 * 768
    assert count(model) == 112_324_476


def test_runs_at_full_size_on_meta() -> None:
    with torch.device("meta"):
        model = UnicoderVL(UnicoderVLConfig())
    output = model(**model.dummy_inputs(torch.Generator().manual_seed(0)))
    assert [tuple(x.shape) for x in output.hidden_states] == [(2, 18, 768)] * 13


def test_dropout_only_in_training(model: UnicoderVL, inputs: dict[str, Tensor]) -> None:
    assert torch.equal(model(**inputs).loss, model(**inputs).loss)
    model.train()
    assert not torch.equal(model(**inputs).loss, model(**inputs).loss)


def test_dummy_inputs_come_from_the_generator(model: UnicoderVL) -> None:
    first, again, other = (model.dummy_inputs(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["input_ids"], other["input_ids"])
    x1, y1, x2, y2 = first["region_boxes"].unbind(-1)
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= 1) & (y1 >= 0) & (y1 < y2) & (y2 <= 1)).all()


def test_learns_and_gradients_reach_everything(model: UnicoderVL, inputs: dict[str, Tensor]) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(8):
        optimizer.zero_grad()
        output = model(**inputs)
        output.loss.backward()
        losses.append(output.loss.item())
        if step == 0:
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
                # Adding a constant to all keys shifts every score alike, which the softmax cannot see.
                assert name.endswith("key.bias") or parameter.grad.abs().max() > 1e-12, name
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
