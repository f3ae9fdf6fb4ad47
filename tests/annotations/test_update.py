"""Re-anchoring a note in its YAML: the one block is edited, and not another byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ptmkb.annotations import PlacedNote, Status, load_notes, notes_directory, resolve, resolve_notes
from ptmkb.annotations.updating import UpdateError, update_note
from ptmkb.cli import app
from ptmkb.source import find_tree

SOURCE = """\
def renamed(x):
    y = x + 1
    return y


def loop(items):
    for item in items:
        total = item * 2
        print(total)
    for item in items:
        other = item * 2
        print(other)
        print(other)


def twice(a):
    if a:
        count(a)
    count(a)
"""
NOTES = """\
# yaml-language-server: $schema=../schemas/notes.schema.json
file: some.py   # where they belong

notes:
  # the first one
  - id: first
    at: "original"          # a symbol that was renamed
    quote: |    # two lines
      y = x + 1
      return y


    # a comment between keys
    papers: [{paper: devlin2018bert, at: '§3'}]
    title: {en: "One", zh: '一'}
    text:
      en: |
        Why   it is so.

      zh: >-
        为什么
    alone: true   # once

  - id: second
    title: {en: Two, zh: 二}
    quote: 'total = item * 2'   # short
    at: loop
    text: {en: "Two.", zh: "二。"}
    occurrence: 2
    of: 2   # counted

# the end"""


@pytest.fixture(params=["\n", "\r\n"], ids=["unix", "dos"])
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "some.yaml"
    path.write_bytes(("\ufeff" + NOTES).replace("\n", request.param).encode())
    return path


def load(path: Path, note_id: str) -> PlacedNote:
    loaded = load_notes(path.parent)
    assert loaded.problems == []
    return next(note for note in loaded.notes if note.id == note_id)


def changes(old: bytes, new: bytes) -> tuple[list[bytes], list[bytes]]:
    """The lines that went, and those that came."""
    import difflib

    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    diff = list(difflib.ndiff([line.decode() for line in before], [line.decode() for line in after]))
    gone = [line[2:].encode() for line in diff if line.startswith("- ")]
    return gone, [line[2:].encode() for line in diff if line.startswith("+ ")]


def test_a_renamed_symbol_changes_one_value(notes: Path) -> None:
    old = notes.read_bytes()
    note = load(notes, "first")
    assert resolve(note.anchor, SOURCE).status is Status.moved
    update_note(note, SOURCE, 2, 3)
    assert notes.read_bytes() == old.replace(b'at: "original"  ', b'at: "renamed"  ')
    assert resolve(load(notes, "first").anchor, SOURCE).status is Status.exact


def test_changed_lines_keep_the_block_its_comments_and_blank_lines(notes: Path) -> None:
    old = notes.read_bytes()
    newline = b"\r\n" if b"\r\n" in old else b"\n"
    source = SOURCE.replace("    y = x + 1\n", "    y = x + 1\n    y = -y\n")
    update_note(load(notes, "first"), source, 2, 4)
    gone, came = changes(old, notes.read_bytes())
    assert gone == [b'    at: "original"          # a symbol that was renamed' + newline]
    assert came == [
        b'    at: "renamed"          # a symbol that was renamed' + newline,
        b"      y = -y" + newline,
    ]


def test_a_quote_that_no_longer_fits_its_line_becomes_a_block(notes: Path) -> None:
    old = notes.read_bytes()
    newline = b"\r\n" if b"\r\n" in old else b"\n"
    update_note(load(notes, "second"), SOURCE, 12, 13)
    gone, came = changes(old, notes.read_bytes())
    assert gone == [
        line + newline
        for line in (
            b"    quote: 'total = item * 2'   # short",
            b"    occurrence: 2",
            b"    of: 2   # counted",
        )
    ]
    assert came == [
        line + newline
        for line in (
            b"    quote: |   # short",
            b"      print(other)",
            b"      print(other)",
            b"    alone: true",
        )
    ]
    note = load(notes, "second")
    assert note.quote.splitlines() == ["print(other)", "print(other)"]
    assert (note.alone, note.occurrence) == (True, None)


