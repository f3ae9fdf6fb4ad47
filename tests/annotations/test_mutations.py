"""Faults in the source under a note: a scale dropped, a mask inverted, a shift removed. The note's own check must notice each.

A fault is put into the text of one module as Python reads it; the installed files stay as they are.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from ptmkb.annotations import CheckResult, PlacedNote, load_notes, notes_directory, run_checks

LISTS = sorted((Path(__file__).parent / "mutations").glob("*.yaml"))
NOTES = {note.id: note for note in load_notes(notes_directory()).notes}

# Runs before the check: whoever imports the module gets the mutated text, compiled anew.
PRELUDE = """\
def _mutate(file, old, new):
    import importlib.machinery, sys
    module = "transformers." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if module in sys.modules:
        sys.exit("NOT APPLIED: imported before")
    get_code = importlib.machinery.SourceFileLoader.get_code
    def mutated(self, name):
        if name != module:
            return get_code(self, name)
        text = open(self.get_filename(name), encoding="utf-8").read()
        if old not in text:
            sys.exit("NOT APPLIED: no such text")
        return compile(text.replace(old, new), self.get_filename(name), "exec")
    importlib.machinery.SourceFileLoader.get_code = mutated
_mutate({file!r}, {old!r}, {new!r})
del _mutate
"""


def mutated(note: PlacedNote, old: str, new: str, name: str) -> PlacedNote:
    prelude = PRELUDE.format(file=note.file, old=old, new=new)
    return note.model_copy(update={"id": name, "check": f"{prelude}{note.check}"})


def run(mutants: list[PlacedNote]) -> dict[str, CheckResult]:
    # Only what no mutation touches is imported beforehand.
    return {result.id: result for result in run_checks(mutants, warm=("torch", "transformers"))}


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_a_fault_in_the_source_makes_the_check_of_its_note_fail(path: Path) -> None:
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    mutants = [
        mutated(NOTES[row["note"]], row["replace"], row["with"], f"{row['note']}#{number}")
        for number, row in enumerate(rows)
    ]
    unnoticed = {
        name: result.why.splitlines()[-1:]
        for name, result in run(mutants).items()
        if result.status != "failed" or not is_noticed(result)
    }
    assert not unnoticed


def is_noticed(result: CheckResult) -> bool:
    """Whether the check itself found the fault: a crash of the mutated model is no proof that the note was looked at."""
    return result.why.splitlines()[-1].startswith("AssertionError")


def test_a_fault_that_is_none_goes_unnoticed_and_one_that_is_not_applied_is_told() -> None:
    row = yaml.safe_load(LISTS[0].read_text(encoding="utf-8"))[0]
    note = NOTES[row["note"]]
    harmless = mutated(note, row["replace"], f"{row['replace']}  # the same", "harmless")
    absent = mutated(note, "no such text anywhere", "", "absent")
    results = run([harmless, absent])
    assert results["harmless"].status == "passed"
    assert "NOT APPLIED" in results["absent"].why


def test_there_are_mutations_of_many_files() -> None:
    files = Counter(
        NOTES[row["note"]].file for path in LISTS for row in yaml.safe_load(path.read_text(encoding="utf-8"))
    )
    assert files.total() >= 30
    assert len(files) >= 15
