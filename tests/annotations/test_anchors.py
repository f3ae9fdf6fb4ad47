"""Each way a resolution can end, on texts small enough to see why, and the traps that make line-finding lie."""

from __future__ import annotations

import textwrap

import pytest

from ptmkb.annotations import Anchor, Resolution, Status, make_anchor, resolve

HOME = textwrap.dedent(
    """\
    import torch


    class SelfOutput(Module):
        def __init__(self, config):
            self.dense = Linear(config.hidden_size, config.hidden_size)
            self.norm = LayerNorm(config.hidden_size)

        def forward(self, hidden_states, input_tensor):
            hidden_states = self.dense(hidden_states)
            hidden_states = self.norm(hidden_states + input_tensor)
            return hidden_states


    class Output(Module):
        def __init__(self, config):
            self.dense = Linear(config.intermediate_size, config.hidden_size)
            self.norm = LayerNorm(config.hidden_size)

        def forward(self, hidden_states, input_tensor):
            hidden_states = self.dense(hidden_states)
            hidden_states = self.norm(hidden_states + input_tensor)
            return hidden_states


    def scores(query, key, scaling):
        weights = torch.matmul(query, key.transpose(2, 3)) * scaling
        weights = weights.softmax(-1)
        return weights
    """
)


def lines_of(text: str, wanted: str, nth: int = 1) -> int:
    """The line of the nth occurrence of a line's content."""
    found = [number for number, line in enumerate(text.split("\n"), 1) if line.strip() == wanted]
    return found[nth - 1]


def at(text: str, wanted: str, nth: int = 1, size: int = 1) -> Anchor:
    first = lines_of(text, wanted, nth)
    return make_anchor(text, first, first + size - 1)


SCORES = "weights = torch.matmul(query, key.transpose(2, 3)) * scaling"
NORM = "hidden_states = self.norm(hidden_states + input_tensor)"


def where(found: Resolution) -> tuple[str, int | None, int | None]:
    return found.status.value, found.first_line, found.last_line


def test_the_same_text_is_exact_with_full_score() -> None:
    for first in range(1, 30):
        for size in (1, 2, 4):
            if first + size - 1 <= len(HOME.splitlines()):
                found = resolve(make_anchor(HOME, first, first + size - 1), HOME)
                assert where(found) == ("exact", first, first + size - 1), found
                assert (found.score, found.diff) == (1.0, "")


def test_an_anchor_remembers_symbol_lines_context_and_twins() -> None:
    anchor = at(HOME, NORM, 2, size=2)
    assert anchor.symbol == "Output.forward"
    assert anchor.quote == (NORM, "return hidden_states")
    assert anchor.before[0] == "hidden_states = self.dense(hidden_states)"
    assert anchor.after[0] == "def scores(query, key, scaling):"
    assert anchor.twins is not None
    assert [twin.symbol for twin in anchor.twins] == ["SelfOutput.forward"]
    assert (anchor.occurrence, anchor.of) == (None, None)


def test_lines_inserted_above_shift_it() -> None:
    found = resolve(at(HOME, SCORES), HOME.replace("import torch\n", "import torch\nimport math\n\n"))
    assert where(found) == ("exact", lines_of(HOME, SCORES) + 2, lines_of(HOME, SCORES) + 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace("    ", "\t"),
        lambda text: text.replace("    ", "  "),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "   \n"),
    ],
)
def test_layout_that_is_no_code_does_not_matter(change: object) -> None:
    assert callable(change)
    anchor = at(HOME, "def forward(self, hidden_states, input_tensor):", 1, size=4)
    first = lines_of(HOME, "def forward(self, hidden_states, input_tensor):")
    assert where(resolve(anchor, change(HOME))) == ("exact", first, first + 3)
    assert (
        where(resolve(at(change(HOME).replace("\r\n", "\n").replace("\r", "\n"), SCORES), HOME))[0] == "exact"
    )


def test_a_renamed_symbol_is_moved() -> None:
    new = HOME.replace("def scores(", "def attention_scores(")
    assert where(resolve(at(HOME, SCORES), new)) == ("moved", lines_of(new, SCORES), lines_of(new, SCORES))


