from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptmkb.probe.patterns import classify, conclude, rows

sizes = st.integers(3, 20)


def matrix(size: int, entry: Callable[[int, int], bool]) -> list[list[bool]]:
    return [[entry(i, j) for j in range(size)] for i in range(size)]


def band(size: int, before: int, ahead: int = 0) -> list[list[bool]]:
    return matrix(size, lambda i, j: -ahead <= i - j <= before)


@given(sizes)
def test_plain_kinds(size: int) -> None:
    assert classify(matrix(size, lambda i, j: True)).value == {"kind": "bidirectional"}
    assert classify(matrix(size, lambda i, j: True), across=True).value == {"kind": "full"}
    assert classify(matrix(size, lambda i, j: False), across=True).value == {"kind": "none"}
    assert classify(matrix(size, lambda i, j: j <= i)).value == {"kind": "causal"}
    assert classify(matrix(size, lambda i, j: j >= i)).value == {"kind": "anti-causal"}
    assert classify(matrix(size, lambda i, j: i == j)).value == {"kind": "pointwise"}


@given(sizes)
def test_strict_order_is_causal_without_itself(size: int) -> None:
    forward = classify(matrix(size, lambda i, j: j < i))
    assert (forward.kind, forward.detail["sees_itself"]) == ("causal", False)
    assert classify(matrix(size, lambda i, j: j > i)).kind == "anti-causal"


@given(sizes, st.data())
def test_windows_of_every_width(size: int, data: st.DataObject) -> None:
    before = data.draw(st.integers(0, size - 2))
    ahead = data.draw(st.integers(0 if before else 1, size - 2))
    expected = {"kind": "sliding-window", "window": before + ahead + 1} | ({"ahead": ahead} if ahead else {})
    assert classify(band(size, before, ahead)).value == expected


@given(sizes, st.data())
def test_prefix_of_every_length(size: int, data: st.DataObject) -> None:
    prefix = data.draw(st.integers(2, size - 1))
    assert classify(matrix(size, lambda i, j: j < prefix or j <= i)).value == {
        "kind": "prefix",
        "prefix": prefix,
    }


@given(st.integers(4, 20), st.booleans(), st.data())
def test_chunks_of_every_length(size: int, causal: bool, data: st.DataObject) -> None:
    chunk = data.draw(st.integers(2, size - 1))
    found = classify(matrix(size, lambda i, j: i // chunk == j // chunk and (j <= i or not causal)))
    assert found.value == {"kind": "chunked", "chunk": chunk, "causal": causal}


@given(
    sizes.flatmap(lambda size: st.permutations(range(size))),
    st.sampled_from(["itself", "others", "first sees all"]),
)
def test_any_order(order: list[int], sees: str) -> None:
    rank = {position: place for place, position in enumerate(order)}
    found = classify(
        matrix(
            len(order),
            lambda i, j: (
                rank[j] < rank[i]
                or (sees == "itself" and i == j)
                or (sees == "first sees all" and rank[i] == 0)
            ),
        )
    )
    plain = {tuple(sorted(order)): "causal", tuple(sorted(order, reverse=True)): "anti-causal"}.get(
        tuple(order)
    )
    assert found.kind == (plain or "permuted")
    assert plain or found.detail["order"] == order
    assert found.detail.get("sees_itself", True) is (sees == "itself")


@given(sizes, st.data())
def test_one_wrong_entry_is_not_causal(size: int, data: st.DataObject) -> None:
    i, j = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    wrong = matrix(size, lambda row, column: (column <= row) != ((row, column) == (i, j)))
    assert classify(wrong).kind != "causal"


def test_what_fits_nothing_is_other() -> None:
    assert classify(matrix(6, lambda i, j: (i + j) % 3 == 0)).kind == "other"
    assert classify([[True, False, True], [True, True, True]]).kind == "other"


@given(st.integers(6, 24), st.integers(2, 5), st.integers(1, 4), st.integers(0, 2))
def test_window_is_read_behind_the_first_of_equal_layers(
    size: int, back: int, depth: int, ahead: int
) -> None:
    first, whole = band(size, back - 1, ahead), band(size, (back - 1) * depth, ahead * depth)
    if max(back - 1, ahead) < size - 1:
        assert conclude(whole, first, depth).value["window"] == back + ahead


@pytest.mark.parametrize(
    ("whole", "kind"), [(lambda i, j: j <= i, "causal"), (lambda i, j: True, "bidirectional")]
)
def test_window_beside_layers_that_see_all(whole: Callable[[int, int], bool], kind: str) -> None:
    first = band(12, 3, 0 if kind == "causal" else 3)
    value = conclude(matrix(12, whole), first, 2).value
    assert (value["kind"], value["whole"]) == ("local-global", kind)


def test_wide_reach_that_one_window_cannot_explain_is_not_that_window() -> None:
    assert conclude(band(12, 7), band(12, 3), 2).value == {"kind": "sliding-window", "window": 8}
    assert conclude(band(12, 6), band(12, 3), 2).value == {"kind": "sliding-window", "window": 4}


def test_rows_are_text() -> None:
    assert rows(band(3, 0)) == ["100", "010", "001"]
