"""Weave notes into a copy of the source that they speak of, as comments before their lines.

The copy is the same program: every comment stands between two statements, and the syntax trees of both texts are compared before anything
is handed out. Where the notes' lines stand is `resolve_notes`'s answer; what is not placed there is not woven.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ptmkb.annotations.notes import Language, ResolvedNote, by_file, in_language
from ptmkb.annotations.resolution import Status
from ptmkb.source import SourceTree
from ptmkb.source.module import NEWLINE, Definition, ended_lines, parse_with_nodes, syntax_tree

WIDTH = 100
"""Columns of a comment without its indentation; a Chinese character takes two."""

COOKIE_LINES = 2
"""A comment on one of the first lines of a file can declare its encoding by accident ("encoding: rotary"), so none is put there."""

_WORDS = {
    "en": {
        "note": "note",
        "end": "end of note",
        "papers": "Papers",
        "models": "Models",
        "changed": "These lines have changed since the note was written.",
        "notice": "Modified copy: the comments between [note …] and [end of note] were added by ptmkb (notes: CC BY 4.0). "
        "The code is that of transformers {version}, unchanged.",
    },
    "zh": {
        "note": "批注",
        "end": "批注完",
        "papers": "论文",
        "models": "模型",
        "changed": "批注写成后，这几行已有改动。",
        "notice": "本文件已修改：[批注 …] 与 [批注完] 之间的注释由 ptmkb 添加（批注采用 CC BY 4.0 许可）；代码仍是 transformers {version} 的原样。",
    },
}
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s")
_MARK = re.compile(r"\s*(?:[-*+]|\d+[.)])?\s*")
_WIDE = "\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6"
_PIECE = re.compile(rf"\s+|[{_WIDE}]|[^\s{_WIDE}]+")
_NOT_FIRST = "，。、；：？！）】》」』”’…"
"""Punctuation that no line begins with."""

NUL = "\0"

_LAYOUT = frozenset(
    (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER)
)


class WeaveError(ValueError):
    """A text cannot be woven into; the message says why."""


@dataclass(frozen=True, slots=True)
class Comment:
    """What is to be said at a line.

    Attributes:
        line: 1-based.
        text: lines of the comment, without `#`.
    """

    line: int
    text: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WovenFile:
    """A source file with its notes.

    Attributes:
        file: its path in the tree.
        data: the copy, in the file's own encoding and with its own line ends.
        woven: ids of the notes in it, top to bottom.
        left_out: ids of the notes that found no place in this release.
    """

    file: str
    data: bytes
    woven: tuple[str, ...]
    left_out: tuple[str, ...]


def weave(source_text: str, comments: Iterable[Comment], notice: str = "") -> str:
    """Put comments before the statements that hold their lines.

    Between the lines of one statement (a call over several lines, a string, a continued line) and between a decorator and what it decorates
    nothing is put: such a comment goes before the statement. Nor is anything put into the comments at the file's head, which are its licence.

    Args:
        source_text: valid Python.
        comments: in any order; those of one line keep theirs.
        notice: one line to be put below the file's head.

    Returns:
        The text with comments, its line ends kept; its syntax tree is that of `source_text`.

    Raises:
        WeaveError: if the text is not valid Python, or a line is not in it.
    """
    mark = source_text[: len(source_text) - len(source_text.removeprefix("\ufeff"))]
    source_text = source_text.removeprefix(mark)
    lines = ended_lines(source_text)
    module, tree, definitions = parse_with_nodes(source_text)
    if module.error:
        raise WeaveError(f"this is not valid Python: {module.error}")
    homes = _homes(source_text, definitions, len(lines))
    newline = next((end for end in ("\r\n", "\n", "\r") if lines and lines[0].endswith(end)), "\n")
    head = _head(lines)
    before: dict[int, list[str]] = {}
    if notice:
        before[head + 1] = [f"{line}\n" for line in _commented(_wrapped(notice), "")]
    for comment in sorted(comments, key=lambda one: one.line):
        if not 1 <= comment.line <= len(lines):
            raise WeaveError(f"line {comment.line} is not in this text, which has lines 1-{len(lines)}")
        home = max(homes.get(comment.line, comment.line), head + 1)
        statement = lines[home - 1] if home <= len(lines) else ""
        indent = statement[: len(statement) - len(statement.lstrip(" \t"))]
        before.setdefault(home, []).extend(f"{line}\n" for line in _commented(comment.text, indent))
    if (first := min(before, default=COOKIE_LINES + 1)) <= COOKIE_LINES:
        before[first] = ["#\n"] * COOKIE_LINES + before[first]
    woven: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        if number in before and woven and not woven[-1].endswith(("\r", "\n")):
            woven.append(newline)
        woven += [comment.replace("\n", newline) for comment in before.get(number, ())]
        woven.append(line)
    result = "".join(woven)
    if not is_same_program(syntax_tree(result), tree):
        raise WeaveError("the comments would change the program; this is an error of ptmkb, please report it")
    return mark + result


def weave_notes(
    resolved: Iterable[ResolvedNote],
    tree: SourceTree,
    language: Language = "en",
    papers: Mapping[str, str] | None = None,
) -> list[WovenFile]:
    """Weave notes into copies of the files that they are on.

    Args:
        resolved: notes and where they stand in `tree`.
        tree: the release.
        language: of the comments.
        papers: how a paper is named, by its id; by default with its id.

    Returns:
        One copy a file, in the order of the files; files that no note has a place in are left out.

    Raises:
        WeaveError: if a file is not valid Python.
    """
    resolved = list(resolved)
    lost = [one.note for one in resolved if one.resolution.first_line is None]
    woven = []
    for file, placed in by_file(resolved).items():
        comments = [
            Comment(one.resolution.first_line or 0, tuple(_said(one, language, papers or {})))
            for one in placed
        ]
        source = tree.read_bytes(file)
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
            text = weave(
                source.decode(encoding), comments, _WORDS[language]["notice"].format(version=tree.version)
            )
        except (SyntaxError, UnicodeDecodeError, WeaveError) as error:
            raise WeaveError(f"{file}: {error}") from error
        # A character that the file's encoding lacks becomes its escape: this is a comment.
        data = text.encode(encoding, errors="backslashreplace")
        # Where these bytes are not just that text, which `weave` has compared, they are compared themselves.
        read_as, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        is_text = read_as == encoding and data.decode(encoding) == text
        if not is_text and not is_same_program(syntax_tree(data), syntax_tree(source)):
            raise WeaveError(f"{file}: the comments would change the program; please report it")
        left_out = tuple(note.id for note in lost if note.file == file)
        woven.append(WovenFile(file, data, tuple(one.note.id for one in placed), left_out))
    return woven


def _said(one: ResolvedNote, language: Language, papers: Mapping[str, str]) -> list[str]:
    """A note as lines of a comment."""
    note, words = one.note, _WORDS[language]
    title = in_language(note.title, language)
    lines = [
        *_wrapped(f"[{words['note']} {note.id}] {title}"),
        "",
        *_flowed(in_language(note.text, language)),
    ]
    colon, comma = ("：", "；") if language == "zh" else (": ", "; ")
    foot = []
    if note.papers:
        cited = [f"{papers.get(citation.paper, citation.paper)}, {citation.at}" for citation in note.papers]
        foot += _wrapped(words["papers"] + colon + comma.join(cited))
    if note.models:
        foot += _wrapped(words["models"] + colon + ", ".join(note.models))
    if one.resolution.status is Status.changed:
        foot.append(words["changed"])
    return [*lines, *(["", *foot] if foot else []), f"[{words['end']}]"]


def _commented(lines: Iterable[str], indent: str) -> list[str]:
    """Lines as comments; what Python or an editor takes for a line's end, or for the text's, cannot end one."""
    return [f"{indent}# {' '.join(line.replace(NUL, '').splitlines())}".rstrip() for line in lines]


def _flowed(text: str) -> list[str]:
    """Markdown with its paragraphs and lists wrapped anew; code and tables stay as they are."""
    rows: list[str] = []
    paragraph = ""
    fenced = False
    for line in [*text.strip().splitlines(), ""]:
        bare = line.strip()
        is_fence = bare.startswith("```")
        verbatim = (
            fenced or is_fence or bare.startswith(("|", "$$")) or (line.startswith("    ") and not paragraph)
        )
        if paragraph and (not bare or verbatim or _ITEM.match(line)):
            rows += _wrapped(paragraph)
            paragraph = ""
        if verbatim or not bare:
            rows.append(line.rstrip())
        else:
            paragraph = f"{paragraph} {bare}" if paragraph else line.rstrip()
        fenced ^= is_fence
    return rows[:-1]


def _wrapped(line: str) -> list[str]:
    """A line of Markdown at most `WIDTH` columns wide; what follows hangs below the text of a list's item."""
    match = _MARK.match(line)
    hang = " " * len(match[0]) if match else ""
    rows, row, width = [], "", 0
    for piece in _PIECE.findall(line):
        columns = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in piece)
        if row.strip() and width + columns > WIDTH and not piece.isspace() and piece not in _NOT_FIRST:
            rows.append(row.rstrip())
            row, width = hang, len(hang)
        row += piece
        width += columns
    return [*rows, row.rstrip()]


