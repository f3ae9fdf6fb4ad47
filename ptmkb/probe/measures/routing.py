"""The routing of a mixture of experts: how many experts, how many a token uses, which are shared, how they are scored.

Method. One forward pass under `ptmkb.probe.tracing` shows, layer by layer, the choices of the k largest of n
and the weights that stand behind them.
- `experts`: n, the sets of weights that a layer chooses from.
- `per_token`: on a tiny model it is counted: the experts whose weights the layer's output at one position has a
  gradient for, at every position of both samples; the value is the most that any uses. At full size it is the k
  of the choice.
- `shared`: experts that every token goes through beside the chosen: two or more products in a row that start
  from what the router reads, without being experts or router. They are counted by their weights: twice those of
  one expert are two, as they are published; no whole multiple is one.
- `scoring`: `softmax` or `sigmoid`, the function that the router's logits went through last before they met the
  experts' results; `scored` in the detail says whether it saw all experts or only the chosen ones. On tiny
  models.
- `by_token`: whether in every such layer two tokens went through different experts. On tiny models.

Parts. None: the model as a whole. Where layers differ, the value holds what they have in common and the detail
has each.

Assumptions. Experts are a list of modules of the same shape, or tensors whose first dimension counts them.

What it cannot tell. Choices by anything but the k largest; a score written out instead of called; a dense
feed-forward layer beside the experts from a shared expert of another size. Tiny models keep what a
configuration says of the structure, not the published numbers, which are measured on variants.

Source. Shazeer et al. 2017 (arXiv 1701.06538) choose the k best of n experts by a softmax over
their logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import Reading, Unmeasurable

if TYPE_CHECKING:
    from ptmkb.probe.subject import Subject

SCALES: tuple[str, ...] = ("tiny", "variant")

NUMBERS = {"experts": 1, "per_token": 1, "shared": 0}  # and the least that each can be
SCORINGS = ("softmax", "sigmoid")


def parse(value: Any) -> dict[str, int | bool | str]:
    """A claimed routing in normal form.

    Raises:
        ValueError: It is not a mapping with any of `experts`, `per_token`, `shared`, `scoring`, `by_token`.
    """
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            f"a routing is a mapping with any of {', '.join(NUMBERS)}, scoring, by_token; not {value!r}"
        )
    for name, given in value.items():
        if name in NUMBERS:
            if type(given) is not int or given < NUMBERS[name]:
                raise ValueError(f"`{name}` is a number, {NUMBERS[name]} or more; not {given!r}")
        elif name == "scoring":
            if given not in SCORINGS:
                raise ValueError(f"`scoring` is one of {', '.join(SCORINGS)}; not {given!r}")
        elif name == "by_token":
            if type(given) is not bool:
                raise ValueError(f"`by_token` is true or false; not {given!r}")
        else:
            raise ValueError(
                f"`{name}` says nothing of a routing, which has {', '.join(NUMBERS)}, scoring, by_token"
            )
    return dict(value)


def measure(subject: Subject) -> dict[str | None, Reading]:
    """The routing of all layers that have experts.

    Raises:
        Unmeasurable: No layer chooses between experts, or a forward pass does not run on `meta`.
    """
    from ptmkb.probe.routing import may_have_experts, routed_layers

    if not any(subject.blocks.values()) or not may_have_experts(subject.model):
        raise Unmeasurable("no layer chooses between experts")
    layers = routed_layers(subject)
    if not layers:
        raise Unmeasurable("no layer chooses between experts")
    shown = {index: layer.shown() for index, layer in layers.items()}
    value: dict[str, Any] = {}
    for name in (*NUMBERS, "scoring"):
        found = {layer.get(name) for layer in shown.values()}
        if len(found) == 1 and (only := found.pop()) is not None:
            value[name] = only
    if all("used" in layer for layer in shown.values()):
        value["by_token"] = all(len(set(map(tuple, layer["used"]))) > 1 for layer in shown.values())
    alike = [{"layer": index, **layer} for index, layer in shown.items()]
    return {None: Reading(value, {"by_layer": alike})}


def agrees(claimed: dict[str, Any], measured: dict[str, Any]) -> bool:
    """Whether everything claimed is measured so."""
    return all(name in measured and measured[name] == given for name, given in claimed.items())
