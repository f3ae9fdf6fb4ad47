"""ViLBERT: streams apart before the first co-attentional layer, together after it; objectives; sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ptmkb.reference.vilbert import CoAttentionBlock, ViLBERT, ViLBERTConfig

TEXT_ALONE = 2  # ordinary layers of the tiny linguistic stream before its first co-attentional layer


@pytest.fixture
def model() -> ViLBERT:
    torch.manual_seed(0)
    return ViLBERT(ViLBERTConfig.tiny()).double().eval()


@pytest.fixture
def inputs(model: ViLBERT) -> dict[str, Tensor]:
    return model.dummy_inputs(torch.Generator().manual_seed(1))


def changes(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> list[float]:
    """The largest change of any entry, layer by layer."""
    return [(a - b).abs().max().item() for a, b in zip(before, after, strict=True)]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_shapes_and_finite_losses(model: ViLBERT, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)
    assert count(model) < 200_000
    assert output.logits.shape == (2, 12, 99)
    assert output.region_logits.shape == (2, 6, 11)
    assert output.matching_logits.shape == (2,)
    assert [tuple(x.shape) for x in output.text_hidden_states] == [(2, 12, 32)] * (1 + 4 + 2)
    assert [tuple(x.shape) for x in output.region_hidden_states] == [(2, 7, 48)] * (1 + 2 + 2)
    assert output.text_last_hidden_state is output.text_hidden_states[-1]
    assert output.region_last_hidden_state is output.region_hidden_states[-1]
    parts = [output.masked_lm_loss, output.masked_region_loss, output.matching_loss]
    assert all(part.isfinite() and part > 0 for part in parts)
    assert output.loss.item() == pytest.approx(sum(part.item() for part in parts))


def test_regions_reach_words_from_the_first_co_attentional_layer_on(
    model: ViLBERT, inputs: dict[str, Tensor]
) -> None:
    before = model(**inputs)
    inputs["region_features"][:, 3] += 1.0
    inputs["masked_regions"][:, 3] = False
    inputs["region_boxes"][:, 2] *= 0.5
    after = model(**inputs)
    text = changes(before.text_hidden_states, after.text_hidden_states)
    assert text[: TEXT_ALONE + 1] == [0.0] * (TEXT_ALONE + 1)  # embeddings and the layers for words alone
    assert all(change > 1e-6 for change in text[TEXT_ALONE + 1 :])
    assert all(change > 1e-3 for change in changes(before.region_hidden_states, after.region_hidden_states))


def test_words_reach_regions_from_the_first_co_attentional_layer_on(
    model: ViLBERT, inputs: dict[str, Tensor]
) -> None:
    before = model(**inputs)
    inputs["input_ids"][:, 5] = (inputs["input_ids"][:, 5] + 1) % 99
    after = model(**inputs)
    regions = changes(before.region_hidden_states, after.region_hidden_states)
    assert regions[0] == 0.0
    assert all(change > 1e-6 for change in regions[1:])


def test_one_region_reaches_another_only_past_its_co_attentional_layer(
    model: ViLBERT, inputs: dict[str, Tensor]
) -> None:
    """A co-attentional layer has no way from region to region: these meet in the ordinary layer after it."""
    inputs["masked_regions"][:] = False
    before = model(**inputs).region_hidden_states
    inputs["region_features"][:, 0] += 1.0
    after = model(**inputs).region_hidden_states
    others = [
        (a - b)[:, 2:].abs().max().item() for a, b in zip(before, after, strict=True)
    ]  # not [IMG], not 0
    assert others[:2] == [0.0, 0.0]
    assert all(change > 1e-6 for change in others[2:])


def test_co_attention_takes_keys_and_values_of_the_other_stream() -> None:
    """Both attentions against softmax(Q Kᵀ / √d) V written out head by head, from the block's inputs."""
    torch.manual_seed(0)
    config = ViLBERTConfig.tiny()
    block = CoAttentionBlock(config).double().eval()
    text, regions = torch.randn(1, 5, 32).double(), torch.randn(1, 4, 48).double()
    head = config.co_attention_size // config.co_attention_num_heads

    def attend(asking: Tensor, answering: Tensor, attention: torch.nn.Module) -> Tensor:
        query, key, value = attention.query(asking), attention.key(answering), attention.value(answering)
        contexts = []
        for start in range(0, config.co_attention_size, head):
            part = slice(start, start + head)
            rows = [
                sum(
                    weight * value[0, j, part]
                    for j, weight in enumerate(
                        torch.softmax(
                            torch.stack([query[0, i, part].dot(k) for k in key[0, :, part]])
                            / math.sqrt(head),
                            0,
                        )
                    )
                )
                for i in range(asking.shape[1])
            ]
            contexts.append(torch.stack(rows))
        return attention.output(torch.cat(contexts, dim=-1)).unsqueeze(0)

    def finish(stream: Tensor, attended: Tensor, side: str) -> Tensor:
        stream = getattr(block, f"{side}_attention_norm")(stream + attended)
        transformed = getattr(block, f"{side}_feed_forward")(stream)
        return getattr(block, f"{side}_feed_forward_norm")(stream + transformed)

    everything = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    new_text, new_regions = block(text, regions, everything, everything)
    torch.testing.assert_close(new_text, finish(text, attend(text, regions, block.text_attention), "text"))
    torch.testing.assert_close(
        new_regions, finish(regions, attend(regions, text, block.region_attention), "region")
    )


