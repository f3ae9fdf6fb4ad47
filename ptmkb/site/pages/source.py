"""Annotated source files: each note stands level with the very lines it speaks of; long stretches without notes are folded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from ptmkb.annotations import ResolvedNote
from ptmkb.site import coverage
from ptmkb.site.knowledge import Knowledge
from ptmkb.site.page import Page, link, table
from ptmkb.site.tours import Tour
from ptmkb.source import Module, split_lines

ORDER = 45
SECTION = "nav.source"

FOLD_FROM = 25  # lines: a shorter stretch without notes is shown, a longer one folded to a line that names its symbols
CONTEXT = 4  # lines shown after a note's last line, and before the next note's first
DOUBTFUL = 0.5  # score of a `changed` place up to which it may well be another one
NAMED = 6  # symbols that a fold names
_CODE = re.compile(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`")
_UPSTREAM = "https://github.com/huggingface/transformers/blob/v{version}/src/transformers/{file}"


def pages(knowledge: Knowledge) -> Iterator[Page]:
    """The list of annotated files, then the files."""
    files = knowledge.notes_by_file if knowledge.tree else {}
    yield Page("source/index.md", _list(files, knowledge), knowledge.word("source.title"))
    yield coverage.page(knowledge)
    for file, notes in files.items():
        path = source_page(file)
        meta: dict[str, str | list[str] | dict[str, bool]] = {"hide": ["navigation", "toc"]}
        yield Page(path, _file(file, notes, path, knowledge), file, meta)


def source_page(file: str) -> str:
    """The page that shows a source file: `models/bert/modeling_bert.py` → `source/models/bert/modeling_bert.md`."""
    return f"source/{file.removesuffix('.py')}.md"


def _list(files: dict[str, list[ResolvedNote]], kb: Knowledge) -> str:
    version = kb.tree.version if kb.tree else "—"
    parts = [f"# {kb.word('source.title')}", kb.word("source.lead", version=version)]
    parts.append(f"[{kb.word('coverage.title')}]({link('source/index.md', coverage.PATH)})")
    rows = [
        [
            f"[`{file}`]({link('source/index.md', source_page(file))})",
            str(len(notes)),
            str(_line_count(file, kb)),
        ]
        for file, notes in files.items()
    ]
    parts.append(table([kb.word(f"source.{key}") for key in ("file", "notes", "lines")], rows))
    for file, notes in files.items():
        items = "\n".join(
            f"- [{kb.text(r.note.title)}]({link('source/index.md', f'{source_page(file)}#{r.note.id}')})"
            for r in notes
        )
        parts.append(f"### `{file}`\n\n{items}")
    return "\n\n".join(parts) + "\n"


def _line_count(file: str, kb: Knowledge) -> int:
    return len(split_lines(kb.tree.read(file))) if kb.tree else 0


@dataclass(frozen=True)
class Stretch:
    """Consecutive lines and the notes that begin at the first of them (1-based, inclusive)."""

    first: int
    last: int
    notes: tuple[ResolvedNote, ...]


def stretches(notes: list[ResolvedNote], lines: int) -> list[Stretch]:
    """Cut a file where notes begin, so that each note is level with its lines.

    Args:
        notes: The notes of one file.
        lines: How many lines the file has.

    Returns:
        Stretches that cover the file once, in order.
    """
    at: dict[int, list[ResolvedNote]] = {}
    for resolved in notes:
        if resolved.resolution.first_line:
            at.setdefault(resolved.resolution.first_line, []).append(resolved)
    starts = sorted({1, *at})
    ends = [start - 1 for start in starts[1:]] + [lines]
    return [Stretch(a, b, tuple(at.get(a, ()))) for a, b in zip(starts, ends, strict=True) if b >= a]


def _file(file: str, notes: list[ResolvedNote], path: str, kb: Knowledge) -> str:
    if kb.tree is None:  # pages() yields no files then
        raise ValueError(file)
    upstream = _UPSTREAM.format(version=kb.tree.version, file=file)
    html = _highlighted(kb.tree.read(file))
    placed = [r for r in notes if r.resolution.first_line]
    lost = [r for r in notes if not r.resolution.first_line]
    marked = {
        line
        for r in placed
        for line in range(r.resolution.first_line or 0, (r.resolution.last_line or 0) + 1)
    }
    parts = [f"# `{file}`", kb.word("source.licence", version=kb.tree.version, upstream=upstream)]
    index = " · ".join(f"[{kb.text(r.note.title)}](#{r.note.id})" for r in placed)
    parts.append(f'<div class="kb-note-index" markdown>\n{index}\n</div>')
    if lost:
        parts.append(kb.word("source.lost") + "\n\n" + "\n\n".join(_note(r, lost, path, kb) for r in lost))
    parts.append('<div class="kb-source" markdown>')
    code = _Code(html, marked, kb.tree.module(file), upstream, kb)
    for stretch in stretches(notes, len(html)):
        near, rest = code.beside(stretch), code.below(stretch)
        body = "\n\n".join(_note(r, placed, path, kb) for r in stretch.notes)
        beside = f'{near}\n<div class="kb-notes" markdown>\n\n{body}\n\n</div>' if stretch.notes else ""
        kind = "kb-row" if stretch.notes else "kb-row kb-row-bare"
        parts.append(f'<div class="{kind}" markdown>\n{beside}\n{rest}\n</div>')
    parts.append(_tour_bar(len(placed), kb))
    parts.append("</div>")
    return "\n\n".join(parts) + "\n"


def _tour_bar(count: int, kb: Knowledge) -> str:
    """Which note is being read, and the ways on; it needs the page's script, which shows it."""
    previous, following = escape(kb.word("source.previous")), escape(kb.word("source.next"))
    return (
        f'<div class="kb-tour" data-label="{escape(kb.word("source.tour", k="{k}", n=count))}" hidden>'
        f'<button type="button" title="{previous} (p)" aria-label="{previous}">←</button>'
        '<span aria-live="polite"></span>'
        f'<button type="button" title="{following} (n)" aria-label="{following}">→</button>'
        f'<label><input type="checkbox"> {kb.word("source.only")}</label></div>'
    )


