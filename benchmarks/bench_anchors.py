"""Finding lines again in another text: anchors beside line numbers, a mapping through `difflib` and a plain fuzzy search.

Regions of real files are chosen at random with fixed seeds. In the first part an edit with a known outcome is made (`anchor_edits`), or
several, one upon the other. In the second part the other text is the same file of another release, and only regions are judged whose new
place is beyond doubt: the lines with five more on each side stand in both files once, in one piece. Every contestant answers every question.

A contestant says where the lines are and whether it is sure. What is counted: `wrong`, sure of a place that is not the place; `misled`, not
sure, and more than a line off; `found`, at most a line off, sure or not; `lost`, no answer. Anchors are sure where they say `exact` or
`moved`; line numbers always are; `difflib` where all lines are in one matching block; the fuzzy search where it scores 100.
"""

from __future__ import annotations

import difflib
import random
import sys
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rapidfuzz import fuzz

from benchmarks.anchor_edits import FILES, KEEPING, REMOVING, SIZES, Edit, edited
from ptmkb.annotations import Status, make_anchor, resolve
from ptmkb.annotations.text import prepared
from ptmkb.source import SourceError, SourceTree, find_tree, split_lines
from ptmkb.source.releases import find_release

SCENARIOS: dict[str, tuple[Sequence[Edit], int, int]] = {
    "one edit": (KEEPING, 1, 1500),
    "two edits": (KEEPING, 2, 400),
    "four edits": (KEEPING, 4, 500),
    "removed": (REMOVING, 1, 300),
}
"""Which edits, how many one upon the other, how many regions."""

OLD_RELEASES = ("5.0.0", "5.10.1")
"""Compared with the installed release."""

REGIONS_A_RELEASE = 500
REGIONS_A_FILE = 5
AROUND = 5
"""Lines on each side that must be the same too, for the new place of a region to be beyond doubt."""

NOTES = 1000
NOTES_A_FILE = 10
FUZZY_CUTOFF = 60
"""A fuzzy search that scores less has found nothing: unrelated lines of code are alike to about 40."""


@dataclass(frozen=True)
class Answer:
    """Lines, 1-based and inclusive, and whether the contestant is sure of them."""

    first: int
    last: int
    sure: bool


class Pair:
    """Two versions of a text; what contestants share between the notes of a file is kept here."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    @cached_property
    def old_lines(self) -> list[str]:
        """The old text's lines."""
        return split_lines(self.old)

    @cached_property
    def new_lines(self) -> list[str]:
        """The new text's lines."""
        return split_lines(self.new)

    @cached_property
    def new_text(self) -> str:
        """The new text with unix line ends."""
        return "\n".join(self.new_lines)

    @cached_property
    def new_starts(self) -> list[int]:
        """Where each line of `new_text` begins."""
        starts = [0]
        for line in self.new_lines:
            starts.append(starts[-1] + len(line) + 1)
        return starts

    @cached_property
    def opcodes(self) -> list[tuple[str, int, int, int, int]]:
        """What `difflib` makes of both."""
        return difflib.SequenceMatcher(None, self.old_lines, self.new_lines, autojunk=False).get_opcodes()


def by_anchor(pair: Pair, first: int, last: int) -> Answer | None:
    found = resolve(make_anchor(pair.old, first, last), pair.new)
    if found.first_line is None or found.last_line is None:
        return None
    return Answer(found.first_line, found.last_line, found.status in (Status.exact, Status.moved))


def by_line_number(pair: Pair, first: int, last: int) -> Answer | None:
    return Answer(first, last, sure=True) if last <= len(pair.new_lines) else None


def by_difflib(pair: Pair, first: int, last: int) -> Answer | None:
    """Each end goes where its line went; within replaced lines, as far in as it was."""
    ends = []
    blocks = []
    for line in (first - 1, last - 1):
        tag, i1, _, j1, j2 = next(code for code in pair.opcodes if code[1] <= line < code[2])
        blocks.append((tag, i1))
        ends.append(None if tag == "delete" else min(j1 + line - i1, j2 - 1) + 1)
    known = [end for end in ends if end is not None]
    if not known:
        return None
    return Answer(known[0], known[-1], sure=blocks[0] == blocks[1] and blocks[0][0] == "equal")


