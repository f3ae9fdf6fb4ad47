"""`ptmkb probe` measures what the catalogue claims; `ptmkb tiny` builds a small model of any architecture."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptmkb.cli.state import FAILS, Format, needs_torch, print_json, print_table, refuse, state_of, suggestion

if TYPE_CHECKING:
    from torch import nn

    from ptmkb.catalogue import Catalogue, Model
    from ptmkb.probe.record import ProbeRecord

INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(probe)
    app.command()(tiny)


def probe(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...", help="Models of the catalogue; with --types, model types.", show_default=False
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every model of the catalogue.")] = False,
    types: Annotated[
        bool,
        typer.Option(
            "--types", help="Measure model types of transformers, all or those named, claimed or not."
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write what was found to FILE: .json, .xml (JUnit) or .md.",
            show_default=False,
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="What is printed.")] = Format.table,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="How many at once; by default one a core.", show_default=False)
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="dask://HOST:PORT", help="Measure on a Dask cluster instead of here.", show_default=False
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|NAME",
            help="Measure these weights, from a directory or the hub, instead; ID says whose claims they are judged by.",
            show_default=False,
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what nothing has changed about, too.")
    ] = False,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Make this run the committed evidence (with --all or --types).")
    ] = False,
) -> None:
    """Build models small, run them, and measure what their entries claim. Exit code 1 if a claim is refuted or a model fails."""
    catalogue = state_of(ctx).load_catalogue()
    if checkpoint is not None:
        if types:
            refuse("--checkpoint measures one model's weights; leave out --types")
        _probe_checkpoint(checkpoint, catalogue, ids or [], all_ or evidence, report, format_)
        return
    needs_torch("probes run models")
    if types:
        names = _chosen_types(ids or [], all_)
    else:
        entries = _chosen(catalogue, ids or [], all_)
    if evidence and (bool(ids) if types else not all_):
        refuse("--evidence is about all of them; " + ("leave out the names" if types else "add --all"))
    from ptmkb.probe.cache import Cache
    from ptmkb.probe.progress import Bar, Lines
    from ptmkb.probe.record import EVIDENCE, write_architectures, write_record
    from ptmkb.probe.reports import write_report
    from ptmkb.probe.runner import children, probe_all, probe_types, timeless

    _can_be_written(report)
    bar = Bar() if sys.stderr.isatty() else None
    workers = jobs or os.cpu_count() or 1
    measures = children(workers)
    if executor is not None:
        from ptmkb.probe import cluster

        try:
            client = cluster.connect(executor)
        except cluster.ClusterError as error:
            refuse(str(error))
        workers, measures = cluster.workers(client), cluster.cluster(client)
    try:
        how = (measures, bar or Lines(), Cache(fresh=fresh), workers)
        record, whole = probe_types(names, catalogue, *how) if types else probe_all(entries, catalogue, *how)
    finally:
        if bar is not None:
            bar.close()
    if report is not None:
        write_report(record, report)
    if evidence and whole and types:
        write_architectures(record)
    elif evidence and whole:
        write_record(timeless(record), EVIDENCE / f"transformers-{record.transformers}.json")
    if format_ is Format.json:
        left_out: Any = None if types else {"models": {"__all__": {"measured"}}}
        print_json(record.model_dump(mode="json", exclude=left_out))
    elif types:
        _print_types(record)
    else:
        _print(record)
    if not whole:
        total = len(names) if types else len(entries)
        sys.stderr.write(f"ptmkb: stopped; {len(record.models)} of {total} models were done\n")
        raise typer.Exit(INTERRUPTED)
    if any(model.status == "failed" for model in record.models):
        raise typer.Exit(FAILS)


def _probe_checkpoint(
    where: str, catalogue: Catalogue, ids: list[str], every: bool, report: Path | None, format_: Format
) -> None:
    if every or len(ids) > 1:
        refuse("--checkpoint goes with one ID or none")
    entry = _chosen(catalogue, ids, False)[0] if ids else None
    _can_be_written(report)
    needs_torch("probes run models")
    from ptmkb.probe.cache import installed
    from ptmkb.probe.checkpoints import CheckpointError, fetch, probe_checkpoint
    from ptmkb.probe.record import ProbeRecord
    from ptmkb.probe.reports import write_report

    try:
        path = fetch(where)
    except CheckpointError as error:
        refuse(str(error))
    model = probe_checkpoint(where, path, catalogue, entry)
    torch = installed("torch").split("+")[0]
    record = ProbeRecord(transformers=installed("transformers"), torch=torch, models=(model,))
    if report is not None:
        write_report(record, report)
    if format_ is Format.json:
        print_json(record.model_dump(mode="json"))
    else:
        rows = [[one.measure, one.part or "", _short(one.value)] for one in model.measured]
        print_table(f"{where}: measured", ["measure", "of", "value"], rows)
        _print(record)
    if model.status == "failed":
        raise typer.Exit(FAILS)


def _can_be_written(report: Path | None) -> None:
    from ptmkb.probe.reports import writer

    if report is not None:
        try:
            writer(report)
        except ValueError as error:
            refuse(str(error))


def _chosen(catalogue: Catalogue, ids: list[str], every: bool) -> list[Model]:
    if every and ids:
        refuse("give IDs or --all, not both")
    if every:
        return list(catalogue.models.values())
    if not ids:
        refuse("name the models to probe (`ptmkb models` lists them), or give --all")
    for model_id in ids:
        if model_id not in catalogue.models:
            refuse(
                f"there is no model `{model_id}`{suggestion(model_id, catalogue.models)}; `ptmkb models` lists them"
            )
    return [catalogue.models[model_id] for model_id in dict.fromkeys(ids)]


def _chosen_types(names: list[str], every: bool) -> list[str]:
    from ptmkb.probe.targets import model_types

    if every:
        refuse("--types without names is all of them; leave out --all")
    known = model_types()
    for name in names:
        if name not in known:
            refuse(f"transformers has no model type `{name}`{suggestion(name, known)}")
    return list(dict.fromkeys(names)) or list(known)


def _print(record: ProbeRecord) -> None:
    rows = []
    for model in record.models:
        for claim in model.claims:
            of = " · ".join(what for what in (claim.part, claim.variant) if what)
            measured = claim.measured
            if isinstance(measured, dict) and isinstance(claim.claimed, dict):
                measured = {key: item for key, item in measured.items() if key in claim.claimed}
            why = claim.why or ("asked of its category" if claim.origin == "category" else "")
            rows.append(
                [model.id, claim.measure, of, _short(claim.claimed), _short(measured), claim.verdict, why]
            )
        if not model.claims:
            rows.append([model.id, "", "", "", "", model.status, model.why or ""])
    title = f"transformers {record.transformers}, torch {record.torch}"
    print_table(title, ["model", "measure", "of", "claimed", "measured", "verdict", "why"], rows)
    verdicts = [claim.verdict for model in record.models for claim in model.claims]
    counts = ", ".join(
        f"{verdicts.count(v)} {v}" for v in ("verified", "discrepancy", "refuted", "unmeasured")
    )
    sys.stdout.write(f"{_statuses(record, 'models')}; {len(verdicts)} claims: {counts}\n")
    for model in record.models:
        if model.status == "failed":
            sys.stdout.write(f"{model.id}: {model.why}\n")


def _print_types(record: ProbeRecord) -> None:
    """A row a type: of each measure in short what it gave for the model as a whole or for its first part."""
    shown = ("parameters", "flow", "position", "norm", "layers")
    rows = []
    for model in record.models:
        values = {one.measure: _short(one.value) for one in reversed(model.measured)}
        cells = [values.get(name, "")[:40] for name in shown]
        rows.append([model.id, *cells, str(len({one.measure for one in model.measured})), model.status])
    title = f"transformers {record.transformers}, torch {record.torch}"
    print_table(title, ["type", *shown, "measures", "status"], rows)
    sys.stdout.write(f"{_statuses(record, 'types')}\n")
    for model in record.models:
        if model.status != "passed":
            sys.stdout.write(f"{model.id}: {model.why}\n")


def _statuses(record: ProbeRecord, what: str) -> str:
    statuses = [model.status for model in record.models]
    told = ", ".join(f"{statuses.count(status)} {status}" for status in ("passed", "failed", "skipped"))
    return f"{len(statuses)} {what}: {told}"


def _short(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        only = value.get("kind") if set(value) == {"kind"} else None
        return str(only) if only else ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(_short(item) for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def tiny(
    ctx: typer.Context,
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="A model of the catalogue or a model type of transformers.")
    ],
    save: Annotated[Path | None, typer.Option(metavar="DIR", help="Save it for `from_pretrained`.")] = None,
    class_: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="The class to build, such as BertForMaskedLM."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
) -> None:
    """Build a small, working model of an architecture: for tests, offline, with random weights."""
    needs_torch("probes run models")
    from ptmkb.probe.tiny import UnknownModelTypeError, architectures, build, build_entry

    entry = state_of(ctx).load_catalogue().models.get(id_)
    if entry is not None and entry.implementation.kind == "none":
        refuse(f"`{id_}` cannot be built: {entry.implementation.why.en}")
    try:
        if entry is not None and entry.implementation.kind == "reference":
            if class_ is not None or save is not None:
                refuse(
                    f"`{id_}` is a reference implementation: --class and --save are for models of transformers"
                )
            model: nn.Module = build_entry(entry, seed)
        else:
            known = entry is not None and entry.implementation.kind == "transformers"
            model_type = entry.implementation.model_type if known else id_  # type: ignore[union-attr]
            default = entry.implementation.architecture if known else None  # type: ignore[union-attr]
            model = build(model_type, class_ or default, seed)
            classes = architectures(model_type)
    except UnknownModelTypeError as error:
        from transformers import CONFIG_MAPPING

        refuse(f"{error}{suggestion(id_, [*state_of(ctx).load_catalogue().models, *CONFIG_MAPPING])}")
    except LookupError as error:
        refuse(str(error))
    count = sum(parameter.numel() for parameter in model.parameters())
    sys.stdout.write(f"{type(model).__name__}: {count:,} parameters, seed {seed}\n")
    if entry is None or entry.implementation.kind == "transformers":
        sys.stdout.write(f"classes: {', '.join(classes)}\n")
    if save is not None:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        model.save_pretrained(save)  # type: ignore[operator]
        sys.stdout.write(f"saved to {save}: {type(model).__name__}.from_pretrained({str(save)!r})\n")
