"""How the cost of a forward pass grows with the length of what goes in.

Method. Forward passes over lengths from 1 to 12 are run and their floating-point operations counted, with a
batch of two: products by PyTorch's own formulas (`torch.utils.flop_counter`, two operations a multiply-add), and
by hand what these leave out: attention in the CPU's fused kernel, by the same formula as in others, and, inside
of layers, elementwise arithmetic and softmax, of which a recurrence consists (one operation an element). Two
curves result: `counted`, all that ran, and `needed`, without the scores and values of attention weights that came
out as zero: a mask took them away, and a kernel that knows the window need not compute them. The value is read
from `needed`. Lengths are run one after another until, with three of them, 7 and 12 lie on one parabola: a window or a chunk would have
left it. The detail says which were run.
- `exponent`: from the second difference of the last half of the curve: zero is 1 (each further position costs as
  much as the one before), a constant is 2. Costs that go in steps without rising (chunks) are 1 too.
- `bend`: the length from which the second difference is smaller than before: a window's width; null where the
  curve has no bend.

Parts. None for one stream, else the stream whose length changes while the others stay.

Assumptions. Lengths of up to a dozen positions (beyond the sample where that is longer) show what is so at any length:
the windows and chunks of a tiny model are shorter.

What it cannot tell. Memory traffic and time; a bend before the shortest length that the model takes. Streams whose length the model fixes (pictures, spectrograms of one
size) and waveforms are not measured, nor models whose cost depends on what is said (predicted durations).
Operations in kernels outside of PyTorch.

Source. Vaswani et al. 2017 (arXiv 1706.03762), the table of "Why Self-Attention": self-attention takes n²·d operations a layer, recurrence
n·d², attention restricted to a neighbourhood of r positions r·n·d.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import NO_STREAMS, Reading, Unmeasurable

if TYPE_CHECKING:
    from ptmkb.probe.subject import Stream, Subject

SCALES: tuple[str, ...] = ("tiny",)

NAMES = {"linear": 1, "quadratic": 2}
LENGTHS = range(1, 13)
BEYOND = 9  # lengths that are tried from the sample's own on, where it cannot be cut
FEWEST = 7  # lengths that show a second difference and its end


def parse(value: Any) -> dict[str, int | None]:
    """A claim in normal form: `{"exponent": 2}`, and `bend` where it is given.

    Raises:
        ValueError: It is not `linear`, `quadratic`, nor a mapping with `exponent`.
    """
    if isinstance(value, str) and value in NAMES:
        return {"exponent": NAMES[value]}
    if not isinstance(value, Mapping) or not value or not set(value) <= {"exponent", "bend"}:
        raise ValueError(
            f"a cost is {' or '.join(NAMES)}, or a mapping with any of exponent, bend; not {value!r}"
        )
    for name, given in value.items():
        if not (type(given) is int and given >= 1) and not (name == "bend" and given is None):
            raise ValueError(f"`{name}` is a number, 1 or more; not {given!r}")
    return dict(value)


def measure(subject: Subject) -> dict[str | None, Reading]:
    """The cost by the length of every stream.

    Raises:
        Unmeasurable: No stream's length can be changed, or the cost does not follow from it.
    """
    readings: dict[str | None, Reading] = {}
    reasons = []
    for name, stream in subject.streams.items():
        try:
            reading = _reading(subject, stream)
        except Unmeasurable as reason:
            reasons.append(f"{name}: {reason}")
        else:
            readings[None if len(subject.streams) == 1 else name] = reading
    if not readings:
        raise Unmeasurable("; ".join(reasons) or NO_STREAMS)
    return readings


def agrees(claimed: dict[str, Any], measured: dict[str, Any]) -> bool:
    """Whether everything claimed is measured so."""
    return all(name in measured and measured[name] == given for name, given in claimed.items())


def _reading(subject: Subject, stream: Stream) -> Reading:
    curve = _curve(subject, stream, LENGTHS)
    if not curve:
        curve = _curve(subject, stream, range(stream.positions, stream.positions + BEYOND))
    if not curve:
        raise Unmeasurable("its length cannot be changed")
    lengths = list(curve)
    needed = [needed for _, needed in curve.values()]
    detail = {"lengths": lengths, "counted": [counted for counted, _ in curve.values()], "needed": needed}
    exponent, bend = growth(lengths, needed)
    return Reading({"exponent": exponent, "bend": bend}, detail)


def _curve(subject: Subject, stream: Stream, lengths: Sequence[int]) -> dict[int, tuple[int, int]]:
    """The counts at consecutive lengths, as far as the model takes them, or until those ahead follow from the last three.

    None at all where it takes fewer than `FEWEST` in a row.

    Raises:
        Unmeasurable: Nothing has the stream's length, or the cost falls.
    """
    from ptmkb.probe.counting import at_length, run_counted

    counts: dict[int, tuple[int, int] | None] = {}

    def count(length: int) -> tuple[int, int] | None:
        if length not in counts:
            inputs = at_length(subject.inputs, stream, length)
            if inputs is None:
                raise Unmeasurable("its length cannot be changed")
            try:
                counts[length] = run_counted(subject, inputs)
            except (ValueError, RuntimeError, IndexError, AssertionError):
                counts[length] = None
        return counts[length]

    within, last = lengths[FEWEST - 1], lengths[-1]
    if count(within) is None:  # every run of so many lengths holds it
        return {}
    curve: dict[int, tuple[int, int]] = {}
    for length in lengths:
        found = count(length)
        if found is not None:
            if curve and found < curve[length - 1]:
                raise Unmeasurable("its cost does not follow from the length alone")
            curve[length] = found
        elif curve:
            break
        if (
            len(curve) >= 3
            and length < within
            and _follows(count, range(length - 2, length + 1), within, last)
        ):
            curve |= {at: there for at in (within, last) if (there := count(at)) is not None}
            break
    return curve if curve and max(curve) - min(curve) + 1 >= FEWEST else {}


def _follows(count: Callable[[int], tuple[int, int] | None], lengths: Sequence[int], *ahead: int) -> bool:
    """Whether all lengths ahead, tried in this order, lie on the parabola through three."""
    some = list(lengths)
    for length in ahead:
        some.append(length)
        needed = [found[1] for at in some if (found := count(at)) is not None]
        if len(needed) < len(some):
            return False
        turns = set(differences(some, needed)[1])
        if len(turns) > 1 or min(turns) < 0:
            return False
    return True


def differences(lengths: Sequence[int], costs: Sequence[int]) -> tuple[list[float], list[float]]:
    """What a further position costs, between one length and the next, and by how much that rises a position: divided differences."""
    steps = [(b - a) / (y - x) for (x, y), (a, b) in zip(pairwise(lengths), pairwise(costs), strict=True)]
    gaps = [(after - before) / 2 for before, after in zip(lengths, lengths[2:], strict=False)]
    return steps, [(b - a) / gap for (a, b), gap in zip(pairwise(steps), gaps, strict=True)]


def growth(lengths: Sequence[int], costs: Sequence[int]) -> tuple[int, int | None]:
    """The exponent of a curve, and where it bends.

    Args:
        lengths: Consecutive ones; with gaps only behind three from which the rest follows.
        costs: At these lengths.

    Raises:
        Unmeasurable: The last half of the curve follows no rule.
    """
    steps, turns = differences(lengths, costs)
    half = len(turns) // 2
    if len(set(turns[half:])) > 1 or turns[-1] < 0:
        if _periodic(steps):
            return 1, None
        raise Unmeasurable("its cost grows in steps of no rule, or not by the length alone")
    last = len(turns) - 1
    while last and turns[last - 1] == turns[-1]:
        last -= 1
    bend = lengths[last + 1] if last and turns[last - 1] > turns[-1] else None
    return (2 if turns[-1] else 1), bend


def _periodic(steps: Sequence[float]) -> bool:
    """Whether the steps come again and again, as in chunks: what is left of them after some first ones is one run of steps, twice and more."""
    fewest = len(steps) // 2
    return any(
        all(steps[at] == steps[at + period] for at in range(start, len(steps) - period))
        for period in range(1, fewest + 1)
        for start in range(max(1, len(steps) - 2 * period - 1))
    )
