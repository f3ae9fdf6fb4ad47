"""How a model knows the order of its positions: absolute, rotary, relative, by a bias, by convolution or recurrence, or not at all.

Method. All in float64, on the running model.
- Before the layers: every position of a stream gets the same content, and what goes into the first layer is compared between
  neighbours. Where all neighbours differ, positions are `absolute`: `absolute-learned` where two positions use different entries of a
  trained parameter (by its gradient), else `absolute-sinusoidal` where the vectors' distances depend on the distance of their places
  alone, else `absolute-fixed`. `convolution`: one position moves several rows, and a convolution with overlapping windows ran.
- Inside: every layer gets one vector at every position (two different vectors in two runs), so that content is the same everywhere.
  Where queries and keys then differ from place to place and keep their lengths, they were turned: `rotary`. Where scores still
  differ: by the same amounts for both vectors, a bias (`bias-learned` where a parameter moves it, `bias-linear` where it is
  proportional to the distance, else `bias-fixed`); by amounts that depend on content and on the distance alone, `relative`.
- Layers without attention: `recurrence` for recurrent networks, state spaces and linear attention, `convolution` for convolutions;
  `convolution` too where one runs beside attention.
- Cross-check: two positions are exchanged in a layer's input. Where that changes what sees both, and nothing above explains it, the
  value has `other`. `none`: nothing tells positions apart but a mask.

Parts. None for a model of one stack, else each stack's name, and None too where all are alike; layers that take several streams at
once are left out.

Assumptions. Attention is a softmax over products of queries and keys; masks lie below -1000. Parameters are at random. A layer's input
is the first tensor of hidden states that it takes: what it takes beside it (Zamba2's embeddings) can look like `absolute-fixed`.

What it cannot tell. Order that a causal mask alone reveals. Fixed positions that are no plain sinusoids, behind a convolution; sinusoids
that a norm follows before the first layer are `absolute-fixed`. What enters before the layers where positions cannot be followed (text
with a picture's placeholders, patches that a masked auto-encoder hides): `unseen` in the detail. Kinds by layer are in the detail.

Source. Vaswani et al. 2017 (arXiv 1706.03762), section 3.5: learned and sinusoidal; Shaw et al. 2018 (arXiv 1803.02155): relative;
Su et al. 2021 (arXiv 2104.09864): rotary; Raffel et al. 2020 (arXiv 1910.10683): learned bias; Press et al. 2022 (arXiv 2108.12409):
linear bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import NO_STREAMS, Reading, Unmeasurable, with_whole

if TYPE_CHECKING:
    from ptmkb.probe.subject import Subject

SCALES: tuple[str, ...] = ("tiny",)

KINDS = (
    "absolute-learned", "absolute-sinusoidal", "absolute-fixed", "rotary", "relative", "bias-learned", "bias-linear", "bias-fixed",
    "convolution", "recurrence", "other", "none",
)  # fmt: skip
FAMILIES = ("absolute", "bias")
IMPLICIT = (
    "convolution",
    "recurrence",
)  # an architecture's own order, which a claim need not name beside embeddings


def parse(value: Any) -> list[str]:
    """Claimed position kinds in normal form: a sorted list of kinds or families (`absolute`, `bias`).

    Raises:
        ValueError: It is not a kind, nor a list of kinds.
    """
    kinds = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
    unknown = [kind for kind in kinds if kind not in (*KINDS, *FAMILIES)]
    if not kinds or unknown:
        raise ValueError(
            f"a position is one of {', '.join((*FAMILIES, *KINDS))}, or a list of these; not {value!r}"
        )
    if "none" in kinds and len(kinds) > 1:
        raise ValueError("`none` stands alone")
    return sorted(set(kinds))


def measure(subject: Subject) -> dict[str | None, Reading]:
    """The kinds of position of every stack.

    Raises:
        Unmeasurable: The subject knows no streams, or no layers.
    """
    from ptmkb.probe.layer_kinds import layer_kinds
    from ptmkb.probe.positions import entering
    from ptmkb.probe.scores import inside
    from ptmkb.probe.stacks import CROSS

    if not subject.streams:
        raise Unmeasurable(NO_STREAMS)
    if not any(subject.blocks.values()):
        raise Unmeasurable("no repeated layers are known")
    doubled = subject.doubled()
    before, within, layers = entering(doubled), inside(doubled), layer_kinds(subject, doubled)
    readings: dict[str | None, Reading] = {}
    for stack in subject.blocks:
        runs = [at for at, layer in enumerate(layers) if stack in layer.stacks]
        if stack == CROSS or not runs:
            continue
        by_layer = []
        for at in runs:
            kinds = set(within[at].kinds) if at in within else set()
            kinds |= layers[at].order()
            by_layer.append(sorted(kinds or ({"other"} if layers[at].reach.knows_places else set())))
        streams = before.get(stack, {})
        value = sorted(
            {k for kinds in by_layer for k in kinds} | {k for e in streams.values() for k in e.kinds}
        )
        unseen = [name for name, found in streams.items() if not found.seen]
        if unseen and not value:
            continue  # nothing found is not nothing there
        detail: dict[str, Any] = {
            "before": {name: list(found.kinds) for name, found in streams.items()},
            "tables": {
                name: [list(s) for s in found.tables] for name, found in streams.items() if found.tables
            },
            "by_layer": by_layer,
        }
        if unseen:
            detail["unseen"] = unseen
        readings[stack] = Reading(value or ["none"], detail)
    if not readings:
        raise Unmeasurable("positions cannot be followed into the layers")
    return with_whole(readings)


def agrees(claimed: Sequence[str], measured: Sequence[str]) -> bool:
    """Whether the measured kinds are the claimed ones; convolution and recurrence need not be claimed.

    A family (`absolute`, `bias`) is borne out by any of its kinds.
    """

    def fits(claim: str, kind: str) -> bool:
        return kind == claim or (claim in FAMILIES and kind.startswith(f"{claim}-"))

    all_found = all(any(fits(claim, kind) for kind in measured) for claim in claimed)
    return all_found and all(
        any(fits(claim, kind) for claim in claimed) or (kind in IMPLICIT and claimed != ["none"])
        for kind in measured
    )
