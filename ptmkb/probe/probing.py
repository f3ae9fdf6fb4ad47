"""Probes one entry in this process: builds it, and runs every measure on it and on its variants.

A measure that raises takes nothing else with it: what it would have said is missing, with the reason, and the model fails.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch
import transformers
from torch import nn

from ptmkb.catalogue import Catalogue, Model
from ptmkb.probe import children, tiny
from ptmkb.probe.findings import Findings, Silence, joined, judged
from ptmkb.probe.measures import Unmeasurable, load_measure, measure_names
from ptmkb.probe.memory import kept
from ptmkb.probe.numerics import seed
from ptmkb.probe.offline import attempts_elsewhere, hub_attempt, refuse_network
from ptmkb.probe.record import Built, Measurement, ModelRecord
from ptmkb.probe.streamless import subject_without_streams, with_layers
from ptmkb.probe.subject import Subject
from ptmkb.probe.subjects import class_data, subject_for
from ptmkb.probe.targets import Target, of_entry

SEED = 0


def probe(entry: Model, catalogue: Catalogue) -> ModelRecord:
    """Build an entry's tiny model and its variants, measure them, and judge every claim.

    Args:
        entry: The entry.
        catalogue: Where its categories are.

    Returns:
        The record, with `seconds` left at 0.
    """
    return judged(entry, catalogue, joined(findings(of_entry(entry))))


def findings(target: Target) -> Iterator[Findings]:
    """Measure a target's tiny model and its variants, piece by piece.

    Args:
        target: What to measure; one without an implementation gives nothing.
    """
    if target.implementation.kind == "none":
        return
    small: tuple[None, ...] = (None,) if target.tiny else ()
    for variant in (*small, *(variant.name for variant in target.variants)):
        names = [name for name in measure_names() if _scale(variant) in load_measure(name).SCALES]
        try:
            subject = subject_for(target, variant) if variant else _subject(target)
        except Exception as error:
            why, lasting = _reason(error)
            why = why if variant is None else f"cannot be built: {why}"
            yield Findings(
                silences=tuple(
                    Silence(measure=name, variant=variant, why=why, failed=variant is None, lasting=lasting)
                    for name in names
                )
            )
            continue
        if variant is None:
            yield Findings(built=_built(subject.model))
        yield from measurements(subject, variant)


def _subject(target: Target) -> Subject:
    try:
        subject = subject_for(target)
        return subject if subject.streams else with_layers(subject)
    except Exception as error:
        if not _reason(error)[1] or target.implementation.kind != "transformers":
            raise
        # Where the model cannot be built or run either, this fails in the same way, or with the reason behind it.
        return subject_without_streams(tiny.build_entry(target), target.id, error)


def _built(model: nn.Module) -> Built:
    cls = type(model)
    return Built(architecture=cls.__name__, file=f"{cls.__module__.replace('.', '/')}.py")


def measurements(subject: Subject, variant: str | None = None) -> Iterator[Findings]:
    """Run every measure that wants a subject of this scale, piece by piece: each is named before it begins.

    Args:
        subject: A live model.
        variant: The variant that it is, None for a model with numbers.
    """
    with kept():
        yield from _measurements(subject, variant)


def _measurements(subject: Subject, variant: str | None) -> Iterator[Findings]:
    for name in measure_names():
        measure = load_measure(name)
        if _scale(variant) not in measure.SCALES:
            continue
        yield Findings(begun=((name, variant),))
        seed(SEED)
        try:
            readings = measure.measure(subject)
            found = tuple(
                Measurement(
                    measure=name, part=part, variant=variant, value=reading.value, detail=dict(reading.detail)
                )
                for part, reading in readings.items()
            )
        except Unmeasurable as error:
            yield Findings(silences=(Silence(measure=name, variant=variant, why=str(error)),))
        except Exception as error:
            why, lasting = _reason(error)
            why = f"measure `{name}`: {why}" if variant is None else f"cannot be measured at full size: {why}"
            silence = Silence(measure=name, variant=variant, why=why, failed=variant is None, lasting=lasting)
            yield Findings(silences=(silence,))
        else:
            yield (
                Findings(measured=found)
                if found
                else Findings(
                    silences=(Silence(measure=name, variant=variant, why="there is nothing of it here"),)
                )
            )


def _scale(variant: str | None) -> str:
    return "tiny" if variant is None else "variant"


def _reason(error: Exception) -> tuple[str, bool]:
    """One line about what went wrong, and whether it would go wrong again."""
    if children.is_out_of_memory(error):
        return children.reason(error), False
    line = hub_attempt(error)
    return (line or children.reason(error)), line is None


def warm() -> None:
    """Import what every child needs, so that a fork has it."""
    import transformers.generation
    import transformers.masking_utils
    import transformers.modeling_layers
    import transformers.modeling_utils  # noqa: F401

    for name in measure_names():
        load_measure(name)
    class_data("")  # reads the files that every child wants
    tiny.tiny_data()
    gc.collect()
    gc.freeze()  # what is there now stays: children need not look through it, nor copy its pages
    torch.set_num_threads(1)


def probe_offline(target: Target) -> bytes:
    """Measure a target in a child of its own, without a network and on one thread; every piece is emitted as soon as it is found.

    Returns:
        The last piece, as JSON: what the network's guard has to say.
    """
    attempts = refuse_network()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for piece in findings(target):
        children.emit(piece.model_dump_json().encode())
    return _network(attempts).model_dump_json().encode()


def probe_whole(target: Target) -> bytes:
    """`probe_offline` for where pieces cannot be handed over: all findings at once, as JSON."""
    attempts = refuse_network()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    return joined([*findings(target), _network(attempts)]).model_dump_json().encode()


def _network(attempts: list[str]) -> Findings:
    """A failure of the model where it reached for the network, however well that was hidden."""
    tried = dict.fromkeys([*attempts, *attempts_elsewhere()])
    return Findings(
        silences=tuple(Silence(measure=None, why=why, failed=True, lasting=False) for why in tried)
    )
