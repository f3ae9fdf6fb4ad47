"""What a model is built of and how the data runs through it: what block diagrams are drawn from.

Method. One forward pass of a tiny model is recorded as a graph of tensors (`ptmkb.probe.dataflow`). The path through each block is cut at
its norms and at its residual additions `x + f(x)`, both found in the graph (`regions`); what lies between is named by what ran there
(`elements`):
- a norm: a module that gives the same for its input times two; LayerNorm if adding a number to all features changes nothing either, else
  RMSNorm; or a call to such a function;
- attention: heads, key-value heads, who sees whom from the mask or the weights, where keys come from another stack, what is added to
  the scores, and rotary positions where queries are turned but keep their length;
- feed-forward and experts: the widest value between two products, its gating, and the function that a later value is of an earlier one;
- convolution, state space (as many dependent steps as positions), recurrence (the same weight at every step), Fourier transform, pooling.

The value counts the blocks; the detail holds the diagram: `stacks` (`name`, `streams`, `widths`, `before`, `blocks`, `after`), `heads`, and the
`order` in which the blocks of several stacks run.

Where nobody names the layers (stages of a convolutional network), blocks are members of lists of modules that add something to what they
took (`outline`), and where there are none, the bare path from the input is given; `drawn_from` says which.

Assumptions. The subject names the layers, or lists of modules hold them. Numbers are those of the tiny model.

What it cannot tell. What fused kernels do inside. Blocks that mix several streams of residuals (hyper-connections) are not taken apart.
Claims about it are not made; `norm`, `position`, `layers` and `shape` have claims.

Source. The diagram's parts are those of Vaswani et al. 2017 (arXiv 1706.03762), section 3 and figure 1; residual learning: He et al. 2016
(arXiv 1512.03385).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import Reading, Unmeasurable

if TYPE_CHECKING:
    from ptmkb.probe.subject import Subject

SCALES: tuple[str, ...] = ("tiny",)


def parse(value: Any) -> Any:
    """No claims are made about a structure.

    Raises:
        ValueError: Always.
    """
    raise ValueError("a structure is drawn, not claimed: claim its `norm`, `position`, `layers` or `shape`")


def measure(subject: Subject) -> dict[str | None, Reading]:
    """The structure of a tiny model.

    Raises:
        Unmeasurable: Its run cannot be taken apart; a missing picture must not cost a model its proofs.
    """
    from ptmkb.probe.structure import structure

    try:
        found = structure(subject)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise Unmeasurable(f"the run cannot be taken apart ({reason})") from error
    if not found["stacks"]:
        raise Unmeasurable("no layer changes a sequence of its own")
    value = {stack["name"]: sum(block["times"] for block in stack["blocks"]) for stack in found["stacks"]}
    return {None: Reading(value, found)}


def agrees(claimed: Any, measured: Any) -> bool:
    """Whether two structures are the same."""
    return bool(claimed == measured)
