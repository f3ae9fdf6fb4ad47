from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptmkb.probe.patterns import between, classify, conclude, rows

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


def test_a_first_layer_that_forgets_what_is_far_has_no_window_beside_one_that_sees_all() -> None:
    causal = matrix(16, lambda i, j: j <= i)
    assert conclude(causal, band(16, 11), 2, layers=[band(16, 11), causal]).value == {"kind": "causal"}
    near = conclude(causal, band(16, 11), 3, layers=[band(16, 11), causal, band(16, 3)]).value
    assert near == {"kind": "local-global", "window": 4, "whole": "causal"}
    every = conclude(causal, band(16, 11), 2, layers=[band(16, 3), band(16, 3)]).value
    assert every == {"kind": "sliding-window", "window": 12}


def test_wide_reach_that_one_window_cannot_explain_is_not_that_window() -> None:
    assert conclude(band(12, 7), band(12, 3), 2).value == {"kind": "sliding-window", "window": 8}
    assert conclude(band(12, 6), band(12, 3), 2).value == {"kind": "sliding-window", "window": 4}


@given(st.integers(2, 4), st.integers(0, 2), st.booleans(), st.integers(0, 3))
def test_chunks_that_look_back(chunk: int, back: int, causal: bool, rest: int) -> None:
    size = chunk * (back + 2) + min(rest, chunk - 1)
    found = classify(
        matrix(size, lambda i, j: 0 <= i // chunk - j // chunk <= back and (j <= i or not causal))
    )
    expected = {"kind": "chunked", "chunk": chunk, "causal": causal} | ({"back": back} if back else {})
    assert found.value == expected


@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 2))
def test_dilated_windows(step: int, before: int, ahead: int) -> None:
    size = step * (max(before, ahead) + 1) + 2
    found = classify(
        matrix(size, lambda i, j: -ahead * step <= i - j <= before * step and (i - j) % step == 0)
    )
    expected = {"kind": "dilated-window", "window": before + ahead + 1, "dilation": step}
    assert found.value == expected | ({"ahead": ahead} if ahead else {})


def test_a_dilated_window_is_read_behind_the_first_of_equal_layers() -> None:
    def seen(reach: int) -> list[list[bool]]:
        return matrix(16, lambda i, j: 0 <= i - j <= reach and (i - j) % 2 == 0)

    assert conclude(seen(8), seen(4), 2).value == {"kind": "dilated-window", "window": 3, "dilation": 2}


def test_gaps_that_may_go_on_beyond_the_sequence_have_no_width() -> None:
    assert classify(matrix(8, lambda i, j: j <= i and (i - j) % 2 == 0)).kind == "other"


SPANS = ((2, 5), (8, 9))


def spanned(i: int, j: int) -> bool:
    return any(first <= i <= last and first <= j <= last for first, last in SPANS)


def test_a_picture_among_words_is_not_causal_nor_a_prefix() -> None:
    found = classify(matrix(12, lambda i, j: j <= i or spanned(i, j)))
    assert found.value == {"kind": "causal-with-bidirectional-spans", "span": 4}
    assert found.detail["spans"] == [[2, 5], [8, 9]]
    assert classify(matrix(12, lambda i, j: j <= i or (i < 4 and j < 4))).value == {
        "kind": "prefix",
        "prefix": 4,
    }


@pytest.mark.parametrize("whole_span", [True, False])
def test_a_picture_among_words_under_a_window(whole_span: bool) -> None:
    found = classify(matrix(12, lambda i, j: 0 <= i - j < 3 or (spanned(i, j) and (whole_span or j > i))))
    assert found.value == {"kind": "causal-with-bidirectional-spans", "span": 4, "window": 3}


@pytest.mark.parametrize("missing", [(3, 4), (2, 5), (9, 8), (11, 0)])
def test_one_entry_less_is_no_span(missing: tuple[int, int]) -> None:
    found = classify(matrix(12, lambda i, j: (j <= i or spanned(i, j)) and (i, j) != missing))
    assert found.value != {"kind": "causal-with-bidirectional-spans", "span": 4}


def test_a_local_layer_behind_one_that_sees_all() -> None:
    causal = matrix(12, lambda i, j: j <= i)
    chunks = matrix(12, lambda i, j: j <= i and i // 4 == j // 4)
    assert conclude(causal, causal, 2, layers=[causal, causal]).value == {"kind": "causal"}
    found = conclude(causal, causal, 2, layers=[causal, band(12, 2)]).value
    assert found == {"kind": "local-global", "window": 3, "whole": "causal"}
    found = conclude(causal, causal, 2, layers=[causal, chunks]).value
    assert found == {"kind": "local-global", "chunk": 4, "whole": "causal"}


def test_between_streams_of_one_sequence() -> None:
    words, picture = [0, 1, 6, 7], [2, 3, 4, 5]
    before = [[j < i for j in picture] for i in words]
    assert between(before, picture, words).kind == "causal"
    assert between([[not entry for entry in row] for row in before], picture, words).kind == "anti-causal"
    assert between([[True] * 4] * 4, picture, words) is None


def test_rows_are_text() -> None:
    assert rows(band(3, 0)) == ["100", "010", "001"]
