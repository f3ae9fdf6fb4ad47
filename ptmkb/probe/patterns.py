"""What kind of flow a matrix of influences shows: causal, windowed, prefix, permuted, …; no torch, no model.

A matrix says which input positions (columns) move which output positions (rows). `classify` names the pattern
of one matrix, and `conclude` joins that of a whole model with that of its first layer, where a window shows
in its true width: after L layers of windows of w positions the whole model reaches L·(w - 1) positions back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Matrix = Sequence[Sequence[bool]]
Entry = Callable[[int, int], bool]


@dataclass(frozen=True)
class Pattern:
    """What a matrix shows.

    Attributes:
        value: `kind` and its numbers. `sliding-window` has `window`, the number of positions seen, and
            `ahead` where some of these lie ahead; `prefix` has `prefix`, the number of positions that all may
            see; `chunked` has `chunk` and `causal`.
        detail: What else can be said: `order` for `permuted` (positions in the order in which they become
            visible), `sees_itself: False` where a position does not move its own output, `first_sees_all`
            where then the first of the order, with nothing to see, sees all.
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
        for find in (_band, _prefix, _chunked, _permuted):
            if pattern := find(matrix):
                return pattern
    return Pattern({"kind": "other"})


def conclude(whole: Matrix, first: Matrix | None, depth: int | None, *, across: bool = False) -> Pattern:
    """Name the flow of a model from its own matrix and that of its first layer.

    A window or chunk in the first layer is the model's, with that size, if layers of just this kind would
    make the whole model's matrix. If the whole model sees further, other layers must see all: `local-global`,
    with `whole` the kind of the model as a whole.

    Args:
        whole: From the model's input to its output.
        first: From the model's input to its first layer's output; None where it is not known.
        depth: How many layers there are; None where it is not known.
        across: See `classify`.
    """
    pattern = classify(whole, across=across)
    if first is None or across or len(first) != len(whole) or len(first[0]) != len(whole[0]):
        return pattern
    local = classify(first)
    if local.kind == "sliding-window":
        size = len(whole)
        ahead = local.value.get("ahead", 0)
        before = local.value["window"] - 1 - ahead
        depths = range(1, size + 1) if depth is None else (depth,)
        if any(_equal(whole, _in_band(before * n, ahead * n)) for n in depths):
            return local
    if local.kind in ("sliding-window", "chunked") and pattern.kind in (
        "causal",
        "anti-causal",
        "bidirectional",
    ):
        sizes = {name: number for name, number in local.value.items() if name in ("window", "ahead", "chunk")}
        return Pattern({"kind": "local-global", **sizes, "whole": pattern.kind}, pattern.detail)
    return pattern


def _equal(matrix: Matrix, expected: Entry) -> bool:
    return all(bool(entry) == expected(i, j) for i, row in enumerate(matrix) for j, entry in enumerate(row))


def _in_band(before: int, ahead: int) -> Entry:
    return lambda i, j: -ahead <= i - j <= before


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
    chunk = sum(bool(row[0]) for row in matrix)
    if not 2 <= chunk < len(matrix):
        return None
    if _equal(matrix, lambda i, j: i // chunk == j // chunk):
        return Pattern({"kind": "chunked", "chunk": chunk, "causal": False})
    if _equal(matrix, lambda i, j: i // chunk == j // chunk and j <= i):
        return Pattern({"kind": "chunked", "chunk": chunk, "causal": True})
    return None


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
