"""Notes: what their files may say, what is said of those that are wrong, their checks, and the project's own on the installed release."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml
from typer.testing import CliRunner

from ptmkb.annotations import (
    NoteFile,
    PlacedNote,
    Status,
    draft_note,
    load_notes,
    notes_directory,
    resolve,
    resolve_notes,
    run_checks,
)
from ptmkb.annotations.notes import Note
from ptmkb.cli import annotations as cli
from ptmkb.cli.state import State
from ptmkb.source import find_tree

TREE = find_tree()
GOOD = """\
file: models/bert/modeling_bert.py
notes:
  - id: bert-pooler
    at: BertPooler.forward
    quote: |
      first_token_tensor = hidden_states[:, 0]
    papers: [{paper: devlin2018bert, at: "§3"}]
    models: [bert]
    title: {en: "First token", zh: "首个标记"}
    text: {en: "Why it is so.", zh: "为什么这样。"}
    check: |
      assert 1 + 1 == 2
"""
CATALOGUE = SimpleNamespace(papers={"devlin2018bert": 1}, models={"bert": 1})


def write(directory: Path, text: str, name: str = "models/bert/modeling_bert.yaml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_sound_file_has_its_notes_and_no_problem(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    loaded = load_notes(tmp_path, CATALOGUE)
    assert loaded.problems == []
    [note] = loaded.notes
    assert (note.id, note.file, note.path, note.line) == (
        "bert-pooler",
        "models/bert/modeling_bert.py",
        path,
        3,
    )
    assert note.anchor.quote == ("first_token_tensor = hidden_states[:, 0]",)
    [resolved] = resolve_notes(loaded.notes, TREE)
    assert resolved.resolution.status is Status.exact
    line = TREE.module(note.file).lines[(resolved.resolution.first_line or 0) - 1]
    assert line.strip() == note.quote.strip()


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("    models: [bert]", "    modles: [bert]", 8, "unknown key `modles`; did you mean `models`?"),
        (', zh: "首个标记"}', "}", 9, "`en` without its `zh`"),
        ("devlin2018bert", "devlin2018bort", 7, "no paper `devlin2018bort`; did you mean `devlin2018bert`?"),
        ("models: [bert]", "models: [bret]", 8, "no model `bret`; did you mean `bert`?"),
        ("models: [bert]", "see: [bert-poller]", 8, "no note `bert-poller`; did you mean"),
        ("models: [bert]", "see: [bert-pooler]", 8, "`bert-pooler` points at itself"),
        ("id: bert-pooler", "id: Bert Pooler", 3, "id"),
        ("at: BertPooler.forward", "at: BertPooler:forward", 4, "is no qualified name"),
        ("assert 1 + 1 == 2", "assert 1 +", 11, "the check is not Python"),
        (
            "file: models/bert",
            "file: models/bort",
            1,
            "these notes lie where those on models/bert/modeling_bert.py belong",
        ),
        ("    models: [bert]\n", "    models: [bert]\n    of: 2\n", 3, "give `occurrence`"),
        ("    models: [bert]\n", "    models: [bert]\n    occurrence: 0\n", 9, "occurrence"),
    ],
)
def test_a_problem_names_file_line_and_mend(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    problems = load_notes(tmp_path, CATALOGUE).problems
    assert len(problems) == 1, problems
    assert (problems[0].path, problems[0].line) == (path, line), problems
    assert says in str(problems[0])


def test_all_problems_are_said_not_the_first(tmp_path: Path) -> None:
    second = (
        GOOD.split("notes:\n")[1]
        .replace("bert-pooler", "bert-second")
        .replace("devlin2018bert", "nobody2020")
    )
    write(tmp_path, GOOD.replace("    title:", "    tilte:") + second)
    found = [str(problem) for problem in load_notes(tmp_path, CATALOGUE).problems]
    assert any("unknown key `tilte`" in one for one in found)
    assert any("`title` is missing" in one for one in found)
    assert any("no paper `nobody2020`" in one for one in found)


def test_an_id_taken_twice_is_said_across_files(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD.replace("models/bert/modeling_bert.py", "masking_utils.py"), "masking_utils.yaml")
    [problem] = load_notes(tmp_path, CATALOGUE).problems
    assert "the id `bert-pooler` is taken by masking_utils.yaml:3" in str(problem)


@pytest.mark.parametrize(
    "text", ["", "- 1", "file: [", "\t", "a: &x [*x]\n", "\0\1", "file: x.py\nnotes: 3\n"]
)
def test_hostile_files_end_in_a_problem(tmp_path: Path, text: str) -> None:
    write(tmp_path, text, "x.yaml")
    loaded = load_notes(tmp_path, CATALOGUE)
    assert loaded.problems
    assert loaded.notes == ()


def test_a_missing_directory_and_a_wrong_suffix_are_said(tmp_path: Path) -> None:
    assert "no such directory" in str(load_notes(tmp_path / "none").problems[0])
    write(tmp_path, GOOD, "models/bert/modeling_bert.yml")
    assert "rename it" in str(load_notes(tmp_path).problems[0])


def test_the_schema_for_editors_knows_the_keys() -> None:
    schema = NoteFile.model_json_schema(by_alias=True)
    keys = set(schema["$defs"]["Note"]["properties"])
    assert {"id", "at", "quote", "occurrence", "papers", "models", "title", "text", "check"} <= keys
    assert schema["$defs"]["Note"]["additionalProperties"] is False
    assert not {"path", "line"} & keys


@pytest.mark.parametrize(
    ("file", "first", "last"),
    [
        ("models/bert/modeling_bert.py", 122, 125),
        ("masking_utils.py", 145, 145),
        ("models/gpt2/modeling_gpt2.py", 300, 306),
    ],
)
def test_a_draft_stands_at_its_lines(file: str, first: int, last: int) -> None:
    text = TREE.read(file)
    [raw] = yaml.safe_load(draft_note(text, file, first, last))
    filled = {"en": "x", "zh": "中"}
    note = Note.model_validate({**raw, "papers": [], "title": filled, "text": filled})
    found = resolve(note.anchor, text)
    assert (found.status, found.first_line, found.last_line) == (Status.exact, first, last)


def test_every_draft_of_a_file_stands_at_its_lines() -> None:
    file = "models/bert/modeling_bert.py"
    text, lines = TREE.read(file), TREE.module(file).lines
    for first in range(20, len(lines) - 3, 13):
        last = first + first % 3
        if lines[first - 1].strip() and lines[last - 1].strip():
            [raw] = yaml.safe_load(draft_note(text, file, first, last))
            filled = {"en": "x", "zh": "中"}
            note = Note.model_validate({**raw, "papers": [], "title": filled, "text": filled})
            found = resolve(note.anchor, text)
            assert (found.status, found.first_line, found.last_line) == (Status.exact, first, last)


def placed(name: str, check: str) -> PlacedNote:
    note = Note.model_validate({**yaml.safe_load(GOOD)["notes"][0], "id": name, "check": check})
    return PlacedNote.place(note, "models/bert/modeling_bert.py", Path("x.yaml"), 1)


def test_checks_pass_fail_and_run_out_of_time() -> None:
    notes = [
        placed("true", "import os\nassert os.environ['HF_HUB_OFFLINE'] == '1'"),
        placed("false", "x = 3\nassert x == 4, 'three is not four'"),
        placed("leaves", "import sys\nsys.exit(3)"),
        placed("hangs", "while True: pass"),
        placed("dies", "import os\nos.kill(os.getpid(), 9)"),
        placed("loud", "print('x' * 10**6)\nraise RuntimeError('the end')"),
        placed("last", "import transformers, torch\nassert torch.arange(3).sum() == 3"),
    ]
    results = run_checks(notes, jobs=2, timeout=8)
    ended = {result.id: result.status for result in results}
    assert ended == {
        "true": "passed",
        "false": "failed",
        "leaves": "failed",
        "hangs": "timeout",
        "dies": "failed",
        "loud": "failed",
        "last": "passed",
    }
    why = {result.id: result.why for result in results}
    assert why["false"].endswith("AssertionError: three is not four")
    assert why["loud"].endswith("RuntimeError: the end")
    assert len(why["loud"]) <= 2000
    assert [result.id for result in results] == [note.id for note in notes]
    assert run_checks([]) == []


def test_the_projects_own_notes_stand_at_their_lines() -> None:
    loaded = load_notes(notes_directory())
    assert [str(problem) for problem in loaded.problems] == []
    assert len(loaded.notes) >= 25
    assert sum(note.check is not None for note in loaded.notes) >= 14
    astray = [
        (one.note.id, one.resolution)
        for one in resolve_notes(loaded.notes, TREE)
        if one.resolution.status != Status.exact
    ]
    assert astray == []


def test_the_projects_own_checks_hold() -> None:
    results = run_checks(load_notes(notes_directory()).notes, jobs=2)
    assert [(one.id, one.why) for one in results if one.status != "passed"] == []


def call(directory: Path, *arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()
    app.add_typer(cli.app, name="annotations")

    @app.callback()
    def _state(ctx: typer.Context) -> None:
        ctx.obj = State(annotations_dir=directory)

    result = CliRunner().invoke(app, ["annotations", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_answers_for_programs_and_by_exit_code(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    code, out, _ = call(tmp_path, "check", "--no-run", "--format", "json")
    data = json.loads(out)
    assert code == 0
    assert data["transformers"] == TREE.version
    [note] = data["notes"]
    assert set(note) == {"id", "file", "status", "first_line", "last_line"}
    assert (note["id"], note["status"]) == ("bert-pooler", "exact")
    write(tmp_path, GOOD.replace("first_token_tensor = hidden_states[:, 0]", "nothing_of(the_kind) in here"))
    code, out, _ = call(tmp_path, "check", "--format", "json")
    assert (code, json.loads(out)["notes"][0]["first_line"]) == (1, None)
    code, out, _ = call(tmp_path, "check")
    assert code == 1
    assert "lost" in out
    assert call(tmp_path, "check", "no-such-note")[0] == 2
    assert call(tmp_path, "check", "--tree", str(tmp_path))[0] == 2
    write(tmp_path, GOOD.replace("models: [bert]", "modles: [bert]"))
    code, _, err = call(tmp_path, "check", "--no-run")
    assert code == 1
    assert ":8: unknown key `modles`" in err


def test_the_command_runs_the_checks_too(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    code, out, err = call(tmp_path, "check", "--format", "json")
    assert (code, json.loads(out)["notes"][0]["check"]["status"]) == (0, "passed")
    assert "bert-pooler: passed" in err
    write(tmp_path, GOOD.replace("1 + 1 == 2", "1 + 1 == 3"))
    code, out, _ = call(tmp_path, "check")
    assert code == 1
    assert "AssertionError" in out


def test_a_note_is_started_from_the_command(tmp_path: Path) -> None:
    code, out, _ = call(tmp_path, "add", "models/bert/modeling_bert.py:122-125")
    assert code == 0
    assert yaml.safe_load(out)[0]["at"] == "eager_attention_forward"
    for wrong in (
        "models/bert/modeling_bert.py",
        "models/none.py:1-2",
        "models/bert/modeling_bert.py:1-99999",
    ):
        code, _, err = call(tmp_path, "add", wrong)
        assert (code, "Traceback" in err) == (2, False)
