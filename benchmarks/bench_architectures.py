"""All measures on every model type of transformers, beside a bare loop that only imports, builds and runs each once.

Both run in the same kind of forked child of the same warm parent, as many at once as there are cores, nothing from the cache. The ratio of their CPU
seconds says what measuring costs; wall seconds depend on what else the machine does. Memory is the sum of the proportional set sizes of the whole
tree of processes, looked at a few times a second.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import transformers

from ptmkb.catalogue import load_catalogue
from ptmkb.probe import children, footprint, probing, subjects, tiny
from ptmkb.probe.offline import refuse_network
from ptmkb.probe.targets import Target, model_types, of_types, unbuilt

SLOWEST = 12
"""Types and measures that are named."""
_LOOKS = 0.5  # seconds between two looks at the memory


def run(names: list[str] | None = None) -> dict[str, Any]:
    """Measure both loops, over all types unless some are named."""
    chosen = [name for name in names or model_types() if name not in unbuilt()]
    targets = of_types(chosen, load_catalogue())
    probing.warm()
    bare = _loop({target.id: partial(_bare, target) for target in targets})
    full = _loop({target.id: partial(_measured, target) for target in targets})
    by_measure: Counter[str] = Counter()
    for spent in full["results"].values():
        by_measure.update(spent)
    return {
        "types": len(targets),
        "cores": os.cpu_count(),
        "bare": _figures(bare),
        "all_measures": _figures(full),
        "ratio_cpu": round(full["cpu"] / bare["cpu"], 2),
        "ratio_wall": round(full["wall"] / bare["wall"], 2),
        "cpu_by_measure": {name: round(seconds, 1) for name, seconds in by_measure.most_common()},
        "slowest": dict(
            Counter({n: sum(s.values()) for n, s in full["results"].items()}).most_common(SLOWEST)
        ),
    }


def report(result: dict[str, Any]) -> list[str]:
    """The figures for a reader."""
    lines = [
        f"{name:13}{row['wall']:7.0f} s of wall time, {row['cpu']:7.0f} s of CPU time ({row['median']:.2f} s a type, median), "
        f"{row['peak'] / children.GIB:.1f} GiB at most, {len(row['failed'])} children failed"
        for name, row in (("bare loop", result["bare"]), ("all measures", result["all_measures"]))
    ]
    lines.append(
        f"{result['types']} types on {result['cores']} cores: {result['ratio_cpu']:.2f} × the bare loop by CPU time, "
        f"{result['ratio_wall']:.2f} × by wall time"
    )
    lines.append("by measure: " + ", ".join(f"{n} {s:.0f} s" for n, s in result["cpu_by_measure"].items()))
    lines.append("slowest: " + ", ".join(f"{n} {s:.1f} s" for n, s in result["slowest"].items()))
    for row in (result["bare"], result["all_measures"]):
        lines += [f"failed: {name}: {why}" for name, why in row["failed"].items()]
    return lines


def _loop(tasks: Mapping[str, Callable[[], bytes]]) -> dict[str, Any]:
    """Run tasks in children; wall and CPU seconds, the peak of memory, what each child said, and who failed."""
    peak, looked = 0, 0.0

    def look() -> None:
        nonlocal peak, looked
        if time.monotonic() - looked > _LOOKS:
            peak, looked = max(peak, footprint.together(footprint.tree())), time.monotonic()

    before, start = _cpu(), time.monotonic()
    outcomes = list(children.run(tasks, on_tick=look))
    return {
        "wall": time.monotonic() - start,
        "cpu": _cpu() - before,
        "peak": peak,
        "results": {one.name: json.loads(one.result) for one in outcomes if one.result is not None},
        "failed": {one.name: one.why for one in outcomes if one.result is None},
    }


def _cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _figures(loop: Mapping[str, Any]) -> dict[str, Any]:
    seconds = [sum(spent.values()) for spent in loop["results"].values()]
    return {
        "wall": round(loop["wall"], 2),
        "cpu": round(loop["cpu"], 2),
        "median": round(statistics.median(seconds), 3) if seconds else 0.0,
        "peak": loop["peak"],
        "failed": loop["failed"],
    }


def _quiet() -> None:
    refuse_network()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


def _bare(target: Target) -> bytes:
    """Import, build, run once: the CPU seconds that it took, as JSON."""
    _quiet()
    start = time.process_time()
    model = tiny.build_entry(target)
    with torch.no_grad():
        model(**subjects.inputs_of(model))
    return json.dumps({"run": time.process_time() - start}).encode()


def _measured(target: Target) -> bytes:
    """All measures, pieces handed over as in a probe: the CPU seconds of each measure, as JSON."""
    _quiet()
    spent: Counter[str] = Counter()
    doing, since = "build", time.process_time()
    for piece in probing.findings(target):
        children.emit(piece.model_dump_json().encode())
        now = time.process_time()
        spent[doing] += now - since
        since = now
        doing = piece.begun[0][0] if piece.begun else doing
    spent[doing] += time.process_time() - since
    return json.dumps(spent).encode()