def _homes(text: str, definitions: Iterable[Definition], count: int) -> dict[int, int]:
    """For each line where a comment cannot stand: the line of the statement, or of its first decorator, before which it can."""
    homes: dict[int, int] = {}
    start: int | None = None
    try:
        # Line ends are made one kind, as Python itself does before it reads tokens.
        unix = io.StringIO(NEWLINE.sub("\n", text))
        for token in tokenize.generate_tokens(unix.readline):
            if token.type == tokenize.NEWLINE and start is not None:
                homes.update(dict.fromkeys(range(start + 1, token.start[0] + 1), start))
                start = None
            elif token.type not in _LAYOUT and start is None:
                start = token.start[0]
    except (tokenize.TokenError, SyntaxError, ValueError) as error:
        raise WeaveError(f"this is not valid Python: {error}") from error
    for node in definitions:
        if node.decorator_list:
            first = homes.get(node.decorator_list[0].lineno, node.decorator_list[0].lineno)
            # The header, too, may go over several lines; what follows it begins a statement of its own.
            header = list(range(first + 1, node.lineno + 1))
            header += [line for line, home in homes.items() if home == node.lineno]
            homes.update(dict.fromkeys(header, first))
    return {line: home for line, home in homes.items() if line <= count}


def _head(lines: list[str]) -> int:
    """How many lines the comments at the beginning of a file take: its licence, a shebang, an encoding."""
    last = 0
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix("\ufeff").strip()
        if content.startswith("#"):
            last = number
        elif content:
            break
    return last


def is_same_program(one: ast.AST, other: ast.AST) -> bool:
    """Whether two syntax trees are equal, but for where in the text their nodes stand."""
    pairs: list[tuple[object, object]] = [(one, other)]
    while pairs:
        left, right = pairs.pop()
        if type(left) is not type(right):
            return False
        if isinstance(left, ast.AST):
            pairs += [(getattr(left, name, None), getattr(right, name, None)) for name in left._fields]
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            pairs += zip(left, right, strict=True)
        elif left != right:
            return False
    return True
