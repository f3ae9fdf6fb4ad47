"""Live models patched so that one property changes: the share of patches that the measures notice, and the ones that they do not.

Every patch of `benchmarks.mutations` is applied to the tiny model of every curated entry and to further model types of all kinds, wherever the model
has what it changes. Each measure that is named for it is taken before and after; the patch is noticed if the value differs. A value that
can no longer be taken is counted apart, not as noticed.

A patch that changes nothing is no test: where the patched model gives, in double precision, the very numbers that it gave before, and its cache the
same, the patch is equivalent on this sample and left out. So is one that changes the numbers but not who depends on whom, for `flow`: gradients,
which that measure does not use, prove that every output depends on the very inputs that it depended on before (a causal mask in the layers of a
model whose convolutions see all). Both proofs are printed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ptmkb.catalogue import load_catalogue
from ptmkb.probe.subject import Subject

TYPES = (
    "bloom", "mpt", "falcon", "phi", "gpt_neox", "olmo2", "gemma2", "gemma3_text", "qwen3", "cohere", "deepseek_v3", "qwen3_moe", "gpt_oss",
    "switch_transformers", "jamba", "mamba2", "rwkv", "recurrent_gemma", "longformer", "modernbert", "roformer", "esm", "layoutlm", "mbart",
    "marian", "deit", "vit_mae", "hubert", "siglip", "chinese_clip", "time_series_transformer",
)  # fmt: skip
"""Further model types: decoders, mixtures of experts, state spaces, windows, encoders, translation, pictures, speech, two streams, series."""


@dataclass(frozen=True)
class Trial:
    """One patch on one model, seen by one measure.

    Attributes:
        fate: `noticed`, `survives`, `lost` (the measure no longer gives a value), `equivalent` (the same numbers), `broken` (the patched model
            does not run).
        why: What is known of a fate other than `noticed`.
    """

    model: str
    mutation: str
    measure: str
    fate: str
    why: str = ""


def trials(subject: Subject, only: Iterable[str] = ()) -> list[Trial]:
    """All patches that apply to a subject.

    Args:
        subject: A tiny model.
        only: Names of patches, all by default.
    """
    from benchmarks.mutations import MUTATIONS, patches

    plain = _Values(subject)
    found = []
    for mutation in MUTATIONS.values():
        if only and mutation.name not in only:
            continue
        wanted = [name for name in mutation.measures if plain.of(name) is not None]
        if not wanted:
            continue
        try:
            patched = mutation.patch(patches.copied(subject))
            if patched is None:
                continue
            patched.outputs()
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            found.append(Trial(subject.name, mutation.name, ", ".join(wanted), "broken", why))
            continue
        after = _Values(patched)
        for measure in wanted:
            before, value = plain.of(measure), after.of(measure)
            if value is None:
                found.append(Trial(subject.name, mutation.name, measure, "lost", after.why[measure]))
            elif value != before:
                found.append(Trial(subject.name, mutation.name, measure, "noticed"))
            elif not mutation.silent and (proof := equal(subject, patched, measure)) is not None:
                found.append(Trial(subject.name, mutation.name, measure, "equivalent", proof))
            else:
                told = (
                    "its detail differs"
                    if plain.details[measure] != after.details[measure]
                    else "so is its detail"
                )
                found.append(
                    Trial(
                        subject.name,
                        mutation.name,
                        measure,
                        "survives",
                        f"{json.dumps(value)[:160]} as before; {told}",
                    )
                )
    return found


class _Values:
    """What the measures say of one subject, each asked once."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.why: dict[str, str] = {}
        self.details: dict[str, str] = {}
        self._found: dict[str, Any] = {}

    def of(self, name: str) -> dict[str, Any] | None:
        """By part, the measure's values; None where there are none."""
        import torch

        from ptmkb.probe.measures import load_measure

        if name not in self._found:
            torch.manual_seed(0)
            try:
                readings = load_measure(name).measure(self.subject)
                details = {str(part): dict(reading.detail) for part, reading in readings.items()}
                self.details[name] = json.dumps(details, sort_keys=True)
                self._found[name] = {str(part): reading.value for part, reading in readings.items()}
            except Exception as error:
                self._found[name] = None
                self.why[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        found: dict[str, Any] | None = self._found[name]
        return found


def equal(subject: Subject, patched: Subject, measure: str) -> str | None:
    """The proof that a patch changes nothing of what a measure is about, None where there is none."""
    import torch

    from benchmarks.mutations import attention
    from ptmkb.probe.numerics import in_float64, seeded, tensors_in

    outputs = []
    for one in (subject.doubled(), patched.doubled()):
        with in_float64(), torch.no_grad():
            batches = [
                one.inputs,
                *(mode.inputs | dict(one.inputs) for mode in one.modes),
                *(loss.inputs for loss in one.losses),
            ]
            seen = []
            for batch in batches:
                with seeded():
                    seen.append([value for _, value in tensors_in(one.model(**dict(batch)))])
            outputs.append([value for row in seen for value in row])
    if [value.shape for value in outputs[0]] != [value.shape for value in outputs[1]]:
        return None
    largest = max(
        (float((a.double() - b.double()).abs().max()) for a, b in zip(*outputs, strict=True) if a.numel()),
        default=0.0,
    )
    if largest == 0:
        return f"all {len(outputs[0])} tensors that it returns are equal to the last bit"
    if measure == "flow":
        with suppress(RuntimeError, ValueError):
            before, after = attention.reached(subject), attention.reached(patched)
            if len(before) == len(after) and all(
                torch.equal(a, b) for a, b in zip(before, after, strict=True)
            ):
                return f"by gradients, each of {len(before)} pairs of an output and an input depends on the same places as before"
    return None


def subjects() -> dict[str, Any]:
    """By name, what makes each subject."""
    from ptmkb.probe.subjects import subject_for, subject_of_type

    catalogue = load_catalogue()
    curated = {
        entry.id: partial(subject_for, entry)
        for entry in catalogue.models.values()
        if entry.status == "curated" and entry.implementation.kind != "none"
    }
    return curated | {name: partial(subject_of_type, name) for name in TYPES}


def _task(make: Any) -> bytes:
    import torch
    import transformers

    from ptmkb.probe.offline import refuse_network

    refuse_network()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    return json.dumps([asdict(trial) for trial in trials(make())]).encode()


def run(only: Iterable[str] = ()) -> dict[str, Any]:
    from ptmkb.probe import probing
    from ptmkb.probe.children import Limits
    from ptmkb.probe.children import run as run_children

    probing.warm()
    start = time.perf_counter()
    made = {name: make for name, make in subjects().items() if not only or name in only}
    found: list[Trial] = []
    failed = {}
    for outcome in run_children(
        {name: partial(_task, make) for name, make in made.items()}, limits=Limits(seconds=300)
    ):
        if outcome.result is None:
            failed[outcome.name] = outcome.why or outcome.output[-200:]
        else:
            found += [Trial(**row) for row in json.loads(outcome.result)]
    found.sort(key=lambda trial: (trial.mutation, trial.model, trial.measure))
    return summary(found) | {
        "models": len(made) - len(failed),
        "failed": failed,
        "seconds": round(time.perf_counter() - start, 1),
    }


def summary(found: list[Trial]) -> dict[str, Any]:
    """Counts by patch and measure, and all that was not noticed."""
    judged = [trial for trial in found if trial.fate in ("noticed", "survives", "lost")]
    by_mutation: dict[str, dict[str, int]] = {}
    for trial in judged:
        row = by_mutation.setdefault(f"{trial.mutation} → {trial.measure}", {"applied": 0, "noticed": 0})
        row["applied"] += 1
        row["noticed"] += trial.fate == "noticed"
    noticed = sum(trial.fate == "noticed" for trial in judged)
    return {
        "applied": len(judged),
        "noticed": noticed,
        "score": round(noticed / len(judged), 4) if judged else 0.0,
        "by_mutation": by_mutation,
        "others": [asdict(trial) for trial in found if trial.fate != "noticed"],
    }


def report(result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{result['applied']:,} patches of {result['models']} models seen by the measures named for them: {result['noticed']:,} noticed, "
        f"score {result['score']:.2%} ({result['seconds']} s)"
    ]
    lines += [
        f"{name:64}{row['noticed']:4} of {row['applied']}" for name, row in result["by_mutation"].items()
    ]
    lines += [
        f"{one['fate']}: {one['mutation']} in {one['model']}, {one['measure']}: {one['why']}"
        for one in result["others"]
    ]
    return lines + [f"not tried: {name}: {why}" for name, why in result["failed"].items()]


if __name__ == "__main__":
    print("\n".join(report(run(sys.argv[1:]))))
