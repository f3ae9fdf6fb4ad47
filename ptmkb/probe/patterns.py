"""What kind of flow a matrix of influences shows: causal, windowed, prefix, permuted, …; no torch, no model.

A matrix says which input positions (columns) move which output positions (rows). `classify` names the pattern
of one matrix, and `conclude` joins that of a whole model with those of its layers, where a window shows
in its true width: after L layers of windows of w positions the whole model reaches L·(w - 1) positions back.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

Matrix = Sequence[Sequence[bool]]
Entry = Callable[[int, int], bool]


@dataclass(frozen=True)
class Pattern:
    """What a matrix shows.

    Attributes:
        value: `kind` and its numbers. `sliding-window` has `window`, the number of positions seen, and
            `ahead` where some of these lie ahead; `dilated-window` the same, and `dilation`, the step from one
            to the next of them; `prefix` has `prefix`, the number of positions that all may see; `chunked` has
            `chunk` and `causal`, and `back` where a chunk sees so many chunks before it;
            `causal-with-bidirectional-spans` has `span`, the length of its longest span, and `window` where
            the rest is a window.
        detail: What else can be said: `order` for `permuted` (positions in the order in which they become
            visible), `sees_itself: False` where a position does not move its own output, `first_sees_all`
            where then the first of the order, with nothing to see, sees all; `spans`, the first and the last
            position of each span that sees all of itself.
    """

    value: dict[str, Any]
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The pattern's name."""
        return str(self.value["kind"])


def rows(matrix: Matrix) -> list[str]:
    """The matrix as text, one string of 0 and 1 a row (output position)."""
    return ["".join("1" if entry else "0" for entry in row) for row in matrix]


def classify(matrix: Matrix, *, across: bool = False) -> Pattern:
    """Name the pattern of a matrix.

    Where two names fit, the plainer one is given: a window as wide as the sequence is `causal`, a window or
    chunk of one position `pointwise`, a prefix of at most one position `causal`, a prefix or chunk of the
    whole sequence `bidirectional`.

    Args:
        matrix: (outputs, inputs), square unless input and output are different streams.
        across: Input and output are different streams: all is `full` (not `bidirectional`).

    Returns:
        The pattern; `other` where none fits.
    """
    outputs, inputs = len(matrix), len(matrix[0]) if len(matrix) else 0
    flat = [bool(entry) for row in matrix for entry in row]
    if not any(flat):
        return Pattern({"kind": "none"})
    if all(flat):
        return Pattern({"kind": "full" if across else "bidirectional"})
    if outputs == inputs:
        for find in (_band, _prefix, _chunked, _permuted, _dilated, _spans):
            if pattern := find(matrix):
                return pattern
    return Pattern({"kind": "other"})


def conclude(
    whole: Matrix,
    first: Matrix | None,
    depth: int | None,
    *,
    across: bool = False,
    layers: Sequence[Matrix] = (),
) -> Pattern:
    """Name the flow of a model from its own matrix and those of its layers.

    A window or chunk in the first layer is the model's, with that size, if layers of just this kind would
    make the whole model's matrix. If the whole model sees further, other layers must see all: `local-global`,
    with `whole` the kind of the model as a whole; so it is too where the first layer sees all and a later one
    less.

    Args:
        whole: From the model's input to its output.
        first: From the model's input to its first layer's output; None where it is not known.
        depth: How many layers there are; None where it is not known.
        across: See `classify`.
        layers: From each layer's own input to its output, where known.
    """
    pattern = classify(whole, across=across)
    if across:
        return pattern
    own = [classify(layer) for layer in layers if len(layer) == len(whole)]
    local = classify(first) if first is not None and len(first) == len(whole) else next(iter(own), None)
    near = [layer for layer in own if _is_near(layer, len(whole))]
    others_see_all = not all(map(_is_local, own))
    if (
        local is not None
        and pattern.kind in _UNBOUNDED
        and others_see_all
        and not _is_near(local, len(whole))
    ):
        local = None
    if local is not None and local.kind in ("sliding-window", "dilated-window"):
        size, step = len(whole), local.value.get("dilation", 1)
        ahead = local.value.get("ahead", 0)
        before = local.value["window"] - 1 - ahead
        depths = range(1, size + 1) if depth is None else (depth,)
        if any(_equal(whole, _in_band(step * before * n, step * ahead * n, step)) for n in depths):
            return local
    local = next((layer for layer in (local, *near) if layer is not None and _is_local(layer)), None)
    if local is None or pattern.kind not in _UNBOUNDED:
        return pattern
    sizes = {name: number for name, number in local.value.items() if name in _SIZES}
    return Pattern({"kind": "local-global", **sizes, "whole": pattern.kind}, pattern.detail)


