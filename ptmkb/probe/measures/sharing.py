"""Which parts of a model share their weights: input and output embeddings, layers, encoder and decoder.

Method.
- `embeddings`: a forward pass is traced for the table that the input ids are looked up in, and for the weight
  whose product with the last hidden states makes scores over that vocabulary. All of the table is then
  changed in place (and put back), and the model runs again: the output's weight changed with it, or did not.
  (At full size on `meta`, where nothing has a value: both are one storage, or are not.)
- `layers`: the layers' parameters are one storage each (or one layer runs several times), or they are not.
- `encoder-decoder`: the tables in which the encoder's and the decoder's input ids are looked up, changed in
the same way. A value is `tied`, `untied`, or `partly` for layers that share some of their parameters.

Assumptions. Ids are looked up with `torch.nn.functional.embedding`, those that are given as `input_ids` and
`decoder_input_ids`, or else in the largest table, or in all tables together (adaptive embeddings).

What it cannot tell. Weights that are equal but not the same (a copy made at the start); ties that only saving
and loading makes.

Source. Press and Wolf 2017 (arXiv 1608.05859) tie the input to the output embedding; Lan et al. 2020 (arXiv
1909.11942) share parameters across layers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import Reading, Unmeasurable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from ptmkb.probe.subject import Subject
    from ptmkb.probe.trace import Trace
    from ptmkb.probe.tracing import Tracer

SCALES: tuple[str, ...] = ("tiny", "variant")

VALUES = ("tied", "untied", "partly")


def parse(value: Any) -> str:
    """A claimed sharing in normal form.

    Raises:
        ValueError: It is not `tied`, `untied` or `partly`.
    """
    if value not in VALUES:
        raise ValueError(f"sharing is one of {', '.join(VALUES)}; not {value!r}")
    return str(value)


def measure(subject: Subject) -> dict[str | None, Reading]:
    """The parts that this model has two of.

    Raises:
        Unmeasurable: It has no two parts that could share weights.
    """
    from ptmkb.probe.dataflow import plain_run

    tracer = plain_run(subject)
    readings: dict[str | None, Reading] = {}
    if layers := _layers(tracer.trace):
        readings["layers"] = layers
    table, decoder = (
        _table_of(tracer.trace, subject.inputs.get(name)) for name in ("input_ids", "decoder_input_ids")
    )
    for tables in _vocabularies(tracer.trace, decoder, table):
        if _projections(tracer, tables):
            readings["embeddings"] = _tied(subject, tracer, tables, partial(_projections, tables=tables))
            break
    if table is not None and decoder is not None:
        ids = subject.inputs["decoder_input_ids"]
        readings["encoder-decoder"] = _tied(subject, tracer, [table], partial(_tables_of, ids=ids))
    if not readings:
        raise Unmeasurable("no output over a vocabulary, no second layer, no second input embedding")
    return readings


def agrees(claimed: str, measured: str) -> bool:
    """Whether the measured sharing is the claimed one."""
    return claimed == measured


def _tied(
    subject: Subject, tracer: Tracer, tables: list[Tensor], find: Callable[[Tracer], list[Tensor]]
) -> Reading:
    """Whether other weights change with tables that are changed in place; the tables are put back."""
    import torch

    from ptmkb.probe.tracing import run_subject

    others = find(tracer)
    storages = {table.untyped_storage()._cdata for table in tables}
    same = [other.untyped_storage()._cdata in storages for other in others]
    detail = {
        "same_storage": all(same),
        "tables": [list(t.shape) for t in tables],
        "others": [list(t.shape) for t in others],
    }
    if any(table.is_meta for table in tables):
        return Reading(_word(same), detail)
    before = [other.detach().clone() for other in others]
    kept = [table.detach().clone() for table in tables]
    with torch.no_grad():
        for changed in tables:
            changed.add_(1.0)
        try:
            after = [other.detach().clone() for other in find(run_subject(subject))]
        finally:
            for changed, old in zip(tables, kept, strict=True):
                changed.copy_(old)
    return Reading(_word([not torch.equal(new, old) for new, old in zip(after, before, strict=True)]), detail)


def _word(tied: list[bool]) -> str:
    return "tied" if all(tied) else "partly" if any(tied) else "untied"


def _vocabularies(trace: Trace, *named: Tensor | None) -> Iterator[list[Tensor]]:
    """What may be the vocabulary's table, likeliest first; at last all tables together (adaptive embeddings)."""
    distinct = list({id(lookup.table): lookup.table for lookup in trace.lookups}.values())
    yield from ([table] for table in named if table is not None)
    if distinct:
        yield [max(distinct, key=len)]
        yield distinct


def _tables_of(tracer: Tracer, ids: Any) -> list[Tensor]:
    table = _table_of(tracer.trace, ids)
    return [] if table is None else [table]


def _table_of(trace: Trace, ids: Any) -> Tensor | None:
    """The table that these ids were looked up in."""
    import torch

    if not isinstance(ids, torch.Tensor) or ids.is_floating_point():
        return None
    for lookup in trace.lookups:
        for looked_up in (lookup.indices, lookup.indices.T if lookup.indices.ndim == 2 else lookup.indices):
            if looked_up is ids or (
                looked_up.shape == ids.shape and (ids.is_meta or bool((looked_up == ids).all()))
            ):
                return lookup.table
    return None


def _projections(tracer: Tracer, tables: list[Tensor]) -> list[Tensor]:
    """The weights whose products make one of the model's outputs, with a score for each row of the tables."""
    from ptmkb.probe.numerics import tensors_in

    rows = [len(table) for table in tables]
    for name, output in tensors_in(tracer.output):
        if not output.ndim or output.shape[-1] != sum(rows) or "hidden_state" in name:
            continue
        products = [tracer.trace.products[call] for call in sorted(tracer.source(output).calls)]
        found = [product.weight for product in products if product.layer is None and product.outputs in rows]
        if len(found) == len(rows):
            return found
    return []


def _layers(trace: Trace) -> Reading | None:
    """Whether the layers of every stack of two and more share their parameters."""
    shared: dict[str | None, str] = {}
    for stack, calls in trace.stacks().items():
        modules = [trace.layers[call].module for call in calls]
        if len(modules) < 2:
            continue
        storages = [{p.untyped_storage()._cdata for p in module.parameters()} for module in modules]
        if not any(storages):
            continue
        common, every = set.intersection(*storages), set.union(*storages)
        some = len(every) < sum(len(one) for one in storages)
        shared[stack] = "tied" if common == every else "partly" if some else "untied"
    if not shared:
        return None
    values = set(shared.values())
    return Reading(
        values.pop() if len(values) == 1 else "partly", {"stacks": shared} if len(shared) > 1 else {}
    )
