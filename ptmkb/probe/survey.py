"""Does a model type work? Builds its tiny model, runs it, and computes its losses: one row a type, for the survey of all types."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

import torch
import transformers

from ptmkb.probe import subjects, tiny
from ptmkb.probe.numerics import tensors_in
from ptmkb.probe.offline import refuse_network


@dataclasses.dataclass(frozen=True)
class Row:
    """What became of one model type.

    Attributes:
        model_type: Its name.
        architecture: The class that was built.
        parameters: How many it has; None where it could not be built.
        runs: Whether its forward pass gave numbers, all of them finite.
        streams: How many positions each stream has, None where what goes in cannot be told apart position by position.
        losses: The values of its objectives, by name; empty where it has none.
        why: One line: why it does not run.
        lossless: One line: why an objective that it should have cannot be computed.
        seconds: Wall-clock time.
    """

    model_type: str
    architecture: str | None = None
    parameters: int | None = None
    runs: bool = False
    streams: Mapping[str, int] | None = None
    losses: Mapping[str, float] = dataclasses.field(default_factory=dict)
    why: str | None = None
    lossless: str | None = None
    seconds: float = 0.0


def survey(model_type: str) -> Row:
    """Build a type's tiny model and run it once.

    Args:
        model_type: A name from `tiny.model_types()`.

    Returns:
        The row; failures are in it.
    """
    started = time.perf_counter()
    row = Row(model_type)
    try:
        model = tiny.build(model_type)
        count = sum(parameter.numel() for parameter in model.parameters())
        row = dataclasses.replace(row, architecture=type(model).__name__, parameters=count)
        torch.manual_seed(0)
        with torch.no_grad():
            returned = model(**subjects.inputs_of(model))
        numbers = [
            tensor for _, tensor in tensors_in(returned) if tensor.is_floating_point() and tensor.numel()
        ]
        if not numbers:
            raise ValueError("the forward pass returns no numbers")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in numbers):
            raise ValueError("the forward pass returns numbers that are not finite")
        row = dataclasses.replace(row, runs=True)
        row = _with_subject(row, model)
    except Exception as error:
        row = dataclasses.replace(row, why=_line(error))
    return dataclasses.replace(row, seconds=round(time.perf_counter() - started, 3))


def survey_offline(model_type: str) -> bytes:
    """`survey` in a child of its own: without a network, on one thread, the row as JSON."""
    refuse_network()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    return json.dumps(dataclasses.asdict(survey(model_type))).encode()


def _with_subject(row: Row, model: Any) -> Row:
    try:
        subject = subjects.subject_of(model, row.model_type)
    except (LookupError, RuntimeError, AttributeError, TypeError, ValueError):
        return row  # it runs, but its output has no place for each position (a class, a picture)
    streams = {name: stream.positions for name, stream in subject.streams.items()}
    row = dataclasses.replace(row, streams=streams)
    losses = {}
    for loss in subject.losses:
        try:
            with torch.no_grad():
                losses[loss.part or "loss"] = float(model(**dict(loss.inputs)).loss)
        except (LookupError, RuntimeError, AttributeError, TypeError, ValueError) as error:
            return dataclasses.replace(row, lossless=_line(error))
    return dataclasses.replace(row, losses=losses)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
