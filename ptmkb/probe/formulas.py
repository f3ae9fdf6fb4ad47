"""The loss formulas of pre-training, each computed from a model's outputs and its labels alone.

`terms` tries every formula on every output and label whose shapes fit. A formula says what is compared with
what; `objective` finds out which of them gives the model's own loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ptmkb.probe.numerics import tensors_in

SMOOTHING = 0.1  # of labels, in Vaswani et al. 2017 (arXiv 1706.03762), section 5.4
TEMPERATURES = (
    1.0,
    0.5,
    0.2,
    0.1,
    0.07,
    0.05,
    0.01,
)  # that similarities are divided by; tried, because no output holds it
MOST_BLANKS = (
    128  # vocabulary up to which every token is tried as CTC's blank; above it the first and the last
)
_NOT_SCORES = ("hidden_state", "attentions", "past_key_values", "embeds")


class Term(NamedTuple):
    """One formula on one output and one label.

    Attributes:
        objective: What the formula is called.
        formula: The formula in words.
        output: The output's name.
        label: The label's name.
    """

    objective: str
    formula: str
    output: str
    label: str


def terms(
    outputs: Mapping[str, Tensor], inputs: Mapping[str, Any], labels: Sequence[str]
) -> dict[Term, float]:
    """All formulas that fit.

    Args:
        outputs: What the forward pass returned, by name.
        inputs: All of its arguments.
        labels: The names of those that are labels.

    Returns:
        The value of each.
    """
    found: dict[Term, float] = {}
    scores = {
        name: value
        for name, value in outputs.items()
        if value.is_floating_point() and value.ndim and not any(part in name for part in _NOT_SCORES)
    }
    targets = [(name, value) for label in labels for name, value in tensors_in(inputs[label], label)]
    for output, score in scores.items():
        for label, target in targets:
            for formulas in (_of_classes, _of_numbers, _of_sequences):
                for objective, formula, value in formulas(score, target):
                    found[Term(objective, formula, output, label)] = float(value)
            for where, selected in _selections(inputs, score, target):
                formulas = _of_numbers if target.is_floating_point() else _of_classes
                for objective, formula, value in formulas(score[selected], target[selected]):
                    found[Term(objective, f"{formula}, where `{where}`", output, label)] = float(value)
        for objective, formula, value in _of_pairs(score):
            found[Term(objective, formula, output, "")] = float(value)
    for pair, objective, formula, value in _of_candidates(scores, inputs, labels):
        found[Term(objective, formula, pair, ", ".join(labels))] = float(value)
    return found


def _selections(inputs: Mapping[str, Any], score: Tensor, target: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Which samples or positions another argument may confine an objective to (pairs that match, regions that are hidden)."""
    for name, value in inputs.items():
        if (
            isinstance(value, Tensor)
            and value.shape in (target.shape[:1], target.shape[:-1])
            and not value.is_floating_point()
        ):
            selected = value.bool()
            if score.shape[: value.ndim] != value.shape:
                continue
            if (
                value.ndim
                and int(value.min()) >= 0
                and int(value.max()) <= 1
                and 0 < int(selected.sum()) < value.numel()
            ):
                yield name, selected


_Found = Iterator[tuple[str, str, Tensor]]


def _of_classes(score: Tensor, target: Tensor) -> _Found:
    """Cross-entropies of whole-number labels, those below 0 ignored."""
    if target.is_floating_point() or target.dtype is torch.bool:
        return
    kept = target >= 0
    if not kept.any():
        return
    if (
        score.ndim == target.ndim + 1
        and score.shape[:-1] == target.shape
        and int(target.max()) < score.shape[-1]
    ):
        plain = "masked" if target.ndim > 1 else "classification"
        yield from _cross_entropies(plain, "each labelled position's own label", score, target)
        if target.ndim == 2:
            yield from _cross_entropies("causal", "the next position's label", score[:, :-1], target[:, 1:])
            yield from _cross_entropies(
                "anti-causal", "the position before's label", score[:, 1:], target[:, :-1]
            )
    if score.squeeze(-1).shape == target.shape and int(target.max()) <= 1 and kept.any():
        name = "replaced-token" if target.ndim > 1 else "binary-classification"
        flat = score.squeeze(-1)[kept], target[kept].to(score.dtype)
        yield name, "binary cross-entropy of one score", F.binary_cross_entropy_with_logits(*flat)


def _cross_entropies(objective: str, of: str, score: Tensor, target: Tensor) -> _Found:
    score, target = score.flatten(0, -2), target.flatten()
    score, target = score[target >= 0], target[target >= 0]
    if not len(target):
        return
    yield objective, f"cross-entropy of {of}", F.cross_entropy(score, target)
    yield objective, f"cross-entropy of {of}, summed", F.cross_entropy(score, target, reduction="sum")
    smoothed = F.cross_entropy(score, target, label_smoothing=SMOOTHING)
    yield objective, f"cross-entropy of {of}, labels smoothed by {SMOOTHING}", smoothed


