"""`ptmkb pages` and `ptmkb site build|serve`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ptmkb.cli.state import FAILS, LanguageOption, docs_directory

site_app = typer.Typer(help="Build the site, or serve it.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(pages)
    app.add_typer(site_app, name="site")


def pages(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write them.")],
    lang: Annotated[LanguageOption, typer.Option(help="Their language.")] = LanguageOption.en,
) -> None:
    """Write the generated pages as plain Markdown, for any site engine."""
    from ptmkb.site import chapters, gather, sections
    from ptmkb.site.chapters import ChapterError

    state = ctx.obj
    every = docs_directory()
    docs = every / lang if every else None
    knowledge = gather(lang.code, state.catalogue_dir, state.annotations_dir, docs)
    made = [page for section in sections(knowledge) for page in section.pages]
    try:
        made += chapters(docs, knowledge) if docs else ()
    except ChapterError as error:
        sys.stderr.write(f"ptmkb: {error}\n")
        raise typer.Exit(FAILS) from None
    written = 0
    for page in made:
        path = out / page.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page.source(), encoding="utf-8")
        written += 1
    sys.stdout.write(f"{written} files in {out}\n")


@site_app.command("build")
def build_command(
    strict: Annotated[bool, typer.Option(help="A warning (a broken link) ends the build.")] = False,
    force: Annotated[bool, typer.Option(help="Build even where nothing changed.")] = False,
) -> None:
    """Build both languages into site/; nothing is done where nothing changed."""
    from ptmkb.site.building import SiteError, build, project_root

    start = time.monotonic()
    try:
        built = build(project_root(), strict=strict, force=force)
    except SiteError as error:
        sys.stderr.write(f"ptmkb: {error}\n")
        raise typer.Exit(FAILS) from None
    done = f"built in {time.monotonic() - start:.0f} s" if built else "unchanged"
    sys.stdout.write(f"site/ {done}\n")


@site_app.command("serve")
def serve_command(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8000,
) -> None:
    """Build what changed, then serve the site until Ctrl-C."""
    from ptmkb.site.building import SiteError, project_root, server

    build_command(strict=False, force=False)
    try:
        with server(project_root() / "site", host, port) as listening:
            sys.stdout.write(f"Serving ptmkb on http://{host}:{port} (Ctrl-C stops)\n")
            sys.stdout.flush()
            listening.serve_forever()
    except OSError as error:
        sys.stderr.write(
            f"ptmkb: cannot serve on {host}:{port} ({error.strerror}); choose another with --port\n"
        )
        raise typer.Exit(FAILS) from None
    except SiteError as error:
        sys.stderr.write(f"ptmkb: {error}\n")
        raise typer.Exit(FAILS) from None
    except KeyboardInterrupt:
        sys.stdout.write("\n")
