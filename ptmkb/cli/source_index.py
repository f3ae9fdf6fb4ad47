"""`ptmkb source index|search|show`: the index of the source, and what it answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptmkb.cli.state import FAILS, Format, FormatOption, print_json, print_table, refuse

if TYPE_CHECKING:
    from ptmkb.source import IndexedSymbol, Link, SourceIndex, SourceTree

LINES_BETWEEN = 500
"""Files between two lines of progress where there is no terminal."""

NAMES_SHOWN = 8
"""How many of those that take from a definition the table names; JSON has them all."""


class Kind(StrEnum):
    """What to look for."""

    module = "module"
    class_ = "class"
    function = "function"
    method = "method"


TreeOption = Annotated[
    str | None,
    typer.Option(
        "--tree",
        metavar="WHERE",
        help="A release (5.0.0), a wheel of transformers, its folder or a checkout; by default the installed one.",
    ),
]


def open_tree(where: str | Path | None) -> SourceTree:
    """The tree that a command reads; ends with exit code 2 where there is none."""
    from ptmkb.source import SourceError, find_tree
    from ptmkb.source.releases import find_release, is_release

    try:
        if where is not None and is_release(str(where)) and not Path(where).exists():
            return find_release(str(where))
        return find_tree(where)
    except SourceError as error:
        refuse(str(error))


def index(
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHERE]", help="A release (5.0.0), a wheel, a folder; by default the installed release."
        ),
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Read every file again.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes at once; by default one a core.")] = None,
    format_: FormatOption = Format.table,
) -> None:
    """Index the source of a release, or bring its index up to date."""
    tree = open_tree(where)
    update = _update(tree, anew=anew, jobs=jobs)
    with _open(tree) as opened:
        counts, errors = opened.counts(), opened.errors()
    if format_ is Format.json:
        print_json(
            {
                "transformers": tree.version,
                "where": str(tree.where),
                "index": str(update.path),
                "read": update.read,
                "removed": update.removed,
                "seconds": round(update.seconds, 3),
                "counts": counts,
                "errors": [{"file": file, "why": why} for file, why in errors],
            }
        )
        return
    told = ", ".join(f"{count:,} {_plural(what, count)}" for what, count in counts.items())
    sys.stdout.write(f"transformers {tree.version}: {told}\n")
    sys.stdout.write(
        f"{update.read:,} files read, {update.removed:,} gone, in {update.seconds:.2f} s: {update.path}\n"
    )
    for file, why in errors:
        sys.stdout.write(f"{file}: not valid Python, symbols found by indentation ({why})\n")


def search(
    words: Annotated[
        list[str], typer.Argument(metavar="WORDS", help='Words or names, such as "rotary embedding".')
    ],
    kind: Annotated[Kind | None, typer.Option(help="Only this kind.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Names at most.")] = 20,
    tree: TreeOption = None,
    format_: FormatOption = Format.table,
) -> None:
    """Find modules, classes, functions and methods by the words in their names and docstrings. Exit code 1: none."""
    source = open_tree(tree)
    with current_index(source) as opened:
        hits = opened.search(" ".join(words), kind=kind.value if kind else None, limit=limit)
    if format_ is Format.json:
        data = [{**asdict(hit.symbol), "definitions": hit.definitions} for hit in hits]
        print_json({"transformers": source.version, "hits": data})
    elif hits:
        rows = []
        for hit in hits:
            symbol = hit.symbol
            others = f" and {hit.definitions - 1} more" if hit.definitions > 1 else ""
            place = f"{symbol.file}:{symbol.first_line}{others}"
            rows.append([symbol.name, symbol.kind, place, str(symbol.taken or ""), symbol.doc])
        print_table(
            f"{len(hits)} names in transformers {source.version}",
            ["name", "kind", "defined at", "taken by", "about"],
            rows,
        )
    if not hits:
        sys.stderr.write(f"ptmkb: nothing in transformers {source.version} is called {' '.join(words)!r}\n")
        raise SystemExit(FAILS)


def show(
    symbol: Annotated[str, typer.Argument(help="Qualified name, such as LlamaAttention.forward.")],
    file: Annotated[str | None, typer.Option(help="The file that defines it, where several do.")] = None,
    tree: TreeOption = None,
    format_: FormatOption = Format.table,
) -> None:
    """Print a symbol's source, and where its code comes from; where several files define it, name them. Exit code 1: none does."""
    source = open_tree(tree)
    if file is not None and file not in source:
        refuse(
            f"transformers {source.version} has no file {file!r}; `ptmkb source files` lists those that it has"
        )
    with current_index(source) as opened:
        found = opened.named(symbol, file)
        if not found:
            near = opened.search(symbol, limit=3)
            hint = f"; there is {', '.join(hit.symbol.name for hit in near)}" if near else ""
            sys.stderr.write(
                f"ptmkb: {file or f'transformers {source.version}'} defines no {symbol!r}{hint}\n"
            )
            raise SystemExit(FAILS)
        shown = _chosen(opened, found)
        is_json = format_ is Format.json
        first = _first_releases(source, found if is_json else shown)
        lines = source.lines(shown[0].file) if shown else []
        if is_json:
            definitions = [
                _described(
                    opened,
                    one,
                    first.get((one.file, one.name)),
                    "\n".join(lines[one.first_line - 1 : one.last_line]) + "\n" if one in shown else None,
                )
                for one in found
            ]
            print_json({"transformers": source.version, "symbol": symbol, "definitions": definitions})
            return
        for one in shown or found:
            sys.stdout.write(f"{one.file}:{one.first_line}-{one.last_line}  {one.kind}{_taken(one)}\n")
            if shown:
                _print_origin(opened, one, first.get((one.file, one.name)))
        for one in shown:
            for number in range(one.first_line, min(one.last_line, len(lines)) + 1):
                sys.stdout.write(f"{number:6}  {lines[number - 1]}".rstrip() + "\n")
    if not shown:
        sys.stderr.write(f"ptmkb: {symbol} is defined in several files; choose one with --file\n")


