"""The `ptmkb` command: one file a group of commands; what a command needs is imported when it runs.

Exit codes: 0 what was asked holds, 1 something does not hold, 2 wrong usage.
"""

from pathlib import Path
from typing import Annotated

import typer

from ptmkb.cli import catalogue, lineage, probe, site, walk
from ptmkb.cli.annotations import app as annotations_app
from ptmkb.cli.new import app as new_app
from ptmkb.cli.source import app as source_app
from ptmkb.cli.state import State, run

app = typer.Typer(
    name="ptmkb",
    help="A knowledge base of pre-trained models: catalogue, lineage, annotated source, probes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    ctx: typer.Context,
    catalogue_dir: Annotated[
        Path | None,
        typer.Option("--catalogue", metavar="DIR", help="Another catalogue than the package's own."),
    ] = None,
    annotations_dir: Annotated[
        Path | None, typer.Option("--annotations", metavar="DIR", help="Other notes than the package's own.")
    ] = None,
) -> None:
    """A knowledge base of pre-trained models: catalogue, lineage, annotated source, probes."""
    ctx.obj = State(catalogue_dir=catalogue_dir, annotations_dir=annotations_dir)


catalogue.register(app)
lineage.register(app)
probe.register(app)
walk.register(app)
app.add_typer(new_app, name="new")
app.add_typer(annotations_app, name="annotations")
app.add_typer(source_app, name="source")
site.register(app)


def main() -> None:
    """Run the command; problems with the data are printed as lines, never as a traceback."""
    run(app)
