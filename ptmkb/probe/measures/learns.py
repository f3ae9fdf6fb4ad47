"""Whether a model learns: a dozen steps on one batch lower its loss, with gradients that reach its parameters.

Method. On a copy in training mode, with dropout off and the generators seeded alike before every step, twelve
steps of Adam are taken on one batch (all of the subject's losses added up). `lowers`: the loss ends at least
1 % below its start. `finite`: every loss and gradient on the way is. `unreached`: how many parameters no
gradient reached in any step (none, or all zero); the detail names them, and those that are frozen by design
apart from them. A claim `true` holds if the loss is lowered and all is finite.

Parts. None: the model as a whole.

Assumptions. The batch can be learned by heart: one step size suits every tiny model.

What it cannot tell. Whether the model generalises, or learns well at full size. A parameter that no gradient
reaches is found, not judged: a pooler that the loss does not use, experts that no token was sent to, the bias
of attention keys, which a softmax cancels.

Source. Kingma and Ba 2015 (arXiv 1412.6980; Adam).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import Reading, Unmeasurable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ptmkb.probe.subject import Subject

SCALES: tuple[str, ...] = ("tiny",)

STEPS = 12
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
    import copy

    import torch

    from ptmkb.probe.numerics import seeded, without_dropout

    if not subject.losses:
        raise Unmeasurable("the model computes no loss")
    model = copy.deepcopy(subject.model).train()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = sorted(name for name, parameter in model.named_parameters() if not parameter.requires_grad)
    untouched = set(trained)
    losses: list[float] = []
    finite = True
    with without_dropout(model):
        if trained:
            optimiser = torch.optim.Adam(trained.values(), lr=LEARNING_RATE, fused=True)
            for _ in range(STEPS):
                with torch.enable_grad(), seeded():
                    loss = total_loss(model, subject)
                losses.append(float(loss.detach()))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                gradients = {
                    name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None
                }
                norm = float(torch.nn.utils.get_total_norm(gradients.values()))
                finite = math.isfinite(losses[-1]) and math.isfinite(norm)
                if not finite:
                    break
                untouched -= {name for name in untouched & gradients.keys() if bool(gradients[name].any())}
                optimiser.step()
        if finite:
            with torch.no_grad(), seeded():
                losses.append(float(total_loss(model, subject)))
    lowers = finite and losses[0] - losses[-1] > MARGIN * abs(losses[0])
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