def test_a_renamed_class_is_told_from_its_twin() -> None:
    new = HOME.replace("class SelfOutput", "class AttentionOutput")
    found = resolve(at(HOME, NORM, 1), new)
    assert where(found) == ("moved", lines_of(new, NORM, 1), lines_of(new, NORM, 1))
    assert "AttentionOutput.forward" in found.reason


def test_code_moved_to_another_function_is_moved() -> None:
    new = (
        HOME.replace(f"    {SCORES}\n", "")
        + f"\n\ndef matmul(query, key, scaling):\n    {SCORES}\n    return weights\n"
    )
    assert where(resolve(at(HOME, SCORES), new)) == ("moved", lines_of(new, SCORES), lines_of(new, SCORES))


def test_a_changed_line_is_changed_with_its_diff() -> None:
    new = HOME.replace("* scaling", "* scaling.to(query.dtype)")
    found = resolve(at(HOME, SCORES), new)
    line = lines_of(HOME, SCORES)
    assert where(found) == ("changed", line, line)
    assert 0.8 < found.score < 1
    assert f"-{SCORES}\n+{SCORES}.to(query.dtype)" in found.diff


def test_lines_inserted_inside_and_removed_inside_are_changed() -> None:
    anchor = at(HOME, SCORES, size=3)
    first = lines_of(HOME, SCORES)
    longer = HOME.replace(
        "    weights = weights.softmax(-1)\n",
        "    weights = weights + mask\n    weights = weights.softmax(-1)\n",
    )
    assert where(resolve(anchor, longer)) == ("changed", first, first + 3)
    shorter = HOME.replace("    weights = weights.softmax(-1)\n", "")
    assert where(resolve(anchor, shorter)) == ("changed", first, first + 1)


def test_a_reformatted_line_is_found_whole() -> None:
    new = HOME.replace(
        SCORES,
        "weights = (\n        torch.matmul(\n            query,\n            key.transpose(2, 3),\n        )\n        * scaling\n    )",
    )
    found = resolve(at(HOME, SCORES), new)
    first = lines_of(new, "weights = (")
    assert where(found) == ("changed", first, first + 6)
    assert found.score > 0.95


def test_deleted_lines_are_lost() -> None:
    found = resolve(at(HOME, SCORES), HOME.replace(f"    {SCORES}\n", ""))
    assert where(found) == ("lost", None, None)
    assert found.score == 0


def test_a_twin_is_not_taken_for_deleted_lines() -> None:
    """The line goes from one class and stays in the other: there it looks just as if it had moved."""
    gone = HOME.replace(f"        {NORM}\n", "", 1)
    assert gone.count(NORM) == 1
    assert resolve(at(HOME, NORM, 1), gone).status not in (Status.exact, Status.moved)
    assert where(resolve(at(HOME, NORM, 2), gone))[0] == "exact"


def test_a_twin_is_not_taken_for_a_deleted_class() -> None:
    start, end = HOME.index("class SelfOutput"), HOME.index("class Output")
    found = resolve(at(HOME, NORM, 1, size=2), HOME[:start] + HOME[end:])
    assert found.status not in (Status.exact, Status.moved), found


def test_a_sibling_is_not_taken_for_a_deleted_line() -> None:
    """`key` goes with all around it; `query` and `value` look much like it, but they stood there before."""
    blocks = {
        name: f"        self.{name} = Linear(c.hidden_size, c.head_size)\n"
        + "".join(f"        self.{word}_of_{name}({number})\n" for number, word in enumerate(words))
        for name, words in {
            "query": ("pads", "rotates", "splits", "shards"),
            "key": ("stores", "merges", "repeats", "drops"),
            "value": ("casts", "joins", "gates", "fuses"),
        }.items()
    }
    home = "class A:\n    def __init__(self, c):\n" + "".join(blocks.values())
    line = "self.key = Linear(c.hidden_size, c.head_size)"
    anchor = at(home, line)
    assert len(anchor.lookalikes) == 2
    assert resolve(anchor, "class A:\n    def __init__(self, c):\n" + blocks["value"]).status is Status.lost
    edited = home.replace(line, line.replace("head_size", "key_size"))
    assert where(resolve(anchor, edited)) == ("changed", lines_of(home, line), lines_of(home, line))


