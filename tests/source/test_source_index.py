"""The index on small trees made here: what it reads, and that nothing can leave half of it in place."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from ptmkb.source import (
    IndexUnavailableError,
    SourceIndex,
    SourceTree,
    find_tree,
    index_path,
    update_index,
)
from ptmkb.source.links import Link
from ptmkb.source.records import read_record

ROOT = Path(__file__).parents[2]

FILES = {
    "__init__.py": '__version__ = "9.1.0"\n',
    "base.py": '"""What all models share.\n\nMore."""\nclass PreTrained:\n    def save(self, to: str = "x") -> None: ...\n',
    "models/__init__.py": "",
    "models/one/modeling_one.py": (
        "from torch import nn\n"
        "from ...base import PreTrained\n\n\n"
        "def rotate(x, *, by=1):\n    return x\n\n\n"
        "class OneLayer(nn.Module):\n    '''A layer.'''\n    def forward(self, x: 'Tensor') -> 'Tensor':\n        return rotate(x)\n\n\n"
        "class OneModel(PreTrained):\n    pass\n"
    ),
    "models/two/modular_two.py": (
        "from ..one.modeling_one import OneLayer, rotate\n\n\nclass TwoLayer(OneLayer):\n    pass\n"
    ),
    "models/two/modeling_two.py": (
        "# This file was automatically generated from src/transformers/models/two/modular_two.py.\n"
        "def rotate(x, *, by=1):\n    return x\n\n\n"
        "class TwoLayer:\n    def forward(self, x):\n        return x\n\n\nclass TwoHelper: ...\n"
    ),
    "models/three/modeling_three.py": (
        "# Copied from transformers.models.one.modeling_one.OneLayer with One->Three\n"
        "@decorated(\n    1\n)\n"
        "class ThreeLayer:\n"
        "    # Copied from transformers.models.gone.modeling_gone.Gone.forward\n"
        "    def forward(self):\n"
        "        x = 1\n"
        "        # Copied from transformers.models.one.modeling_one.rotate\n"
        "        return x\n\n\n"
        "# NO LONGER Copied from transformers.models.one.modeling_one.OneModel\n"
        "class Other: ...\n"
    ),
}


def make_tree(folder: Path, files: dict[str, str] = FILES) -> SourceTree:
    for name, text in files.items():
        path = folder / "transformers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return find_tree(folder)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTMKB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    return make_tree(tmp_path)


def links(index: SourceIndex, file: str, symbol: str) -> set[tuple[str, str, str]]:
    return {(one.kind, one.target_file, one.target_symbol) for one in index.links_from(file, symbol)}


def test_every_symbol_is_there_with_its_signature_and_its_lines(tree: SourceTree) -> None:
    update_index(tree)
    with SourceIndex(tree) as index:
        for file in tree.files():
            kept = [(s.name, s.kind, s.first_line, s.last_line, s.bases, s.doc) for s in index.symbols(file)]
            assert kept == [
                (s.name, s.kind, s.first_line, s.last_line, s.bases, s.doc) for s in tree.module(file).symbols
            ]
        [forward] = index.named("OneLayer.forward")
        assert (forward.signature, forward.first_line) == ("(self, x: 'Tensor') -> 'Tensor'", 11)
        assert [s.signature for s in index.named("OneLayer")] == ["(nn.Module)"]
        assert {s.file for s in index.named("rotate")} == {
            "models/one/modeling_one.py",
            "models/two/modeling_two.py",
        }
        assert [s.signature for s in index.named("rotate", "models/two/modeling_two.py")] == ["(x, *, by=1)"]
        [module] = index.named("base")
        assert (module.kind, module.doc, module.last_line) == ("module", "What all models share.", 5)
        assert index.counts() == {
            "files": 7,
            "lines": sum(text.count("\n") for text in FILES.values()),
            "class": 8,
            "function": 2,
            "method": 4,
            "module": 7,
        }


def test_it_knows_whose_code_it_is(tree: SourceTree) -> None:
    update_index(tree)
    one, two, three = (
        f"models/{name}/{kind}_{name}.py"
        for kind, name in (("modeling", "one"), ("modeling", "two"), ("modeling", "three"))
    )
    modular = "models/two/modular_two.py"
    with SourceIndex(tree) as index:
        assert links(index, one, "OneModel") == {("inherits", "base.py", "PreTrained")}
        assert links(index, one, "OneLayer") == set()
        assert links(index, modular, "TwoLayer") == {("inherits", one, "OneLayer")}
        assert links(index, two, "TwoLayer") == {("generated", modular, "TwoLayer")}
        assert links(index, two, "rotate") == {("generated", one, "rotate")}
        assert links(index, two, "TwoHelper") == set()
        assert links(index, two, "<module>") == {("generated", modular, "<module>")}
        assert links(index, three, "Other") == set()
        assert index.links_from(three, "ThreeLayer") == [
            Link(
                three, 1, "ThreeLayer", "copied", "models.one.modeling_one.OneLayer",
                one, "OneLayer", "with One->Three",
            )
        ]  # fmt: skip
        # A mark within a body is about the body; one for a model that is no longer there leads nowhere, and says so.
        assert links(index, three, "ThreeLayer.forward") == {("copied", "", ""), ("copied", one, "rotate")}
        assert {(link.file, link.symbol) for link in index.links_to(one, "OneLayer")} == {
            (modular, "TwoLayer"),
            (three, "ThreeLayer"),
        }
        assert [(s.name, s.taken) for s in index.named("OneLayer")] == [("OneLayer", 2)]
        assert [s.taken for s in index.named("TwoLayer")] == [0, 0]
        assert index.named("rotate")[0].file == one


def test_names_are_resolved_through_the_modules_that_hand_them_on(tmp_path: Path) -> None:
    files = {
        "__init__.py": '__version__ = "9.1.0"\n',
        "generation/__init__.py": "",
        "generation/utils.py": "class Mixin: ...\nclass Twice: ...\n",
        "generation/other.py": "class Twice: ...\n",
        "models/a/modeling_a.py": "from ...generation import Mixin, Twice\nfrom transformers.generation.utils import Mixin as M\n"
        "class A(Mixin): ...\nclass B(Twice): ...\nclass C(M, Generic[int]): ...\n",
    }
    tree = make_tree(tmp_path, files)
    update_index(tree)
    with SourceIndex(tree) as index:
        file = "models/a/modeling_a.py"
        assert (
            links(index, file, "A")
            == links(index, file, "C")
            == {("inherits", "generation/utils.py", "Mixin")}
        )
        assert links(index, file, "B") == {("inherits", "", "")}  # two files define it: neither is guessed


def test_nothing_changed_nothing_read_one_changed_one_read(tree: SourceTree) -> None:
    first = update_index(tree)
    assert (first.files, first.read, first.removed) == (7, 7, 0)
    written = first.path.stat().st_ino
    assert update_index(tree).read == 0
    assert first.path.stat().st_ino == written
    (tree.where / "models/two/modeling_two.py").write_text("class Fresh: ...\n")
    (tree.where / "models/one/modeling_one.py").unlink()
    changed = find_tree(tree.where)
    with SourceIndex(changed) as stale:
        assert not stale.is_current()
    update = update_index(changed)
    assert (update.files, update.read, update.removed) == (6, 1, 1)
    with SourceIndex(changed) as index:
        assert index.is_current()
        assert [hit.symbol.name for hit in index.search("fresh")] == ["Fresh"]
        assert index.search("rotate") == []
        assert index.named("TwoHelper") == index.named("OneLayer") == []
        # What it inherits from is gone, and the file that says so was not read again.
        assert links(index, "models/two/modular_two.py", "TwoLayer") == {("inherits", "", "")}
    assert update_index(changed, anew=True).read == 6


def test_updating_ends_where_indexing_anew_does(tree: SourceTree) -> None:
    def content(path: Path) -> list[list[tuple[object, ...]]]:
        with contextlib.closing(sqlite3.connect(path)) as database:
            return [
                sorted(database.execute(query).fetchall())
                for query in (
                    "SELECT path, name, kind, first_line, signature, taken, factor FROM symbols "
                    "JOIN files ON files.id = file JOIN standing ON symbol = symbols.id",
                    "SELECT * FROM links",
                    "SELECT path, name, holder, doc FROM (SELECT rowid AS id, * FROM words) JOIN "
                    "(SELECT symbols.id, path FROM symbols JOIN files ON files.id = file) USING (id)",
                    "SELECT path, size, stamp, lines FROM files",
                    "SELECT COUNT(*) - (SELECT COUNT(*) FROM symbols) FROM words",
                )
            ]

    update_index(tree)
    path = tree.where / "models/one/modeling_one.py"
    path.write_text(path.read_text().replace("rotate", "turn") + "\n\nclass Added(OneLayer): ...\n")
    updated = content(update_index(tree).path)
    assert updated == content(update_index(tree, anew=True).path)
    assert any("Added" in row for row in updated[1])
    assert updated[-1] == [(0,)]


def test_a_wheel_is_read_like_the_folder_that_it_was_made_of(tree: SourceTree, tmp_path: Path) -> None:
    wheel = tmp_path / "transformers-9.1.0-py3-none-any.whl"

    def pack() -> SourceTree:
        with zipfile.ZipFile(wheel, "w") as archive:
            for path in tree.where.rglob("*.py"):
                archive.write(path, path.relative_to(tree.where.parent).as_posix())
        return find_tree(wheel)

    update_index(tree)
    assert update_index(pack()).read == 7
    with SourceIndex(tree) as folder, SourceIndex(find_tree(wheel)) as zipped:
        assert folder.path != zipped.path
        for file in tree.files():
            assert folder.symbols(file) == zipped.symbols(file)
    (tree.where / "base.py").write_text("class PreTrained: ...\n")
    assert update_index(pack()).read == 1


def test_a_file_that_is_not_python_is_indexed_and_named(tree: SourceTree) -> None:
    (tree.where / "broken.py").write_text("class Half:\n    def whole(self):\n        return (\n")
    update_index(find_tree(tree.where))
    with SourceIndex(find_tree(tree.where)) as index:
        [(file, why)] = index.errors()
        assert file == "broken.py"
        assert "SyntaxError" in why
        assert [s.name for s in index.symbols("broken.py")] == ["Half", "Half.whole"]


def test_without_an_index_or_with_rubbish_in_its_place(tree: SourceTree) -> None:
    with pytest.raises(IndexUnavailableError, match="ptmkb source index"):
        SourceIndex(tree)
    update_index(tree)
    index_path(tree).write_bytes(b"not a database, but as long as one header would be" * 10)
    with pytest.raises(IndexUnavailableError):
        SourceIndex(tree)
    assert update_index(tree).read == 7
    with SourceIndex(tree) as index:
        assert index.named("OneLayer")


def test_an_interrupt_keeps_what_was_read(tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptmkb.source.reading.CHUNK", 1)

    def interrupt(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_index(tree, on_progress=interrupt)
    with pytest.raises(IndexUnavailableError, match="unfinished"):
        SourceIndex(tree)
    assert update_index(tree).read == 4
    with SourceIndex(tree) as index:
        assert index.counts()["class"] == 8
    assert not list(index.path.parent.glob("*.tmp"))


KILLED = """
import os, signal, sys, time
from ptmkb.source import find_tree, reading, update_index
reading.CHUNK = 1
reading.WORTH_A_WORKER = 0
start = reading._start
def told(tree):
    worker = start(tree)
    print(worker.pid, flush=True)
    return worker
