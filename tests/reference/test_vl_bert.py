"""VL-BERT: four embeddings an element, one stream from the first layer on, two objectives, sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from ptmkb.reference.vl_bert import VLBERT, VLBERTConfig, geometry_embedding


@pytest.fixture
def model() -> VLBERT:
    torch.manual_seed(0)
    model = VLBERT(VLBERTConfig.tiny()).double().eval()
    torch.nn.init.normal_(model.embedding.masked_feature)  # zeros would hide a mistake
    return model


@pytest.fixture
def inputs(model: VLBERT) -> dict[str, Tensor]:
    return model.dummy_inputs(torch.Generator().manual_seed(1))


def changes(before: tuple[Tensor, ...], after: tuple[Tensor, ...], part: slice) -> list[float]:
    """The largest change of any entry at these positions, layer by layer."""
    return [(a - b)[:, part].abs().max().item() for a, b in zip(before, after, strict=True)]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


WORDS, REGIONS, END = slice(0, 12), slice(12, 18), slice(18, 19)


def test_shapes_and_finite_losses(model: VLBERT, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)
    assert count(model) < 200_000
    assert output.logits.shape == (2, 12, 99)
    assert output.region_logits.shape == (2, 6, 11)
    assert [tuple(x.shape) for x in output.hidden_states] == [(2, 19, 32)] * (1 + 3)
    assert output.last_hidden_state is output.hidden_states[-1]
    assert output.masked_lm_loss > 0
    assert output.masked_region_loss > 0
    assert output.loss.item() == pytest.approx((output.masked_lm_loss + output.masked_region_loss).item())
    assert not hasattr(output, "matching_loss")  # the paper found no use for that task


def test_single_stream_both_ways_from_layer_1(model: VLBERT, inputs: dict[str, Tensor]) -> None:
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


def test_words_see_the_whole_image_in_their_embedding(model: VLBERT, inputs: dict[str, Tensor]) -> None:
    before = model(**inputs).hidden_states
    after = model(**{**inputs, "image_features": inputs["image_features"] + 1.0}).hidden_states
    assert changes(before, after, WORDS)[0] > 1e-3
    assert changes(before, after, END)[0] > 1e-3
    assert changes(before, after, REGIONS)[0] == 0.0


def test_geometry_embedding_by_its_formula() -> None:
    box = [0.1, 0.25, 0.7, 0.9]
    expected = []
    for coordinate in box:
        angles = [100 * coordinate / 1000 ** (i / 256) for i in range(256)]
        expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    measured = geometry_embedding(torch.tensor(box, dtype=torch.float64), 2048)
    assert measured.shape == (2048,)
    torch.testing.assert_close(measured, torch.tensor(expected, dtype=torch.float64))


def test_every_element_is_the_sum_of_four_embeddings(model: VLBERT, inputs: dict[str, Tensor]) -> None:
    inputs["token_type_ids"][:, 8:] = 1  # a second sentence
    inputs["masked_regions"] = torch.zeros(2, 6, dtype=torch.bool)
    inputs["masked_regions"][1, 2] = True
    embedded = model(**inputs).hidden_states[0]
    tables = model.embedding
    image, end, masked = tables.special_tokens.weight

    def visual(appearance: Tensor, box: Tensor) -> Tensor:
        return tables.visual_feature(torch.cat([geometry_embedding(box, 16), appearance]))

    def element(token: Tensor, visual: Tensor, segment: int, position: int) -> Tensor:
        summed = token + visual + tables.segments.weight[segment] + tables.positions.weight[position]
        return tables.norm(summed)

    features, boxes = inputs["region_features"][1], inputs["region_boxes"][1]
    whole = visual(inputs["image_features"][1], torch.tensor([0.0, 0.0, 1.0, 1.0]).double())
    words = tables.words.weight[inputs["input_ids"][1]]
    expected = {
        3: element(words[3], whole, 0, 3),  # a word of the first sentence: segment A
        9: element(words[9], whole, 1, 9),  # of the second: segment B
        12: element(image, visual(features[0], boxes[0]), 2, 12),  # a region: [IMG], segment C
        17: element(image, visual(features[5], boxes[5]), 2, 12),  # another one, at the same position
        14: element(
            masked, visual(tables.masked_feature, boxes[2]), 2, 12
        ),  # a hidden one: its place stays known
        18: element(end, whole, 2, 13),
    }
    for position, value in expected.items():
        torch.testing.assert_close(embedded[1, position], value)


def test_regions_have_no_order_but_words_do(model: VLBERT, inputs: dict[str, Tensor]) -> None:
    plain = model(**inputs)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    names = ("region_features", "region_boxes", "region_mask", "masked_regions", "region_labels")
    shuffled = model(**{**inputs, **{name: inputs[name][:, order] for name in names}})
    torch.testing.assert_close(shuffled.logits, plain.logits)
    torch.testing.assert_close(shuffled.region_logits, plain.region_logits[:, order])
    torch.testing.assert_close(shuffled.loss, plain.loss)
    reversed_words = model(**{**inputs, "input_ids": inputs["input_ids"].flip(1)})
    assert (reversed_words.logits.flip(1) - plain.logits).abs().max() > 1e-4


def test_padding_changes_nothing(model: VLBERT, inputs: dict[str, Tensor]) -> None:
    """Nor does it move the regions: their position is that after the last real word."""
    plain = model(**inputs)
    padded = dict(inputs)
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        padded[name] = pad(inputs[name], (0, 3))
    padded["labels"] = pad(inputs["labels"], (0, 3), value=-100)
    for name in ("region_features", "region_boxes"):
        padded[name] = pad(inputs[name], (0, 0, 0, 2))
    for name in ("region_mask", "masked_regions"):
        padded[name] = pad(inputs[name], (0, 2))
    padded["region_labels"] = pad(inputs["region_labels"], (0, 2), value=-100)
    output = model(**padded)
    torch.testing.assert_close(output.logits[:, :12], plain.logits)
    torch.testing.assert_close(output.region_logits[:, :6], plain.region_logits)
    torch.testing.assert_close(output.loss, plain.loss)


def test_objectives_by_their_formulas(model: VLBERT, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)

    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        pairs = zip(logits.flatten(0, 1), labels.flatten(), strict=True)
        kept = [-row.log_softmax(-1)[label] for row, label in pairs if label >= 0]
        assert len(kept) == 4
        return torch.stack(kept).mean()

    torch.testing.assert_close(output.masked_lm_loss, cross_entropy(output.logits, inputs["labels"]))
    torch.testing.assert_close(
        output.masked_region_loss, cross_entropy(output.region_logits, inputs["region_labels"])
    )


def test_hidden_regions_are_not_seen(model: VLBERT, inputs: dict[str, Tensor]) -> None:
    before = model(**inputs).loss
    inputs["region_features"][inputs["masked_regions"]] = 100.0
    assert torch.equal(model(**inputs).loss, before)
    inputs["region_features"][~inputs["masked_regions"]] += 1.0
    assert (model(**inputs).loss - before).abs() > 1e-6


def test_losses_need_their_labels(model: VLBERT, inputs: dict[str, Tensor]) -> None:
    for name in ("labels", "region_labels"):
        del inputs[name]
    output = model(**inputs)
    assert output.loss is output.masked_lm_loss is output.masked_region_loss is None


@pytest.mark.parametrize(
    ("config", "bert_sizes", "total"),
    [
        (VLBERTConfig(), {}, 114_487_675),
        (
            VLBERTConfig.large(),
            {
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
            },
            342_066_555,
        ),
    ],
)
def test_size_is_bert_and_the_visual_embedding(
    config: VLBERTConfig, bert_sizes: dict[str, int], total: int
) -> None:
    """The authors' configurations give the sizes of BERT-base and BERT-large, and no count."""
    from transformers import BertConfig, BertForMaskedLM

    with torch.device("meta"):
        model = VLBERT(config)
        bert = BertForMaskedLM(BertConfig(**bert_sizes))
    width, classes = config.hidden_size, 1601
    visual_embedding = (2048 + 2048 + 1) * width
    learned_tokens = 3 * width + 2048  # [IMG], [END], masked region; the feature of a masked region
    third_segment = width
    region_head = (width + 1) * width + (width + 1) * classes
    added = visual_embedding + learned_tokens + third_segment + region_head
    assert count(model) == count(bert) + added == total


def test_runs_at_full_size_on_meta() -> None:
    with torch.device("meta"):
        model = VLBERT(VLBERTConfig())
    output = model(**model.dummy_inputs(torch.Generator().manual_seed(0)))
    assert [tuple(x.shape) for x in output.hidden_states] == [(2, 19, 768)] * 13


def test_dropout_only_in_training(model: VLBERT, inputs: dict[str, Tensor]) -> None:
    assert torch.equal(model(**inputs).loss, model(**inputs).loss)
    model.train()
    assert not torch.equal(model(**inputs).loss, model(**inputs).loss)


def test_dummy_inputs_come_from_the_generator(model: VLBERT) -> None:
    first, again, other = (model.dummy_inputs(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["input_ids"], other["input_ids"])
    x1, y1, x2, y2 = first["region_boxes"].unbind(-1)
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= 1) & (y1 >= 0) & (y1 < y2) & (y2 <= 1)).all()


def test_learns_and_gradients_reach_everything(model: VLBERT, inputs: dict[str, Tensor]) -> None:
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
