"""`ptmkb check`, `ptmkb models`, `ptmkb papers`: the catalogue on the terminal."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptmkb.cli.state import (
    FAILS,
    Format,
    FormatOption,
    LanguageOption,
    State,
    claim_readers,
    docs_directory,
    print_json,
    print_table,
    refuse,
    to_json,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ptmkb.catalogue import Catalogue, Model, Problem


class PapersFormat(StrEnum):
    """How the papers are written."""

    table = "table"
    json = "json"
    bibtex = "bibtex"
    csl = "csl"
    csv = "csv"


class Status(StrEnum):
    """How far an entry is."""

    curated = "curated"
    indexed = "indexed"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(check)
    app.command()(models)
    app.command()(papers)


def check(
    ctx: typer.Context,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schemas of all kinds of files instead.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --schema: write them into DIR, a file a kind.")
    ] = None,
    format_: FormatOption = Format.table,
) -> None:
    """Check catalogue and notes: every problem as `file:line: what is wrong; how to mend it`."""
    if out is not None and not schema:
        refuse("--out goes with --schema")
    if schema:
        schemas = _schemas()
        if out is None:
            print_json(schemas)
        else:
            _write_schemas(schemas, out)
        return
    catalogue, problems = _check_all(ctx.obj)
    if format_ is Format.json:
        print_json([{"file": str(p.path), "line": p.line, "what": p.what, "mend": p.mend} for p in problems])
    else:
        for problem in problems:
            sys.stdout.write(f"{problem}\n")
        claims = sum(len(model.claims) for model in catalogue.models.values())
        counts = f"{len(catalogue.models)} models, {claims} claims, {len(catalogue.papers)} papers"
        sys.stdout.write(f"{counts}: {len(problems)} problem{'' if len(problems) == 1 else 's'}\n")
    if problems:
        raise typer.Exit(FAILS)


def _tours(notes: set[str]) -> list[Problem]:
    """What is wrong with the tours of the articles."""
    from ptmkb.site.tours import tour_problems

    docs = docs_directory()
    return [problem for one in LanguageOption for problem in tour_problems(docs / one, notes)] if docs else []


def _check_all(state: State) -> tuple[Catalogue, list[Problem]]:
    from ptmkb.annotations import load_notes, notes_directory
    from ptmkb.catalogue import DATA, Paper, cited_papers, read_catalogue
    from ptmkb.catalogue import check as check_catalogue

    catalogue, problems = read_catalogue(state.catalogue_dir or DATA)
    unsound = bool(problems)  # what a broken file cites is not fully known
    problems += check_catalogue(catalogue, claim_readers())
    # The package's own notes need not fit another catalogue, nor need they cite its papers.
    belong = state.catalogue_dir is None or state.annotations_dir is not None
    notes = load_notes(state.annotations_dir or notes_directory(), catalogue if belong else None)
    problems += notes.problems
    if state.annotations_dir is None:  # the chapters are about the package's own notes
        problems += _tours({note.id for note in notes.notes})
    if state.catalogue_dir is None and not unsound:
        cited = cited_papers(catalogue) | {citation.paper for note in notes.notes for citation in note.papers}
        problems += [
            entry.origin.problem(("id",), f"nothing cites `{entry.value.id}`", "cite it or remove it")
            for entry in catalogue.entries
            if isinstance(entry.value, Paper) and entry.value.id not in cited
        ]
    return catalogue, sorted(set(problems))


def _schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each kind of file, by the kind's name."""
    from ptmkb.annotations import NoteFile
    from ptmkb.catalogue import Categories, Model, Papers

    kinds: dict[str, type[BaseModel]] = {
        "model": Model,
        "papers": Papers,
        "categories": Categories,
        "notes": NoteFile,
    }
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: dialect | kind.model_json_schema(by_alias=True) for name, kind in kinds.items()}


def _write_schemas(schemas: dict[str, dict[str, Any]], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas.items():
        path = directory / f"{name}.schema.json"
        path.write_text(to_json(schema), encoding="utf-8")
        sys.stdout.write(f"{path}\n")


def models(
    ctx: typer.Context,
    category: Annotated[str | None, typer.Option(help="Only this category and those below it.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only `curated` or `indexed` entries.")] = None,
    format_: FormatOption = Format.table,
) -> None:
    """List the models, oldest first, with what the last full probe said of them."""
    from ptmkb.probe.record import read_evidence

    catalogue = ctx.obj.load_catalogue()
    if category is not None and category not in catalogue.categories:
        refuse(f"no category `{category}`; there are {', '.join(catalogue.categories)}")
    chosen = (
        catalogue.members(category)
        if category
        else sorted(catalogue.models.values(), key=lambda model: (model.released, model.id))
    )
    record = read_evidence()
    rows = [
        _model_row(model, record and record.model(model.id))
        for model in chosen
        if status is None or model.status == status
    ]
    if format_ is Format.json:
        print_json(rows)
        return
    table = [
        [
            row["id"],
            row["name"],
            row["released"],
            row["category"],
            row["status"],
            _evidence_cell(row["evidence"]),
        ]
        for row in rows
    ]
    print_table(f"{len(rows)} models", ["id", "name", "released", "category", "status", "evidence"], table)


def _model_row(model: Model, record: Any) -> dict[str, Any]:
    claims = [claim for claim in record.claims if claim.origin == "entry"] if record else []
    return {
        "id": model.id,
        "name": model.name,
        "status": model.status,
        "category": model.category,
        "released": model.released,
        "papers": model.papers,
        "implementation": model.implementation.model_dump(by_alias=True, exclude_none=True),
        "lineage": [{"from": edge.ancestor, "relation": edge.relation} for edge in model.lineage],
        "evidence": {
            "verdict": record.verdict if record else "unmeasured",
            "claims": len(model.claims),
            "verified": sum(claim.verdict == "verified" for claim in claims),
        },
    }


def _evidence_cell(evidence: dict[str, Any]) -> str:
    return f"{evidence['verdict']} {evidence['verified']}/{evidence['claims']}"


def papers(
    ctx: typer.Context,
    year: Annotated[int | None, typer.Option(help="Only papers of this year.")] = None,
    format_: Annotated[PapersFormat, typer.Option("--format")] = PapersFormat.table,
) -> None:
    """List the papers, or write them as BibTeX, CSL-JSON or CSV."""
    from ptmkb.catalogue import to_bibtex, to_csl, to_csv

    catalogue = ctx.obj.load_catalogue()
    chosen = [paper for paper in catalogue.papers.values() if year is None or paper.year == year]
    if format_ is PapersFormat.json:
        print_json(
            [{"id": p.id, "title": p.title, "year": p.year, "arxiv": p.arxiv, "url": p.link} for p in chosen]
        )
    elif format_ is PapersFormat.table:
        rows = [[p.id, p.title, str(p.year), p.link] for p in chosen]
        print_table(f"{len(rows)} papers", ["id", "title", "year", "link"], rows)
    else:
        write = {PapersFormat.bibtex: to_bibtex, PapersFormat.csl: to_csl, PapersFormat.csv: to_csv}[format_]
        sys.stdout.write(write(chosen))
