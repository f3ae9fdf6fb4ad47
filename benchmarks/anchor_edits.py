"""Edits of a source file whose outcome is known: what the tests and the benchmark of anchors are judged by.

Every line of a file carries a mark that says whether it belongs to the region; an edit moves, removes and changes marked lines like all
others, so that where the region stands afterwards is known and not guessed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptmkb.source import parse_module, split_lines

FILES = (
    "activations.py",
    "cache_utils.py",
    "data/data_collator.py",
    "generation/logits_process.py",
    "masking_utils.py",
    "modeling_rope_utils.py",
    "models/bart/modeling_bart.py",
    "models/bert/modeling_bert.py",
    "models/clip/modeling_clip.py",
    "models/gpt2/modeling_gpt2.py",
    "models/llama/modeling_llama.py",
    "models/mamba/modeling_mamba.py",
    "models/mixtral/modular_mixtral.py",
    "models/t5/modeling_t5.py",
    "models/wav2vec2/modeling_wav2vec2.py",
    "models/xlnet/modeling_xlnet.py",
    "tokenization_utils_base.py",
    "utils/generic.py",
)
"""Files of `transformers` of every kind: models and what they share, generation, tokenizers, tables."""

SIZES = (1, 1, 1, 2, 3, 5, 8, 12, 20)
"""Lines of a region: notes speak of few lines more often than of many."""

Edit = Callable[["Case"], None]


@dataclass
class Line:
    """A line of a file, and whether it belongs to the region."""

    text: str
    ours: bool = False


@dataclass
class Case:
    """A file being edited; `lines` are marked, `rng` decides."""

    lines: list[Line]
    rng: random.Random

    def ours(self) -> tuple[int, int]:
        """0-based first and one past the last of the region."""
        at = [index for index, line in enumerate(self.lines) if line.ours]
        return at[0], at[-1] + 1

    def core(self) -> tuple[int, int]:
        """The region without blank lines at its edges: what is between code and such a line is in or out by taste."""
        at = [index for index, line in enumerate(self.lines) if line.ours and line.text.strip()]
        return (at[0], at[-1] + 1) if at else self.ours()

    def some_lines(self, most: int = 6) -> list[Line]:
        """Fresh lines: copies from anywhere in the file, which makes them as misleading as can be."""
        count = self.rng.randint(1, most)
        start = self.rng.randrange(len(self.lines))
        return [Line(line.text) for line in self.lines[start : start + count]]

    def spot(self) -> int:
        """A place between two lines, outside the region."""
        first, last = self.ours()
        return self.rng.choice([*range(first + 1), *range(last, len(self.lines) + 1)])

    def text(self) -> str:
        """The file as it is now."""
        return "".join(line.text + "\n" for line in self.lines)


def insert_above(case: Case) -> None:
    first, _ = case.ours()
    at = case.rng.randint(0, first)
    case.lines[at:at] = case.some_lines()


def insert_next_to(case: Case) -> None:
    first, last = case.ours()
    at = case.rng.choice([first, last])
    case.lines[at:at] = case.some_lines(3)


def insert_below(case: Case) -> None:
    _, last = case.ours()
    at = case.rng.randint(last, len(case.lines))
    case.lines[at:at] = case.some_lines()


def insert_inside(case: Case) -> None:
    first, last = case.core()
    if last - first > 1:
        at = case.rng.randint(first + 1, last - 1)
        # Copies of the region's own lines would leave no certain answer: which of two is the old one?
        own = {line.text.strip() for line in case.lines[first:last]}
        case.lines[at:at] = [
            Line(line.text, ours=True) for line in case.some_lines(3) if line.text.strip() not in own
        ]


def delete_around(case: Case) -> None:
    first, last = case.ours()
    count = case.rng.randint(1, 6)
    if case.rng.random() < 0.5:
        at = case.rng.randint(0, first)
        del case.lines[at : min(at + count, first)]
    else:
        at = case.rng.randint(last, len(case.lines))
        del case.lines[at : at + count]


def delete_next_to(case: Case) -> None:
    first, last = case.ours()
    if case.rng.random() < 0.5:
        del case.lines[max(0, first - case.rng.randint(1, 3)) : first]
    else:
        del case.lines[last : last + case.rng.randint(1, 3)]


def delete_inside(case: Case) -> None:
    first, last = case.core()
    if last - first > 2:
        count = case.rng.randint(1, (last - first) // 3)
        at = case.rng.randint(first, last - count)
        del case.lines[at : at + count]


def change_a_line(case: Case) -> None:
    first, last = case.ours()
    line = case.lines[case.rng.randrange(first, last)]
    words = re.findall(r"\b[a-z_]\w{2,}\b", line.text)
    if words:
        word = case.rng.choice(words)
        line.text = re.sub(rf"\b{word}\b", f"{word}_{case.rng.choice(['new', 'states', 'x'])}", line.text)


def indent_region(case: Case) -> None:
    first, last = case.ours()
    indent = re.match(r"\s*", case.lines[first].text)
    for line in case.lines[first:last]:
        line.text = "    " + line.text if line.text.strip() else line.text
    case.lines.insert(first, Line((indent.group() if indent else "") + "if config is not None:"))


def indent_by_two(case: Case) -> None:
    for line in case.lines:
        body = line.text.lstrip()
        line.text = " " * ((len(line.text) - len(body)) // 2) + body


def indent_by_tabs(case: Case) -> None:
    for line in case.lines:
        body = line.text.lstrip()
        width = len(line.text) - len(body)
        line.text = "\t" * (width // 4) + " " * (width % 4) + body


def move_region(case: Case) -> None:
    first, last = case.ours()
    at = case.spot()
    region = case.lines[first:last]
    del case.lines[first:last]
    at -= len(region) if at >= last else 0
    case.lines[at:at] = region


def _block(case: Case) -> tuple[int, int] | None:
    """A top-level symbol around the region, 0-based, half-open."""
    first, last = case.ours()
    for symbol in parse_module(case.text()).symbols:
        if "." not in symbol.name and symbol.first_line <= first + 1 and last <= symbol.last_line:
            return symbol.first_line - 1, symbol.last_line
    return None


def move_symbol(case: Case) -> None:
    block = _block(case)
    if block is None:
        return
    moved = case.lines[block[0] : block[1]]
    del case.lines[block[0] : block[1]]
    tops = [s.first_line - 1 for s in parse_module(case.text()).symbols if "." not in s.name]
    at = case.rng.choice([*tops, len(case.lines)])
    case.lines[at:at] = moved


def rename_symbol(case: Case) -> None:
    """Rename the innermost symbol, or the outermost, wherever it is mentioned: in the region too."""
    first, last = case.ours()
    holder = parse_module(case.text()).holder(first + 1, last)
    if holder is None:
        return
    name = case.rng.choice([holder.name.split(".")[0], holder.name.split(".")[-1]])
    new = case.rng.choice([name + "V2", "New" + name, "other_" + name[:3]])
    for line in case.lines:
        line.text = re.sub(rf"\b{name}\b", new, line.text)


def duplicate_region(case: Case) -> None:
    first, last = case.ours()
    copy = [Line(line.text) for line in case.lines[first:last]]
    at = case.spot()
    case.lines[at:at] = copy


def duplicate_symbol(case: Case) -> None:
    """A second class or function with the same body, under another name, before or after."""
    block = _block(case)
    if block is None:
        return
    copy = [Line(line.text) for line in case.lines[block[0] : block[1]]]
    for line in copy:
        line.text = re.sub(r"^(class|def) (\w+)", r"\1 \2Copy", line.text)
    at = case.rng.choice(block)
    case.lines[at:at] = copy


def delete_another_symbol(case: Case) -> None:
    first, last = case.ours()
    others = [s for s in parse_module(case.text()).symbols if s.last_line <= first or s.first_line > last]
    if others:
        gone = case.rng.choice(others)
        del case.lines[gone.first_line - 1 : gone.last_line]


def reformat(case: Case) -> None:
    """Break calls of the region over lines, as a formatter with a shorter line would."""
    changed: list[Line] = []
    for line in case.lines:
        match = re.match(r"^(\s*)(\S.*\()([^()]+, [^()]+)(\).*)$", line.text) if line.ours else None
        if match is None or "#" in line.text or '"' in line.text or "'" in line.text:
            changed.append(line)
            continue
        indent, head, arguments, tail = match.groups()
        pieces = [
            f"{indent}{head}",
            *(f"{indent}    {a.strip()}," for a in arguments.split(",") if a.strip()),
            f"{indent}{tail}",
        ]
        changed += [Line(piece, ours=True) for piece in pieces]
    case.lines[:] = changed


def delete_region(case: Case) -> None:
    case.lines[:] = [line for line in case.lines if not line.ours]


def delete_whole_symbol(case: Case) -> None:
    block = _block(case)
    if block is None:
        delete_region(case)
    else:
        del case.lines[block[0] : block[1]]


KEEPING: list[Edit] = [
    insert_above,
    insert_next_to,
    insert_below,
    insert_inside,
    delete_around,
    delete_next_to,
    delete_inside,
    change_a_line,
    indent_region,
    indent_by_two,
    indent_by_tabs,
    move_region,
    move_symbol,
    rename_symbol,
    duplicate_region,
    duplicate_symbol,
    delete_another_symbol,
    reformat,
]
REMOVING: list[Edit] = [delete_region, delete_whole_symbol]


@dataclass(frozen=True)
class Edited:
    """A file before and after, and where the region stood and stands: 1-based, inclusive; None where it was removed."""

    before: str
    region: tuple[int, int]
    after: str
    truth: tuple[int, int] | None


def edited(text: str, seed: int, edits: Sequence[Edit], size: int | None = None) -> Edited:
    """Choose a region of a file at random, and edit the file."""
    rng = random.Random(seed)
    lines = split_lines(text)
    size = min(size or rng.choice(SIZES), len(lines))
    first = rng.randint(1, len(lines) - size + 1)
    last = first + size - 1
    case = Case([Line(line, ours=first <= number <= last) for number, line in enumerate(lines, 1)], rng)
    for edit in edits:
        if any(line.ours for line in case.lines):
            edit(case)
    at = [number for number, line in enumerate(case.lines, 1) if line.ours]
    # Only what the region's first and last line are now: an insertion at its very edge is not part of it.
    return Edited("\n".join(lines) + "\n", (first, last), case.text(), (at[0], at[-1]) if at else None)
