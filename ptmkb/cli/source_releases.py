"""`ptmkb source history|releases`: what the released wheels answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptmkb.cli.state import FAILS, Format, FormatOption, print_json, print_table, refuse

if TYPE_CHECKING:
    from ptmkb.source import SourceTree
    from ptmkb.source.history import Step

WheelsFrom = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="VERSION",
        help="Oldest release; by default the first of the installed major version.",
    ),
]
WheelsTo = Annotated[
    str | None, typer.Option("--to", metavar="VERSION", help="Newest release; by default the installed one.")
]
Patches = Annotated[
    bool,
    typer.Option(
        "--patches", help="Every release of the range; without it, the first of each minor version."
    ),
]


def history(
    symbol: Annotated[str, typer.Argument(help="Qualified name, such as BertSelfAttention.forward.")],
    first: WheelsFrom = None,
    last: WheelsTo = None,
    patches: Patches = False,
    file: Annotated[str | None, typer.Option(help="The file that defines it, where several do.")] = None,
    diffs: Annotated[bool, typer.Option("--diffs/--no-diffs", help="With the diff of each change.")] = True,
    format_: FormatOption = Format.table,
) -> None:
    """Show in which releases a symbol's text changed. Wheels are downloaded by pip once and kept. Exit code 1: not everything could be read."""
    from ptmkb.source.history import symbol_history

    versions = chosen_releases(first, last, patches)
    with opening(versions) as open_release:
        steps = list(symbol_history(symbol, versions, file, open_release=open_release))
    if format_ is Format.json:
        print_json({"symbol": symbol, "releases": [asdict(step) for step in steps]})
    else:
        rows = [[*span, step.status, _place(step), _size(step.diff)] for span, step in _spans(steps)]
        print_table(
            f"{symbol} from {versions[0]} to {versions[-1]}", ["release", "to", "", "at", "lines"], rows
        )
        for step in steps if diffs else []:
            if step.diff:
                sys.stdout.write(step.diff + "\n")
    troubled = [step for step in steps if step.why]
    for step in troubled:
        sys.stderr.write(f"ptmkb: {step.version}: {step.why}\n")
    if any(step.status == "unclear" for step in troubled):
        sys.stderr.write("ptmkb: choose the file with --file\n")
    if not any(step.file for step in steps):
        sys.stderr.write(f"ptmkb: none of these releases is known to define {symbol}\n")
        raise SystemExit(FAILS)
    if troubled:
        raise SystemExit(FAILS)


def releases(
    first: WheelsFrom = None,
    last: WheelsTo = None,
    patches: Patches = False,
    format_: FormatOption = Format.table,
) -> None:
    """List the releases that are kept as wheels, and which model directories each brought; with --from or --to, download them first.

    The names that each defines are read once, so that `ptmkb source show` can say which release first had a symbol.
    """
    from ptmkb.source import SourceError, find_tree
    from ptmkb.source.origins import read_names
    from ptmkb.source.releases import kept_releases, model_directories

    failed = False
    if first or last:
        versions = chosen_releases(first, last, patches)
        with opening(versions) as open_release:
            for version in versions:
                try:
                    open_release(version)
                except SourceError as error:
                    failed = True
                    sys.stderr.write(f"ptmkb: {error}\n")
    try:
        read_names(_reading)
    except OSError as error:
        refuse(
            f"what releases define cannot be kept: {error}; set PTMKB_CACHE to a folder that can be written"
        )
    listed: list[dict[str, Any]] = []
    before: set[str] | None = None
    for version, path in kept_releases().items():
        directories = set(model_directories(find_tree(path)))
        listed.append(
            {
                "version": version,
                "wheel": str(path),
                "models": len(directories),
                "new": sorted(directories - before) if before is not None else None,
                "gone": sorted(before - directories) if before is not None else None,
            }
        )
        before = directories
    if format_ is Format.json:
        print_json({"releases": listed})
    else:
        rows = [
            [
                one["version"],
                str(one["models"]),
                "(the oldest kept)" if one["new"] is None else ", ".join(one["new"]),
                ", ".join(one["gone"] or ()),
            ]
            for one in listed
        ]
        print_table(
            f"{len(rows)} releases kept", ["release", "models", "new since the one before", "gone"], rows
        )
    if failed:
        raise SystemExit(FAILS)


def _reading(version: str, new: int, files: int) -> None:
    sys.stderr.write(f"reading transformers {version}: {new:,} of its {files:,} files are new\n")


@contextmanager
def opening(versions: list[str]) -> Iterator[Callable[[str], SourceTree]]:
    """Opens releases, and says which is being downloaded."""
    from ptmkb.source import find_tree
    from ptmkb.source.releases import find_release, kept_releases

    missing = set(versions) - kept_releases().keys() - {find_tree().version}
    done = 0

    def opened(version: str) -> SourceTree:
        nonlocal done
        if version in missing:
            done += 1
            sys.stderr.write(f"downloading transformers {version} ({done} of {len(missing)})\n")
        return find_release(version)

    yield opened


def chosen_releases(first: str | None, last: str | None, patches: bool) -> list[str]:
    """The releases that a command is about."""
    from ptmkb.source import find_tree
    from ptmkb.source.releases import (
        ReleaseUnavailableError,
        is_release,
        kept_releases,
        published_releases,
        releases_between,
    )

    for version in (first, last):
        if version is not None and not is_release(version):
            refuse(f"{version!r} is no release; name one like 5.0.0")
    installed = find_tree().version
    upper = last or installed
    lower = first or f"{upper.partition('.')[0]}.0.0"
    wanted = [version for version in (first, upper) if version and is_release(version)]
    try:
        published = published_releases(wanted)
    except ReleaseUnavailableError as error:
        sys.stderr.write(f"ptmkb: {error}; using the releases at hand\n")
        published = [*kept_releases(), installed]
    known = sorted({*published, *wanted})
    versions = releases_between([one for one in known if is_release(one)], lower, upper, patches=patches)
    if not versions:
        refuse(f"there is no release from {lower} to {upper}")
    return versions


def _spans(steps: list[Step]) -> Iterator[tuple[list[str], Step]]:
    """Releases in which nothing happened are told as one row."""
    start = 0
    while start < len(steps):
        end = start
        quiet = steps[start].status in ("same", "absent")
        while quiet and end + 1 < len(steps) and steps[end + 1].status == steps[start].status:
            end += 1
        yield [steps[start].version, steps[end].version if end > start else ""], steps[end]
        start = end + 1


def _place(step: Step) -> str:
    if not step.file:
        return ""
    moved = f" (was in {step.before})" if step.before else ""
    return f"{step.file}:{step.first_line}-{step.last_line}{moved}"


def _size(diff: str) -> str:
    if not diff:
        return ""
    body = diff.splitlines()[2:]
    return f"+{sum(line.startswith('+') for line in body)} -{sum(line.startswith('-') for line in body)}"
