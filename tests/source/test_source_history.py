"""Releases and histories, on wheels made here: pip finds them in a folder, and no index anywhere is asked."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ptmkb.cli.source import app
from ptmkb.source import Module, SourceTree, TreeNotFoundError, find_tree, releases
from ptmkb.source import origins as origins_module
from ptmkb.source import tree as tree_module
from ptmkb.source.history import Step, symbol_history
from ptmkb.source.origins import names_path, origins, read_names
from ptmkb.source.releases import (
    FirstSeen,
    ReleaseUnavailableError,
    find_release,
    first_seen,
    kept_releases,
    published_releases,
    releases_between,
    wheels_directory,
)

ATTENTION = "class BertAttention:\n    def forward(self, x):\n        return x{0}\n\n    def other(self):\n        return {0!r}\n"

RELEASES = {
    "1.0.0": {"modeling_bert.py": ATTENTION.format("")},
    "1.1.0": {
        "models/bert/modeling_bert.py": ATTENTION.format(""),
        "models/two/modeling_two.py": "def helper(): ...\n",
    },
    "1.1.1": {"models/bert/modeling_bert.py": ATTENTION.format(" + 1")},
    "1.2.0": {
        "models/bert/modeling_bert.py": "# A line above.\n" + ATTENTION.format(" + 1"),
        "models/two/modeling_two.py": "def helper(): ...\ndef eager(): ...\n",
        "models/three/modeling_three.py": "def eager(): ...\n",
    },
    "1.10.0": {
        "models/bert/modeling_bert.py": ATTENTION.format(" + 2") + "def eager(): ...\n",
        "models/two/modeling_two.py": "def helper(): ...\ndef eager(): ...\n",
    },
}
DEVELOPMENT = "2.0.0.dev0"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels as a package index would have them."""
    folder = tmp_path_factory.mktemp("shelf")
    for version, files in {**RELEASES, DEVELOPMENT: {}}.items():
        name = f"transformers-{version}"
        with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
            for file, text in {"__init__.py": f'__version__ = "{version}"\n', **files}.items():
                wheel.writestr(f"transformers/{file}", text)
            wheel.writestr(
                f"{name}.dist-info/METADATA",
                f"Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n",
            )
            wheel.writestr(
                f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{name}.dist-info/RECORD", "")
    return folder


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTMKB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*command: object, **_: object) -> None:
        raise AssertionError(f"started {command}")

    monkeypatch.setattr(releases.subprocess, "run", refuse)


def keep(shelf: Path, *versions: str) -> None:
    """Have wheels at hand without asking pip, which takes a second a wheel."""
    wheels_directory().mkdir(parents=True, exist_ok=True)
    for version in versions:
        name = f"transformers-{version}-py3-none-any.whl"
        shutil.copyfile(shelf / name, wheels_directory() / name)


def opener(shelf: Path) -> Callable[[str], SourceTree]:
    return lambda version: find_tree(shelf / f"transformers-{version}-py3-none-any.whl")


def history(shelf: Path, name: str, file: str | None = None) -> list[Step]:
    return list(symbol_history(name, RELEASES, file, open_release=opener(shelf)))


def test_a_release_is_downloaded_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_releases() == {}
    tree = find_release("1.1.0")
    assert (tree.version, tree.where.parent) == ("1.1.0", wheels_directory())
    monkeypatch.setattr(releases.subprocess, "run", None)  # from here on pip cannot be started
    assert find_release("1.1.0").where == tree.where
    assert list(kept_releases()) == ["1.1.0"]
    assert [path.name for path in wheels_directory().iterdir()] == [tree.where.name]
    with pytest.raises(ReleaseUnavailableError, match="not kept"):
        find_release("1.2.0", download=False)


@pytest.mark.usefixtures("no_pip")
def test_the_installed_release_needs_no_wheel() -> None:
    installed = find_tree()
    assert find_release(installed.version).where == installed.where


def test_a_release_that_cannot_be_had_is_said_in_a_line() -> None:
    with pytest.raises(ReleaseUnavailableError) as told:
        find_release("7.7.7")
    assert str(told.value).startswith("transformers==7.7.7 cannot be had: pip says: ")
    assert "\n" not in str(told.value)
    assert not list(wheels_directory().iterdir())
    with pytest.raises(ReleaseUnavailableError, match="is no release"):
        find_release("new")