def test_img_is_the_mean_of_the_regions_at_the_whole_image(model: ViLBERT, inputs: dict[str, Tensor]) -> None:
    features, boxes = inputs["region_features"], inputs["region_boxes"]
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    embedded = model.region_embeddings(features, boxes, mask)
    layers = model.region_embeddings
    mean = torch.stack([features[0].mean(0), features[1, :3].mean(0)])
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0]).double()
    torch.testing.assert_close(embedded[:, 0], layers.norm(layers.features(mean) + layers.locations(whole)))

    x1, y1, x2, y2 = boxes[1, 4].tolist()
    location = torch.tensor([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)]).double()
    expected = layers.norm(layers.features(features[1, 4]) + layers.locations(location))
    torch.testing.assert_close(embedded[1, 5], expected)


def test_padding_changes_nothing(model: ViLBERT, inputs: dict[str, Tensor]) -> None:
    plain = model(**inputs)
    padded = dict(inputs)
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        padded[name] = torch.nn.functional.pad(inputs[name], (0, 3))
    padded["labels"] = torch.nn.functional.pad(inputs["labels"], (0, 3), value=-100)
    for name in ("region_features", "region_boxes", "region_targets"):
        padded[name] = torch.nn.functional.pad(inputs[name], (0, 0, 0, 2))
    padded["region_features"][:, 6:] = 7.0
    for name in ("region_mask", "masked_regions"):
        padded[name] = torch.nn.functional.pad(inputs[name], (0, 2))
    output = model(**padded)
    torch.testing.assert_close(output.logits[:, :12], plain.logits)
    torch.testing.assert_close(output.region_logits[:, :6], plain.region_logits)
    torch.testing.assert_close(output.loss, plain.loss)


def test_objectives_by_their_formulas(model: ViLBERT, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)
    words = [
        -output.logits[b, t].log_softmax(-1)[inputs["labels"][b, t]]
        for b in range(2)
        for t in range(12)
        if inputs["labels"][b, t] != -100
    ]
    assert len(words) == 4
    torch.testing.assert_close(output.masked_lm_loss, torch.stack(words).mean())

    divergences = [
        (target * (target.log() - output.region_logits[b, r].log_softmax(-1))).sum()
        for b in range(2)
        for r in range(6)
        if (target := inputs["region_targets"][b, r]).sum() > 0
    ]
    assert len(divergences) == 4
    torch.testing.assert_close(output.masked_region_loss, torch.stack(divergences).mean())

    score = output.matching_logits.sigmoid()
    torch.testing.assert_close(output.matching_loss, -(score[0].log() + (1 - score[1]).log()) / 2)


def test_match_is_read_off_the_product_of_cls_and_img(model: ViLBERT, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)
    text, image = model.text_pooler[0], model.region_pooler[0]
    of_text = torch.relu(output.text_last_hidden_state[:, 0] @ text.weight.T + text.bias)
    of_image = torch.relu(output.region_last_hidden_state[:, 0] @ image.weight.T + image.bias)
    score = model.matching_classifier
    torch.testing.assert_close(output.matching_logits, (of_text * of_image) @ score.weight[0] + score.bias)


def test_hidden_regions_are_not_seen(model: ViLBERT, inputs: dict[str, Tensor]) -> None:
    before = model(**inputs).loss
    inputs["region_features"][inputs["masked_regions"]] = 100.0
    assert torch.equal(model(**inputs).loss, before)
    inputs["region_features"][~inputs["masked_regions"]] += 1.0
    assert (model(**inputs).loss - before).abs() > 1e-6


def test_losses_need_their_labels(model: ViLBERT, inputs: dict[str, Tensor]) -> None:
    for name in ("labels", "region_targets", "matching_labels"):
        del inputs[name]
    output = model(**inputs)
    assert output.loss is output.masked_lm_loss is output.masked_region_loss is output.matching_loss is None


def test_published_size() -> None:
    """The paper gives none; "12-in-1" (arXiv 1912.02315, abstract): 3 billion for its single-task models."""
    with torch.device("meta"):
        model = ViLBERT(ViLBERTConfig())
    assert count(model) == 239_022_204
    # The authors' class has two unused projections a co-attentional layer besides, and two matching scores.
    unused = 6 * ((1024 * 1024 + 1024) + (1024 * 768 + 768))
    with_unused = count(model) + unused + 1025
    assert with_unused == 250_044_029
    assert with_unused * 12 == pytest.approx(3e9, rel=0.01)


def test_linguistic_stream_is_bert_base() -> None:
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        model = ViLBERT(ViLBERTConfig())
        bert = BertModel(BertConfig(), add_pooling_layer=False)
    assert count(model.text_embeddings) + count(model.text_layers) == count(bert)


def test_runs_at_full_size_on_meta() -> None:
    with torch.device("meta"):
        model = ViLBERT(ViLBERTConfig())
    output = model(**model.dummy_inputs(torch.Generator().manual_seed(0)))
    assert len(output.text_hidden_states) == 1 + 12 + 6
    assert len(output.region_hidden_states) == 1 + 6 + 6
    assert output.region_last_hidden_state.shape == (2, 7, 1024)


def test_dropout_only_in_training(model: ViLBERT, inputs: dict[str, Tensor]) -> None:
    assert torch.equal(model(**inputs).loss, model(**inputs).loss)
    model.train()
    assert not torch.equal(model(**inputs).loss, model(**inputs).loss)


def test_dummy_inputs_come_from_the_generator(model: ViLBERT) -> None:
    first, again, other = (model.dummy_inputs(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["input_ids"], other["input_ids"])
    x1, y1, x2, y2 = first["region_boxes"].unbind(-1)
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= 1) & (y1 >= 0) & (y1 < y2) & (y2 <= 1)).all()


def test_learns_and_gradients_reach_everything(model: ViLBERT, inputs: dict[str, Tensor]) -> None:
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
