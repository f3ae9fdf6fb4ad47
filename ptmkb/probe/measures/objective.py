"""What a model learns from: its loss, recognised by recomputing it.

Method. In float64, the model's loss on a labelled batch is compared with every formula of
`ptmkb.probe.formulas` on every output and label that fits. It is the one that equals it (relative error up to
1e-6) on that batch, on the same batch with other labels, and with other inputs. Where a model adds up several
objectives, an objective is the formula whose value changes by as much as the loss when only its own labels
change. Formulas that look alike are told apart by what else moves:
- `masked`: cross-entropy of labels at their own position.
- `sequence-to-sequence`: the same, and the decoder's input is the labels moved right by one: a changed label
  changes the scores from the next position on, or the given decoder input holds the labels so.
- `permuted`: the same, and the scores at a position do not depend on its own token but on others in an order
  that is not the sequence's.
- `causal`: cross-entropy of the next position's label, `anti-causal` of that before.
- `classification` of a sample among classes, `binary-classification` by one score; `replaced-token`: binary
  cross-entropy at every position; `contrastive`, `ctc`, `regression` as named. `unknown` where no formula
  fits, or two that differ do.

Parts. None where a model has one objective; where it has several each by its name, and None for the list of
all of them.

Assumptions. Labels below 0 are ignored. What the loss is computed from is among the outputs.

What it cannot tell. What classes mean: matching of text and image, next sentence and sentence order are one
cross-entropy between two classes, and on inputs and labels drawn at random nothing else about them differs. A
claim says `classification` (or `binary-classification`, of one score), and names the objective as its part. How inputs were corrupted before they came to the model: predicting masked tokens, or all
tokens, or classes of tokens, at their own positions is one formula. A loss whose scores are not returned is
`unknown`.

Source. Devlin et al. 2019 (arXiv 1810.04805), section 3.1 (masked LM, next sentence); Yang et al. 2019 (arXiv
1906.08237; permuted); Clark et al. 2020 (arXiv 2003.10555; replaced token); Radford et al. 2021 (arXiv
2103.00020; contrastive).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import Reading, Unmeasurable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ptmkb.probe.formulas import Term
    from ptmkb.probe.subject import Loss, Subject

SCALES: tuple[str, ...] = ("tiny",)

RELATIVE_ERROR = 1e-6  # up to which a formula's value is the loss
NAMES_OF_CLASSES = ("matching", "next-sentence", "sentence-order")  # what labels mean, which no formula says
VALUES = (
    "masked",
    "causal",
    "anti-causal",
    "sequence-to-sequence",
    "permuted",
    "replaced-token",
    "contrastive",
    "ctc",
    "classification",
    "binary-classification",
    "regression",
    "unknown",
)


def parse(value: Any) -> str:
    """A claimed objective in normal form.

    Raises:
        ValueError: It is not the name of one.
    """
    if value in NAMES_OF_CLASSES:
        raise ValueError(
            f"what classes mean cannot be measured: claim `classification` or `binary-classification`, with `part: {value}`"
        )
    if value not in VALUES or value == "unknown":
        raise ValueError(f"an objective is one of {', '.join(VALUES[:-1])}; not {value!r}")
    return str(value)


def measure(subject: Subject) -> dict[str | None, Reading]:
    """The objective behind each of the subject's losses.

    Raises:
        Unmeasurable: It has no loss, or what it returns has no field `loss`.
    """
    from ptmkb.probe.numerics import in_float64

    if not subject.losses:
        raise Unmeasurable(subject.no_loss)
    doubled = subject.doubled()
    with in_float64():
        runs = _Runs(doubled)
        readings: dict[str | None, Reading] = {
            loss.part: _Identification(doubled, loss, runs).reading() for loss in doubled.losses
        }
    if None not in readings:
        readings[None] = Reading(sorted({str(reading.value) for reading in readings.values()}))
    return readings


def agrees(claimed: str, measured: str | list[str]) -> bool:
    """Whether the measured objective is the claimed one, or one of them."""
    if isinstance(measured, list):
        return any(agrees(claimed, one) for one in measured)
    return claimed == measured


class _Runs:
    """Forward passes, each batch run once, and the batches made from another by replacing inputs."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._outputs: list[tuple[Mapping[str, Any], dict[str, Tensor]]] = []
        self._replaced: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]] = []

    def outputs(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """All tensors that the forward pass returns, by name."""
        import torch

        from ptmkb.probe.numerics import seeded, tensors_in

        known = next((outputs for batch, outputs in self._outputs if _same(batch, inputs)), None)
        if known is None:
            with torch.no_grad(), seeded():
                known = dict(tensors_in(self.subject.model(**dict(inputs))))
            self._outputs.append((inputs, known))
        return known

    def replaced(self, inputs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The batch with another value at the first position of every stream; none where it holds no stream's inputs."""
        import torch

        known = next((batches for batch, batches in self._replaced if _same(batch, inputs)), None)
        if known is None:
            changed = inputs
            for stream in self.subject.streams.values():
                # A loss may take other inputs than the model: a decoder's are made from the labels.
                with contextlib.suppress(KeyError, TypeError, AttributeError):
                    changed = stream.replaced(changed, 0, torch.Generator().manual_seed(0))
            known = [] if changed is inputs else [changed]
            self._replaced.append((inputs, known))
        return known


def _same(batch: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return batch.keys() == other.keys() and all(batch[name] is other[name] for name in batch)


class _Identification:
    """One loss, run on several batches.

    Args:
        subject: In float64.
        loss: The labelled batch.
        runs: What was run before: several objectives of a model have one batch.
    """

    def __init__(self, subject: Subject, loss: Loss, runs: _Runs) -> None:
        self.subject, self.loss, self.runs = subject, loss, runs
        self.given = dict(loss.inputs)
        self.base = self.run(self.given)
        self.relabelled = [
            run for inputs in relabelled(self.given, loss.labels) if (run := self.try_run(inputs))
        ]
        replaced = runs.replaced(self.given)
        self.replaced = [run for inputs in replaced if (run := self.try_run(inputs))]

    def run(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[Term, float]]:
        from ptmkb.probe.formulas import terms

        outputs = self.runs.outputs(inputs)
        return outputs, terms(outputs, inputs, self.loss.labels)

    def try_run(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[Term, float]] | None:
        """The same on a batch that was made here, None where the model does not take it."""
        try:
            return self.run(inputs)
        except (RuntimeError, IndexError, ValueError):
            return None

    def reading(self) -> Reading:
        names = [name for name, value in self.base[0].items() if value.ndim == 0 and name.endswith("loss")]
        if not names:
            raise Unmeasurable("what the model returns has no field `loss`")
        own = f"{(self.loss.part or '').replace('-', '_')}_loss"
        order = [name for name in (own, "loss") if name in names] or names
        found: dict[str, list[Term]] = {}
        for name in [*order, *(other for other in names if other not in order and not self.loss.part)]:
            found = {"whole": self.equal(name)}
            if not found["whole"] and name == "loss":
                found = {"share": self.changing(name)}
            if any(found.values()):
                break
        (how, candidates), name = next(iter(found.items())), name if any(found.values()) else order[0]
        detail: dict[str, Any] = {"field": name, "loss": float(f"{float(self.base[0][name]):.6g}")}
        objectives = sorted({term.objective for term in candidates})
        if len(objectives) != 1:
            why = "several formulas fit" if objectives else "loss computed, formula not recognised"
            return Reading("unknown", {**detail, "candidates": objectives, "why": why})
        term = candidates[0]
        value, moves = self.refined(term)
        detail |= {"formula": term.formula, "output": term.output, "labels": term.label, "is": how}
        return Reading(value, {**detail, "label_moves": moves} if moves else detail)

    def equal(self, name: str) -> list[Term]:
        """The formulas that are the loss on every batch."""
        runs = [self.base, *self.relabelled, *self.replaced]
        values = [float(outputs[name]) for outputs, _ in runs]
        if len({f"{value:.9g}" for value in values}) < 2:
            return []  # nothing that was changed reached the loss: one number is no evidence
        return [
            term
            for term in self.base[1]
            if all(
                _close(found.get(term, math.nan), value)
                for (_, found), value in zip(runs, values, strict=True)
            )
        ]

    def changing(self, name: str) -> list[Term]:
        """The formulas that change by as much as the loss whenever these labels change."""
        outputs, found = self.base
        steps = [(float(other[name]) - float(outputs[name]), values) for other, values in self.relabelled]
        steps = [(step, values) for step, values in steps if abs(step) > 1e-4 * abs(float(outputs[name]))]
        if not steps:
            return []
        return [
            term
            for term, value in found.items()
            if all(_close(values.get(term, math.nan) - value, step, 1e-5) for step, values in steps)
        ]

    def refined(self, term: Term) -> tuple[str, str | None]:
        """Tell the objectives apart that share a formula; and which scores a changed label moves."""
        if term.objective != "masked" or term.label not in self.given or self.given[term.label].ndim != 2:
            return term.objective, None
        moved = self.scores_moved_by_a_label(term)
        if moved or self.decoder_holds_labels(self.given[term.label]):
            return "sequence-to-sequence", "later scores" if moved else "none"
        words, labels = self.given.get("input_ids"), self.given[term.label]
        if words is not None and words.shape == labels.shape:
            next_words, own = words[:, 1:], labels[:, :-1]
            if bool((next_words == own)[own >= 0].all()):
                return "causal", "none"
        return ("permuted" if self.in_another_order(term) else "masked"), "none"

    def scores_moved_by_a_label(self, term: Term) -> bool:
        """Whether a changed label changes the scores from the next position on, and none before."""
        labels = self.given[term.label]
        at = int((labels >= 0).all(0).int().argmax())
        changed = labels.clone()
        others = labels[labels >= 0].unique()
        if len(others) < 2 or at + 1 >= labels.shape[1]:
            return False
        for row in changed:
            row[at] = next(int(other) for other in others if int(other) != int(row[at]))
        run = self.try_run({**self.given, term.label: changed})
        if run is None:
            return False
        scale = float(self.base[0][term.output].abs().max())
        difference = (run[0][term.output] - self.base[0][term.output]).abs().amax(dim=(0, 2))
        moved = [position for position, by in enumerate(difference.tolist()) if by > 1e-10 * scale]
        return bool(moved) and moved[0] == at + 1

    def decoder_holds_labels(self, labels: Tensor) -> bool:
        words = self.given.get("decoder_input_ids")
        if words is None or words.shape != labels.shape:
            return False
        kept = labels[:, :-1] >= 0
        return bool(kept.any()) and bool((words[:, 1:] == labels[:, :-1])[kept].all())

    def in_another_order(self, term: Term) -> bool:
        """Whether a position's scores depend on tokens before it in an order of their own, and not on its own."""
        import torch

        from ptmkb.probe.patterns import classify

        score = self.base[0][term.output]
        stream = next((s for s in self.subject.streams.values() if s.positions == score.shape[1]), None)
        if stream is None or len(self.subject.streams) > 1:
            return False
        generator = torch.Generator().manual_seed(0)
        scale = float(score.abs().max())
        columns, seeing = [], 0
        for position in range(stream.positions):
            run = self.try_run(stream.replaced(self.given, position, generator))
            if run is None:
                return False
            columns.append((run[0][term.output] - score).abs().amax(dim=(0, 2)) > 1e-10 * scale)
            # The first in the order has nothing to look at; where all is masked, a softmax looks at everything.
            seeing += bool(columns[-1][position])
            if seeing > 1:
                return False
        pattern = classify(torch.stack(columns, dim=1).tolist())
        return pattern.kind == "permuted" and pattern.detail.get("sees_itself") is False


def relabelled(inputs: Mapping[str, Any], labels: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The batch with other labels, twice: moved along by one and by two positions, or given to other samples."""
    import torch

    for step in (1, 2):
        changed = dict(inputs)
        for name in labels:
            label = inputs[name]
            if not isinstance(label, torch.Tensor) or label.dtype is torch.bool or label.ndim > 3:
                continue
            if label.ndim > 1:
                changed[name] = label.roll(step, dims=1)
            elif step == 1 or label.is_floating_point():
                changed[name] = label.flip(0)
            else:
                changed[name] = torch.where(
                    torch.arange(len(label)) == 0, (label == 0).to(label.dtype), label
                )
        if any(changed[name] is not inputs[name] for name in labels):
            yield changed


def _close(value: float, expected: float, error: float = RELATIVE_ERROR) -> bool:
    return math.isfinite(value) and abs(value - expected) <= error * max(abs(expected), 1e-12)