def test_a_broken_wheel_is_named() -> None:
    wheels_directory().mkdir(parents=True)
    (wheels_directory() / "transformers-1.2.0-py3-none-any.whl").write_bytes(b"half of one")
    with pytest.raises(TreeNotFoundError, match=r"1\.2\.0"):
        find_release("1.2.0")


def test_the_list_of_releases_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "transformers (2.0)\nAvailable versions: 1.10.0, 1.9.1, 1.9.0, 2.0.0rc1, 1.2.0\n"
    asked = []

    def pip(*command: str) -> str:
        asked.append(command)
        return said

    monkeypatch.setattr(releases, "_pip", pip)
    assert published_releases(["1.9.0"]) == ["1.2.0", "1.9.0", "1.9.1", "1.10.0"]
    assert published_releases(["1.10.0"]) == ["1.2.0", "1.9.0", "1.9.1", "1.10.0"]
    assert len(asked) == 1
    said = "Available versions: 1.11.0, 1.10.0\n"
    assert published_releases(["1.11.0"])[-1] == "1.11.0"
    assert len(asked) == 2

    def fails(*_: str) -> str:
        raise ReleaseUnavailableError("no network")

    monkeypatch.setattr(releases, "_pip", fails)
    assert published_releases(["3.0.0"])[-1] == "1.11.0"  # what is known is better than nothing
    (wheels_directory().parent / "releases.json").unlink()
    with pytest.raises(ReleaseUnavailableError, match="no network"):
        published_releases()


def test_releases_of_a_range() -> None:
    known = ["4.57.1", "4.57.6", "5.0.0", "5.9.0", "5.10.1", "5.10.2", "5.11.0"]
    assert releases_between(known, "5.0.0", "5.10.2") == ["5.0.0", "5.9.0", "5.10.1", "5.10.2"]
    assert releases_between(known, "4.57.6", "5.9.0") == ["4.57.6", "5.0.0", "5.9.0"]
    assert releases_between(known, "5.1.0", "99.0.0", patches=True) == ["5.9.0", "5.10.1", "5.10.2", "5.11.0"]
    assert releases_between(known, "5.10.0", "5.10.9") == ["5.10.1"]
    assert releases_between(known, "6.0.0", "7.0.0") == []


def test_when_a_model_came_is_said_as_far_as_it_is_known(shelf: Path) -> None:
    assert first_seen(["bert", "two"]) == {"bert": FirstSeen(find_tree().version, None)}
    keep(shelf, "1.2.0", "1.0.0")
    seen = first_seen(["bert", "two", "llama", "never"])
    assert seen == {
        "bert": FirstSeen("1.2.0", "1.0.0"),
        "two": FirstSeen("1.2.0", "1.0.0"),
        "llama": FirstSeen(find_tree().version, "1.2.0"),
    }
    assert "not before: 1.0.0 has it not" in str(seen["two"])
    keep(shelf, "1.1.0")
    expected = FirstSeen("1.1.0", "1.0.0")
    assert first_seen(["two", "bert"]) == {"two": expected, "bert": expected}
    (wheels_directory() / "transformers-1.0.0-py3-none-any.whl").unlink()
    seen = first_seen(["two"])
    assert seen == {"two": FirstSeen("1.1.0", None)}
    assert "already, the oldest release kept here" in str(seen["two"])


