"""Notes through releases: made-up ones whose answers are known, and real wheels where they are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ptmkb.annotations import PlacedNote, load_notes
from ptmkb.annotations.drift import note_histories
from ptmkb.cli import app
from ptmkb.source import SourceTree, TreeNotFoundError, find_tree
from ptmkb.source.releases import ReleaseUnavailableError

NOTE = """\
file: some.py
notes:
  - id: steady
    at: kept
    quote: |
      steady = 1
    title: {en: One, zh: 一}
    text: {en: "One.", zh: "一。"}
  - id: young
    at: Model.forward
    quote: |
      scores = query @ key * self.scaling
      return scores.softmax(-1)
    title: {en: Two, zh: 二}
    text: {en: "Two.", zh: "二。"}
"""
OLD = "def kept():\n    steady = 1\n"
FORWARD = "\n\nclass Model:\n    def forward(self, query, key):\n        scores = query @ key * self.scaling\n        return scores.softmax(-1)\n"
RELEASES = {
    "5.0.0": OLD,
    "5.1.0": OLD + FORWARD.replace("* self.scaling", "/ self.scale"),
    "5.9.0": "import os\n\n\n" + OLD + FORWARD.replace("forward", "call"),
    "5.10.0": OLD + FORWARD,
    "5.11.0": None,
}


@pytest.fixture
def notes(tmp_path: Path) -> tuple[PlacedNote, ...]:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "some.yaml").write_text(NOTE, encoding="utf-8")
    loaded = load_notes(folder)
    assert loaded.problems == []
    return loaded.notes


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    for version, text in RELEASES.items():
        package = tmp_path / version / "transformers"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
        if text:
            (package / "some.py").write_text(text, encoding="utf-8")
    return tmp_path


def opener(folder: Path):  # type: ignore[no-untyped-def]
    def opened(version: str) -> SourceTree:
        try:
            return find_tree(folder / version)
        except TreeNotFoundError as error:
            raise ReleaseUnavailableError(f"{version} is not here") from error

    return opened


def test_a_note_is_followed_from_release_to_release(notes: tuple[PlacedNote, ...], releases: Path) -> None:
    done: list[str] = []
    order = ["5.10.0", "5.0.0", "5.11.0", "5.9.0", "5.1.0", "5.12.0"]
    steady, young = note_histories(notes, order, open_release=opener(releases), on_release=done.append)
    assert done == ["5.0.0", "5.1.0", "5.9.0", "5.10.0", "5.11.0", "5.12.0"]
    assert [step.version for step in steady.steps] == done
    assert [step.status for step in steady.steps] == [
        "exact",
        "exact",
        "exact",
        "exact",
        "lost",
        "unavailable",
    ]
    assert [step.resolution.first_line for step in steady.steps[:4] if step.resolution] == [2, 2, 5, 2]
    assert [step.status for step in young.steps[:2]] == ["lost", "changed"]
    changed = young.steps[1].resolution
    assert changed is not None
    assert (changed.first_line, changed.last_line) == (7, 8)
    assert "-scores = query @ key * self.scaling" in changed.diff
    assert young.steps[2].status in ("moved", "changed")
    assert young.steps[3].status == "exact"
    assert young.steps[4].resolution is not None
    assert "5.11.0 has no file some.py" in young.steps[4].resolution.reason
    assert (young.steps[5].resolution, young.steps[5].why) == (None, "5.12.0 is not here")


def test_releases_in_which_nothing_happened_are_one_span(
    notes: tuple[PlacedNote, ...], releases: Path
) -> None:
    steady, _ = note_histories(notes, RELEASES, open_release=opener(releases))
    spans = [(first.version, last.version, last.status) for first, last in steady.spans()]
    assert spans == [("5.0.0", "5.10.0", "exact"), ("5.11.0", "5.11.0", "lost")]


@pytest.fixture
def command(notes: tuple[PlacedNote, ...], releases: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`ptmkb annotations …` on the made-up notes and releases."""
    from ptmkb.source import releases as kept

    find = opener(releases)
    monkeypatch.setattr(kept, "find_release", lambda version, download=True: find(version))
    monkeypatch.setattr(kept, "published_releases", lambda wanted=(): [*RELEASES, "5.12.0"])

    def run(*arguments: str):  # type: ignore[no-untyped-def]
        folder = str(notes[0].path.parent)
        return CliRunner().invoke(app, ["--annotations", folder, "annotations", *arguments])

    return run


def test_the_command_tells_the_history_and_lost_is_no_failure(command) -> None:  # type: ignore[no-untyped-def]
    result = command("drift", "--from", "5.0.0", "--to", "5.11.0")
    assert result.exit_code == 0, result.output
    assert "5.0.0–5.10.0 exact" in result.stdout
    assert "5.11.0 lost" in result.stdout
    result = command("drift", "--from", "5.0.0", "--to", "5.11.0", "--format", "json")
    told = json.loads(result.stdout)
    assert told["releases"] == list(RELEASES)
    assert [note["id"] for note in told["notes"]] == ["steady", "young"]
    assert told["notes"][1]["history"][1] == {
        "release": "5.1.0",
        "status": "changed",
        "first_line": 7,
        "last_line": 8,
        "score": pytest.approx(told["notes"][1]["history"][1]["score"]),
        "reason": "the lines changed",
    }


def test_the_command_fails_where_a_release_cannot_be_read(command) -> None:  # type: ignore[no-untyped-def]
    result = command("drift", "steady", "--from", "5.10.0", "--to", "5.12.0", "--format", "json")
    assert result.exit_code == 1
    assert "5.12.0 is not here" in result.stderr
    [note] = json.loads(result.stdout)["notes"]
    assert [step["status"] for step in note["history"]] == ["exact", "lost", "unavailable"]
    assert note["history"][2]["reason"] == "5.12.0 is not here"


@pytest.mark.parametrize("arguments", [["nobody"], ["--from", "five"], ["--from", "5.3.0", "--to", "5.2.0"]])
def test_wrong_usage_ends_with_exit_code_2(command, arguments: list[str]) -> None:  # type: ignore[no-untyped-def]
    assert command("drift", *arguments).exit_code == 2
