"""A page before any engine has seen it: a path and Markdown; and how pages point at each other."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Page:
    """One page of the site, or one file that belongs to it.

    Attributes:
        path: Where it stands below the site's root, with forward slashes (`models/bert.md`).
        text: Its Markdown; for other files than `.md` the content as it is served.
        title: What navigation calls it; empty for files that are no pages.
        meta: Front matter.
        group: The heading that navigation puts it under; empty for none.
    """

    path: str
    text: str
    title: str = ""
    meta: dict[str, str | list[str] | dict[str, bool]] = field(default_factory=dict)
    group: str = ""

    def source(self) -> str:
        """The Markdown file, front matter first."""
        if not self.path.endswith(".md"):
            return self.text
        import yaml

        meta = {"title": self.title, **self.meta} if self.title else self.meta
        front = yaml.safe_dump(meta, allow_unicode=True, sort_keys=False) if meta else ""
        return f"---\n{front}---\n\n{self.text}" if front else self.text


def front_matter(text: str) -> dict[str, Any]:
    """The YAML between the first two `---` lines of a chapter; empty where there is none."""
    if not text.startswith("---\n"):
        return {}
    import yaml

    found: dict[str, Any] = yaml.safe_load(text[4:].partition("\n---")[0]) or {}
    return found


def link(origin: str, target: str) -> str:
    """A relative link between two pages as Markdown files, which every engine (and a forge's file view) follows."""
    path, hash_, fragment = target.partition("#")
    relative = posixpath.relpath(path, posixpath.dirname(origin) or ".") if path else ""
    return f"{relative}{hash_}{fragment}"


def url(origin: str, target: str) -> str:
    """The same link as an address of the built site (directories), for places where engines do not look: SVG and scripts."""
    path, hash_, fragment = target.partition("#")
    relative = posixpath.relpath(_directory(path), _directory(origin))
    relative = "./" if relative == "." else relative if _is_file(path) else f"{relative}/"
    return f"{relative}{hash_}{fragment}"


def _is_file(path: str) -> bool:
    return not path.endswith(".md")


def _directory(path: str) -> str:
    """The directory that a page is served from: `models/bert.md` → `models/bert`, `models/index.md` → `models`."""
    if _is_file(path):
        return path
    stem = path.removesuffix(".md")
    return (posixpath.dirname(stem) if posixpath.basename(stem) == "index" else stem) or "."


def cell(text: str) -> str:
    """Text inside a Markdown table's cell: on one line, its bars escaped."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; empty where there are no rows."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *[[cell(item) for item in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
