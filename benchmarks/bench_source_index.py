"""Indexing all of the installed `transformers`, beside loading the same files in griffe (static) and in universal-ctags.

The Python files are copied, so that one can be changed. Every contestant is a process of its own, started several times in turn, and the best
of its times counts: other work on the machine only ever adds. Beside the time that passes stands the processor time, all processes together,
which other work disturbs less. What each gives is not the same: griffe keeps its objects in memory (with parsed signatures, decorators and
whole docstrings, and attributes too), ctags writes one line a name (with line numbers and signatures), the index is on disk with words to
search by and resolved relations between classes.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import unittest.mock
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROUNDS = 2
"""Turns that each contestant gets."""

QUESTIONS = (
    "rotary embedding", "rms norm", "beam search", "LlamaAttention.forward", "mixture of experts", "gpt2 lm head",
    "sliding window cache", "attention", "forward", "model",
)  # fmt: skip
"""From what people ask for to the words that a fifth of all names hold."""

INDEX = "from ptmkb.source import find_tree, update_index; import sys; print(update_index(find_tree(sys.argv[1]), jobs=int(sys.argv[2]) or None).read)"
GRIFFE = """
import sys, griffe
loaded = griffe.load("transformers", search_paths=[sys.argv[1]], allow_inspection=False, try_relative_path=False)
count = 0
waiting = [loaded]
while waiting:
    one = waiting.pop()
    for member in one.members.values():
        if not member.is_alias:
            count += member.is_class or member.is_function
            waiting.append(member)
print(count)
"""


@dataclass(frozen=True)
class Took:
    """What a process took, in seconds, and what it wrote."""

    passed: float
    processor: float
    said: str


def run() -> dict[str, Any]:
    """Measure all of it, with a cache of its own."""
    with (
        tempfile.TemporaryDirectory() as name,
        unittest.mock.patch.dict(os.environ, PTMKB_CACHE=f"{name}/cache"),
    ):
        return _measure(Path(name))


def _measure(folder: Path) -> dict[str, Any]:
    from ptmkb.source import SourceIndex, find_tree, index_path, update_index

    files = _copy(find_tree().where, folder / "tree" / "transformers")
    tree = find_tree(folder / "tree")
    changed = tree.where / "models/llama/modeling_llama.py"
    ours = [sys.executable, "-c", INDEX, str(folder / "tree")]
    contestants = {
        "index": [*ours, "0"],
        "index, one process": [*ours, "1"],
        "griffe": [sys.executable, "-c", GRIFFE, str(folder / "tree")],
    }
    ctags = _universal_ctags()
    if ctags:
        contestants["ctags"] = [
            ctags, "-R", "--languages=Python", "--fields=+neS", "-f", str(folder / "tags"), str(folder / "tree"),
        ]  # fmt: skip
    took: dict[str, list[Took]] = {}
    for _ in range(ROUNDS):
        for contestant, command in contestants.items():
            index_path(tree).unlink(missing_ok=True)
            took.setdefault(contestant, []).append(_timed(command))
        update_index(tree)
        took.setdefault("index, nothing changed", []).append(_timed([*ours, "0"]))
        changed.write_text(changed.read_text() + "\n\nx = 1\n")
        took.setdefault("index, one file changed", []).append(_timed([*ours, "0"]))
    update_index(tree)
    with SourceIndex(tree) as index:
        counts = index.counts()
        answers = {question: _median(lambda q=question: index.search(q)) for question in QUESTIONS}
        named = _median(lambda: index.named("LlamaAttention.forward"))
    size = index_path(tree).stat().st_size
    command = [sys.executable, "-m", "ptmkb", "source"]
    where = ["--tree", str(folder / "tree")]
    commands = {
        "ptmkb source search": min(
            _timed([*command, "search", "rotary embedding", *where]).passed for _ in range(ROUNDS)
        ),
        "ptmkb source show": min(
            _timed([*command, "show", "LlamaAttention.forward", *where]).passed for _ in range(ROUNDS)
        ),
    }
    names = {"index": sum(counts[kind] for kind in ("class", "function", "method"))}
    names["griffe"] = int(took["griffe"][-1].said)
    if ctags:
        lines = (folder / "tags").read_text(encoding="utf-8", errors="replace").splitlines()
        names["ctags"] = sum(line.split(';"')[-1].split("\t")[1:2] in (["c"], ["f"], ["m"]) for line in lines)
    best = {
        contestant: {
            "seconds": round(min(one.passed for one in times), 3),
            "processor_seconds": round(min(one.processor for one in times), 3),
        }
        for contestant, times in took.items()
    }
    return {
        "files": files,
        "lines": counts["lines"],
        "bytes": size,
        "names": names,
        "best_of": ROUNDS,
        "took": best,
        "ratios": {
            other: {key: round(best[other][key] / best["index"][key], 2) for key in best["index"]}
            for other in contestants
            if other != "index"
        },
        "search_ms": {question: round(seconds * 1000, 2) for question, seconds in answers.items()},
        "named_ms": round(named * 1000, 3),
        "commands": {name: round(seconds, 3) for name, seconds in commands.items()},
    }


def report(result: dict[str, Any]) -> list[str]:
    lines = [
        f"{result['files']:,} files, {result['lines']:,} lines; the index has {result['bytes'] / 1e6:.1f} MB; best of {result['best_of']}",
        f"{'':26}{'seconds':>9}{'processor':>11}{'names':>9}   against the index: time, processor",
    ]
    for name, took in result["took"].items():
        ratio = result["ratios"].get(name)
        told = f"   {ratio['seconds']:.2f} times, {ratio['processor_seconds']:.2f} times" if ratio else ""
        count = result["names"].get(name)
        lines.append(
            f"{name:26}{took['seconds']:9.2f}{took['processor_seconds']:11.2f}{f'{count:,}' if count else '':>9}{told}"
        )
    if "ctags" not in result["took"]:
        lines.append(
            "ctags: skipped, universal-ctags is not installed (Debian: apt-get install universal-ctags)"
        )
    searches = ", ".join(f"{question} {took:.1f}" for question, took in result["search_ms"].items())
    lines.append(f"a search, ms: {searches}; a name looked up: {result['named_ms']:.2f}")
    lines.append(
        "whole commands, s: " + ", ".join(f"{name} {took:.2f}" for name, took in result["commands"].items())
    )
    return lines


def _copy(source: Path, target: Path) -> int:
    count = 0
    for path in source.rglob("*.py"):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        count += 1
    return count


def _universal_ctags() -> str | None:
    ctags = shutil.which("ctags-universal") or shutil.which("ctags")
    if ctags is None:
        return None
    said = subprocess.run([ctags, "--version"], capture_output=True, text=True, check=False).stdout
    return ctags if "Universal Ctags" in said else None


def _timed(command: Sequence[str]) -> Took:
    before = os.times()
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    passed = time.perf_counter() - started
    after = os.times()
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
    processor = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    return Took(passed, processor, done.stdout.strip())


def _median(call: Any) -> float:
    times = []
    for _ in range(15):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
