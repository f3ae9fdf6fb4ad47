"""Notes on the page of their file: what is said of a place that is not certain, links between notes, and the page of coverage."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from ptmkb.annotations import Note, PlacedNote, Resolution, ResolvedNote, Status
from ptmkb.site import coverage, gather
from ptmkb.site.knowledge import Knowledge
from ptmkb.site.pages import source
from ptmkb.site.words import word

FILE = "models/bert/modeling_bert.py"


@pytest.fixture(scope="module")
def knowledge() -> Knowledge:
    return gather("en")


def resolved(name: str, status: Status, score: float = 1.0, see: tuple[str, ...] = ()) -> ResolvedNote:
    note = Note.model_validate(
        {
            "id": name,
            "at": "BertPooler.forward",
            "quote": "x = 1",
            "see": list(see),
            "title": {"en": name.title(), "zh": "题"},
            "text": {"en": "Why.", "zh": "为什么。"},
        }
    )
    placed = PlacedNote.place(note, FILE, Path("notes.yaml"), 1)
    return ResolvedNote(placed, Resolution(status, 400, 400, score, "", ""))


def page_of(knowledge: Knowledge, *notes: ResolvedNote) -> str:
    kb = dataclasses.replace(knowledge, notes=notes)
    return next(page.text for page in source.pages(kb) if page.path == source.source_page(FILE))


@pytest.mark.parametrize(
    ("status", "score", "says"),
    [
        (Status.exact, 1.0, None),
        (Status.changed, 0.8, "source.changed"),
        (Status.changed, 0.5, "source.doubtful"),
    ],
)
def test_a_place_that_is_not_certain_says_so(
    knowledge: Knowledge, status: Status, score: float, says: str | None
) -> None:
    text = page_of(knowledge, resolved("one", status, score))
    shown = [key for key in ("source.changed", "source.doubtful") if word(key, "en") in text]
    assert shown == ([says] if says else [])


def test_notes_that_belong_together_link_both_ways(knowledge: Knowledge) -> None:
    text = page_of(
        knowledge,
        resolved("one", Status.exact, see=("two",)),
        resolved("two", Status.exact),
        resolved("three", Status.exact),
    )
    see = word("source.see", "en")
    links = re.findall(rf"{re.escape(see)} (.*?)</p>", text)
    assert [re.findall(r"#([\w-]+)\)", link) for link in links] == [["two"], ["one"]]


def test_the_id_of_a_note_in_a_text_leads_to_it(knowledge: Knowledge) -> None:
    one, two = resolved("the-one", Status.exact), resolved("the-other", Status.exact)
    text = one.note.text.model_copy(update={"en": "As `the-other` says, not `no-note`."})
    one = dataclasses.replace(one, note=one.note.model_copy(update={"text": text}))
    shown = page_of(knowledge, one, two)
    assert "As [The-Other](modeling_bert.md#the-other) says, not `no-note`." in shown


def test_the_page_of_coverage_adds_up(knowledge: Knowledge) -> None:
    page = coverage.page(knowledge)
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in page.text.splitlines()
        if line.startswith("| ")
    ]
    by_name = {row[0]: row for row in rows}
    parts = [by_name[word(f"part.{part}", "en")] for part in ("framework", "models", "training", "inference")]
    total = by_name[word("coverage.all", "en")]
    assert int(total[1]) == sum(int(row[1]) for row in parts) == len(knowledge.notes)
    assert int(total[2]) == sum(int(row[2]) for row in parts)
    files = [row for row in rows if row[0].startswith("[`")]
    assert len(files) == len(knowledge.notes_by_file)
