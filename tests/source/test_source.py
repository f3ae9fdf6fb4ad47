"""The source reader on the installed release, on folders and wheels made here, and on text that no parser takes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from ptmkb.source import (
    MODULE,
    SourceFileNotFoundError,
    SourceTree,
    SymbolNotFoundError,
    TreeNotFoundError,
    code_relations,
    find_tree,
    model_directory,
    parse_module,
    split_lines,
)

TREE = find_tree()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A tree of two models, as a folder."""
    package = tmp_path / "transformers"
    for name, text in {
        "__init__.py": '__version__ = "9.1.0"\n',
        "models/__init__.py": "",
        "models/one/modeling_one.py": "class OneLayer:\n    pass\n\n\nclass OneHead:\n    pass\n\n\ndef rotate(x):\n    return x\n",
        "models/two/modular_two.py": (
            "from ..auto.modeling_auto import AutoModel\n"
            "from ..one.modeling_one import OneHead, OneLayer, rotate\n\n\n"
            "class TwoLayer(OneLayer):\n    def forward(self, x):\n        return rotate(AutoModel, x)\n"
        ),
        "models/three/modeling_three.py": (
            "# Copied from transformers.models.one.modeling_one.OneLayer with One->Three\n"
            "class ThreeLayer:\n    pass\n\n\n"
            "# NO LONGER Copied from transformers.models.two.modeling_two.TwoLayer\n"
            "class ThreeOther:\n"
            "    # Copied from transformers.models.three.modeling_three.ThreeLayer.forward\n    pass\n"
        ),
        "models/four/tokenization_four.py": (
            "from ...models.one.modeling_one import OneHead, OneLayer\n\n\nclass Four(OneHead):\n    layer = OneLayer\n"
        ),
    }.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


