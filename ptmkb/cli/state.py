"""What every command shares: where the data is, how results are printed, how trouble ends."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from ptmkb.catalogue import Catalogue, ClaimReader

HOLDS, FAILS, USAGE = 0, 1, 2


@dataclass(frozen=True)
class State:
    """The command's global options (`typer.Context.obj`).

    Attributes:
        catalogue_dir: Another catalogue, None for the package's own.
        annotations_dir: Other notes, None for the package's own.
    """

    catalogue_dir: Path | None = None
    annotations_dir: Path | None = None

    def load_catalogue(self) -> Catalogue:
        """The catalogue that the command works on.

        Raises:
            CatalogueError: It breaks the schema.
        """
        from ptmkb.catalogue import DATA, load_catalogue

        return load_catalogue(self.catalogue_dir or DATA)


def state_of(ctx: typer.Context) -> State:
    """The global options; the defaults where a group of commands is run by itself."""
    return ctx.obj if isinstance(ctx.obj, State) else State()


class Format(StrEnum):
    """How a listing is written."""

    table = "table"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format")]


class LanguageOption(StrEnum):
    """A language of texts."""

    en = "en"
    zh = "zh"

    @property
    def code(self) -> Literal["en", "zh"]:
        """As the other rooms call it."""
        return "zh" if self is LanguageOption.zh else "en"


def claim_readers() -> Mapping[str, ClaimReader]:
    """The reader of claimed values of every measure, for `catalogue.check`."""
    from ptmkb.probe.measures import load_measure, measure_names

    return {name: load_measure(name).parse for name in measure_names()}


def docs_directory() -> Path | None:
    """The hand-written chapters, a folder a language; an installed package has none."""
    from ptmkb.site.building import SiteError, project_root

    try:
        return project_root() / "docs"
    except SiteError:
        return None


def to_json(data: object) -> str:
    """JSON as it is printed and written, with its last line end."""
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


def print_json(data: object) -> None:
    """JSON for programs, UTF-8, one object."""
    sys.stdout.write(to_json(data))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people: fitted to the terminal, plain where there is none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False, highlight=False)
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def refuse(message: str) -> NoReturn:
    """End with exit code 2: the command was called wrongly."""
    sys.stderr.write(f"ptmkb: {message}\n")
    raise SystemExit(USAGE)


def needs_torch(what: str) -> None:
    """End with exit code 2 where torch is not installed; `what` says what wants it, such as "probes run models"."""
    if find_spec("torch") is None:
        refuse(f"{what}, which needs torch: pip install 'ptmkb[probe]'")


def suggestion(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name that is not known, as the end of a message; empty where nothing is near."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(f'`{found}`' for found in close)}?" if close else ""


def run(app: Callable[[], Any]) -> None:
    """Run the command and turn what a person can mend into a line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character gets its escape
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        sys.stderr.write("ptmkb: stopped\n")
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        sys.stderr.write(f"ptmkb: {error.filename or 'output'}: {error.strerror}\n")
        raise SystemExit(FAILS) from None
    except Exception as error:
        problems = getattr(error, "problems", None)
        if problems is None:
            raise
        for problem in problems:
            sys.stderr.write(f"{problem}\n")
        raise SystemExit(FAILS) from None
