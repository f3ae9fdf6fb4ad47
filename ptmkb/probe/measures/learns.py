"""Whether a model learns: a few steps on one batch lower its loss, with gradients that reach its parameters.

Method. On a copy in training mode, with dropout off and the generators seeded alike before every step, steps of
Adam are taken on one batch (all of the subject's losses added up): twelve, or fewer, as soon as three losses in
a row lie 1 % below the first and every parameter in the loss's graph has had a gradient.
`lowers`: the loss ends at least 1 % below its start. `finite`: every loss and gradient on the way is.
`unreached`: how many parameters no gradient reached in any step (none, or all zero); the detail names them, and
those that are frozen by design apart from them. A claim `true` holds if the loss is lowered and all is finite.

Parts. None: the model as a whole.

Assumptions. The batch can be learned by heart: one step size suits every tiny model.

What it cannot tell. Whether the model generalises, or learns well at full size. A parameter that no gradient
reaches is found, not judged: a pooler that the loss does not use, experts that no token was sent to, the bias
of attention keys, which a softmax cancels.

Source. Kingma and Ba 2015 (arXiv 1412.6980; Adam).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import Reading, Unmeasurable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ptmkb.probe.subject import Subject

SCALES: tuple[str, ...] = ("tiny",)

STEPS = 12  # at most
LOWERED = 3  # losses in a row that must lie below the first for the steps to end earlier
LEARNING_RATE = 3e-3
MARGIN = 0.01  # share of the first loss by which the last must lie below it


def parse(value: Any) -> bool:
    """A claim in normal form.

    Raises:
        ValueError: It is not true or false.
    """
    if type(value) is not bool:
        raise ValueError(f"whether a model learns is true or false; not {value!r}")
    return value


def measure(subject: Subject) -> dict[str | None, Reading]:
    """Train a copy for a few steps.

    Raises:
        Unmeasurable: The model computes no loss.
    """
    from ptmkb.probe.copies import copied

    if not subject.losses:
        raise Unmeasurable(subject.no_loss)
    model = copied(subject.model, subject.model).train()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = sorted(name for name, parameter in model.named_parameters() if not parameter.requires_grad)
    losses, finite, untouched = _trained(model, subject, trained)
    lowers = finite and _lower(losses[-1], losses[0])
    value = {"lowers": lowers, "finite": finite, "unreached": len(untouched)}
    return {
        None: Reading(
            value,
            {
                "losses": [float(f"{loss:.4g}") for loss in losses],
                "unreached": sorted(untouched),
                "frozen": frozen,
            },
        )
    }


def _trained(
    model: nn.Module, subject: Subject, trained: Mapping[str, nn.Parameter]
) -> tuple[list[float], bool, set[str]]:
    """Take the steps.

    Args:
        model: Changed in place.
        subject: Has the batches.
        trained: The parameters that are to learn.

    Returns:
        The loss before every step and behind the last; whether these and all gradients are finite; the parameters that no gradient reached.
    """
    import torch

    from ptmkb.probe.numerics import seeded, without_dropout

    losses: list[float] = []
    untouched = set(trained)
    optimiser = torch.optim.Adam(trained.values(), lr=LEARNING_RATE, fused=True) if trained else None
    with without_dropout(model):
        for step in range(STEPS + 1):
            with torch.set_grad_enabled(optimiser is not None), seeded():
                loss = total_loss(model, subject)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                return losses, False, untouched
            waiting = any(
                trained[name].grad is not None for name in untouched
            )  # a gradient that was zero so far
            if optimiser is None or step == STEPS or (not waiting and _lowered(losses)):
                break
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = {
                name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None
            }
            if not math.isfinite(float(torch.nn.utils.get_total_norm(gradients.values()))):
                return losses, False, untouched
            untouched -= {name for name in untouched & gradients.keys() if bool(gradients[name].any())}
            optimiser.step()
    return losses, True, untouched


def _lowered(losses: Sequence[float]) -> bool:
    """Whether the last losses all lie below the first."""
    return len(losses) > LOWERED and all(_lower(loss, losses[0]) for loss in losses[-LOWERED:])


def _lower(loss: float, first: float) -> bool:
    return first - loss > MARGIN * abs(first)


def agrees(claimed: bool, measured: Any) -> bool:
    """Whether the model learns, or does not, as claimed."""
    return claimed is bool(measured["lowers"] and measured["finite"])


def total_loss(model: nn.Module, subject: Subject) -> Tensor:
    """The sum of the losses of a subject's labelled batches, those with the same inputs counted as one.

    Raises:
        Unmeasurable: What the model returns has no field `loss`.
    """
    import torch

    from ptmkb.probe.numerics import field_of

    batches: list[Any] = []
    for one in subject.losses:
        if not any(
            one.inputs.keys() == other.keys() and all(one.inputs[k] is other[k] for k in other)
            for other in batches
        ):
            batches.append(one.inputs)
    losses = [field_of(model(**dict(inputs)), "loss") for inputs in batches]
    if any(loss is None for loss in losses):
        raise Unmeasurable("what the model returns has no field `loss`")
    return torch.stack([loss.reshape(()) for loss in losses]).sum()
