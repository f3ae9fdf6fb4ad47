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


MISLED = [
    ("data/data_collator.py", 374079591, "duplicate_symbol delete_inside duplicate_symbol insert_above"),
    ("generation/logits_process.py", 1036629317, "duplicate_region move_region insert_inside delete_next_to"),
    ("cache_utils.py", 4140983210, "indent_by_two duplicate_symbol insert_inside delete_another_symbol"),
    (
        "models/xlnet/modeling_xlnet.py",
        2939696079,
        "duplicate_symbol indent_by_tabs rename_symbol insert_next_to",
    ),
    ("models/clip/modeling_clip.py", 863297057, "insert_next_to change_a_line indent_by_two move_region"),
    ("models/bart/modeling_bart.py", 2500829993, "duplicate_symbol insert_above reformat delete_next_to"),
    ("masking_utils.py", 443217810, "duplicate_symbol insert_inside indent_by_two delete_another_symbol"),
    ("models/clip/modeling_clip.py", 4196624557, "rename_symbol duplicate_symbol move_region indent_region"),
    ("models/clip/modeling_clip.py", 867250982, "indent_region duplicate_symbol reformat insert_inside"),
    ("models/t5/modeling_t5.py", 854544469, "insert_below duplicate_region duplicate_region change_a_line"),
    (
        "models/llama/modeling_llama.py",
        2443547884,
        "duplicate_region indent_by_two delete_inside delete_next_to",
    ),
    ("models/t5/modeling_t5.py", 3811991688, "rename_symbol duplicate_region change_a_line reformat"),
    (
        "models/wav2vec2/modeling_wav2vec2.py",
        1591350760,
        "insert_below duplicate_region move_symbol delete_inside",
    ),
]
"""Files, seeds and edits after which a wrong place was once promised; found by trying thousands."""


@pytest.mark.parametrize(("file", "seed", "edits"), MISLED)
def test_what_once_misled_does_so_no_more(file: str, seed: int, edits: str) -> None:
    by_name = {edit.__name__: edit for edit in KEEPING}
    outcome = play(file, seed, [by_name[name] for name in edits.split()])
    assert not outcome.wrong, outcome.says