def _highlighted(text: str) -> list[str]:
    """The file's lines as HTML; no span crosses a line's end."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    lexer = PythonLexer(stripnl=False, ensurenl=False)
    html = highlight(text, lexer, HtmlFormatter(nowrap=True)).rstrip("\n").split("\n")
    return [str(line) for line in html]


@dataclass(frozen=True)
class _Code:
    """The code column of one file.

    Attributes:
        html: The file's lines.
        marked: Which of them a note speaks of.
        module: The file's symbols, to name what is folded.
        upstream: The file's address at its origin.
        kb: For words.
    """

    html: list[str]
    marked: set[int]
    module: Module
    upstream: str
    kb: Knowledge

    def beside(self, stretch: Stretch) -> str:
        """The lines that the notes of a stretch speak of; on a phone the notes come right below them."""
        last = self._last_noted(stretch)
        return f'<div class="kb-file kb-near">{self._block(stretch.first, last)}</div>'

    def below(self, stretch: Stretch) -> str:
        """The rest of a stretch: its middle is folded where it is long, and goes where only annotated parts are shown."""
        begin = self._last_noted(stretch) + 1
        shown_to = min(stretch.last, begin - 1 + CONTEXT) if stretch.notes else begin - 1
        shown_from = max(shown_to + 1, stretch.last - CONTEXT + 1)
        parts = [self._block(begin, shown_to), self._middle(shown_to + 1, shown_from - 1)]
        parts.append(self._block(shown_from, stretch.last))
        code = "".join(parts)
        return f'<div class="kb-file kb-rest">{code}</div>' if code else ""

    def _last_noted(self, stretch: Stretch) -> int:
        noted = (n for n in range(stretch.first, stretch.last + 1) if n in self.marked)
        return max(noted, default=stretch.first - 1)

    def _middle(self, first: int, last: int) -> str:
        if last < first:
            return ""
        if last - first + 1 <= FOLD_FROM:
            return f'<div class="kb-between">{self._block(first, last)}</div>'
        upstream = f'<a href="{self.upstream}#L{first}-L{last}">{self.upstream}#L{first}-L{last}</a>'
        # What is folded is text until the page's script needs it: a file of 4,000 lines would be 32,000 elements.
        return (
            f'<div class="kb-between"><details class="kb-fold" data-first="{first}" data-last="{last}">'
            f"<summary>{self._folded(first, last)}</summary>"
            f'<script type="text/x-folded" data-upstream="{self.upstream}">{self._block(first, last, linked=False)}</script>'
            f"<noscript>{upstream}</noscript></details></div>"
        )

    def _folded(self, first: int, last: int) -> str:
        names = [
            symbol.name
            for symbol in self.module.symbols
            if first <= symbol.first_line <= last and (symbol.kind == "class" or "." not in symbol.name)
        ]
        shown = ", ".join(f"<code>{escape(name)}</code>" for name in names[:NAMED])
        return f"{self.kb.word('source.folded', count=last - first + 1)} {shown}" + (
            " …" if len(names) > NAMED else ""
        )

    def _block(self, first: int, last: int, *, linked: bool = True) -> str:
        if last < first:
            return ""

        def number(n: int) -> str:
            return f'<a href="{self.upstream}#L{n}" tabindex="-1">{n}</a>' if linked else f"<a>{n}</a>"

        rows = "".join(  # each line is a block: a line feed between them would be a line of its own
            f'<span class="{"kb-line kb-marked" if n in self.marked else "kb-line"}" id="L{n}">'
            f"{number(n)}{self.html[n - 1]}</span>"
            for n in range(first, last + 1)
        )
        return f'<pre class="highlight kb-code" data-search-exclude>{rows}</pre>'


def _note(resolved: ResolvedNote, tour: list[ResolvedNote], path: str, kb: Knowledge) -> str:
    note, resolution = resolved.note, resolved.resolution
    heading = f"### {kb.text(note.title)} {{ #{note.id} }}"
    lines = [
        '<summary markdown="block">',
        "",
        heading,
        "",
        "</summary>",
        "",
        _linked(kb.text(note.text).strip(), path, kb),
    ]
    papers = [kb.citation(path, citation) for citation in note.papers]
    models = [kb.model_link(path, model) for model in note.models]
    foot = []
    if resolution.first_line and resolution.last_line:
        single = resolution.first_line == resolution.last_line
        key = "source.line" if single else "source.span"
        foot.append(kb.word(key, first=resolution.first_line, last=resolution.last_line))
    foot += [*papers, *models]
    if note.check:
        foot.append(f'<span class="kb-verdict kb-verified">{kb.word("source.proved")}</span>')
    if resolution.status == "changed":
        verdict, key = (
            ("kb-refuted", "source.doubtful")
            if resolution.score <= DOUBTFUL
            else ("kb-discrepancy", "source.changed")
        )
        foot.append(f'<span class="kb-verdict {verdict}">{kb.word(key)}</span>')
    lines += ["", f'<p class="kb-note-foot" markdown>{" · ".join(foot)}</p>']
    if note.check:
        code = note.check.rstrip().replace("\n", "\n    ")
        lines += [
            "",
            f'??? example "{kb.word("source.check")}"',
            "",
            "    ```python",
            f"    {code}",
            "    ```",
        ]
    if related := kb.related(note.id):
        named = [f"[{kb.text(r.note.title)}]({_note_link(path, r)})" for r in related]
        lines += ["", f'<p class="kb-note-foot" markdown>{kb.word("source.see")} {" · ".join(named)}</p>']
    lines += [
        line for passing in kb.tours.through(note.id) for line in ("", _passing(passing, note.id, path, kb))
    ]
    i = tour.index(resolved)
    steps = []
    if i > 0:
        steps.append(f"[← {kb.word('source.previous')}](#{tour[i - 1].note.id})")
    if i + 1 < len(tour):
        steps.append(f"[{kb.word('source.next')} →](#{tour[i + 1].note.id})")
    if steps:
        lines += ["", f'<p class="kb-steps" markdown>{" · ".join(steps)}</p>']
    # Open as it is served: the page's script folds it on a phone, where it is one.
    return '<details class="kb-note" open markdown>\n' + "\n".join(lines) + "\n\n</details>"


def _passing(tour: Tour, note_id: str, path: str, kb: Knowledge) -> str:
    """Where a note stands in the tour of an article, with the ways on."""
    at = tour.stops.index(note_id)
    place = kb.word(
        "source.stop", tour=f"[{tour.title}]({link(path, tour.page)})", k=at + 1, n=len(tour.stops)
    )
    ways = []
    for beside, key in ((at - 1, "source.before"), (at + 1, "source.after")):
        if 0 <= beside < len(tour.stops) and (other := kb.notes_by_id.get(tour.stops[beside])):
            ways.append(kb.word(key, title=f"[{kb.text(other.note.title)}]({_note_link(path, other)})"))
    return f'<p class="kb-note-foot kb-stop" markdown>{" · ".join([place, *ways])}</p>'


def _linked(text: str, path: str, kb: Knowledge) -> str:
    """A note's text, in which the id of another note between backticks leads to that note."""

    def lead(found: re.Match[str]) -> str:
        other = kb.notes_by_id.get(found[1])
        return f"[{kb.text(other.note.title)}]({_note_link(path, other)})" if other else found[0]

    return _CODE.sub(lead, text)


def _note_link(path: str, resolved: ResolvedNote) -> str:
    return link(path, f"{source_page(resolved.note.file)}#{resolved.note.id}")
