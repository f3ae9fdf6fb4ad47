"""Which input positions each output position depends on: the pattern of information flow.

Method. One input position is replaced by another valid value in each of two samples, all else fixed, in float64,
`eval` mode, the same seed before every run; by two values in each where one leads to no pattern that has a name. An
output position that moves by more than the threshold depends on it. The threshold stands on a measured noise
floor: 100 times what the same batch in another order, and a rerun of the same inputs, differ by, but at least
1e-12 of the largest output. The matrix of
dependencies (outputs × inputs) is then named by `ptmkb.probe.patterns`. The width of a window is read from
the same matrix taken behind the first layer; that each layer sees on its own, given its input of the plain run
with one position replaced, tells local layers beside others that see all. Replacing all of the first sample must not change the second;
where it does, the detail says `leaks`.

Parts. None for the only input stream (other outputs that the subject reads from it go by their own name:
`forward`, `backward`); with several streams each by its name and `source>target` across, where everything is
`full` and nothing is `none`; a mode by its name (`mode-stream` where it is about several streams). Where a text
holds places for pictures or sounds, a replaced patch reaches all places of its picture through the picture's
own encoder; so `sequence` is the flow among all positions, words and places, measured from what enters the first
layer that they share: there a picture whose places see each other stands out as
`causal-with-bidirectional-spans`.

Assumptions. Weights are random, so that no path is closed by chance; an influence is larger than the
threshold. A dependency through which of several experts is chosen shows only where a draw changes the choice.

What it cannot tell. How strong an influence is; a pattern whose period exceeds the sequence (a window as wide
as the sample is causal). Positions of streams that no replacement reaches
(class tokens) are not looked at.

Source. Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.3, masks the decoder's attention so that a
position cannot see later ones, and lets the encoder's and the encoder-decoder attention see all; the measure
checks the consequence, not the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import NO_STREAMS, Reading, Unmeasurable
from ptmkb.probe.patterns import between, conclude, rows

if TYPE_CHECKING:
    from ptmkb.probe.influence import Influence
    from ptmkb.probe.reach import Reach
    from ptmkb.probe.subject import Inputs, Subject

SCALES: tuple[str, ...] = ("tiny",)

# Values that each position is replaced by, in each sample: at first, and again where these show no pattern with a name.
DRAWS = (1, 2)

KINDS: dict[str, tuple[str, ...]] = {  # kind: the numbers that a claim may add
    "bidirectional": (),
    "causal": (),
    "anti-causal": (),
    "sliding-window": ("window", "ahead"),
    "dilated-window": ("window", "dilation", "ahead"),
    "local-global": ("window", "ahead", "dilation", "chunk", "back", "whole"),
    "chunked": ("chunk", "causal", "back"),
    "prefix": ("prefix",),
    "causal-with-bidirectional-spans": ("span", "window"),
    "permuted": (),
    "pointwise": (),
    "full": (),
    "none": (),
    "other": (),
}


def parse(value: Any) -> dict[str, Any]:
    """A claimed flow in normal form: `{"kind": …}` and the numbers that the claim gives.

    Raises:
        ValueError: It is not the name of a kind, nor a mapping with `kind` and that kind's numbers.
    """
    claim = {"kind": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    kind = claim.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(
            f"a flow is one of {', '.join(KINDS)}, or a mapping with one of them as `kind`; not {value!r}"
        )
    for name, number in claim.items():
        if name != "kind" and name not in KINDS[kind]:
            allowed = ", ".join(f"`{key}`" for key in KINDS[kind]) or "nothing"
            raise ValueError(f"`{name}` says nothing of the flow `{kind}`, which takes {allowed}")
        if name not in ("kind", "whole", "causal") and (type(number) is not int or number < 1):
            raise ValueError(f"`{name}` is a number of positions, 1 or more; not {number!r}")
        if name == "causal" and type(number) is not bool:
            raise ValueError(f"`causal` is true or false; not {number!r}")
    return claim


def measure(subject: Subject) -> dict[str | None, Reading]:
    """The flow of every pair of streams and of every mode.

    Raises:
        Unmeasurable: There are no streams, outputs are not finite, or their shape depends on the values of the inputs.
    """
    from ptmkb.probe.reach import reaches
    from ptmkb.probe.sequences import SEQUENCE, sequence_of
    from ptmkb.probe.stacks import JOINT

    if not subject.streams:
        raise Unmeasurable(NO_STREAMS)
    doubled = subject.doubled()
    layers = reaches(doubled)
    streams = tuple(doubled.streams)
    readings = {
        _part(subject, source, target): reading
        for (source, target), reading in _readings(doubled, layers=layers).items()
    }
    if (sequence := sequence_of(doubled)) is not None:
        shared = [replace(reach, stacks=(SEQUENCE,)) for reach in layers if JOINT in reach.stacks]
        readings[SEQUENCE] = _readings(sequence, layers=shared)[SEQUENCE, SEQUENCE]
    for mode in doubled.modes:
        own = mode.streams or streams
        inputs = {**doubled.inputs, **mode.inputs}
        for (source, target), reading in _readings(doubled, inputs, own).items():
            name = mode.name if len(own) == 1 and source == target else f"{mode.name}-{source}"
            readings[name if source == target else f"{name}>{target}"] = reading
    return readings


def agrees(claimed: dict[str, Any], measured: dict[str, Any]) -> bool:
    """Whether the measured flow is the claimed one, or a special case of it.

    A claimed number must be the measured one. A window or chunk that looks only back is causal, one that
    looks only ahead anti-causal; one that looks as far back as ahead is bidirectional, and so is a model
    whose windowed layers stand beside ones that see all.
    """
    if claimed["kind"] == measured["kind"]:
        return all(measured.get(name) == number for name, number in claimed.items())
    return _direction(measured) == str(claimed["kind"])


def _direction(measured: dict[str, Any]) -> str | None:
    """The plain kind that a windowed one is a special case of."""
    kind = measured["kind"]
    if kind == "local-global":
        return str(measured["whole"])
    if kind == "chunked":
        return "causal" if measured["causal"] else None
    if kind in ("sliding-window", "dilated-window"):
        ahead, window = measured.get("ahead", 0), measured["window"]
        return {0: "causal", window - 1: "anti-causal"}.get(
            ahead, "bidirectional" if 2 * ahead + 1 == window else None
        )
    return None


def _part(subject: Subject, source: str, target: str) -> str | None:
    if len(subject.streams) == 1:
        return None if target == source else target
    return source if target == source else f"{source}>{target}"


def _readings(
    doubled: Subject, inputs: Inputs | None = None, only: Sequence[str] = (), layers: Sequence[Reach] = ()
) -> dict[tuple[str, str], Reading]:
    """By (input stream, output), what one replacement of each position shows, or several where the pattern of one has no name."""
    from ptmkb.probe.influence import influences

    for draws in DRAWS:
        found = influences(doubled, inputs, only=only, draws=draws)
        readings = {pair: _reading(doubled, one, *pair, layers) for pair, one in found.items()}
        if all(reading.value["kind"] != "other" for reading in readings.values()):
            break
    return readings


def _reading(
    subject: Subject, found: Influence, source: str, target: str, layers: Sequence[Reach]
) -> Reading:
    across = source != target and target in subject.streams
    stack = subject.blocks.get(target, ())
    own = [] if found.places is None else _within(layers, target, found.places)
    pattern = conclude(found.matrix, found.first_layer, len(stack) or None, across=across, layers=own)
    if across and subject.places and pattern.kind == "other":
        pattern = between(found.matrix, subject.places[source], subject.places[target]) or pattern
    detail: dict[str, Any] = {
        "matrix": rows(found.matrix),
        "threshold": float(f"{found.threshold:.1e}"),
        "noise": float(f"{found.noise:.1e}"),
        "leaks": found.leaks,
        **pattern.detail,
    }
    if found.first_layer is not None:
        detail["first_layer"] = rows(found.first_layer)
    if found.batch_order:
        detail["batch_order"] = True
    return Reading(pattern.value, detail)


def _within(layers: Sequence[Reach], stack: str, places: Sequence[int]) -> list[list[list[bool]]]:
    """What each layer of a stack sees on its own, at the places of a stream's positions."""
    matrices = [
        reach.matrix
        for reach in layers
        if stack in reach.stacks and reach.matrix and max(places) < len(reach.matrix)
    ]
    return [[[matrix[i][j] for j in places] for i in places] for matrix in matrices]