def test_the_installed_tree_is_found_without_importing_it() -> None:
    code = (
        "import sys; from ptmkb.source import find_tree; t = find_tree(); print(t.version, len(t.files()));"
        "assert not {'transformers', 'torch'} & set(sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert said.stdout.split() == [version("transformers"), str(len(TREE.files()))]
    assert len(TREE.model_directories()) > 500
    assert not {"auto", "deprecated"} & set(TREE.model_directories())


def test_folder_checkout_and_wheel_are_the_same_tree(small: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "transformers-9.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in small.rglob("*.py"):
            archive.write(path, path.relative_to(small.parent).as_posix())
        archive.writestr("transformers-9.1.0.dist-info/METADATA", "Version: 9.1.0\n")
    trees = [find_tree(where) for where in (small, small.parent, wheel, str(wheel))]
    assert {tree.version for tree in trees} == {"9.1.0"}
    assert len({tree.files() for tree in trees}) == 1
    assert {tree.read("models/one/modeling_one.py") for tree in trees} == {
        (small / "models/one/modeling_one.py").read_text()
    }
    assert len({tuple(code_relations(tree)) for tree in trees}) == 1


def test_what_is_no_tree_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"no zip")
    for where in (tmp_path, tmp_path / "none", tmp_path / "x.whl"):
        with pytest.raises(TreeNotFoundError, match=re.escape(str(where))):
            find_tree(where)


def test_a_file_outside_the_tree_is_not_read(small: Path) -> None:
    (small.parent / "secret.py").write_text("x = 1\n")
    tree = find_tree(small)
    for file in ("../secret.py", str(small.parent / "secret.py"), "models/none.py"):
        with pytest.raises(SourceFileNotFoundError):
            tree.read(file)


@pytest.mark.parametrize(
    "file", ["models/bert/modeling_bert.py", "generation/utils.py", "utils/generic.py", "cache_utils.py"]
)
def test_symbols_are_those_of_the_syntax_tree(file: str) -> None:
    module = TREE.module(file)
    assert module.error is None
    nodes = [
        n
        for n in ast.walk(ast.parse(module.text))
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    assert len(module.symbols) == len(nodes) > 10
    assert {(s.name.split(".")[-1], s.last_line) for s in module.symbols} == {
        (n.name, n.end_lineno) for n in nodes
    }
    for symbol in module.symbols:
        text = module.source(symbol)
        assert f"{symbol.name.split('.')[-1]}" in text
        header = next(
            line
            for line in text.split("\n")
            if not line.lstrip().startswith(("@", ")", "#")) and ("def " in line or "class " in line)
        )
        assert header.lstrip().startswith(("def ", "class ", "async def "))
        assert module.holder(symbol.last_line, symbol.last_line) is not None


def test_a_method_its_class_and_the_module_hold_their_lines() -> None:
    module = parse_module(
        "import os\n\n@decorated(\n    1\n)\nclass A(Base[int], metaclass=M):\n    '''Doc.\n\n    More.'''\n    x = 1\n\n"
        "    @property\n    def f(self):\n        def inner():\n            return 1\n        return inner\n\n"
        "    @f.setter\n    def f(self, v): ...\nif os:\n    def g(): ...\nelse:\n    async def g(): ...\n"
    )
    kinds = [(s.name, s.kind, s.first_line, s.last_line) for s in module.symbols]
    assert kinds == [
        ("A", "class", 3, 19),
        ("A.f", "method", 12, 16),
        ("A.f.inner", "function", 14, 15),
        ("A.f", "method", 18, 19),
        ("g", "function", 21, 21),
        ("g", "function", 23, 23),
    ]
    assert (module.symbols[0].bases, module.symbols[0].doc) == (("Base[int]",), "Doc.")
    assert [getattr(module.holder(n, n), "name", MODULE) for n in (1, 3, 10, 12, 15, 16, 20)] == [
        MODULE, "A", "A", "A.f", "A.f.inner", "A.f", MODULE,
    ]  # fmt: skip
    assert getattr(module.holder(15, 16), "name", None) == "A.f"
    assert len(module.named("A.f")) == len(module.named("g")) == 2


@pytest.mark.parametrize("file", ["models/bert/modeling_bert.py", "masking_utils.py"])
def test_a_file_that_does_not_parse_keeps_its_symbols(file: str) -> None:
    whole = TREE.module(file)
    broken = parse_module(whole.text + "\n)))\n")
    assert broken.error is not None
    assert "SyntaxError" in broken.error
    assert {s.name for s in broken.symbols} == {s.name for s in whole.symbols}
    starts = {(s.name, s.first_line) for s in whole.symbols}
    assert {(s.name, s.first_line) for s in broken.symbols} == starts


def test_lines_are_counted_as_python_counts_them() -> None:
    text = "a = 1\r\nb = '\x0c\u2028'\rc = 3\n\x0c\nd = 4"
    assert split_lines(text) == ["a = 1", "b = '\x0c\u2028'", "c = 3", "\x0c", "d = 4"]
    assert ast.parse(text).body[-1].lineno == len(split_lines(text))
    assert split_lines("") == []
    assert parse_module("\ufeffdef f(): ...\n").symbols[0].name == "f"
    assert parse_module("x = '\0'\ndef f(): ...\n").symbols[0].name == "f"


def test_model_directories_of_files() -> None:
    assert model_directory("models/bert/modeling_bert.py") == "bert"
    assert model_directory("models/deprecated/mctct/modeling_mctct.py") == "mctct"
    assert model_directory("models/__init__.py") is None
    assert model_directory("generation/utils.py") is None


def test_a_symbol_is_found_wherever_it_is_defined() -> None:
    [(module, symbol)] = TREE.find_symbol("LlamaAttention.forward")
    assert module.file == "models/llama/modeling_llama.py"
    assert module.lines[symbol.first_line - 1].strip() == "def forward("
    assert len(TREE.find_symbol("eager_attention_forward", "models/bert/modeling_bert.py")) == 1
    with pytest.raises(SymbolNotFoundError, match=r"LlamaAttention\.backward"):
        TREE.find_symbol("LlamaAttention.backward")


def test_a_name_that_several_files_define_is_found_in_each(small: Path) -> None:
    (small / "models/two/modeling_two.py").write_text("def rotate(x):\n    return -x\n")
    found = find_tree(small).find_symbol("rotate")
    assert [(module.file, symbol.first_line) for module, symbol in found] == [
        ("models/one/modeling_one.py", 9),
        ("models/two/modeling_two.py", 1),
    ]


def test_relations_say_who_took_what_from_whom(small: Path) -> None:
    found = [(r.source, r.target, r.kind, r.symbols, r.line) for r in code_relations(find_tree(small))]
    assert found == [
        ("one", "four", "inherited", ("OneHead",), 1),
        ("one", "three", "copied", ("OneLayer",), 1),
        ("one", "two", "modular", ("OneLayer", "rotate"), 2),
    ]


def test_relations_are_read_again_when_a_file_changes(small: Path) -> None:
    assert any(r.target == "four" for r in code_relations(find_tree(small)))
    (small / "models/four/tokenization_four.py").write_text("class Four:\n    pass\n")
    assert not any(r.target == "four" for r in code_relations(find_tree(small)))


def test_the_release_says_what_everyone_knows() -> None:
    found = code_relations(TREE)
    pairs = {(r.source, r.target, r.kind) for r in found}
    assert ("llama", "mistral", "modular") in pairs
    assert ("mistral", "mixtral", "modular") in pairs
    assert ("bert", "electra", "copied") in pairs
    assert not any(r.source == r.target or "auto" in (r.source, r.target) for r in found)
    assert len(found) > 1000
    for relation in found[::37]:
        line = split_lines(TREE.read(relation.file))[relation.line - 1]
        assert relation.source in line, relation


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTMKB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_a_tree_says_what_it_is() -> None:
    assert isinstance(TREE, SourceTree)
    assert version("transformers") in repr(TREE)
