"""Broken and hostile files: each ends in lines `file:line: what; mend`, in good time, never in a traceback."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ptmkb.catalogue import Model, documents, parse, read_document
from ptmkb.catalogue.documents import MAX_DEPTH, DocumentError, Plain, number_or_text
from ptmkb.catalogue.problems import MAX_PROBLEMS, Problem
from ptmkb.catalogue.salvage import salvage

LINE = re.compile(r"[^\n]+?:\d+: [^\n]+; [^\n]+")
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

HOSTILE = {
    "exploding aliases": (LAUGHS, 1, "the anchor `&a`; remove it: anchors are not used here"),
    "alias": ("id: x\nname: *x\n", 2, "the alias `*x`; write the value out: aliases are not used here"),
    "alias as key": ("*x : 1\n", 1, "a key that is not plain text; write the key as one word"),
    "python tag": (
        "id: x\nname: !!python/object/apply:os.system [echo]\n",
        2,
        "the tag `tag:yaml.org,2002:python/object/apply:os.system`; remove it: tags are not used here",
    ),
    "local tag": ("name: !x y", 1, "the tag `!x`; remove it: tags are not used here"),
    "half a surrogate pair in a tag": ("name: !%ED%A0%80 y", 1, "not YAML ("),
    "tab": ("id: x\nsummary:\n\ten: x\n", 3, "indent with spaces, not tabs"),
    "binary": (bytes(range(1, 256)), 2, "not UTF-8 text (byte 0x80); save the file as UTF-8"),
    "NUL": (b"id: x\n\nname: \0\n", 3, "the character U+0000, which text does not have; remove it"),
    "escape": ("id: x\nname: \x1b[31m\n", 2, "the character U+001B, which text does not have; remove it"),
    "line separator": ("id: x\nname: a\u2028b\n", 2, "the character U+2028, which text does not have; remove it"),
    "UTF-16": ("id: x".encode("utf-16"), 1, "not UTF-8 text (byte 0xff); save the file as UTF-8"),
    "Latin-1": ("id: x\nname: é".encode("latin-1"), 2, "not UTF-8 text (byte 0xe9); save the file as UTF-8"),
    "raw surrogate": (b"id: x\nname: \xed\xa0\x80", 2, "not UTF-8 text (byte 0xed); save the file as UTF-8"),
    "escaped surrogate": ('id: x\nname: "\\ud800"', 2, "invalid Unicode character escape code; mend the YAML"),
    "too large": (b"# " + b"x" * (50 << 20), 1, "52,428,802 bytes, over the limit of 1,048,576; split the file"),
    "open brackets": ("[" * 1_000_000, 1, f"nested more than {MAX_DEPTH} levels deep; flatten it"),
    "open braces": ("{a: " * 250_000, 1, f"nested more than {MAX_DEPTH} levels deep; flatten it"),
    "open sequences": ("- " * 500_000, 1, f"nested more than {MAX_DEPTH} levels deep; flatten it"),
    "open keys": ("? " * 500_000, 1, f"nested more than {MAX_DEPTH} levels deep; flatten it"),
    "unclosed": ("id: [a\nname: x\n", 2, "; mend the YAML at this line"),
    "empty": ("", 1, "the file is empty; write the entry or remove the file"),
    "blank": ("\ufeff \n\n", 1, "the file is empty; write the entry or remove the file"),
    "comments": ("# one\n# two\n", 1, "the file holds only comments; write the entry or remove the file"),
    "only an end": ("...\n", 1, "; "),
    "duplicate key": ("id: x\nname: y\nid: z\n", 3, "the key `id` stands twice; keep one of the two"),
    "merge key": ("id: x\n<<: {name: y}\n", 2, "the merge key `<<`; write the values out: merging is not used here"),
    "two documents": ("id: x\n---\nid: y\n", 2, "a second YAML document; keep one document a file"),
    "key that is a list": ("id: x\n? [a]\n: b\n", 2, "a key that is not plain text; write the key as one word"),
    "list on top": ("- id: x\n", 1, "the file is not a mapping; write it as `key: value`"),
    "text on top": ("bert", 1, "the file is not a mapping; write it as `key: value`"),
    "null on top": ("~", 1, "the file is not a mapping; write it as `key: value`"),
    "numbers as keys": ("id: x\n12: y\n", 2, "unknown key `12`; remove it"),
    "newline in a key": ('id: x\n"a\\nb": y\n', 2, "unknown key `a b`; remove it"),
    "terminal escape in a key": ('id: x\n"\\e[31m": y\n', 2, "unknown key `\\x1b[31m`; remove it"),
    "very long line": ("id: x\nname: " + "y" * 900_000 + ": z\n", 2, "mapping values are not allowed"),
    "very long key": ("? " + "y" * 900_000 + "\n: z\n", 1, "unknown key `yyyy"),
    "very long number": ("id: x\nvariants: [{name: y, config: {a: [" + "1" * 9000 + "]}}]", 1, "`name` is missing; add it"),
    "no YAML version": ("%YAML 99999999999.1\n---\nid: x\n", 1, "; mend the YAML at this line"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_file_ends_in_lines(small, what):
    content, line, said = HOSTILE[what]
    path = small.write("models/evil.yaml", content)
    start = time.process_time()
    lines = [text for text in small.lines() if text.startswith("models/evil.yaml:")]
    assert time.process_time() - start < 5
    assert any(text.startswith(f"models/evil.yaml:{line}: ") and said in text for text in lines), lines[:5]
    assert all(LINE.fullmatch(text) and len(text) < 700 for text in lines)
    assert lines == [text for text in small.lines() if "evil" in text or str(path) in text]


@pytest.mark.parametrize("what", ["NUL", "open brackets", "exploding aliases", "tab", "duplicate key"])
def test_the_loader_without_libyaml_says_the_same(small, what, monkeypatch: pytest.MonkeyPatch):
    content, line, said = HOSTILE[what]
    monkeypatch.setattr(documents, "_Loader", yaml.SafeLoader)
    small.write("models/evil.yaml", content)
    lines = small.lines()
    assert any(text.startswith(f"models/evil.yaml:{line}: ") for text in lines), lines
    assert what == "tab" or any(said in text for text in lines)


FLOODS = {
    "unknown keys": "".join(f"key{n}: 1\n" for n in range(40_000)),
    "duplicate keys": "id: x\n" * 170_000,
    "aliases": "a: [" + "*x, " * 250_000 + "]\n",
    "wrong items": "id: x\nclaims:\n" + "- a\n" * 40_000,
    "too many items": "id: x\nclaims:\n" + "- a\n" * 250_000,
    "broken names": "[\n" + "- id: a\n  id: b\n" * 500 + "".join(f"- id: a{n}\n" for n in range(70_000)),
    "dangling papers": "papers: [" + ", ".join(f"devlin{n}bret" for n in range(45_000)) + "]",
    "flat list": "- a\n" * 260_000,
    "anchors": "".join(f"- &a{n} x\n" for n in range(80_000)),
}


@pytest.mark.parametrize("what", FLOODS)
def test_a_flood_of_problems_is_cut_off_in_good_time(small, what):
    text = FLOODS[what]
    assert len(text) < 1 << 20
    small.write("models/flood.yaml", text)
    start = time.process_time()
    lines = [line for line in small.lines() if line.startswith("models/flood.yaml")]
    assert time.process_time() - start < 20
    assert 1 <= len(lines) <= 2 * MAX_PROBLEMS + 2
    if what in ("unknown keys", "duplicate keys", "dangling papers", "anchors"):
        assert any(
            f"more than {MAX_PROBLEMS} problems in this file; mend those above first" in line
            for line in lines
        )


@pytest.mark.parametrize("text", ["- a\n" * 60_000, "a: [" + "b, " * 60_000 + "]\n"])
def test_a_file_with_too_many_values_is_refused_as_one(small, text):
    path = small.write("models/flood.yaml", text)
    with pytest.raises(DocumentError, match="more than 50,000 values; split the file"):
        read_document(path)


def test_what_is_no_file(small):
    (small.directory / "models/folder.yaml").mkdir()
    (small.directory / "models/loop.yaml").symlink_to("loop.yaml")
    (small.directory / "models/nowhere.yaml").symlink_to("/nonexistent")
    (small.directory / "models/zero.yaml").symlink_to("/dev/zero")
    os.mkfifo(small.directory / "models/pipe.yaml")
    program = (
        "import sys; from pathlib import Path; from ptmkb.catalogue import read_catalogue\n"
        "print(*read_catalogue(Path(sys.argv[1]))[1], sep='\\n')"
    )
    command = [sys.executable, "-c", program, str(small.directory)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    lines = [line.removeprefix(f"{small.directory}/models/") for line in result.stdout.splitlines()]
    said = "not a regular file; put a YAML file in its place or remove it"
    expected = [f"{name}.yaml:1: {said}" for name in ("folder", "nowhere", "pipe", "zero")]
    assert [line for line in lines if "loop" not in line] == expected
    assert [line for line in lines if line.startswith("loop.yaml:1: ")]


def test_unreadable_file(small, monkeypatch: pytest.MonkeyPatch):
    """Root may read everything, so the refusal is raised here by hand."""

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DocumentError, match=r"bert.yaml:1: cannot be read \(Permission denied\); check that"):
        read_document(small.directory / "models/bert.yaml")


def test_crlf_and_bom_are_read(small):
    text = (small.directory / "models/bert.yaml").read_text()
    small.write("models/bert.yaml", b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert small.lines() == []
    small.write(
        "models/bert.yaml", b"\xef\xbb\xbf" + text.replace("110M", "many").replace("\n", "\r\n").encode()
    )
    assert [problem.line for problem in small.problems()] == [19]


def test_several_things_that_the_format_leaves_out_are_all_said(small):
    small.write("models/evil.yaml", "id: &a x\nname: *a\nid: !t y\nname: [\n")
    lines = [line.split("yaml:")[1].split(";")[0] for line in small.lines()]
    assert lines[:4] == [
        "1: the anchor `&a`",
        "2: the alias `*a`",
        "3: the key `id` stands twice",
        "3: the tag `!t`",
    ]
    assert lines[4].startswith("4: the key `name`")
    assert lines[5].startswith(("4: while parsing", "5: while parsing"))


def test_strange_file_names_stay_on_one_line(small):
    name = b"models/a\nb\xff.yaml".decode(errors="surrogateescape")
    small.write(name, "id: [")
    (line,) = [line for line in small.lines() if ":1: " in line or ":2: " in line]
    assert line.startswith("models/a\\nb\\udcff.yaml:")
    line.encode()


def test_long_values_are_shortened_in_the_middle(tmp_path: Path):
    line = str(Problem(tmp_path, 1, f"`{'x' * 5000}` is not a date", "write YYYY"))
    assert len(line) < 400 + len(str(tmp_path))
    assert line.endswith("xxx` is not a date; write YYYY")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | st.text("[]{}&*!%@`'\"|>:-?,#\t\n ab0\\~<\ufeff\u0085", max_size=60).map(str.encode)
)
@example(b"!%ED%A0%80 x")
@example(b'"\\ud800"')
@example(b"? - ? - a")
@example(b"a: |99\n x")
@example(b"%TAG ! tag:x,2000:\n--- !a b")
def test_any_bytes_end_in_data_or_document_error(tmp_path: Path, raw: bytes):
    path = tmp_path / "any.yaml"
    path.write_bytes(raw)
    for loader in (yaml.CSafeLoader, yaml.SafeLoader):
        documents._Loader = loader
        document, said = None, ()
        try:
            document = read_document(path)
        except DocumentError as error:
            said = error.problems
        finally:
            documents._Loader = yaml.CSafeLoader
        last = raw.count(b"\n") + raw.count(b"\r") + 2
        assert all(LINE.fullmatch(str(problem)) and 1 <= problem.line <= last for problem in said)
        assert bool(said) == (document is None)
        if document:
            assert all(isinstance(line, int) and 1 <= line <= last for line in document.lines.values())
            model, problems = parse(document, Model)
            assert (model is None) == bool(problems)
            assert all(LINE.fullmatch(str(problem)) for problem in problems)
            salvage(Model, document.data)


_DATA = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8).map(Plain) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*Model.model_fields, "from", "x"]), _DATA, max_size=10))
def test_whatever_is_salvaged_is_a_model(data):
    saved = salvage(Model, data)
    assert saved is not None
    model, kept = saved
    for name, indices in kept.items():
        assert len(getattr(model, name)) == len(indices)
        assert list(indices) == sorted(set(indices))


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789.eE+-٣", max_size=60))
def test_numbers_stay_what_json_can_hold(text):
    value = number_or_text(Plain(text))
    assert isinstance(value, (int, float, str))
    if isinstance(value, float):
        assert abs(value) < float("inf")
        assert value == float(text)
    elif isinstance(value, int):
        assert str(value) == text.lstrip("+").lstrip("0").replace("-0", "-") or value == int(text)
        assert text.isascii()
    else:
        assert value == text
    assert number_or_text("12") == "12"
