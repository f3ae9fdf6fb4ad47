"""`ptmkb new` writes drafts for people to complete."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ptmkb.cli.state import FAILS, needs_torch, refuse, state_of, suggestion

app = typer.Typer(help="Write drafts for a person to complete.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Write drafts for a person to complete."""


@app.command()
def model(
    ctx: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="The new entry's id; often the model type.")],
    type_: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Its model type in transformers; ID by default.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to; by default into the catalogue. - prints it.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a draft entry, filled in from measurement, for a person to complete and source."""
    catalogue = state_of(ctx).load_catalogue()
    if id_ in catalogue.models:
        refuse(f"`{id_}` is in the catalogue already")
    path = out or catalogue.directory / "models" / f"{id_}.yaml"
    if str(path) != "-" and path.exists():
        refuse(f"{path} exists; choose another --out")
    needs_torch("a draft is measured")
    from transformers import CONFIG_MAPPING

    from ptmkb.probe.drafts import draft, measured, provisional

    model_type = type_ or id_
    if model_type not in CONFIG_MAPPING:
        refuse(f"transformers has no model type `{model_type}`{suggestion(model_type, CONFIG_MAPPING)}")
    try:
        entry = provisional(id_, model_type)
    except ValueError:
        refuse(f"`{id_}` is no id: lower-case letters, digits, and - _ . between them")
    findings, arguments = measured(entry)
    text = draft(entry, findings, arguments, catalogue.categories)
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        from ptmkb.probe.record import write_text

        write_text(text, path)
        sys.stdout.write(
            f"{path}: fill in what is blank, name the variant, and source the claims; `ptmkb check` says what is missing\n"
        )
    if broken := [one.why for one in findings.silences if one.failed]:
        sys.stderr.write("".join(f"ptmkb: {why}\n" for why in dict.fromkeys(broken)))
        raise typer.Exit(FAILS)