def test_when_a_symbol_came_is_said_as_far_as_it_is_known(shelf: Path) -> None:
    forward = ("models/bert/modeling_bert.py", "BertAttention.forward")
    helper = ("models/two/modeling_two.py", "helper")
    newest = opener(shelf)("1.10.0")
    assert origins(newest, [forward]) == {}  # no release was read
    keep(shelf, "1.2.0", "1.0.0")
    read: list[tuple[str, int, int]] = []
    assert read_names(lambda *one: read.append(one)) == 2
    assert read == [("1.0.0", 2, 2), ("1.2.0", 4, 4)]
    assert origins(newest, [helper, forward]) == {
        helper: FirstSeen("1.2.0", "1.0.0"),
        forward: FirstSeen("1.0.0", None),  # it was in the root then
    }
    eager = ("models/bert/modeling_bert.py", "eager")
    # A release that was not read counts, by what it is known to define.
    assert origins(newest, [eager]) == {eager: FirstSeen("1.10.0", "1.2.0")}
    keep(shelf, "1.1.0", "1.10.0")  # releases may come in any order
    read.clear()
    assert read_names(lambda *one: read.append(one)) == 2
    assert read == [("1.1.0", 3, 3), ("1.10.0", 2, 3)]  # one text of 1.10.0 is that of 1.2.0
    others = ("models/two/modeling_two.py", "eager")
    never = ("models/two/modeling_two.py", "elper")  # a part of a name is no name
    assert origins(newest, [helper, others, eager, never]) == {
        helper: FirstSeen("1.1.0", "1.0.0"),
        others: FirstSeen("1.2.0", "1.1.0"),
        eager: FirstSeen("1.10.0", "1.2.0"),
    }
    assert read_names() == 0
    keep(shelf, "1.1.1")
    assert origins(newest, [helper]) == {helper: FirstSeen("1.1.0", "1.0.0")}


