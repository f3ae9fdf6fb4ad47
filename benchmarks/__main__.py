"""Run the benchmarks: `python -m benchmarks [NAME…] [--json FILE]`, or `make bench`.

A benchmark is a file `bench_NAME.py` beside this one with `run() -> dict` (plain JSON data: what was measured) and
`report(result) -> list[str]` (the same for a reader). It is found by its place; all are run unless some are named.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

PREFIX = "bench_"


def names() -> list[str]:
    return sorted(path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run the benchmarks.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of: {', '.join(names())}; all by default"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(names()):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(names())}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f} at the start",
        flush=True,
    )
    results = {}
    for name in asked.names or names():
        benchmark = importlib.import_module(f"benchmarks.{PREFIX}{name}")
        print(f"\n{name}: {(benchmark.__doc__ or '').splitlines()[0]}", flush=True)
        results[name] = benchmark.run()
        print("\n".join(benchmark.report(results[name])), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