def between(matrix: Matrix, sources: Sequence[int], targets: Sequence[int]) -> Pattern | None:
    """Name the flow from one stream to another where both have their places in one sequence.

    Args:
        matrix: (targets, sources).
        sources: The place of each input position in the sequence.
        targets: The place of each output position.

    Returns:
        `causal` or `anti-causal` where a place sees just those before it, or behind it; else None.
    """
    if _equal(matrix, lambda i, j: sources[j] < targets[i]):
        return Pattern({"kind": "causal"})
    if _equal(matrix, lambda i, j: sources[j] > targets[i]):
        return Pattern({"kind": "anti-causal"})
    return None


_UNBOUNDED = ("causal", "anti-causal", "bidirectional", "prefix", "causal-with-bidirectional-spans")
_SIZES = ("window", "ahead", "dilation", "chunk", "back")


def _is_local(pattern: Pattern) -> bool:
    """Whether not even all that the direction allows is seen."""
    return pattern.kind in ("sliding-window", "dilated-window", "chunked") or "window" in pattern.value


def _is_near(pattern: Pattern, size: int) -> bool:
    """Whether a layer's window, if it has one, ends within half of the sequence on either side.

    A wider one is not believed: what a decaying state keeps of far positions may be too little to see.
    """
    window, ahead = pattern.value.get("window", 0), pattern.value.get("ahead", 0)
    return 2 * max(window - ahead, ahead + 1) <= size or "window" not in pattern.value


def _equal(matrix: Matrix, expected: Entry) -> bool:
    return all(bool(entry) == expected(i, j) for i, row in enumerate(matrix) for j, entry in enumerate(row))


def _in_band(before: int, ahead: int, step: int = 1) -> Entry:
    return lambda i, j: -ahead <= i - j <= before and (i - j) % step == 0


def _band(matrix: Matrix) -> Pattern | None:
    size = len(matrix)
    before = max((i - j for i, j in _seen(matrix)), default=0)
    ahead = max((j - i for i, j in _seen(matrix)), default=0)
    if before < 0 or ahead < 0 or not _equal(matrix, _in_band(before, ahead)):
        return None
    if before == 0 and ahead == 0:
        return Pattern({"kind": "pointwise"})
    if before == size - 1 and ahead == 0:
        return Pattern({"kind": "causal"})
    if before == 0 and ahead == size - 1:
        return Pattern({"kind": "anti-causal"})
    if before == size - 1 or ahead == size - 1:
        return None  # bounded on one side only, so that the width of the other is not known
    value: dict[str, Any] = {"kind": "sliding-window", "window": before + ahead + 1}
    return Pattern(value | ({"ahead": ahead} if ahead else {}))


def _prefix(matrix: Matrix) -> Pattern | None:
    prefix = sum(bool(entry) for entry in matrix[0])
    if prefix < 2 or not _equal(matrix, lambda i, j: j < prefix or j <= i):
        return None
    return Pattern({"kind": "prefix", "prefix": prefix})


