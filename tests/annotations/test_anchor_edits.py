"""Anchors against edits of real files whose outcome is known: never a wrong place reported as right, and few places missed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.anchor_edits import FILES, KEEPING, REMOVING, Edit, edited, move_region
from ptmkb.annotations import Status, make_anchor, resolve
from ptmkb.source import find_tree

TREE = find_tree()


@dataclass
class Outcome:
    status: Status
    wrong: bool
    found: bool
    says: str


def play(file: str, seed: int, edits: list[Edit], size: int | None = None, newline: str = "\n") -> Outcome:
    """Anchor a random region of a file, edit the file, resolve, and compare with the truth."""
    case = edited(TREE.read(file), seed, edits, size)
    anchor = make_anchor(case.before, *case.region)
    found = resolve(anchor, case.after.replace("\n", newline))
    promised = found.status in (Status.exact, Status.moved)
    says = (
        f"{file}:{case.region} seed {seed} {[e.__name__ for e in edits]}: {found.status} "
        f"{found.first_line}-{found.last_line}, truth {case.truth}; {found.reason}"
    )
    if case.truth is None:
        return Outcome(found.status, promised, found.status is Status.lost, says)
    if found.first_line is None or found.last_line is None:
        return Outcome(found.status, wrong=False, found=False, says=says)
    here = (found.first_line, found.last_line)
    near = all(abs(at - true) <= 1 for at, true in zip(here, case.truth, strict=True))
    return Outcome(found.status, promised and here != case.truth, near, says)


def measure(
    cases: int, edits: list[Edit], seed: int = 0, per_case: int = 1
) -> tuple[Counter[str], list[str]]:
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for _ in range(cases):
        chosen = [rng.choice(edits) for _ in range(per_case)]
        outcome = play(rng.choice(FILES), rng.randrange(2**32), chosen)
        counts["cases"] += 1
        counts["found"] += outcome.found
        counts[outcome.status.value] += 1
        if outcome.wrong:
            wrong.append(outcome.says)
    return counts, wrong


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    file=st.sampled_from(FILES),
    seed=st.integers(0, 2**32 - 1),
    edit=st.sampled_from([*KEEPING, *REMOVING]),
    newline=st.sampled_from(["\n", "\n", "\r\n"]),
)
def test_no_wrong_place_is_reported_as_right(file: str, seed: int, edit: Edit, newline: str) -> None:
    outcome = play(file, seed, [edit], newline=newline)
    assert not outcome.wrong, outcome.says


@pytest.mark.parametrize("edit", [*KEEPING, *REMOVING], ids=lambda edit: edit.__name__)
def test_every_kind_of_edit(edit: Edit) -> None:
    """Few regions of each kind, always the same ones; a kind that breaks is named by its test."""
    counts, wrong = measure(20, [edit], seed=2)
    assert not wrong
    # Short lines that were moved out of a function that has more of them cannot be told apart by anyone.
    assert counts["found"] >= (14 if edit in (move_region, *REMOVING) else 18), counts


def test_regions_that_remain_are_found() -> None:
    """The aim: 97 in 100 of the regions that edits leave, at most a line off, blank lines and lone brackets included."""
    counts, wrong = measure(500, KEEPING, seed=20)
    assert not wrong
    assert counts["found"] >= 0.97 * counts["cases"], counts
    assert counts["exact"] > counts["cases"] / 2, counts


def test_two_edits_at_once_never_mislead() -> None:
    counts, wrong = measure(150, KEEPING, seed=4, per_case=2)
    assert not wrong
    assert counts["cases"] == 150


def test_four_edits_at_once_never_mislead() -> None:
    counts, wrong = measure(150, KEEPING, seed=104, per_case=4)
    assert not wrong
    assert counts["found"] >= 0.75 * counts["cases"], counts