reading._start = told
def kill(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
update_index(find_tree(sys.argv[1]), anew=True, jobs=2, on_progress=kill)
"""


def test_a_killed_writer_leaves_the_old_index_and_no_process(tree: SourceTree) -> None:
    update_index(tree)
    before = index_path(tree).read_bytes()
    (tree.where / "base.py").write_text("class Renamed: ...\n")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tree.where)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert index_path(tree).read_bytes() == before
    [left] = index_path(tree).parent.glob("*.tmp")
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in pids)
    os.utime(left, (0, 0))
    assert update_index(tree).read == 1
    assert not left.exists()
    with SourceIndex(tree) as index:
        assert index.named("Renamed")


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


WRITER = """
import sys
from ptmkb.source import SourceIndex, find_tree, reading, update_index
reading.WORTH_A_WORKER = 0
tree = find_tree(sys.argv[1])
for _ in range(5):
    update_index(tree, anew=True, jobs=1)
    with SourceIndex(tree) as index:
        assert len(index.named("OneLayer.forward")) == 1
        assert len(index.search("rotate")) == 1
"""


def test_two_writers_and_a_reader_at_once(tree: SourceTree) -> None:
    update_index(tree)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tree.where)], stderr=subprocess.PIPE, cwd=ROOT)
        for _ in range(2)
    ]
    reads = 0
    with SourceIndex(tree) as opened_before:
        while any(writer.poll() is None for writer in writers):
            with SourceIndex(tree) as index:
                assert [s.name for s in index.symbols("base.py")] == ["PreTrained", "PreTrained.save"]
                reads += 1
            assert len(opened_before.named("OneLayer")) == 1
    assert reads > 1
    for writer in writers:
        assert writer.communicate()[1] == b""
        assert writer.returncode == 0


def test_a_worker_that_ends_is_reported(tree: SourceTree, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptmkb.source import SourceError

    monkeypatch.setattr("ptmkb.source.reading.WORTH_A_WORKER", 0)
    monkeypatch.setattr("ptmkb.source.reading.CHUNK", 1)
    start = subprocess.Popen

    def broken(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return start([sys.executable, "-c", "pass"], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr("ptmkb.source.reading.subprocess.Popen", broken)
    with pytest.raises(SourceError, match="run it again"):
        update_index(tree, jobs=2)
    assert not index_path(tree).exists()
    assert not list(index_path(tree).parent.glob("*.tmp"))


def test_a_record_is_plain_data() -> None:
    record = read_record(FILES["models/one/modeling_one.py"], "models/one/modeling_one.py")
    assert json.loads(json.dumps(record)) == record
    assert [link["target"] for link in record["links"]] == ["base.PreTrained"]