def test_a_short_quote_stays_on_its_line_and_counts_are_renewed(notes: Path) -> None:
    old = notes.read_bytes()
    update_note(load(notes, "second"), SOURCE, 19, 19)
    gone, came = changes(old, notes.read_bytes())
    assert [line.split(b":")[0].strip() for line in gone] == [b"quote", b"at"]
    assert came[0].strip() == b'quote: "count(a)"   # short'
    assert came[1].strip() == b"at: twice"
    note = load(notes, "second")
    assert (note.occurrence, note.of) == (2, 2)
    assert resolve(note.anchor, SOURCE).first_line == 19


def test_a_first_line_deeper_than_the_rest_is_told_to_yaml(notes: Path) -> None:
    update_note(load(notes, "first"), SOURCE, 18, 19)
    text = notes.read_text(encoding="utf-8-sig")
    assert "quote: |2    # two lines\n" in text.replace("\r\n", "\n")
    assert load(notes, "first").anchor.quote == ("    count(a)", "count(a)")
    # and back: the indicator stays valid with lines that need none
    update_note(load(notes, "first"), SOURCE, 2, 3)
    assert load(notes, "first").anchor.quote == ("y = x + 1", "return y")


def test_a_file_that_ends_in_a_quote_gets_no_line_end(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    head = "file: some.py\nnotes:\n  - id: last\n    title: {en: a, zh: 乙}\n    text: {en: a, zh: 乙}\n    at: original\n"
    path.write_text(f"{head}    quote: |-\n      y = x + 1", encoding="utf-8")
    update_note(load(path, "last"), SOURCE, 3, 3)
    expected = head.replace("original", "renamed") + "    quote: |-\n      return y\n    alone: true"
    assert path.read_text(encoding="utf-8") == expected


def test_every_note_of_the_project_can_be_updated_in_its_file(tmp_path: Path) -> None:
    """Where the lines of each note were put elsewhere, its own block changes and the others stay."""
    tree = find_tree()
    resolved = resolve_notes(load_notes(notes_directory()).notes, tree)
    assert len(resolved) > 50
    for one in resolved[::7]:
        folder = tmp_path / one.note.id
        path = folder / one.note.path.relative_to(notes_directory())
        path.parent.mkdir(parents=True)
        path.write_bytes(one.note.path.read_bytes())
        source = tree.read(one.note.file)
        first, last = one.resolution.first_line or 0, one.resolution.last_line or 0
        shorter = last if last == first else last - 1
        copied = next(note for note in load_notes(folder).notes if note.id == one.note.id)
        update_note(copied, source, first, shorter)
        before = {note.id: note for note in load_notes(notes_directory()).notes if note.file == one.note.file}
        for after in load_notes(folder).notes:
            old = before[after.id]
            if after.id != one.note.id:
                assert (after.at, after.quote, after.text, after.check) == (
                    old.at,
                    old.quote,
                    old.text,
                    old.check,
                )
            else:
                assert (after.text, after.title, after.papers, after.check) == (
                    old.text,
                    old.title,
                    old.papers,
                    old.check,
                )
        [again] = [r for r in resolve_notes(load_notes(folder).notes, tree) if r.note.id == one.note.id]
        assert (again.resolution.status, again.resolution.first_line, again.resolution.last_line) == (
            Status.exact,
            first,
            shorter,
        )
        gone, came = changes(one.note.path.read_bytes(), path.read_bytes())
        assert len(gone) + len(came) <= 6 + last - first


def test_nothing_is_written_where_the_note_cannot_be_edited(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(
        'file: some.py\nnotes: [{id: tight, at: f, quote: "y = x + 1", title: {en: a, zh: 乙}, text: {en: a, zh: 乙}}]\n',
        encoding="utf-8",
    )
    old = path.read_bytes()
    with pytest.raises(UpdateError, match="lines of their own"):
        update_note(load(path, "tight"), SOURCE, 2, 2)
    assert path.read_bytes() == old
    assert [one.name for one in tmp_path.iterdir()] == ["some.yaml"]


def test_a_note_that_has_gone_since_is_said(notes: Path) -> None:
    note = load(notes, "second")
    notes.write_bytes(notes.read_bytes().replace(b"id: second", b"id: other"))
    with pytest.raises(UpdateError, match="no longer in its file"):
        update_note(note, SOURCE, 8, 8)


def test_an_interrupted_write_leaves_the_old_file(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note, old = load(notes, "first"), notes.read_bytes()

    def stopped(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        update_note(note, SOURCE, 2, 3)
    assert notes.read_bytes() == old
    assert [one.name for one in notes.parent.iterdir()] == ["some.yaml"]


def test_the_file_keeps_its_mode(notes: Path) -> None:
    notes.chmod(0o640)
    update_note(load(notes, "first"), SOURCE, 2, 3)
    assert notes.stat().st_mode & 0o777 == 0o640


@pytest.fixture
def release(tmp_path: Path) -> Path:
    package = tmp_path / "release" / "transformers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "9.9.9"\n', encoding="utf-8")
    (package / "some.py").write_text(SOURCE, encoding="utf-8")
    return package.parent


def run(notes: Path, release: Path, *arguments: str):  # type: ignore[no-untyped-def]
    options = ["--annotations", str(notes.parent), "annotations", "update", "--tree", str(release)]
    return CliRunner().invoke(app, [*options, *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "notes" / "some.yaml"
    path.parent.mkdir()
    path.write_text(NOTES.replace("total = item * 2", "total = item * 3"), encoding="utf-8")
    return path


def test_the_command_updates_what_moved_and_asks_for_what_changed(folder: Path, release: Path) -> None:
    old = folder.read_text(encoding="utf-8")
    result = run(folder, release, "--dry-run")
    assert folder.read_text(encoding="utf-8") == old
    assert '+    at: "renamed"' in result.stdout
    result = run(folder, release)
    assert result.exit_code == 1
    assert "first: lines 2-3, moved" in result.stdout
    assert "second: changed:" in result.stdout
    assert "--accept second" in result.stdout
    assert "-total = item * 3" in result.stdout
    assert folder.read_text(encoding="utf-8") == old.replace('"original"', '"renamed"')
    result = run(folder, release, "--accept", "second")
    assert result.exit_code == 0, result.output
    assert "total = item * 2" in folder.read_text(encoding="utf-8")
    done = folder.read_bytes()
    assert run(folder, release).exit_code == 0
    assert folder.read_bytes() == done


def test_several_notes_of_one_file_are_updated_in_one_run(folder: Path, release: Path) -> None:
    result = run(folder, release, "--accept", "second")
    assert result.exit_code == 0, result.output
    assert [
        one.resolution.status for one in resolve_notes(load_notes(folder.parent).notes, find_tree(release))
    ] == [
        Status.exact,
        Status.exact,
    ]


def test_what_needs_no_accepting_is_refused(folder: Path, release: Path) -> None:
    old = folder.read_bytes()
    for name, says in (("first", "`first` is moved"), ("nobody", "no note `nobody`")):
        result = run(folder, release, "--accept", name)
        assert result.exit_code == 2
        assert says in result.stderr
    assert folder.read_bytes() == old


def rename(folder: Path, release: Path) -> None:
    """Give the source file another name, with nothing else changed."""
    line = "y = x + a_constant_that_stands_nowhere_else"
    notes = NOTES.replace("y = x + 1", line)[: NOTES.replace("y = x + 1", line).index("  - id: second")]
    folder.write_text(notes, encoding="utf-8")
    package = release / "transformers"
    (package / "some.py").unlink()
    (package / "utils").mkdir()
    (package / "utils" / "some.py").write_text(
        SOURCE.replace("renamed", "original").replace("y = x + 1", line), encoding="utf-8"
    )


def test_the_notes_of_a_renamed_file_move_after_it(folder: Path, release: Path) -> None:
    rename(folder, release)
    old = folder.read_text(encoding="utf-8")
    result = run(folder, release, "--dry-run")
    assert folder.read_text(encoding="utf-8") == old
    result = run(folder, release)
    moved = folder.parent / "utils" / "some.yaml"
    assert f"moved to {moved}" in result.stdout
    assert not folder.exists()
    text = moved.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../../schemas/notes.schema.json\n")
    assert "file: utils/some.py   # where they belong\n" in text
    loaded = load_notes(folder.parent)
    assert loaded.problems == []
    [first, *_] = resolve_notes(loaded.notes, find_tree(release))
    assert (first.note.file, first.resolution.status) == ("utils/some.py", Status.exact)


def test_notes_are_not_put_over_others(folder: Path, release: Path) -> None:
    rename(folder, release)
    other = folder.parent / "utils" / "some.yaml"
    other.parent.mkdir()
    other.write_text(NOTES.replace("file: some.py", "file: utils/some.py").replace("id: ", "id: other-"))
    result = run(folder, release)
    assert result.exit_code == 1
    assert "put these among them by hand" in result.stderr
    assert folder.exists()
    assert "other-first" in other.read_text()
