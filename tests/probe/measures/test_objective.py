from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import transformers as t
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.loss.loss_utils import ForMaskedLMLoss

from ptmkb.probe.measures import Unmeasurable, objective
from ptmkb.probe.subject import Loss, Subject

Build = Callable[..., Subject]


def named(subject: Subject) -> dict[str | None, Any]:
    return {part: reading.value for part, reading in objective.measure(subject).items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", "masked"),
        ("electra", "replaced-token"),
        ("gpt2", "causal"),
        ("mistral", "causal"),
        ("mixtral", "causal"),
        ("mamba", "causal"),
        ("t5", "sequence-to-sequence"),
        ("whisper", "sequence-to-sequence"),
        ("xlnet", "permuted"),
        ("clip", "contrastive"),
        ("vit", "classification"),
        ("wav2vec2", "ctc"),
    ],
)
def test_models(subject: Build, name: str, expected: str) -> None:
    assert named(subject(name)) == {None: expected}


def test_wav2vec2_tells_the_true_frame_from_drawn_ones(subject: Build) -> None:
    reading = objective.measure(subject("wav2vec2", head="Wav2Vec2ForPreTraining"))[None]
    assert reading.value == "contrastive"
    assert "cosine over 0.1, sum" in reading.detail["formula"]


def test_gpt2_with_the_formula_of_bert(subject: Build) -> None:
    swapped = subject("gpt2")
    swapped.model.loss_function = ForMaskedLMLoss
    assert named(swapped) == {None: "masked"}


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "electra", "clip", "wav2vec2"])
def test_a_loss_a_little_off_is_unknown(subject: Build, name: str) -> None:
    scaled = subject(name)

    def scale(_: Any, args: Any, output: Any) -> Any:
        output.loss = 1.01 * output.loss
        return output

    scaled.model.register_forward_hook(scale)
    assert named(scaled) == {None: "unknown"}


def test_xlnet_without_its_order_is_masked(subject: Build) -> None:
    given = subject("xlnet")
    inputs = {**given.inputs, "labels": given.losses[0].inputs["labels"]}
    assert named(replace(given, losses=(Loss(None, inputs, ("labels",)),))) == {None: "masked"}


def test_several_objectives_of_one_loss(subject: Build) -> None:
    config = t.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40
    )
    given = subject("bert")
    batch = {**given.losses[0].inputs, "next_sentence_label": torch.tensor([0, 1])}
    losses = Loss("masked-lm", batch, ("labels",)), Loss("next-sentence", batch, ("next_sentence_label",))
    readings = objective.measure(replace(given, model=t.BertForPreTraining(config).eval(), losses=losses))
    assert {part: reading.value for part, reading in readings.items()} == {
        "masked-lm": "masked",
        "next-sentence": "classification",
        None: ["classification", "masked"],
    }
    assert readings["masked-lm"].detail["is"] == "share"


@dataclass
class Output:
    loss: Tensor
    logits: Tensor
    scores: Tensor


class Made(nn.Module):
    """A model whose loss a test writes."""

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.table, self.head, self.formula = nn.Embedding(50, 8), nn.Linear(8, 50), loss

    def forward(self, input_ids: Tensor, labels: Tensor, **more: Tensor) -> Output:
        hidden = self.table(input_ids)
        hidden = hidden + hidden.mean(1, keepdim=True)
        logits, scores = self.head(hidden), self.head(hidden.mean(1))[:, :4]
        return Output(self.formula(logits, scores, labels, **more), logits, scores)


def made(subject: Build, formula: Callable[..., Tensor], labels: Tensor, **more: Tensor) -> Subject:
    plain = subject("bert")
    batch = {"input_ids": plain.inputs["input_ids"], "labels": labels, **more}
    return replace(
        plain, model=Made(formula).eval(), inputs=batch, losses=(Loss(None, batch, ("labels",)),), blocks={}
    )


FEATURES = torch.randn(2, 12, 50, generator=torch.Generator().manual_seed(1))
HIDDEN = torch.tensor([[True, False, False] * 4, [False, True, True] * 4])