def _chunked(matrix: Matrix) -> Pattern | None:
    size = len(matrix)
    reach = sum(
        bool(row[0]) for row in matrix
    )  # of the first position: its chunk, and those that look back so far
    for back in range(reach // 2):
        chunk = reach // (back + 1)
        if chunk * (back + 1) != reach or not chunk >= 2 or reach >= size:
            continue
        for causal in (False, True):

            def seen(i: int, j: int, chunk: int = chunk, causal: bool = causal, back: int = back) -> bool:
                return 0 <= i // chunk - j // chunk <= back and (j <= i or not causal)

            if _equal(matrix, seen):
                value: dict[str, Any] = {"kind": "chunked", "chunk": chunk, "causal": causal}
                return Pattern(value | ({"back": back} if back else {}))
    return None


def _dilated(matrix: Matrix) -> Pattern | None:
    """A window with gaps: every `dilation`-th position is seen."""
    offsets = {i - j for i, j in _seen(matrix)}
    step = gcd(*offsets)
    before, ahead = max(offsets), -min(offsets)
    if step < 2 or min(before, ahead) < 0 or not _equal(matrix, _in_band(before, ahead, step)):
        return None
    if max(before, ahead) + step > len(matrix) - 1:
        return None  # it may go on beyond the sequence, so that its width is not known
    value: dict[str, Any] = {
        "kind": "dilated-window",
        "window": (before + ahead) // step + 1,
        "dilation": step,
    }
    return Pattern(value | ({"ahead": ahead // step} if ahead else {}))


def _spans(matrix: Matrix) -> Pattern | None:
    """Causal (or a causal window), but for stretches whose positions see all that is ahead in them: a picture among words."""
    size = len(matrix)
    spans = _ahead(matrix)
    together = {
        (i, j) for first, last in spans for i in range(first, last + 1) for j in range(first, last + 1)
    }
    for inside in (
        together,
        {(i, j) for i, j in together if j > i},
    ):  # a window may cut through a span or not
        outside = [(i, j) for i in range(size) for j in range(i + 1) if (i, j) not in inside]
        before = max((i - j for i, j in outside if matrix[i][j]), default=0)
        if spans and _equal(matrix, _in_band_or(before, inside)):
            span = max(last - first + 1 for first, last in spans)
            value: dict[str, Any] = {"kind": "causal-with-bidirectional-spans", "span": span}
            bounded = before < max(i - j for i, j in outside)
            detail = {"spans": [list(ends) for ends in spans]}
            return Pattern(value | ({"window": before + 1} if bounded else {}), detail)
    return None


def _in_band_or(before: int, inside: Container[tuple[int, int]]) -> Entry:
    return lambda i, j: 0 <= i - j <= before or (i, j) in inside


def _ahead(matrix: Matrix) -> list[tuple[int, int]]:
    """The first and last position of each stretch in which something ahead is seen, none inside another."""
    found: list[tuple[int, int]] = []
    for first, row in enumerate(matrix):
        last = max((j for j, entry in enumerate(row) if entry), default=-1)
        if last > first and (not found or first > found[-1][1]):
            found.append((first, last))
    return found


def _permuted(matrix: Matrix) -> Pattern | None:
    size = len(matrix)
    rank = [sum(bool(entry) for entry in row) for row in matrix]
    if sorted(rank) == list(range(1, size + 1)) and _equal(matrix, lambda i, j: rank[j] <= rank[i]):
        return Pattern({"kind": "permuted"}, {"order": _sorted_by(rank)})
    detail: dict[str, Any] = {"sees_itself": False}
    if sorted(rank) == list(range(1, size + 1)):
        # The first position of the order has nothing to see. A softmax over keys that are all masked by the same large
        # number weighs all of them evenly: the row is full.
        first = rank.index(size)
        rank[first] = 0
        detail["first_sees_all"] = True
    else:
        first = -1
    if sorted(rank) != list(range(size)) or not _equal(matrix, lambda i, j: i == first or rank[j] < rank[i]):
        return None
    order = _sorted_by(rank)
    plain = {tuple(range(size)): "causal", tuple(reversed(range(size))): "anti-causal"}.get(tuple(order))
    return (
        Pattern({"kind": plain}, detail)
        if plain
        else Pattern({"kind": "permuted"}, {"order": order, **detail})
    )


def _sorted_by(rank: list[int]) -> list[int]:
    return sorted(range(len(rank)), key=lambda position: rank[position])


def _seen(matrix: Matrix) -> Iterator[tuple[int, int]]:
    return ((i, j) for i, row in enumerate(matrix) for j, entry in enumerate(row) if entry)
