"""Notes whose file has another name or another place in a release: found where nothing else can be meant, else lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptmkb.annotations import Note, PlacedNote, ResolvedNote, Status, resolve_notes
from ptmkb.source import SourceTree, find_tree

HOME = "models/some/modeling_some.py"
LINE = "scores = query @ key.transpose(-1, -2) * self.scaling"
CODE = f"import torch\n\n\nclass SomeAttention:\n    def forward(self, query, key):\n        {LINE}\n        return scores\n"


def tree(folder: Path, files: dict[str, str]) -> SourceTree:
    for name, text in {"__init__.py": '__version__ = "9.0.0"\n', **files}.items():
        path = folder / "transformers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return find_tree(folder)


def resolved(folder: Path, files: dict[str, str], quote: str = LINE) -> ResolvedNote:
    note = Note.model_validate(
        {
            "id": "some",
            "at": "SomeAttention.forward",
            "quote": quote,
            "title": {"en": "t", "zh": "题"},
            "text": {"en": "t", "zh": "文"},
        }
    )
    placed = PlacedNote.place(note, HOME, folder / "some.yaml", 1)
    [found] = resolve_notes([placed], tree(folder, files))
    return found


def test_a_file_that_is_there_is_the_only_one_looked_at(tmp_path: Path) -> None:
    found = resolved(tmp_path, {HOME: "x = 1\n", "models/other/modeling_other.py": CODE})
    assert (found.resolution.status, found.note.file) == (Status.lost, HOME)


@pytest.mark.parametrize(
    "new", ["models/deprecated/some/modeling_some.py", "models/some/attention_some.py", "shared.py"]
)
def test_a_renamed_file_is_found_by_what_it_holds(tmp_path: Path, new: str) -> None:
    found = resolved(tmp_path, {new: "# moved\n" + CODE, "models/other.py": CODE.replace("Some", "Other")})
    assert (found.resolution.status, found.note.file) == (Status.moved, new)
    assert (found.resolution.first_line, found.resolution.last_line) == (7, 7)
    assert HOME in found.resolution.reason
    assert new in found.resolution.reason


def test_two_files_that_hold_it_are_told_apart_by_the_old_name_alone(tmp_path: Path) -> None:
    kept = "models/deprecated/some/modeling_some.py"
    found = resolved(tmp_path / "a", {kept: CODE, "models/some/modular_some.py": CODE})
    assert (found.resolution.status, found.note.file) == (Status.moved, kept)
    found = resolved(tmp_path / "b", {"models/some/attention.py": CODE, "models/some/modular_some.py": CODE})
    assert (found.resolution.status, found.note.file) == (Status.lost, HOME)


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        (CODE.replace("Some", "Other"), LINE),
        (CODE.replace("self.scaling", "self.scale"), LINE),
        (CODE, "return scores"),
        (CODE + "\n\n".join(["", *CODE.split("\n\n\n")[1:]]), LINE),
    ],
    ids=["another class", "another line", "too short to be known", "twice"],
)
def test_what_may_be_another_is_lost(tmp_path: Path, text: str, quote: str) -> None:
    found = resolved(tmp_path, {"models/new/modeling_new.py": text}, quote)
    assert (found.resolution.status, found.note.file) == (Status.lost, HOME)
    assert found.resolution.first_line is None