@pytest.mark.parametrize(
    ("formula", "labels", "more", "expected"),
    [
        (
            lambda z, _, y: F.cross_entropy(z[:, 1:].flatten(0, 1), y[:, :-1].flatten()),
            "words",
            {},
            "anti-causal",
        ),
        (
            lambda z, _, y: F.cross_entropy(z.flatten(0, 1), y.flatten(), label_smoothing=0.1),
            "words",
            {},
            "masked",
        ),
        (
            lambda z, _, y: F.cross_entropy(z.flatten(0, 1), y.flatten(), label_smoothing=0.2),
            "words",
            {},
            "unknown",
        ),
        (lambda z, _, y: F.mse_loss(z, y), FEATURES, {}, "regression"),
        (lambda z, _, y: F.l1_loss(z, y), FEATURES, {}, "regression"),
        (
            lambda z, _, y, hidden: F.mse_loss(z[hidden], y[hidden]),
            FEATURES,
            {"hidden": HIDDEN},
            "regression",
        ),
        (
            lambda z, _, y: F.kl_div(z.log_softmax(-1), y, reduction="none").sum(-1).mean(),
            FEATURES.softmax(-1),
            {},
            "masked",
        ),
        (lambda _, s, y: F.cross_entropy(s, y), torch.tensor([1, 3]), {}, "classification"),
        (
            lambda _, s, y: F.binary_cross_entropy_with_logits(s[:, 0], y.to(s.dtype)),
            torch.tensor([1, 0]),
            {},
            "unknown",
        ),
        (lambda z, _, y: z.square().mean(), "words", {}, "unknown"),
        (lambda z, _, y: torch.tensor(3.0), "words", {}, "unknown"),
    ],
)
def test_formulas(subject: Build, formula: Any, labels: Any, more: dict[str, Tensor], expected: str) -> None:
    target = subject("bert").losses[0].inputs["labels"] if isinstance(labels, str) else labels
    assert named(made(subject, formula, target, **more)) == {None: expected}


def test_one_number_is_no_evidence(subject: Build) -> None:
    """Scores that nothing moves and labels that are all the same give one loss, whatever is changed."""
    constant = made(
        subject, lambda z, _, y: F.cross_entropy(z.flatten(0, 1), y.flatten()), torch.full((2, 12), 7)
    )
    torch.nn.init.zeros_(constant.model.head.weight)  # type: ignore[arg-type,union-attr]
    reading = objective.measure(constant)[None]
    assert (reading.value, reading.detail["candidates"]) == ("unknown", [])


def test_labels_of_matching_pairs_only(subject: Build) -> None:
    def loss(logits: Tensor, _: Tensor, labels: Tensor, matching_labels: Tensor) -> Tensor:
        return F.cross_entropy(
            logits[matching_labels == 1].flatten(0, 1), labels[matching_labels == 1].flatten()
        )

    words = subject("bert").losses[0].inputs["labels"]
    reading = objective.measure(made(subject, loss, words, matching_labels=torch.tensor([0, 1])))[None]
    assert (reading.value, "where `matching_labels`" in reading.detail["formula"]) == ("masked", True)


def test_without_a_loss(subject: Build) -> None:
    with pytest.raises(Unmeasurable, match="no loss"):
        objective.measure(replace(subject("bert"), losses=()))


def test_claims() -> None:
    assert objective.agrees(objective.parse("masked"), "masked")
    assert not objective.agrees(objective.parse("masked"), "causal")
    assert not objective.agrees(objective.parse("causal"), "unknown")
    for name in objective.NAMES_OF_CLASSES:
        with pytest.raises(ValueError, match=f"what classes mean cannot be measured.*part: {name}"):
            objective.parse(name)
    assert objective.agrees(objective.parse("masked"), ["classification", "masked"])
    assert not objective.agrees(objective.parse("causal"), ["classification", "masked"])
    for value in ("unknown", "MLM", None, ["masked"]):
        with pytest.raises(ValueError, match="is one of"):
            objective.parse(value)
