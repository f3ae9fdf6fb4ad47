"""Notes woven into copies of their files: the same program, the licence first, each note before the statement that holds its line."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptmkb.annotations import load_notes, notes_directory, resolve_notes
from ptmkb.annotations.weaving import Comment, WeaveError, is_same_program, weave, weave_notes
from ptmkb.source import find_tree

TREE = find_tree()
NOTES = load_notes(notes_directory()).notes
RESOLVED = resolve_notes(NOTES, TREE)

AWKWARD = '''\
#!/usr/bin/env python
# Copyright, all rights kept.

"""A docstring
# that holds something like a comment
over lines."""
import os, \\
    sys

@first(
    1,
)
@second
def decorated(
    a,
    b=(1,
       2),
):
    """Doc."""
    text = f"""{
        a}
    in a string
      # not a comment
    """
    if a and \\
            b:
        return [
            a,  # why

            b,
        ]
    elif b: x = 1; y = (2,
        3)
    else:

        pass
    return text \\
        + "end"


class Holder(
    object
):

    # a comment of its own
    @property
    def one(self): return (
        1
    )

    match = {"a": """
    """}
    with open(os.devnull) as \\
        handle: pass
\tif_tab = 1
'''.replace("\tif_tab", "    if_tab")
LINES = AWKWARD.count("\n")
WORDS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=40)


def test_the_awkward_text_is_python() -> None:
    ast.parse(AWKWARD)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@given(
    comments=st.lists(
        st.builds(Comment, st.integers(1, LINES), st.lists(WORDS, min_size=1, max_size=3).map(tuple))
    )
)
@settings(max_examples=60, deadline=None)
def test_any_comments_at_any_lines_leave_the_program_as_it_is(newline: str, comments: list[Comment]) -> None:
    text = AWKWARD.replace("\n", newline)
    woven = weave(text, comments, notice="notice")
    assert ast.dump(ast.parse(woven)) == ast.dump(ast.parse(text))
    assert woven.startswith(
        f"#!/usr/bin/env python{newline}# Copyright, all rights kept.{newline}# notice{newline}"
    )
    if not any("\n" in line or "\r" in line for comment in comments for line in comment.text):
        # every line of the text is still there, in its order
        rest = iter(woven.split(newline))
        assert all(line in rest for line in text.split(newline))


PROGRAMS = (
    "x = 1", "x = 1  # one", "x = 1.0", "x = True", "x = 'a'", "x = b'a'", "x: int = 1", "x = -1", "x, = 1", "y = 1", "x = 1; y = 2",
    "def f(a, /, b=1, *, c): ...", "def f(a, b=1, *, c): ...", "async def f(a, b=1, *, c): ...", "def f(a, b, *, c): ...",
    "def f(a, b=1, *, c=None): ...", "if x: pass", "if x: pass\nelse: pass", "x = f(*a)", "x = f(a)", "x = f'{a}'", "x = f'{a!r}'",
)  # fmt: skip


def test_programs_are_the_same_where_their_syntax_trees_read_alike() -> None:
    for one in PROGRAMS:
        for other in PROGRAMS:
            trees = ast.parse(one), ast.parse(f"\n# below\n{other}")
            assert is_same_program(*trees) == (ast.dump(trees[0]) == ast.dump(trees[1])), (one, other)


@given(subset=st.sets(st.sampled_from([note.id for note in NOTES])))
@settings(max_examples=6, deadline=None)
def test_weaving_any_subset_of_the_notes_keeps_the_syntax_tree(subset: set[str]) -> None:
    chosen = [one for one in RESOLVED if one.note.id in subset]
    woven = weave_notes(chosen, TREE, "zh" if len(subset) % 2 else "en")
    assert {name for file in woven for name in file.woven} == subset
    for file in woven:
        original = TREE.read_bytes(file.file)
        assert ast.dump(ast.parse(file.data)) == ast.dump(ast.parse(original))
        assert file.data != original


@pytest.mark.parametrize(
    ("line", "before"),
    [
        (5, '"""A docstring'),  # inside a string
        (8, "import os"),  # continued by a backslash
        (11, "@first("),  # inside a decorator
        (13, "@first("),  # the second decorator
        (14, "@first("),  # what is decorated
        (17, "@first("),  # its parameters
        (19, '    """Doc."""'),
        (23, '    text = f"""'),  # inside an f-string
        (27, "        return ["),
        (29, "        return ["),  # a blank line within brackets
        (33, "    elif b: x = 1"),
        (34, "    else:"),
        (38, "    return text"),
        (43, "class Holder("),
        (45, "    # a comment of its own"),
        (48, "    @property"),
    ],
)
def test_a_comment_stands_before_the_statement_that_holds_its_line(line: int, before: str) -> None:
    woven = weave(AWKWARD, [Comment(line, ("MARK",))]).split("\n")
    [at] = [number for number, text in enumerate(woven) if text.strip() == "# MARK"]
    assert woven[at + 1].startswith(before)
    indent = len(before) - len(before.lstrip())
    assert woven[at] == " " * indent + "# MARK"


