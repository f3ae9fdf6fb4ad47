"""The kind of every layer, in order: what mixes its positions and how far, which heads it has, what feeds forward.

Method. Every layer is given, inside the running model, the input that it had in a plain run but for one position, and what it gives is
compared with what it gave (float64, against a measured noise floor). So each layer's own reach is seen, behind whichever layers.
- `mixer`: with attention `full`, `sliding-window` (`window` positions, `ahead` of them later ones) or `chunked` (`chunk` positions),
  from the pattern of its reach; `cross-attention` where it reaches only another stream; without attention `recurrence` (a recurrent
  network's kernel ran), `convolution` (it reaches a band of `window` positions), `fourier`, `linear-attention` (products of positions
  with positions, no softmax), `state-space` (it reaches all earlier positions, by none of these); `none` where no position reaches
  another; `other`.
- `heads`, from the queries and keys that meet: `multi-head`, `grouped-query`, `multi-query`; `latent` where keys and values are
  unfolded from one projection.
- `cross`: another stream changes it by another way than its input.
- `feed_forward`: `experts` where some of several sets of weights are chosen, `dense`, or `none`.
The value lists runs of equal layers with their `count`.

At full size nothing can be replaced. Heads and feed-forward come from the traced run; how far attention reaches from the masks that the
model makes for an input of 4,200 positions (512 where it takes no more), layer by layer. `attention` is one whose mask was not seen.
What mixes without attention is left out.

Parts. None for a model of one stack; with several stacks each by its name.

Assumptions. The subject names the layers. The sample is longer than the window; attention is a softmax over products.

What it cannot tell. A window as wide as the sample (at full size: 4,200 positions) is `full`. Linear attention with decay and a state space are one computation in two
forms (Dao and Gu 2024); the word says which form runs. A state space beside attention in one layer counts as attention. Feed-forward
in a layer without attention is known by its sum with the residual stream only.

Source. Attention with a window: Beltagy et al. 2020 (arXiv 2004.05150); multi-query: Shazeer 2019 (arXiv 1911.02150); grouped-query:
Ainslie et al. 2023 (arXiv 2305.13245); latent: DeepSeek-AI 2024 (arXiv 2405.04434); state space: Gu and Dao 2023 (arXiv 2312.00752).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import Reading, Unmeasurable

if TYPE_CHECKING:
    from ptmkb.probe.layer_kinds import LayerKind
    from ptmkb.probe.subject import Subject

SCALES: tuple[str, ...] = ("tiny", "variant")

MIXERS = (
    "full", "attention", "sliding-window", "chunked", "cross-attention", "linear-attention", "state-space", "convolution", "recurrence", "fourier",
    "none", "other",
)  # fmt: skip
HEADS = ("multi-head", "grouped-query", "multi-query", "latent")
FEED_FORWARD = ("dense", "experts", "none")
_NUMBERS = ("window", "ahead", "chunk")
_WORDS = {"mixer": MIXERS, "heads": HEADS, "feed_forward": FEED_FORWARD}


def parse(value: Any) -> list[dict[str, Any]]:
    """Claimed layers in normal form: a list of kinds.

    A kind is a mapping with any of `mixer`, `window`, `ahead`, `chunk`, `heads`, `cross`, `feed_forward`, `count`, or a text such as
    `12 × full multi-head dense` or `sliding-window 4 grouped-query experts`. One kind without a count is said of all layers; several
    without counts repeat in their order.

    Raises:
        ValueError: It is none of these.
    """
    items = value if isinstance(value, list) else [value]
    if not items:
        raise ValueError("layers are a list of kinds; not an empty one")
    kinds = [_read(item) for item in items]
    if len({"count" in kind for kind in kinds}) > 1:
        raise ValueError(f"either all kinds of layers have a count or none; not {value!r}")
    return kinds


def measure(subject: Subject) -> dict[str | None, Reading]:
    """The layers of every stack.

    Raises:
        Unmeasurable: The subject knows no layers.
    """
    from ptmkb.probe.layer_kinds import kinds_at_full_size, layer_kinds

    if not any(subject.blocks.values()):
        raise Unmeasurable("no repeated layers are known")
    kinds = layer_kinds(subject) if subject.scale == "tiny" else kinds_at_full_size(subject)
    stacks = {name: [kind for kind in kinds if name in kind.stacks] for name in subject.blocks}
    found: dict[str | None, Reading] = {name: _reading(kinds) for name, kinds in stacks.items() if kinds}
    if not found:
        raise Unmeasurable("no layer ran")
    if not any(kind.value for kind in kinds):
        raise Unmeasurable("at full size its layers show nothing of their kind without numbers")
    return {None: next(iter(found.values()))} if len(found) == 1 else found


def agrees(claimed: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every layer is as claimed; what a claim does not say of a layer may be anything.

    Raises:
        Unmeasurable: A claim says what mixes a layer's positions, which could not be seen at full size.
    """
    layers = [run for run in measured for _ in range(run["count"])]
    if "count" in claimed[0]:
        wanted = [kind for kind in claimed for _ in range(kind["count"])]
        if len(wanted) != len(layers):
            return False
    else:
        if len(claimed) > len(layers):
            return False
        wanted = [claimed[at % len(claimed)] for at in range(len(layers))]
    pairs = list(zip(wanted, layers, strict=True))
    unseen = [kind["mixer"] for kind, layer in pairs if "mixer" in kind and not _seen(kind, layer)]
    if unseen:
        raise Unmeasurable(f"at full size `{unseen[0]}` is not told from other mixers here")
    return all(_fits(kind, layer) for kind, layer in pairs)