@contextmanager
def current_index(tree: SourceTree) -> Iterator[SourceIndex]:
    """The index of a tree, made or brought up to date first where that is needed."""
    from ptmkb.source import IndexUnavailableError, SourceIndex

    opened = None
    try:
        opened = SourceIndex(tree)
        if not opened.is_current():
            opened.close()
            opened = None
    except IndexUnavailableError:
        pass
    if opened is None:
        _update(tree)
        opened = _open(tree)
    with opened:
        yield opened


def _open(tree: SourceTree) -> SourceIndex:
    from ptmkb.source import IndexUnavailableError, SourceIndex

    try:
        return SourceIndex(tree)
    except IndexUnavailableError as error:
        refuse(str(error))


def _update(tree: SourceTree, *, anew: bool = False, jobs: int | None = None) -> Any:
    from ptmkb.source import SourceError, update_index

    try:
        with _progress(f"indexing transformers {tree.version}") as report:
            return update_index(tree, anew=anew, jobs=jobs, on_progress=report)
    except SourceError as error:
        sys.stderr.write(f"ptmkb: {error}\n")
        raise SystemExit(FAILS) from None
    except OSError as error:
        refuse(f"the index cannot be written: {error}; set PTMKB_CACHE to a folder that can")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, plain lines elsewhere, on the error stream; nothing where all is done at once."""
    if not sys.stderr.isatty():
        told = 0

        def line(done: int, total: int) -> None:
            nonlocal told
            if done - told >= LINES_BETWEEN:
                told = done
                sys.stderr.write(f"{what}: {done} of {total} files\n")

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _chosen(opened: SourceIndex, found: list[IndexedSymbol]) -> list[IndexedSymbol]:
    """The definitions that are shown: those in the one file that there is, or in the one that the others generate; else none."""
    files = {one.file for one in found}
    generated = {
        one.file
        for one in found
        if any(
            link.kind == "generated" and link.target_file in files
            for link in opened.links_from(one.file, one.name)
        )
    }
    if len(files) > 1 and len(generated) == 1 and len(files) == 2:
        files = generated
    return [one for one in found if one.file in files] if len(files) == 1 else []


def _described(
    opened: SourceIndex, one: IndexedSymbol, first_release: dict[str, Any] | None, text: str | None
) -> dict[str, Any]:
    data = asdict(one)
    data["comes_from"] = [_origin(link) for link in opened.links_from(one.file, one.name)]
    data["taken_by"] = [
        {"file": link.file, "line": link.line, "symbol": link.symbol, "kind": link.kind}
        for link in opened.links_to(one.file, one.name)
    ]
    data["first_release"] = first_release
    if text is not None:
        data["text"] = text
    return data


def _origin(link: Link) -> dict[str, Any]:
    return {
        "kind": link.kind,
        "target": link.target,
        "file": link.target_file or None,
        "symbol": link.target_symbol or None,
        "line": link.line,
        "note": link.note,
    }


def _first_releases(
    source: SourceTree, found: Iterable[IndexedSymbol]
) -> dict[tuple[str, str], dict[str, Any]]:
    """By file and name: of the symbol itself where names were read from releases, else of its model's directory."""
    from ptmkb.source import model_directory
    from ptmkb.source.origins import origins
    from ptmkb.source.releases import first_seen

    places = {(one.file, one.name): one.kind for one in found}
    symbols = origins(source, [place for place, kind in places.items() if kind != "module"])
    homes = {place: model_directory(place[0]) for place in places.keys() - symbols.keys()}
    directories = first_seen(home for home in homes.values() if home is not None)
    told = {place: {"symbol": place[1], **asdict(seen), "says": str(seen)} for place, seen in symbols.items()}
    for place, home in homes.items():
        if home is not None and (seen := directories.get(home)):
            told[place] = {"directory": home, **asdict(seen), "says": str(seen)}
    return told


def _print_origin(opened: SourceIndex, one: IndexedSymbol, first: dict[str, Any] | None) -> None:
    for link in opened.links_from(one.file, one.name):
        place = (
            f"{link.target_file} {link.target_symbol}"
            if link.target_file
            else f"{link.target} (not in this release)"
        )
        sys.stdout.write(f"  {link.kind} from {place} {link.note}".rstrip() + "\n")
    takers = opened.links_to(one.file, one.name)
    if takers:
        names = list(dict.fromkeys(link.symbol for link in takers))
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        sys.stdout.write(f"  taken by {', '.join(names[:NAMES_SHOWN])}{more}\n")
    if first:
        what = f"models/{first['directory']}" if "directory" in first else first["symbol"]
        sys.stdout.write(f"  {what} is {first['says']}\n")


def _taken(one: IndexedSymbol) -> str:
    return f", taken {one.taken} times" if one.taken else ""


def _plural(what: str, count: int) -> str:
    if count == 1 or (what.endswith("s") and what != "class"):
        return what
    return what + ("es" if what == "class" else "s")