REPEATED = "def f(x):\n    a = g(x)\n    x = norm(x)\n    b = h(x)\n    x = norm(x)\n    c = k(x)\n    x = norm(x)\n    return x\n"


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_the_same_line_thrice_in_one_function_is_told_by_its_context(nth: int) -> None:
    anchor = at(REPEATED, "x = norm(x)", nth)
    assert (anchor.occurrence, anchor.of) == (nth, 3)
    new = "import g\n" + REPEATED
    assert where(resolve(anchor, new)) == (
        "exact",
        lines_of(new, "x = norm(x)", nth),
        lines_of(new, "x = norm(x)", nth),
    )


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_with_one_of_three_gone_no_other_takes_its_place(nth: int) -> None:
    lines = REPEATED.split("\n")
    del lines[lines_of(REPEATED, "x = norm(x)", nth) - 1]
    found = resolve(at(REPEATED, "x = norm(x)", nth), "\n".join(lines))
    assert found.status not in (Status.exact, Status.moved), found


def test_places_that_nothing_tells_apart_are_not_guessed() -> None:
    home = "def f():\n    step()\n    step()\n    step()\n    step()\n    step()\n    step()\n    step()\n    step()\n    step()\n"
    found = resolve(make_anchor(home, 6, 6), home.replace("    step()\n", "", 1))
    assert found.status not in (Status.exact, Status.moved)
    assert "10" in found.reason or "9" in found.reason


def test_a_copy_does_not_take_the_place_of_edited_lines() -> None:
    """The function is copied under another name, and then a word of the original is changed: only the copy has the old lines."""
    function = HOME[HOME.index("def scores") :]
    new = HOME.replace("* scaling", "* factor") + "\n\n" + function.replace("def scores", "def scores_copy")
    found = resolve(at(HOME, SCORES), new)
    assert found.status is Status.changed, found
    assert found.first_line == lines_of(HOME, SCORES)


def test_a_note_by_hand_needs_the_symbol() -> None:
    anchor = Anchor("scores", (SCORES,))
    assert where(resolve(anchor, HOME)) == ("exact", lines_of(HOME, SCORES), lines_of(HOME, SCORES))
    renamed = HOME.replace("def scores", "def other")
    found = resolve(anchor, renamed)
    assert found.status is Status.changed
    assert found.score <= 0.5
    assert "nothing tells" in found.reason
    alone = Anchor("scores", (SCORES,), twins=())
    assert where(resolve(alone, renamed)) == ("moved", lines_of(HOME, SCORES), lines_of(HOME, SCORES))


def test_a_note_by_hand_needs_the_occurrence() -> None:
    quote = ("x = norm(x)",)
    assert resolve(Anchor("f", quote), REPEATED).status is Status.lost
    assert where(resolve(Anchor("f", quote, occurrence=2), REPEATED)) == ("exact", 5, 5)
    assert resolve(Anchor("f", quote, occurrence=2, of=2), REPEATED).status not in (
        Status.exact,
        Status.moved,
    )
    assert resolve(Anchor("f", quote, occurrence=4), REPEATED).status not in (Status.exact, Status.moved)


def test_text_that_does_not_parse_and_text_without_symbols_work() -> None:
    broken = HOME + "\n\ndef unfinished(:\n"
    assert where(resolve(at(HOME, SCORES), broken)) == (
        "exact",
        lines_of(HOME, SCORES),
        lines_of(HOME, SCORES),
    )
    assert where(resolve(at(broken, SCORES), HOME))[0] == "exact"
    flat = "a = 1\nb = 2\nc = a + b\n"
    assert make_anchor(flat, 2, 3).symbol == "<module>"
    assert where(resolve(make_anchor(flat, 2, 3), "# more\n" + flat)) == ("exact", 3, 4)
    assert resolve(make_anchor(flat, 2, 3), "").status is Status.lost


