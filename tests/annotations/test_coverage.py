"""Coverage: what is counted, on a small tree whose answers are known and on the installed release."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ptmkb.annotations import count_coverage, load_notes, notes_directory, part_of, resolve_notes
from ptmkb.annotations import text as text_module
from ptmkb.cli import annotations as cli
from ptmkb.cli.state import State
from ptmkb.source import SourceTree, find_tree
from ptmkb.source import tree as tree_module

SOURCE = """\
LIMIT = 3


class Head:
    def __init__(self):
        self.size = LIMIT

    def forward(self, x):
        y = x + self.size
        return y


def loss(x):
    return x.sum()
"""
NOTES = """\
file: models/tiny/modeling_tiny.py
notes:
  - id: tiny-sum
    at: Head.forward
    quote: |
      y = x + self.size
      return y
    models: [tiny]
    title: {en: "Sum", zh: "和"}
    text: {en: "Why.", zh: "为什么。"}
    check: |
      assert True
  - id: tiny-limit
    at: <module>
    quote: LIMIT = 3
    title: {en: "Limit", zh: "上限"}
    text: {en: "Why.", zh: "为什么。"}
  - id: tiny-gone
    at: Head.forward
    quote: nothing_like_this_stands_there()
    title: {en: "Gone", zh: "不在了"}
    text: {en: "Why.", zh: "为什么。"}
"""


def small_tree(folder: Path) -> SourceTree:
    for file, text in {
        "models/tiny/modeling_tiny.py": SOURCE,
        "trainer.py": "",
        "modeling_utils.py": "",
    }.items():
        path = folder / "transformers" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return SourceTree(folder / "transformers", "0")


def test_what_is_counted(tmp_path: Path) -> None:
    notes = tmp_path / "notes" / "models" / "tiny" / "modeling_tiny.yaml"
    notes.parent.mkdir(parents=True)
    notes.write_text(NOTES, encoding="utf-8")
    tree = small_tree(tmp_path)
    models = {
        "tiny": SimpleNamespace(status="curated", category="encoder-ae"),
        "other": SimpleNamespace(status="curated", category="encoder-ae"),
        "listed": SimpleNamespace(status="indexed", category="encoder-ae"),
    }
    found = count_coverage(resolve_notes(load_notes(tmp_path / "notes").notes, tree), tree, models)
    [file] = found.files
    assert (file.part, file.notes, file.checks) == ("models", 2, 1)  # the one that is lost counts nowhere
    assert (file.noted_symbols, file.symbols) == (1, 3)  # forward, of __init__, forward and loss
    assert (file.noted_lines, file.lines) == (3, 14)
    counts = {one.part: (one.noted_files, one.files) for one in found.parts}
    assert counts == {"framework": (0, 1), "models": (1, 1), "training": (0, 1), "inference": (0, 0)}
    [category] = found.categories
    assert (category.noted_models, category.models, category.notes) == (1, 2, 1)


def test_a_file_is_parsed_once_for_its_notes_and_for_what_they_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = text_module.parse_module
    monkeypatch.setattr(text_module, "parse_module", lambda source: parsed.append(source) or parse(source))
    monkeypatch.setattr(
        tree_module, "parse_module", lambda source, file: parsed.append(source) or parse(source)
    )
    text_module.prepared.cache_clear()
    tree = find_tree()
    found = count_coverage(resolve_notes(load_notes(notes_directory()).notes, tree), tree, {})
    assert len(found.files) > 60
    assert len(parsed) == len(found.files)


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("modeling_utils.py", "framework"),
        ("models/auto/auto_factory.py", "framework"),
        ("models/bert/modeling_bert.py", "models"),
        ("trainer.py", "training"),
        ("loss/loss_utils.py", "training"),
        ("generation/continuous_batching/cache.py", "inference"),
        ("integrations/sdpa_attention.py", "framework"),
        ("integrations/sdpa_paged.py", "inference"),
    ],
)
def test_the_part_of_a_file(file: str, part: str) -> None:
    assert file in find_tree()
    assert part_of(file) == part


def test_the_command_counts_every_note_once() -> None:
    answer = CliRunner().invoke(cli.app, ["coverage", "--format", "json"], obj=State())
    assert answer.exit_code == 0, answer.output
    data = json.loads(answer.stdout)
    notes = load_notes(notes_directory()).notes
    assert sum(part["notes"] for part in data["parts"]) == len(notes)
    assert sum(file["notes"] for file in data["files"]) == len(notes)
    assert sum(part["files"] for part in data["parts"]) == len(find_tree().files())
    assert {file["file"] for file in data["files"]} == {note.file for note in notes}
