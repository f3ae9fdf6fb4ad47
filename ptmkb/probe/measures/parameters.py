"""How many parameters a model has: in all, in embedding tables, and active for one token.

Method. Parameters are counted once each, by the storage that holds them: tied weights count once. A published
size is built on the `meta` device, which costs no memory.
- None: all of them.
- `embeddings`: those in tables that are looked up by an index (words, positions, segments), whether or not
  the output layer uses them too.
- By stack (`text`, `image`, `encoder`, …), where a model has several that do not meet: those of the largest
  module that holds the stack's layers and no other's (embeddings that both use count in both).
- `active`, for a mixture of experts: all but the experts that a token does not go through. How many it goes
  through is found by running. On a tiny model it is
  counted: in every layer, the experts whose weights the layer's output at one position, projected on a random
  vector, has a gradient for. At
  full size it is the k of the choice that runs in the layer.

Assumptions. A token goes through equally many experts in every layer of a kind, and experts of a layer are of
one size.

What it cannot tell. Parameters that exist but never run count; buffers do not. Mixtures that choose by
anything but the k largest have no `active`.

Source. Shazeer et al. 2017 (arXiv 1701.06538) route each example through k of n experts, so that a model's
parameters and the parameters that one example uses differ; a published figure names either.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import Reading, Unmeasurable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from ptmkb.probe.experts import Experts
    from ptmkb.probe.subject import Subject
    from ptmkb.probe.tracing import Tracer

SCALES: tuple[str, ...] = ("tiny", "variant")

UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
TOLERANCE = 0.02  # share by which a count may miss the published figure
_FIGURE = re.compile(r"(\d+(?:\.(\d+))?)\s*([KMBT]?)", re.IGNORECASE)


def parse(value: Any) -> str | int:
    """A published figure in normal form: a whole number, or a number with its unit, its printed digits kept.

    Args:
        value: `110M`, `1.5B`, `46.7B`, or a whole number.

    Returns:
        `1.5B` as text, a whole number as such.

    Raises:
        ValueError: It is no such figure.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return int(value)
    match = _FIGURE.fullmatch(value.strip().replace(",", "")) if isinstance(value, str) else None
    if not match or not float(match[1]):
        raise ValueError(f"a number of parameters is written 110M, 1.5B, 46.7B or in full; not {value!r}")
    return f"{match[1]}{match[3].upper()}" if match[3] or match[2] else int(match[1])


def measure(subject: Subject) -> dict[str | None, Reading]:
    """The counts as whole numbers."""
    unique = unique_parameters(subject.model.parameters())
    total = sum(parameter.numel() for parameter in unique)
    tables = _embeddings(subject.model)
    readings: dict[str | None, Reading] = {
        "embeddings": Reading(
            sum(table.numel() for table in tables.values()), {n: t.numel() for n, t in tables.items()}
        )
    }
    detail: dict[str, Any] = {"embeddings": readings["embeddings"].value}
    try:
        active, experts = _active(subject, total)
    except Unmeasurable as reason:
        detail["active"] = str(reason)
    else:
        if experts:
            readings["active"] = Reading(active, experts)
            detail["active"] = active
    readings[None] = Reading(total, detail)
    for stack, tower in _towers(subject).items():
        readings[stack] = Reading(
            sum(parameter.numel() for parameter in unique_parameters(tower.parameters()))
        )
    return readings


def agrees(claimed: str | int, measured: str | int) -> bool:
    """Whether the count rounds to the published figure at its printed precision, or lies within 2 % of it."""
    (figure, precision), (count, _) = _read(claimed), _read(measured)
    return 2 * abs(count - figure) <= precision or abs(count - figure) <= TOLERANCE * figure


def _read(figure: str | int) -> tuple[float, float]:
    """A figure in normal form as a number, and what its last printed digit stands for (0 for a whole number)."""
    if isinstance(figure, int):
        return figure, 0
    match = _FIGURE.fullmatch(figure)
    assert match
    unit = UNITS[match[3].upper()]
    return float(match[1]) * unit, unit / 10 ** len(match[2] or "")


def unique_parameters(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The parameters, each storage once (the largest view of it)."""
    by_storage: dict[int, Tensor] = {}
    for parameter in parameters:
        key = parameter.untyped_storage()._cdata
        if key not in by_storage or parameter.numel() > by_storage[key].numel():
            by_storage[key] = parameter
    return list(by_storage.values())


def _towers(subject: Subject) -> dict[str, nn.Module]:
    """By stack, the largest module with its layers and no other's; none for one stack, or where stacks meet."""
    layers = {stack: {id(layer) for layer in blocks} for stack, blocks in subject.blocks.items() if blocks}
    if len(layers) < 2 or len(set.union(*layers.values())) < sum(len(own) for own in layers.values()):
        return {}
    towers: dict[str, nn.Module] = {}
    for module in subject.model.modules():  # a module comes before those in it
        inside = {id(part) for part in module.modules()}
        for stack, own in layers.items():
            others = set.union(*(ids for name, ids in layers.items() if name != stack))
            if stack not in towers and own <= inside and not others & inside:
                towers[stack] = module
    return towers


def _embeddings(model: nn.Module) -> dict[str, Tensor]:
    """The tables, by name, each storage once."""
    from torch import nn

    seen: set[int] = set()
    tables = {}
    for name, module in model.named_modules():
        if (
            isinstance(module, (nn.Embedding, nn.EmbeddingBag))
            and module.weight.untyped_storage()._cdata not in seen
        ):
            seen.add(module.weight.untyped_storage()._cdata)
            tables[name] = module.weight
    return tables


def _active(subject: Subject, total: int) -> tuple[int, dict[str, Any]]:
    """Parameters that one token goes through, and what was found of the experts; nothing where there are none."""
    from ptmkb.probe.dataflow import plain_run
    from ptmkb.probe.experts import expert_sets
    from ptmkb.probe.routing import may_have_experts

    if not any(subject.blocks.values()) or not may_have_experts(subject.model):
        return total, {}
    tracer = plain_run(subject)
    found = {
        index: experts
        for index in range(len(tracer.trace.layers))
        if (experts := expert_sets(tracer.trace, index)) is not None
    }
    if not found:
        return total, {}
    used = {index: experts.chosen for index, experts in found.items()}
    if subject.scale == "tiny":
        used = _used_by_gradient(subject, tracer, found)
    idle = sum(
        sum(p.numel() for p in experts.parameters[0]) * (experts.among - used[index])
        for index, experts in found.items()
    )
    among = sorted({experts.among for experts in found.values()})
    return total - idle, {"experts": among, "used": sorted(set(used.values())), "layers": len(found)}


def _used_by_gradient(subject: Subject, tracer: Tracer, found: dict[int, Experts]) -> dict[int, int]:
    """In each layer, how many experts' weights the layer's output at one position depends on."""
    import torch

    from ptmkb.probe.numerics import seeded
    from ptmkb.probe.routing import experts_behind, hidden_states_of

    outputs: list[Tensor] = []
    modules = list(dict.fromkeys(call.module for call in tracer.trace.layers))
    hooks = [
        module.register_forward_hook(lambda _, args, output: outputs.append(hidden_states_of(output)))
        for module in modules
    ]
    try:
        with torch.enable_grad(), seeded():
            subject.model(**dict(subject.inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return {index: len(experts_behind(outputs[index][0, 0], experts)) for index, experts in found.items()}