def by_fuzzy_search(pair: Pair, first: int, last: int) -> Answer | None:
    quote = "\n".join(pair.old_lines[first - 1 : last])
    if not quote.strip():
        return None
    found = fuzz.partial_ratio_alignment(quote, pair.new_text, score_cutoff=FUZZY_CUTOFF)
    if found is None:
        return None
    ends = (found.dest_start, max(found.dest_start, found.dest_end - 1))
    return Answer(*(bisect_right(pair.new_starts, end) for end in ends), sure=found.score == 100)


Contestant = Callable[[Pair, int, int], Answer | None]
CONTESTANTS: dict[str, Contestant] = {
    "anchors": by_anchor,
    "line numbers": by_line_number,
    "difflib": by_difflib,
    "fuzzy search": by_fuzzy_search,
}


def judge(answer: Answer | None, truth: tuple[int, int] | None) -> str:
    """What an answer counts as; `truth` is None for removed lines."""
    if answer is None:
        return "lost"
    here = (answer.first, answer.last)
    if answer.sure and here != truth:
        return "wrong"
    if truth is None or any(abs(at - true) > 1 for at, true in zip(here, truth, strict=True)):
        return "misled"
    return "found"


def run() -> dict[str, Any]:
    tree = find_tree()
    edits: dict[str, Any] = {}
    for number, (name, (kinds, count, cases)) in enumerate(SCENARIOS.items()):
        edits[name] = _edits(tree, kinds, count, cases, seed=number)
    releases: dict[str, Any] = {}
    speed: dict[str, Any] = {}
    for old in OLD_RELEASES:
        name = f"{old} → {tree.version}"
        try:
            home = find_release(old)
        except SourceError as error:
            releases[name] = {"skipped": str(error)}
            continue
        releases[name] = _releases(home, tree)
        speed[name] = _speed(home, tree)
    speed[f"{tree.version} → {tree.version}"] = _speed(tree, tree)
    return {"edits": edits, "releases": releases, "speed": speed}