def test_a_comment_on_the_first_lines_declares_no_encoding() -> None:
    text = "x = 'é'\n"
    woven = weave(text, [Comment(1, ("Position encoding: rotary", "coding=latin-1"))])
    assert ast.dump(ast.parse(woven.encode())) == ast.dump(ast.parse(text))
    with pytest.raises(SyntaxError):
        ast.parse(b"# Position encoding: rotary\nx = 1\n")


def test_a_file_keeps_its_encoding_line_ends_and_missing_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text('__version__ = "9.9.9"\n', encoding="utf-8")
    changes = {"file": "lone.py", "quote": "name = 'caf\xe9'", "at": "<module>", "occurrence": None}
    lone = NOTES[0].model_copy(update=changes)
    (tmp_path / "lone.py").write_bytes("# -*- coding: latin-1 -*-\r\nname = 'caf\xe9'".encode("latin-1"))
    tree = find_tree(tmp_path)
    [woven] = weave_notes(resolve_notes([lone], tree), tree, "zh")
    assert woven.data.startswith(b"# -*- coding: latin-1 -*-\r\n#\r\n#\r\n# ")
    assert woven.data.endswith("name = 'caf\xe9'".encode("latin-1"))
    assert b"\\u6279\\u6ce8" in woven.data  # what latin-1 lacks is escaped
    assert b"\n" not in woven.data.replace(b"\r\n", b"")
    assert ast.literal_eval(ast.parse(woven.data).body[0].value) == "café"  # type: ignore[attr-defined]


def test_a_woven_note_says_all_that_it_says_elsewhere() -> None:
    [one] = [one for one in RESOLVED if one.note.id == "bert-scaled-scores"]
    for language in ("en", "zh"):
        [woven] = weave_notes([one], TREE, language, {"vaswani2017attention": "Vaswani et al. 2017"})  # type: ignore[arg-type]
        text = woven.data.decode()
        comments = "".join(
            line.strip().removeprefix("#") for line in text.splitlines() if line.strip().startswith("#")
        )
        said = one.note.text.zh if language == "zh" else one.note.text.en
        title = one.note.title.zh if language == "zh" else one.note.title.en
        bare = re.sub(r"\s", "", comments)
        assert re.sub(r"\s", "", said) in bare
        assert re.sub(r"\s", "", title) in bare
        assert "Vaswani et al. 2017" in comments
        quoted = one.note.quote.strip().splitlines()[0].strip()
        lines = [line.strip() for line in text.splitlines()]
        marks = [line for line in lines if line in ("# [end of note]", "# [批注完]")]
        assert len(marks) == 1
        assert lines[lines.index(marks[0]) + 1] == quoted


def test_the_head_of_every_woven_file_is_that_of_the_original() -> None:
    licensed = 0
    for woven in weave_notes(RESOLVED, TREE):
        original = TREE.lines(woven.file)
        head = original[: next(i for i, line in enumerate(original) if line and not line.startswith("#"))]
        licence = [
            line for line in original if "Licensed under" in line
        ]  # in comments, seldom in the docstring
        assert [line for line in woven.data.decode().splitlines() if "Licensed under" in line] == licence, (
            woven.file
        )
        licensed += any("Licen" in line for line in head)
        while head and not head[-1].strip():
            head.pop()
        lines = woven.data.decode().splitlines()
        assert lines[: len(head)] == head
        after = [
            line for line in lines[len(head) : len(head) + 3] if line != "#"
        ]  # two lines guard a file without a head
        assert after[0].startswith("# Modified copy")
        code = [
            token.string for token in tokenize.tokenize(iter(woven.data.splitlines(keepends=True)).__next__)
        ]
        assert (
            sum("[end of note]" in part for part in code) == len(woven.woven) + 1
        )  # the notice names it, too
    assert licensed >= 18  # nearly all: a few files have no licence header upstream either


def test_a_note_without_a_place_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text('__version__ = "9.9.9"\n', encoding="utf-8")
    (tmp_path / "lone.py").write_text("x = 1\n", encoding="utf-8")
    tree = find_tree(tmp_path)
    here = NOTES[0].model_copy(update={"file": "lone.py", "quote": "x = 1", "at": "<module>", "id": "here"})
    gone = NOTES[0].model_copy(update={"file": "lone.py", "id": "gone"})
    nowhere = NOTES[0].model_copy(update={"file": "none.py"})
    [woven] = weave_notes(resolve_notes([here, gone, nowhere], tree), tree)
    assert (woven.woven, woven.left_out) == (("here",), ("gone",))


@pytest.mark.parametrize("text", ["def f(:\n", "x = (\n", "  x\n y\n", "'''"])
def test_what_is_not_python_is_refused(text: str) -> None:
    with pytest.raises(WeaveError, match="not valid Python"):
        weave(text, [Comment(1, ("no",))])


def test_a_line_that_is_not_there_is_refused() -> None:
    with pytest.raises(WeaveError, match="line 3 is not in this text"):
        weave("x = 1\n", [Comment(3, ("no",))])