def _of_numbers(score: Tensor, target: Tensor) -> _Found:
    """Distances from numbers, and divergences from distributions."""
    if not target.is_floating_point():
        return
    if score.shape != target.shape and score.squeeze(-1).shape == target.shape:
        score = score.squeeze(-1)
    if score.shape != target.shape:
        return
    for name, distance in (
        ("squared error", F.mse_loss),
        ("absolute error", F.l1_loss),
        ("smooth absolute error", F.smooth_l1_loss),
    ):
        yield "regression", name, distance(score, target)
    if bool((target >= 0).all()) and target.ndim > 1:
        mass = target.sum(-1)
        labelled = mass > 0
        if bool(((mass - 1).abs() < 1e-5)[labelled].all()) and labelled.any():
            divergence = F.kl_div(score.log_softmax(-1), target, reduction="none").sum(-1)
            yield (
                "masked",
                "divergence from each labelled position's distribution",
                divergence[labelled].mean(),
            )


def _of_sequences(score: Tensor, target: Tensor) -> _Found:
    """Connectionist temporal classification: Graves et al. 2006."""
    if target.is_floating_point() or score.ndim != 3 or target.ndim != 2 or len(score) != len(target):
        return
    frames, size = score.shape[1:]
    if target.shape[1] >= frames or int(target.max()) >= size:
        return
    kept = target >= 0
    lengths = kept.sum(-1)
    logs = score.log_softmax(-1).transpose(0, 1)
    blanks = range(size) if size <= MOST_BLANKS else (0, size - 1)
    for blank in sorted(set(blanks) - set(target[kept].tolist())):
        given = torch.full((len(score),), frames), lengths
        each = F.ctc_loss(logs, target[kept], *given, blank=blank, reduction="none", zero_infinity=True)
        yield "ctc", f"CTC with blank {blank}, summed", each.sum()
        yield "ctc", f"CTC with blank {blank}", (each / lengths.clamp(min=1)).mean()


def _of_pairs(score: Tensor) -> _Found:
    """Each sample of the batch told from the others by a square of similarities."""
    if score.ndim != 2 or score.shape[0] != score.shape[1] or len(score) < 2:
        return
    own = torch.arange(len(score))
    for smoothing, how in ((0.0, ""), (SMOOTHING, f", labels smoothed by {SMOOTHING}")):
        both = [F.cross_entropy(side, own, label_smoothing=smoothing) for side in (score, score.T)]
        yield (
            "contrastive",
            f"cross-entropy of the matching pair, along rows and columns{how}",
            sum(both, score.new_zeros(())) / 2,
        )
    signs = 2 * torch.eye(len(score), dtype=score.dtype) - 1
    yield "contrastive", "sigmoid of every pair", -F.logsigmoid(signs * score).sum() / len(score)


def _of_candidates(
    scores: Mapping[str, Tensor], inputs: Mapping[str, Any], labels: Sequence[str]
) -> Iterator[tuple[str, str, str, Tensor]]:
    """The true vector told from drawn ones by cosine similarity, at masked positions: Baevski et al. 2020, equation 3."""
    given = [inputs[name] for name in labels if isinstance(inputs[name], Tensor)]
    masks = [value.bool() for value in given if value.ndim == 2 and int(value.max()) <= 1]
    draws = [value for value in given if value.ndim == 3 and not value.is_floating_point()]
    if not masks or not draws:
        return
    mask, drawn = masks[0], draws[0]
    vectors = {
        name: value for name, value in scores.items() if value.ndim == 3 and value.shape[:2] == mask.shape
    }
    for name, context in vectors.items():
        for other, truth in vectors.items():
            if name == other or context.shape != truth.shape:
                continue
            wrong = truth.flatten(0, 1)[drawn.flatten()].view(*drawn.shape, -1)  # (B, T, K, D)
            same = (wrong == truth.unsqueeze(2)).all(-1)
            similar = F.cosine_similarity(
                context.unsqueeze(2), torch.cat([truth.unsqueeze(2), wrong], 2), dim=-1
            )
            similar[:, :, 1:][same] = -torch.inf
            for temperature in TEMPERATURES:
                picked = (similar / temperature)[mask]
                target = torch.zeros(len(picked), dtype=torch.long)
                for reduction in ("mean", "sum"):
                    text = f"cross-entropy of the true vector among drawn ones, cosine over {temperature}, {reduction}"
                    yield (
                        f"{name}, {other}",
                        "contrastive",
                        text,
                        F.cross_entropy(picked, target, reduction=reduction),
                    )
