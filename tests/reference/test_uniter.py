"""UNITER: one stream from the first layer on, optimal transport, objectives, masking, published sizes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from ptmkb.reference.uniter import UNITER, UNITERConfig, cosine_cost, transport_plan


@pytest.fixture
def model() -> UNITER:
    torch.manual_seed(0)
    return UNITER(UNITERConfig.tiny()).double().eval()


@pytest.fixture
def inputs(model: UNITER) -> dict[str, Tensor]:
    return model.dummy_inputs(torch.Generator().manual_seed(1))


def changes(before: tuple[Tensor, ...], after: tuple[Tensor, ...], part: slice) -> list[float]:
    """The largest change of any entry at these positions, layer by layer."""
    return [(a - b)[:, part].abs().max().item() for a, b in zip(before, after, strict=True)]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def even(*shape: int) -> Tensor:
    """The same mass for each of the last axis, 1 in all."""
    return torch.full(shape, 1 / shape[-1], dtype=torch.float64)


WORDS, REGIONS = slice(0, 12), slice(12, 18)


def test_shapes_and_finite_losses(model: UNITER, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)
    assert count(model) < 200_000
    assert output.logits.shape == (2, 12, 99)
    assert output.region_logits.shape == (2, 6, 11)
    assert output.region_predictions.shape == (2, 6, 20)
    assert output.matching_logits.shape == (2,)
    assert output.transport_plan.shape == (2, 12, 6)
    assert [tuple(x.shape) for x in output.hidden_states] == [(2, 18, 32)] * (1 + 3)
    assert output.last_hidden_state is output.hidden_states[-1]
    variants = [output.region_feature_loss, output.region_class_loss, output.region_kl_loss]
    parts = [output.masked_lm_loss, output.masked_region_loss, output.matching_loss, output.alignment_loss]
    assert all(part.isfinite() and part > 0 for part in variants + parts)
    assert output.masked_region_loss.item() == pytest.approx(sum(part.item() for part in variants))
    parts[-1] = 0.1 * parts[-1]
    assert output.loss.item() == pytest.approx(sum(part.item() for part in parts))


def test_single_stream_both_ways_from_layer_1(model: UNITER, inputs: dict[str, Tensor]) -> None:
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


def test_embeddings_by_their_sums(model: UNITER, inputs: dict[str, Tensor]) -> None:
    embedded = model(**inputs).hidden_states[0][0]  # the first sample hides no region
    text, image = model.text_embedder, model.image_embedder
    word = (
        text.words.weight[inputs["input_ids"][0, 7]] + text.positions.weight[7] + model.modalities.weight[0]
    )
    torch.testing.assert_close(embedded[7], text.norm(word))
    x1, y1, x2, y2 = inputs["region_boxes"][0, 4].tolist()
    location = torch.tensor([x1, y1, x2, y2, x2 - x1, y2 - y1, (x2 - x1) * (y2 - y1)]).double()
    region = image.features(inputs["region_features"][0, 4]) + image.locations(location)
    torch.testing.assert_close(embedded[12 + 4], image.norm(region + model.modalities.weight[1]))


def test_regions_have_no_order_but_words_do(model: UNITER, inputs: dict[str, Tensor]) -> None:
    plain = model(**inputs)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    names = [name for name in inputs if "region" in name]
    shuffled = model(**{**inputs, **{name: inputs[name][:, order] for name in names}})
    torch.testing.assert_close(shuffled.logits, plain.logits)
    torch.testing.assert_close(shuffled.region_logits, plain.region_logits[:, order])
    torch.testing.assert_close(shuffled.transport_plan, plain.transport_plan[:, :, order])
    torch.testing.assert_close(shuffled.loss, plain.loss)
    reversed_words = model(**{**inputs, "input_ids": inputs["input_ids"].flip(1)})
    assert (reversed_words.logits.flip(1) - plain.logits).abs().max() > 1e-4


def test_transport_plan_has_its_marginals_and_beats_the_even_plan() -> None:
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(3, 12, 8, generator=generator, dtype=torch.float64)
    regions = torch.randn(3, 6, 8, generator=generator, dtype=torch.float64)
    cost = cosine_cost(words, regions)
    plan = transport_plan(cost, even(3, 12), even(3, 6))
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(1), even(3, 6), rtol=0, atol=1e-12)  # what each region receives
    torch.testing.assert_close(plan.sum(2), even(3, 12), rtol=0, atol=1e-3)  # what each word gives
    assert ((plan * cost).sum((1, 2)) < cost.mean((1, 2)) - 0.1).all()


def test_transport_distance_is_nearly_the_exact_minimum() -> None:
    """With as many words as regions the best plan is a matching (Birkhoff), found here by trying all."""
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(4, 6, 6, generator=generator, dtype=torch.float64)
    distance = (transport_plan(cost, even(4, 6), even(4, 6)) * cost).sum((1, 2))
    for sample in range(4):
        table = cost[sample].tolist()
        best = min(
            sum(table[i][j] for i, j in enumerate(order)) for order in itertools.permutations(range(6))
        )
        assert best / 6 - 1e-3 <= distance[sample].item() <= best / 6 + 0.01


def test_transport_plan_takes_uneven_mass_and_leaves_padding_alone() -> None:
    cost = torch.rand(1, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    words = torch.tensor([[0.5, 0.3, 0.2, 0.0, 0.0]], dtype=torch.float64)
    regions = torch.tensor([[0.1, 0.6, 0.3, 0.0]], dtype=torch.float64)
    plan = transport_plan(cost, words, regions)
    torch.testing.assert_close(plan.sum(2), words, rtol=0, atol=1e-2)
    torch.testing.assert_close(plan.sum(1), regions, rtol=0, atol=1e-12)
    assert (plan[:, 3:] == 0).all()
    assert (plan[:, :, 3:] == 0).all()
    inner = transport_plan(cost[:, :3, :3], words[:, :3], regions[:, :3])
    torch.testing.assert_close(plan[:, :3, :3], inner)


def test_transport_plan_holds_in_float32() -> None:
    cost = torch.rand(2, 40, 100, generator=torch.Generator().manual_seed(0)) * 2
    plan = transport_plan(cost, even(2, 40).float(), even(2, 100).float())
    assert plan.isfinite().all()
    torch.testing.assert_close(plan.sum(1), even(2, 100).float(), rtol=1e-4, atol=0)


def test_alignment_is_the_plan_over_the_cosine_distance(model: UNITER, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)
    distances = []
    for states, plan in zip(output.last_hidden_state, output.transport_plan, strict=True):
        distances.append(
            sum(
                plan[i, j] * (1 - torch.cosine_similarity(states[i], states[12 + j], dim=0))
                for i in range(12)
                for j in range(6)
            )
        )
    torch.testing.assert_close(output.alignment_loss, (distances[0] + distances[1]) / 2)
    mismatched = model(**{**inputs, "matching_labels": torch.tensor([1, 0])})
    torch.testing.assert_close(mismatched.alignment_loss, (distances[0] - distances[1]) / 2)


def test_alignment_trains_through_the_cost_alone(model: UNITER, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)
    assert not output.transport_plan.requires_grad
    (gradient,) = torch.autograd.grad(output.alignment_loss, output.last_hidden_state)
    assert gradient.isfinite().all()
    assert gradient.abs().amax(-1).min() > 0  # every word and every region is pulled


def test_objectives_by_their_formulas(model: UNITER, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)
    words = inputs["labels"][0] >= 0
    scores = output.logits[0, words].log_softmax(-1)
    picked = scores[torch.arange(2), inputs["labels"][0, words]]
    torch.testing.assert_close(output.masked_lm_loss, -picked.mean())

    hidden = inputs["masked_regions"][1]
    assert hidden.sum() == 2
    errors = output.region_predictions[1, hidden] - inputs["region_features"][1, hidden]
    torch.testing.assert_close(output.region_feature_loss, (errors**2).sum() / (2 * 20))
    scores = output.region_logits[1, hidden].log_softmax(-1)
    picked = scores[torch.arange(2), inputs["region_labels"][1, hidden]]
    torch.testing.assert_close(output.region_class_loss, -picked.mean())
    target = inputs["region_targets"][1, hidden]
    torch.testing.assert_close(output.region_kl_loss, (target * (target.log() - scores)).sum() / 2)

    score = output.matching_logits.sigmoid()  # both samples match
    torch.testing.assert_close(output.matching_loss, -score.log().mean())
    negative = model(**{**inputs, "matching_labels": torch.tensor([0, 0])})
    torch.testing.assert_close(negative.matching_loss, -(1 - score).log().mean())


def test_masking_of_the_sample_is_conditional(inputs: dict[str, Tensor]) -> None:
    words = (inputs["labels"] >= 0).any(1)
    regions = inputs["masked_regions"].any(1)
    assert words.tolist() == [True, False]
    assert regions.tolist() == [False, True]
    assert ((inputs["region_labels"] >= 0) == inputs["masked_regions"]).all()
    assert ((inputs["region_targets"].sum(-1) > 0) == inputs["masked_regions"]).all()


def test_hidden_regions_are_zeros(model: UNITER, inputs: dict[str, Tensor]) -> None:
    hidden = inputs["masked_regions"]
    plain = model(**inputs)
    inputs["region_features"] = inputs["region_features"].masked_fill(hidden.unsqueeze(-1), 0.0)
    inputs["masked_regions"] = torch.zeros_like(hidden)
    assert torch.equal(model(**inputs).last_hidden_state, plain.last_hidden_state)


def test_match_is_read_off_cls(model: UNITER, inputs: dict[str, Tensor]) -> None:
    output = model(**inputs)
    dense, score = model.pooler[0], model.matching_classifier
    pooled = torch.tanh(output.last_hidden_state[:, 0] @ dense.weight.T + dense.bias)
    torch.testing.assert_close(output.matching_logits, pooled @ score.weight[0] + score.bias)


def test_features_are_regressed_through_the_projection_that_brought_them_in(
    model: UNITER, inputs: dict[str, Tensor]
) -> None:
    states = model.feature_transform(model(**inputs).last_hidden_state[:, 12:])
    expected = states @ model.image_embedder.features.weight + model.feature_bias
    torch.testing.assert_close(model(**inputs).region_predictions, expected)

    # With every region hidden nothing comes in, and the projection still learns from what goes out.
    inputs["masked_regions"] = torch.ones_like(inputs["masked_regions"])
    output = model(**inputs)
    states = model.feature_transform(output.last_hidden_state[:, 12:])
    weight = model.image_embedder.features.weight
    (gradient,) = torch.autograd.grad(output.region_predictions[..., 3].sum(), weight)
    torch.testing.assert_close(gradient[:, 3], states.sum((0, 1)))


def test_padding_changes_nothing(model: UNITER, inputs: dict[str, Tensor]) -> None:
    plain = model(**inputs)
    padded = dict(inputs)
    for name in ("input_ids", "attention_mask"):
        padded[name] = pad(inputs[name], (0, 3))
    padded["labels"] = pad(inputs["labels"], (0, 3), value=-100)
    for name in ("region_features", "region_boxes", "region_targets", "region_feature_targets"):
        padded[name] = pad(inputs[name], (0, 0, 0, 2))
    for name in ("region_mask", "masked_regions"):
        padded[name] = pad(inputs[name], (0, 2))
    padded["region_labels"] = pad(inputs["region_labels"], (0, 2), value=-100)
    output = model(**padded)
    torch.testing.assert_close(output.logits[:, :12], plain.logits)
    torch.testing.assert_close(output.transport_plan[:, :12, :6], plain.transport_plan)
    torch.testing.assert_close(output.loss, plain.loss)


@pytest.mark.parametrize(
    ("task", "names", "losses"),
    [
        ("MLM", {"labels"}, {"masked_lm_loss"}),
        ("MRFR", {"region_feature_targets"}, {"masked_region_loss", "region_feature_loss"}),
        ("MRC", {"region_labels"}, {"masked_region_loss", "region_class_loss"}),
        ("MRC-kl", {"region_targets"}, {"masked_region_loss", "region_kl_loss"}),
        ("ITM and WRA", {"matching_labels"}, {"matching_loss", "alignment_loss"}),
        ("none", set(), set()),
    ],
)
def test_one_task_at_a_time(
    model: UNITER, inputs: dict[str, Tensor], task: str, names: set[str], losses: set[str]
) -> None:
    targets = {"labels", "region_feature_targets", "region_labels", "region_targets", "matching_labels"}
    output = model(**{name: tensor for name, tensor in inputs.items() if name not in targets - names})
    given = {name for name, value in vars(output).items() if name.endswith("_loss") and value is not None}
    assert given == losses, task
    assert (output.loss is not None) == bool(losses)


@pytest.mark.parametrize(
    ("config", "published", "encoder_and_pooler", "total"),
    [
        (UNITERConfig(), 86, 85_645_056, 114_104_444),
        (UNITERConfig.large(), 303, 303_358_976, 342_079_868),
    ],
)
def test_published_sizes_are_encoder_and_pooler(
    config: UNITERConfig, published: int, encoder_and_pooler: int, total: int
) -> None:
    """86M and 303M (section 4, footnote 12) leave embeddings and heads out."""
    with torch.device("meta"):
        model = UNITER(config)
    assert count(model.encoder) + count(model.pooler) == encoder_and_pooler
    assert round(encoder_and_pooler / 1e6) == published
    assert count(model) == total
    # The encoder alone falls short of the figure, and with the image embedder it is past it.
    assert round(count(model.encoder) / 1e6) == published - 1
    assert round((count(model.encoder) + count(model.image_embedder)) / 1e6) == published + 1


def test_runs_at_full_size_on_meta() -> None:
    with torch.device("meta"):
        model = UNITER(UNITERConfig())
    output = model(**model.dummy_inputs(torch.Generator().manual_seed(0)))
    assert [tuple(x.shape) for x in output.hidden_states] == [(2, 18, 768)] * 13


def test_dropout_only_in_training(model: UNITER, inputs: dict[str, Tensor]) -> None:
    assert torch.equal(model(**inputs).loss, model(**inputs).loss)
    model.train()
    assert not torch.equal(model(**inputs).loss, model(**inputs).loss)


def test_dummy_inputs_come_from_the_generator(model: UNITER) -> None:
    first, again, other = (model.dummy_inputs(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["input_ids"], other["input_ids"])
    x1, y1, x2, y2 = first["region_boxes"].unbind(-1)
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= 1) & (y1 >= 0) & (y1 < y2) & (y2 <= 1)).all()


def test_learns_and_gradients_reach_everything(model: UNITER, inputs: dict[str, Tensor]) -> None:
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