def test_a_line_moved_to_another_branch_is_not_the_same() -> None:
    home = "def f(x):\n    if x:\n        g(x)\n        h(x)\n    return x\n"
    new = home.replace("        h(x)", "    h(x)")
    assert where(resolve(make_anchor(home, 3, 4), new)) == ("changed", 3, 4)
    deeper = "def f(x):\n    with y:\n        if x:\n            g(x)\n            h(x)\n    return x\n"
    assert where(resolve(make_anchor(home, 3, 4), deeper)) == ("exact", 4, 5)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (1, 99), (-1, 1)])
def test_lines_that_are_not_there_are_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="lines 1-3"):
        make_anchor("a\nb\nc\n", first, last)


def test_a_copied_function_does_not_stand_for_one_with_lines_inserted() -> None:
    """Three of four lines are the quoted ones; the copy has all three, in the very surroundings, under another name."""
    edited = HOME.replace(
        "    weights = weights.softmax(-1)\n",
        "    weights = weights.softmax(-1)\n    assert weights.isfinite()\n",
    )
    function = HOME[HOME.index("def scores") :]
    new = edited + "\n\n" + function.replace("def scores", "def scores_copy")
    for text in (new, new + "\n\ndef unfinished(:\n"):
        found = resolve(at(HOME, SCORES, size=3), text)
        assert found.status is Status.changed, found


def test_with_copies_about_a_renamed_function_is_not_promised() -> None:
    """The function is renamed and copied, and the copy keeps the surroundings better than what was renamed."""
    function = HOME[HOME.index("def scores") :]
    renamed = function.replace("def scores", "def attention").replace(
        "    return weights\n", "    return 2 * weights\n"
    )
    new = HOME.replace(function, renamed) + "\n\n" + function.replace("def scores", "def scores_copy")
    assert resolve(at(HOME, SCORES), new).status is Status.changed


def test_a_copy_right_beside_edited_lines_is_doubted() -> None:
    edited = HOME.replace(f"    {SCORES}\n", f"    {SCORES}\n    {SCORES.replace('scaling', 'scaling_x')}\n")
    new = edited + f"\n\ndef other(query, key, scaling):\n    {SCORES}\n"
    found = resolve(at(HOME, SCORES), new)
    assert found.status is Status.changed, found
    # Without a second copy nothing speaks against it: a line was added below.
    assert resolve(at(HOME, SCORES), edited).status is Status.exact


def test_what_stood_there_before_is_not_taken_for_the_lines_edited() -> None:
    """The line moves to another function; one much like it stays, as it was at home, and so cannot be it."""
    home = "".join(
        ["class A:\n    def __init__(self, c):\n"]
        + [f"        self.{name}_proj = Linear(c.hidden_size, c.{name}_size)\n" for name in "abcdefgh"]
        + ["\n    def build(self, c):\n        return c\n"]
    )
    line = "        self.d_proj = Linear(c.hidden_size, c.d_size)\n"
    new = home.replace(line, "").replace("        return c\n", line + "        return c\n")
    found = resolve(at(home, line.strip()), new)
    assert where(found) == ("moved", lines_of(new, line.strip()), lines_of(new, line.strip()))


def test_blank_lines_are_not_promised_where_their_number_changed() -> None:
    anchor = make_anchor(HOME, 3, 3)
    assert resolve(anchor, HOME).status is Status.exact
    assert resolve(
        anchor, HOME.replace("        return hidden_states\n", "        return hidden_states\n\n", 1)
    ).status in (
        Status.changed,
        Status.lost,
    )


def test_edited_lines_in_their_own_function_make_a_copy_elsewhere_doubtful() -> None:
    """The lines were edited, and those around them too; a copy of the lines alone stands in a new function."""
    new = HOME.replace(
        "def scores(query, key, scaling):\n",
        "def scores(query, key, scaling=1.0):\n    key = key.contiguous()\n",
    )
    new = new.replace(
        "    weights = weights.softmax(-1)\n",
        "    weights = weights.softmax(-1)\n    assert torch.isfinite(weights).all(), key.shape\n    print(weights.shape, query.shape)\n",
    )
    quote = f"    {SCORES}\n    weights = weights.softmax(-1)\n    return weights\n"
    new += f"\n\ndef other(query, key, scaling, mask):\n    query = query + mask\n{quote}"
    found = resolve(at(HOME, SCORES, size=3), new)
    assert found.status is Status.changed, found
