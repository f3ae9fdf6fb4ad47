"""`ptmkb annotations weave|export`: the notes elsewhere, in copies of the source and in the formats of others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptmkb.cli.notes import Ids, chosen_notes
from ptmkb.cli.source import TreeOption, open_tree
from ptmkb.cli.state import FAILS, LanguageOption, docs_directory, refuse, to_json

if TYPE_CHECKING:
    from ptmkb.annotations import ResolvedNote
    from ptmkb.source import SourceTree

Out = Annotated[Path, typer.Option(metavar="DIR", help="Where to write them; made if it is not there.")]
Lang = Annotated[LanguageOption, typer.Option(help="Language of the notes.")]


class ExportFormat(StrEnum):
    """A format of others."""

    codetour = "codetour"
    jsonld = "jsonld"


def weave(
    ctx: typer.Context, out: Out, ids: Ids = None, lang: Lang = LanguageOption.en, tree: TreeOption = None
) -> None:
    """Write copies of the annotated source files with each note as comments at its lines; the program stays the same.

    Exit code 1: a note has no place in this release, or a file of notes is not sound.
    """
    from ptmkb.annotations.weaving import WeaveError, weave_notes

    resolved, source, sound = _resolved(ctx, ids, tree)
    root = source.where.resolve()
    target = out.resolve()
    if target == root or root in target.parents:
        refuse(f"{out} lies in the source itself; name another folder")
    names = {one.id: f"{one.authors[0]} {one.year}" for one in ctx.obj.load_catalogue().papers.values()}
    try:
        woven = weave_notes(resolved, source, lang.code, names)
    except WeaveError as error:
        sys.stderr.write(f"ptmkb: {error}\n")
        raise typer.Exit(FAILS) from None
    for file in woven:
        path = out / file.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
    count = sum(len(file.woven) for file in woven)
    sys.stdout.write(f"{count} notes in {len(woven)} files below {out}, transformers {source.version}\n")
    _end(resolved, sound)


def export(
    ctx: typer.Context,
    out: Out,
    format_: Annotated[
        ExportFormat, typer.Option("--format", help="CodeTour's tours, or W3C Web Annotations.")
    ],
    ids: Ids = None,
    lang: Annotated[
        LanguageOption, typer.Option(help="Language of tours; web annotations hold both.")
    ] = LanguageOption.en,
    tree: TreeOption = None,
) -> None:
    """Write the notes as CodeTour's tours (DIR is a checkout's .tours) or as W3C Web Annotations, one file a source file.

    CodeTour also gets the tours of the articles, which lead across files.

    Exit code 1: a note has no place in this release, or a file of notes is not sound.
    """
    from ptmkb.annotations.exports import annotation_pages, article_tours, code_tours

    resolved, source, sound = _resolved(ctx, ids, tree)
    papers = ctx.obj.load_catalogue().papers
    made: dict[str, dict[str, Any]]
    if format_ is ExportFormat.codetour:
        made = code_tours(resolved, source, lang.code, papers)
        if not ids and ctx.obj.annotations_dir is None:  # the articles are about the package's own notes
            made |= article_tours(_articles(lang), resolved, source, lang.code, papers)
    else:
        made = annotation_pages(resolved, source, papers)
    for name, data in made.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(data), encoding="utf-8")
    sys.stdout.write(f"{len(made)} files below {out}, transformers {source.version}\n")
    _end(resolved, sound)


def _articles(language: str) -> list[tuple[str, str, Sequence[str]]]:
    """The tours of the articles."""
    from ptmkb.site.tours import read_tours

    docs = docs_directory()
    tours = read_tours(docs / language).tours if docs else ()
    return [(tour.page.removesuffix(".md").replace("/", "-"), tour.title, tour.stops) for tour in tours]


def _resolved(
    ctx: typer.Context, ids: list[str] | None, tree: str | None
) -> tuple[list[ResolvedNote], SourceTree, bool]:
    from ptmkb.annotations import resolve_notes

    notes, sound = chosen_notes(ctx.obj, ids or [])
    source = open_tree(tree)
    return resolve_notes(notes, source), source, sound


def _end(resolved: list[ResolvedNote], sound: bool) -> None:
    """Say which notes are left out."""
    lost = [one for one in resolved if one.resolution.first_line is None]
    for one in lost:
        sys.stderr.write(f"ptmkb: left out {one.note.id}: {one.resolution.reason}\n")
    if lost or not sound:
        raise typer.Exit(FAILS)