def test_the_installed_release_is_one_of_those_at_hand(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(shelf, "1.10.0")
    read_names()
    eager, helper = ("models/two/modeling_two.py", "eager"), ("models/two/modeling_two.py", "helper")
    monkeypatch.setattr(origins_module, "find_tree", lambda: opener(shelf)("1.1.0"))
    assert origins(opener(shelf)("1.10.0"), [eager, helper]) == {
        eager: FirstSeen("1.10.0", "1.1.0"),
        helper: FirstSeen("1.1.0", None),
    }


def test_what_the_index_knows_is_not_parsed_again(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(shelf, "1.0.0", "1.2.0")
    read_names()
    assert ask("index", "1.10.0")[0] == 0
    keep(shelf, "1.10.0")
    parsed: list[str] = []
    opened: list[object] = []
    parse, connect = tree_module.parse_module, origins_module.sqlite3.connect
    monkeypatch.setattr(
        tree_module, "parse_module", lambda text, file: parsed.append(file) or parse(text, file)
    )
    monkeypatch.setattr(
        origins_module, "_open", lambda *, create: opened.append(create) or connect(names_path())
    )
    code, out, _ = ask("show", "eager", "--tree", "1.10.0", "--format", "json")
    definitions = json.loads(out)["definitions"]
    assert (code, len(definitions)) == (0, 2)
    assert {one["file"]: one["first_release"] for one in definitions} == {
        "models/bert/modeling_bert.py": {
            "symbol": "eager",
            "release": "1.10.0",
            "after": "1.2.0",
            "says": "first in 1.10.0 of the releases kept here; not before: 1.2.0 has it not",
        },
        "models/two/modeling_two.py": {
            "symbol": "eager",
            "release": "1.2.0",
            "after": "1.0.0",
            "says": "first in 1.2.0 of the releases kept here; not before: 1.0.0 has it not",
        },
    }
    assert (parsed, opened) == ([], [False])
    code, out, _ = ask("show", "models.bert.modeling_bert", "--tree", "1.10.0", "--format", "json")
    [module] = json.loads(out)["definitions"]  # a module is no symbol: its model is what came
    assert (code, module["first_release"]["directory"], module["first_release"]["release"]) == (
        0,
        "bert",
        "1.2.0",
    )


def test_an_interrupted_release_is_read_again(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(shelf, "1.2.0")
    parse, parsed = origins_module.parse_module, 0

    def interrupted(text: str, file: str) -> Module:
        nonlocal parsed
        parsed += 1
        if parsed == 3:
            raise KeyboardInterrupt
        return parse(text, file)

    with monkeypatch.context() as patch:
        patch.setattr(origins_module, "parse_module", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read_names()
    three = ("models/three/modeling_three.py", "eager")
    tree = opener(shelf)("1.2.0")
    with contextlib.closing(sqlite3.connect(names_path())) as database:
        assert database.execute("SELECT * FROM releases").fetchall() == []
    assert read_names() == 1
    assert origins(tree, [three]) == {three: FirstSeen("1.2.0", None)}


def test_a_history_says_where_the_text_changed(shelf: Path) -> None:
    steps = history(shelf, "BertAttention.forward")
    assert [(step.version, step.status) for step in steps] == [
        ("1.0.0", "present"),
        ("1.1.0", "same"),
        ("1.1.1", "changed"),
        ("1.2.0", "same"),
        ("1.10.0", "changed"),
    ]
    assert (steps[1].before, steps[1].file) == ("modeling_bert.py", "models/bert/modeling_bert.py")
    assert [step.first_line for step in steps] == [2, 2, 2, 3, 2]
    assert steps[2].diff.splitlines()[-2:] == ["-        return x", "+        return x + 1"]
    assert steps[4].diff.startswith(
        "--- 1.2.0 models/bert/modeling_bert.py:3 BertAttention.forward\n+++ 1.10.0 "
    )
    assert not any(step.diff for step in steps if step.status != "changed")


def test_a_definition_that_comes_and_goes(shelf: Path) -> None:
    assert [step.status for step in history(shelf, "helper")] == [
        "absent", "added", "removed", "added", "same",
    ]  # fmt: skip
    assert {step.status for step in history(shelf, "nothing")} == {"absent"}


def test_another_models_definition_is_never_taken_for_it(shelf: Path) -> None:
    bert = history(shelf, "eager", "models/bert/modeling_bert.py")
    # 1.2.0 has two others of this name, which are not BERT's.
    assert [step.status for step in bert] == ["absent", "absent", "absent", "absent", "added"]
    three = history(shelf, "eager", "models/three/modeling_three.py")
    assert [step.status for step in three] == ["absent", "absent", "absent", "added", "removed"]
    # One file alone has it, but nothing says that it is this one's.
    assert {step.status for step in history(shelf, "helper", "models/three/modeling_three.py")} == {"absent"}
    unnamed = history(shelf, "eager")
    assert [step.status for step in unnamed][3:] == ["unclear", "unclear"]
    assert "models/bert/modeling_bert.py, models/two/modeling_two.py" in unnamed[4].why


def test_a_release_that_is_missing_leaves_the_others(shelf: Path) -> None:
    def open_release(version: str) -> SourceTree:
        if version == "1.2.0":
            raise ReleaseUnavailableError("no 1.2.0")
        return opener(shelf)(version)

    steps = list(symbol_history("BertAttention.forward", RELEASES, open_release=open_release))
    assert [step.status for step in steps] == ["present", "same", "changed", "unavailable", "changed"]
    assert steps[3].why == "no 1.2.0"
    assert steps[4].diff.startswith("--- 1.1.1 ")


def ask(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_history_command(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(shelf, "1.0.0", "1.2.0", "1.10.0")
    monkeypatch.setattr(releases, "published_releases", lambda wanted=(): list(RELEASES))
    code, out, err = ask("history", "BertAttention.forward", "--from", "1.0.0", "--to", "1.10.0")
    assert (code, err.count("downloading")) == (0, 1)
    assert "+1 -1" in out
    assert "+        return x + 2" in out
    code, out, err = ask(
        "history",
        "BertAttention.forward",
        "--from",
        "1.0.0",
        "--to",
        "1.10.0",
        "--patches",
        "--format",
        "json",
    )
    assert (code, err.count("downloading")) == (0, 1)
    told = json.loads(out)
    assert [(one["version"], one["status"]) for one in told["releases"]][1:3] == [
        ("1.1.0", "same"),
        ("1.1.1", "changed"),
    ]
    code, _, err = ask("history", "Nothing", "--from", "1.0.0", "--to", "1.2.0")
    assert (code, "define Nothing" in err) == (1, True)
    code, _, err = ask("history", "BertAttention", "--from", "1.2.0", "--to", "1.99.0")
    assert (code, "transformers==1.99.0 cannot be had" in err) == (1, True)
    assert ask("history", "BertAttention", "--from", "old")[0] == 2
    assert ask("history", "BertAttention", "--from", "1.8.0", "--to", "1.3.0")[0] == 2


def test_the_releases_command(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "published_releases", lambda wanted=(): list(RELEASES))
    assert json.loads(ask("releases", "--format", "json")[1]) == {"releases": []}
    keep(shelf, "1.0.0", "1.1.0")
    code, out, _ = ask("releases", "--from", "1.0.0", "--to", "1.2.0", "--format", "json")
    assert code == 0
    assert [(one["version"], one["models"], one["new"]) for one in json.loads(out)["releases"]] == [
        ("1.0.0", 0, None),
        ("1.1.0", 2, ["bert", "two"]),
        ("1.2.0", 3, ["three"]),
    ]


def test_a_broken_wheel_is_told_in_a_line_and_leaves_the_other_releases(shelf: Path) -> None:
    keep(shelf, "1.0.0", "1.10.0")
    broken = wheels_directory() / "transformers-1.2.0-py3-none-any.whl"
    broken.write_bytes(b"half of one")
    command = [sys.executable, "-m", "ptmkb", "source", "releases"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ptmkb: {broken}: not a wheel of transformers")
    assert "Traceback" not in done.stderr
    (wheels_directory().parent / "releases.json").write_text(json.dumps(list(RELEASES)))
    code, out, err = ask(
        "history", "BertAttention.forward", "--from", "1.0.0", "--to", "1.10.0", "--format", "json"
    )
    steps = {one["version"]: one["status"] for one in json.loads(out)["releases"]}
    assert (code, steps["1.2.0"], steps["1.10.0"]) == (1, "unavailable", "changed")
    assert f"1.2.0: {broken}: not a wheel" in err


def test_index_search_and_show_of_a_release(shelf: Path) -> None:
    keep(shelf, "1.2.0")
    code, out, _ = ask("index", "1.2.0", "--format", "json")
    told = json.loads(out)
    assert (code, told["transformers"], told["read"], told["counts"]["function"]) == (0, "1.2.0", 4, 3)
    assert json.loads(ask("index", "1.2.0", "--format", "json")[1])["read"] == 0
    code, out, _ = ask("search", "bert", "attn", "--tree", "1.2.0", "--format", "json")
    hits = json.loads(out)["hits"]
    assert (code, hits[0]["name"], hits[0]["first_line"], hits[0]["definitions"]) == (
        0,
        "BertAttention",
        2,
        1,
    )
    code, out, err = ask("search", "zebra", "--tree", "1.2.0")
    assert (code, out) == (1, "")
    assert "zebra" in err
    code, out, _ = ask("show", "BertAttention.forward", "--tree", "1.2.0")
    assert code == 0
    assert "     3      def forward(self, x):\n     4          return x + 1\n" in out
    code, out, _ = ask("show", "BertAttention.forward", "--tree", "1.2.0", "--format", "json")
    [shown] = json.loads(out)["definitions"]
    assert shown["text"] == "    def forward(self, x):\n        return x + 1\n"
    assert (shown["signature"], shown["first_release"]["release"]) == ("(self, x)", "1.2.0")
    code, out, err = ask("show", "eager", "--tree", "1.2.0")
    assert (code, out.count(".py:")) == (0, 2)
    assert "--file" in err
    code, out, err = ask("show", "BertAttn", "--tree", "1.2.0")
    assert (code, out) == (1, "")
    assert "there is BertAttention" in err
    assert ask("show", "eager", "--tree", "1.2.0", "--file", "none.py")[0] == 2
    assert ask("index", "7.7.7")[0] == 2
    assert ask("index", "/nowhere")[0] == 2


def test_the_index_follows_the_files(tmp_path: Path) -> None:
    package = tmp_path / "transformers"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "1.0.0"\n\n\ndef first(): ...\n')
    assert ask("show", "first", "--tree", str(tmp_path))[0] == 0
    (package / "__init__.py").write_text('__version__ = "1.0.0"\n\n\ndef second(): ...\n')
    assert ask("show", "first", "--tree", str(tmp_path))[0] == 1
    assert ask("show", "second", "--tree", str(tmp_path))[0] == 0


def test_what_is_heavy_waits_until_it_is_needed() -> None:
    code = "import sys, ptmkb.cli; assert not {'sqlite3', 'ptmkb.source', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
