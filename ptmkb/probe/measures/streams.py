"""Where the streams of a model of several meet: from which layer one changes the other, and how.

Method. In float64, all positions of one stream's inputs are replaced, and every repeated layer is watched. A
position of a layer's hidden states belongs to the stream that alone moves it when it comes to its list of layers
for the first time. A position that belongs to one stream and that another moves has been changed by it; the
value gives, for each `source>target`, the first of the target's own layers (counted from 1) behind which this is
so, or none. The threshold stands on what two equal runs differ by.

The kind follows from what was seen:
- `dual-encoder`: no layer's positions of one are changed by the other.
- `single-stream`: both run in one sequence, from their first layer on.
- `prefix-fusion`: one has layers of its own first, then joins the other's sequence as further positions.
- `fusion-encoder`: both have layers of their own first, then run in one sequence.
- `dual-stream`: each keeps a sequence of its own, and each is changed by the other.
- `cross-attention`: each keeps a sequence of its own, and only one is changed by the other (encoder to decoder).
- `gated-cross-attention`: the same, and the influence is gone when every parameter that is a single number
  (a gate) is zero.

Parts. None for two streams; `a+b` for each pair of more.

Assumptions. Layers are members of lists of modules and keep the shape of what they take.

What it cannot tell. How strong an influence is. Streams that are mixed before any layer. A gate that is a vector
from a norm's scale. Models whose output compares the two in a last head (a matching score) are dual encoders
here if their hidden states do not meet.

Source. Lu et al. 2019 (arXiv 1908.02265) set two streams that meet in co-attentional layers against
one; Radford et al. 2021 (arXiv 2103.00020) keep two encoders apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import NO_STREAMS, Reading, Unmeasurable

if TYPE_CHECKING:
    from ptmkb.probe.meeting import Passage
    from ptmkb.probe.subject import Subject

SCALES: tuple[str, ...] = ("tiny",)

KINDS = (
    "dual-encoder",
    "single-stream",
    "prefix-fusion",
    "fusion-encoder",
    "dual-stream",
    "cross-attention",
    "gated-cross-attention",
)


def parse(value: Any) -> dict[str, Any]:
    """A claim in normal form: `{"kind": …}`, and where given the first layer by `source>target` (null for never).

    Raises:
        ValueError: It is not the name of a kind, nor a mapping with `kind`.
    """
    claim = {"kind": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    if claim.get("kind") not in KINDS:
        raise ValueError(
            f"streams are one of {', '.join(KINDS)}, or a mapping with one of them as `kind`; not {value!r}"
        )
    for name, layer in claim.items():
        if name == "kind":
            continue
        if not isinstance(name, str) or name.count(">") != 1:
            raise ValueError(f"`{name}` is no `source>target`")
        if layer is not None and (type(layer) is not int or layer < 1):
            raise ValueError(f"`{name}` is the number of a layer, 1 or more, or null; not {layer!r}")
    return claim


def measure(subject: Subject) -> dict[str | None, Reading]:
    """Where each pair of streams meets.

    Raises:
        Unmeasurable: Fewer than two streams go in, or no layer of one of them is found.
    """
    if not subject.streams:
        raise Unmeasurable(NO_STREAMS)
    if len(subject.streams) < 2:
        raise Unmeasurable("only one stream goes in")
    from ptmkb.probe.meeting import passages

    doubled = subject.doubled()
    found = passages(doubled)
    missing = [name for name in subject.streams if not any(passage.stream == name for passage in found)]
    if missing:
        raise Unmeasurable(f"no layer has positions of {' and '.join(missing)} alone")
    table = _table(found)
    pairs = list(combinations(subject.streams, 2))
    return {
        None if len(pairs) == 1 else "+".join(pair): Reading(_value(doubled, found, pair), {"layers": table})
        for pair in pairs
    }


def agrees(claimed: dict[str, Any], measured: dict[str, Any]) -> bool:
    """Whether the kind is the claimed one, and so is every layer that the claim gives."""
    if claimed["kind"] == "cross-attention" and measured["kind"] == "gated-cross-attention":
        claimed = {**claimed, "kind": measured["kind"]}  # a gate is an addition to it
    return all(name in measured and measured[name] == given for name, given in claimed.items())


def _value(subject: Subject, found: Sequence[Passage], pair: tuple[str, str]) -> dict[str, Any]:
    first = {f"{source}>{target}": _first(found, source, target) for source, target in (pair, pair[::-1])}
    return {"kind": _kind(subject, found, pair, first), **first}


def _first(found: Sequence[Passage], source: str, target: str) -> int | None:
    own = [passage for passage in found if passage.stream == target]
    return next((number for number, passage in enumerate(own, 1) if source in passage.changed_by), None)


def _kind(
    subject: Subject, found: Sequence[Passage], pair: tuple[str, str], first: Mapping[str, int | None]
) -> str:
    if not any(first.values()):
        return "dual-encoder"
    joint = {name for name in pair if any(p.joint for p in found if p.stream == name)}
    if len(joint) == 2:
        alone = sum(not next(p for p in found if p.stream == name).joint for name in pair)
        return ("single-stream", "prefix-fusion", "fusion-encoder")[alone]
    if all(first.values()):
        return "dual-stream"
    (way,) = (way for way, layer in first.items() if layer)
    return "gated-cross-attention" if _gated(subject, *way.split(">")) else "cross-attention"


def _gated(subject: Subject, source: str, target: str) -> bool:
    """Whether the source no longer changes the target when every parameter of a single number is zero."""
    import torch

    from ptmkb.probe.meeting import passages

    gates = [parameter for parameter in subject.model.parameters() if parameter.numel() == 1]
    if not gates:
        return False
    kept = [gate.detach().clone() for gate in gates]
    with torch.no_grad():
        for gate in gates:
            gate.zero_()
        try:
            return _first(passages(subject), source, target) is None
        finally:
            for gate, value in zip(gates, kept, strict=True):
                gate.copy_(value)


def _table(found: Sequence[Passage]) -> list[dict[str, Any]]:
    """The layers in the order of running, for pictures."""
    return [
        {
            "layer": passage.order + 1,
            "stack": passage.stack,
            "stream": passage.stream,
            "joint": passage.joint,
            "changed_by": sorted(passage.changed_by),
        }
        for passage in found
    ]