def _seen(kind: Mapping[str, Any], layer: Mapping[str, Any]) -> bool:
    """Whether what was measured of a layer's mixer is enough to judge a claim about it."""
    attends = kind["mixer"] in ("full", "sliding-window", "chunked", "attention", "cross-attention")
    measured = layer.get("mixer")
    return measured is not None and not (measured == "attention" and attends and kind["mixer"] != "attention")


def _fits(kind: Mapping[str, Any], layer: Mapping[str, Any]) -> bool:
    measured = {"cross": False, **layer}
    if kind.get("mixer") == "attention" and "heads" in measured:
        measured["mixer"] = "attention"
    if kind.get("mixer") == "state-space" and measured.get("mixer") == "linear-attention":
        measured["mixer"] = "state-space"  # its dual form
    return all(measured.get(name) == given for name, given in kind.items() if name != "count")


def _read(item: Any) -> dict[str, Any]:
    kind = _words(item) if isinstance(item, str) else dict(item) if isinstance(item, Mapping) else {}
    if not kind:
        raise ValueError(
            "a layer's kind is a mapping or words such as `full multi-head dense`, with a count before `×`; "
            f"not {item!r}"
        )
    for name, given in kind.items():
        if name in _WORDS:
            if given not in _WORDS[name]:
                raise ValueError(f"a layer's `{name}` is one of {', '.join(_WORDS[name])}; not {given!r}")
        elif name in (*_NUMBERS, "count"):
            if type(given) is not int or given < 1:
                raise ValueError(f"`{name}` is a number, 1 or more; not {given!r}")
        elif name == "cross":
            if type(given) is not bool:
                raise ValueError(f"`cross` is true or false; not {given!r}")
        else:
            raise ValueError(f"`{name}` says nothing of a layer")
    return kind


def _words(text: str) -> dict[str, Any]:
    count, words = re.fullmatch(r"(?:(\d+)\s*[×x]\s*)?(.*)", text.strip()).groups()  # type: ignore[union-attr]
    kind: dict[str, Any] = {"count": int(count)} if count else {}
    last = ""
    for word in words.split():
        place = next((name for name, known in _WORDS.items() if word in known and name not in kind), None)
        if word.isdigit() and last in ("sliding-window", "chunked", "convolution"):
            kind["chunk" if last == "chunked" else "window"] = int(word)
        elif word == "cross":
            kind["cross"] = True
        elif place is None:
            raise ValueError(f"`{word}` says nothing of a layer in {text!r}")
        else:
            kind[place] = word
        last = word
    return kind


def _reading(kinds: Sequence[LayerKind]) -> Reading:
    from ptmkb.probe.patterns import rows

    runs: list[dict[str, Any]] = []
    for kind in kinds:
        if runs and {name: v for name, v in runs[-1].items() if name != "count"} == kind.value:
            runs[-1]["count"] += 1
        else:
            runs.append({"count": 1, **kind.value})
    if all(kind.reach.matrix is None and not kind.reach.others for kind in kinds):
        return Reading(runs)
    matrices = [None if kind.reach.matrix is None else rows(kind.reach.matrix) for kind in kinds]
    detail: dict[str, Any] = {"matrices": matrices}
    if any(kind.reach.others for kind in kinds):
        detail["others"] = [list(kind.reach.others) for kind in kinds]
    return Reading(runs, detail)
