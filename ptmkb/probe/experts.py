"""The experts of a mixture's layer, found from the choices that ran and the weights that stand behind them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ptmkb.probe.trace import Trace


@dataclass(frozen=True)
class Experts:
    """The experts of one layer.

    Attributes:
        among: How many there are.
        chosen: How many a token goes through.
        parameters: The weights of each.
    """

    among: int
    chosen: int
    parameters: tuple[tuple[Tensor, ...], ...]


def expert_sets(trace: Trace, layer: int) -> Experts | None:
    """The experts that a layer chooses from, None where it chooses none.

    They are a list (or a dictionary) of modules of the same shape, or tensors whose first dimension counts them; and there must
    have been a choice among just as many.
    """
    choices = {choice.among: choice.chosen for choice in trace.choices if choice.layer == layer}
    for module in trace.layers[layer].module.modules():
        if isinstance(module, nn.ModuleList | nn.ModuleDict) and len(module) in choices and len(module) > 1:
            members = module.values() if isinstance(module, nn.ModuleDict) else module
            sets = tuple(tuple(member.parameters()) for member in members)
            if sets[0] and all([p.shape for p in one] == [p.shape for p in sets[0]] for one in sets):
                return Experts(len(module), choices[len(module)], sets)
        stacked = [p for p in module.parameters(recurse=False) if p.ndim == 3]
        for among in choices:
            own = [p for p in module.parameters(recurse=False) if p.ndim >= 2 and p.shape[0] == among]
            if stacked and all(p.shape[0] == among for p in stacked) and among > 1:
                return Experts(among, choices[among], tuple(tuple(p[i] for p in own) for i in range(among)))
    return None