def _edits(tree: SourceTree, kinds: Sequence[Edit], count: int, cases: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    counts = {name: Counter[str]() for name in CONTESTANTS}
    kind_counts: dict[str, Counter[str]] = defaultdict(Counter)
    wrong = []
    for _ in range(cases):
        chosen = [rng.choice(kinds) for _ in range(count)]
        file, case_seed = rng.choice(FILES), rng.randrange(2**32)
        case = edited(tree.read(file), case_seed, chosen)
        pair = Pair(case.before, case.after)
        for name, contestant in CONTESTANTS.items():
            verdict = judge(contestant(pair, *case.region), case.truth)
            counts[name][verdict] += 1
            if name == "anchors":
                told = [edit.__name__ for edit in chosen]
                if count == 1:
                    kind_counts[told[0]][verdict] += 1
                if verdict == "wrong":
                    wrong.append({"file": file, "seed": case_seed, "edits": told})
    result: dict[str, Any] = {"regions": cases, "counts": _plain(counts), "wrong": wrong}
    if count == 1:
        result["by_edit"] = _plain(kind_counts)
    return result


def _releases(old: SourceTree, new: SourceTree) -> dict[str, Any]:
    """Regions of changed files that stand unchanged in both releases, where nobody can doubt it."""
    rng = random.Random(11)
    files = [file for file in old.files() if file in new]
    rng.shuffle(files)
    counts = {name: Counter[str]() for name in CONTESTANTS}
    wrong = []
    regions = repeated = 0
    for file in files:
        if regions >= REGIONS_A_RELEASE:
            break
        pair = Pair(old.read(file), new.read(file))
        if pair.old == pair.new or len(pair.old_lines) < 100:
            continue
        for first, last, truth in _certain(pair, rng):
            regions += 1
            repeated += len(prepared(pair.old).same_lines(pair.old_lines[first - 1 : last])) > 1
            for name, contestant in CONTESTANTS.items():
                verdict = judge(contestant(pair, first, last), truth)
                counts[name][verdict] += 1
                if name == "anchors" and verdict == "wrong":
                    wrong.append({"file": file, "lines": [first, last]})
    return {"regions": regions, "repeated": repeated, "counts": _plain(counts), "wrong": wrong}


def _certain(pair: Pair, rng: random.Random) -> Iterator[tuple[int, int, tuple[int, int]]]:
    for _ in range(REGIONS_A_FILE):
        size = rng.choice(SIZES)
        first = rng.randint(1 + AROUND, len(pair.old_lines) - size - AROUND + 1)
        block = pair.old_lines[first - 1 - AROUND : first - 1 + size + AROUND]
        before, after = _places(pair.old_lines, block), _places(pair.new_lines, block)
        if len(before) == len(after) == 1 and any(line.strip() for line in block[AROUND:-AROUND]):
            place = after[0] + AROUND + 1
            yield first, first + size - 1, (place, place + size - 1)


def _places(lines: Sequence[str], block: Sequence[str]) -> list[int]:
    """Where lines stand in one piece, 0-based."""
    rarest = max(range(len(block)), key=lambda index: len(block[index]))
    starts = (at - rarest for at, line in enumerate(lines) if line == block[rarest])
    return [start for start in starts if start >= 0 and lines[start : start + len(block)] == block]


def _speed(old: SourceTree, new: SourceTree) -> dict[str, Any]:
    """Processor seconds for notes spread over model files, nothing of the new release read before."""
    rng = random.Random(5)
    files = [file for file in old.files() if file in new and "/modeling_" in file]
    files = files[:: max(1, len(files) // (NOTES // NOTES_A_FILE))][: NOTES // NOTES_A_FILE]
    texts = {file: (old.read(file), new.read(file)) for file in files}
    regions = []
    for file in files:
        count = len(split_lines(texts[file][0]))
        for _ in range(NOTES_A_FILE):
            size = rng.choice(SIZES)
            first = rng.randint(1, max(1, count - size + 1))
            regions.append((file, first, min(count, first + size - 1)))
    prepared.cache_clear()
    started = time.process_time()
    anchors = [(file, make_anchor(texts[file][0], first, last)) for file, first, last in regions]
    took = {"making anchors": time.process_time() - started}
    prepared.cache_clear()
    started, started_wall = time.process_time(), time.perf_counter()
    statuses = Counter(resolve(anchor, texts[file][1]).status.value for file, anchor in anchors)
    took["anchors"] = time.process_time() - started
    passed = time.perf_counter() - started_wall
    for name, contestant in CONTESTANTS.items():
        if name != "anchors":
            pairs = {file: Pair(*both) for file, both in texts.items()}
            started = time.process_time()
            for file, first, last in regions:
                contestant(pairs[file], first, last)
            took[name] = time.process_time() - started
    return {
        "notes": len(regions),
        "files": len(files),
        "processor_seconds": {name: round(seconds, 3) for name, seconds in took.items()},
        "seconds_passed": round(passed, 3),
        "anchors_to_difflib": round(took["anchors"] / took["difflib"], 2),
        "statuses": dict(statuses),
    }


def _plain(counts: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {
        name: {key: count[key] for key in ("wrong", "found", "misled", "lost")}
        for name, count in counts.items()
    }


def report(result: dict[str, Any]) -> list[str]:
    head = f"{'':34}{'regions':>8}{'wrong':>8}{'found':>9}{'misled':>9}{'lost':>9}"
    lines = [head]
    for group in ("edits", "releases"):
        for name, measured in result[group].items():
            if "skipped" in measured:
                lines.append(f"{name}: skipped, {measured['skipped']}")
                continue
            for contestant, counts in measured["counts"].items():
                total = measured["regions"]
                parts = "".join(f"{100 * counts[key] / total:8.2f}%" for key in ("found", "misled", "lost"))
                lines.append(f"{name:18}{contestant:16}{total:>8,}{counts['wrong']:>8}{parts}")
    kinds = result["edits"]["one edit"]["by_edit"]
    told = (f"{kind} {counts['found']}/{sum(counts.values())}" for kind, counts in sorted(kinds.items()))
    lines.append("found by anchors after one edit: " + ", ".join(told))
    for name, measured in result["speed"].items():
        took = ", ".join(f"{who} {seconds:.2f}" for who, seconds in measured["processor_seconds"].items())
        lines.append(
            f"{measured['notes']:,} notes on {measured['files']} files, {name}, processor seconds: {took}; "
            f"anchors took {measured['seconds_passed']:.2f} s, {measured['anchors_to_difflib']:.2f} times difflib"
        )
    return lines


def main() -> int:
    print("\n".join(report(run())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
