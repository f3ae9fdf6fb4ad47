"""Start a note: its anchor as YAML, from lines of a source file; what is to be said is left to its author."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ptmkb.annotations.making import make_anchor
from ptmkb.source import MODULE, model_directory


def draft_note(source_text: str, file: str, first_line: int, last_line: int) -> str:
    """A note's YAML, to be put under `notes:` and filled in.

    Args:
        source_text: the source file's text.
        file: its path in the tree.
        first_line: 1-based.
        last_line: 1-based, inclusive.

    Returns:
        YAML whose anchor resolves to exactly these lines of this text.

    Raises:
        ValueError: if the text has no such lines, or the first or last of them is blank.
    """
    anchor = make_anchor(source_text, first_line, last_line)
    if not anchor.quote[0].strip() or not anchor.quote[-1].strip():
        raise ValueError(f"lines {first_line}-{last_line} begin or end with a blank line; leave it out")
    model = model_directory(file)
    # YAML would take the first line's own indentation for the block's, unless it is told.
    marker = "|2" if anchor.quote[0][0].isspace() else "|"
    lines = [
        f"- id: {_slug(model or PurePosixPath(file).stem, anchor.symbol)}",
        f"  at: {anchor.symbol}",
        f"  quote: {marker}",
    ]
    lines += [f"    {line}".rstrip() for line in anchor.quote]
    if anchor.occurrence is not None:
        lines += [f"  occurrence: {anchor.occurrence}", f"  of: {anchor.of}"]
    elif not anchor.twins:
        lines.append("  alone: true")
    lines.append('  papers: [{paper: "", at: ""}]')
    if model is not None:
        lines.append(f"  models: [{model}]")
    lines += ['  title: {en: "", zh: ""}', "  text:", "    en: |", "      ", "    zh: |", "      "]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _slug(prefix: str, symbol: str) -> str:
    name = "" if symbol == MODULE else symbol.split(".")[-1]
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", f"{prefix} {name}".replace("_", " "))
    return "-".join(word.lower() for word in words)
