"""The process that runs checks (`python -m ptmkb.annotations.check_worker`): JSON in on stdin, one line of JSON out a check."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from typing import IO, Any

POLL_SECONDS = 0.01
MAX_WHY = 2000
"""Characters kept of what a failed check said: its end, where the error is."""


def main() -> None:
    """Run the checks given on stdin."""
    order = json.load(sys.stdin)
    can_fork = hasattr(os, "fork")
    if can_fork:
        for name in order["warm"]:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    for name, check in order["checks"]:
        started = time.perf_counter()
        with tempfile.TemporaryFile() as said:
            run = _forked if can_fork else _spawned
            status = run(check, order["timeout"], said)
            said.seek(0)
            why = (
                "" if status == "passed" else said.read().decode("utf-8", errors="replace").strip()[-MAX_WHY:]
            )
        seconds = round(time.perf_counter() - started, 3)
        _say({"id": name, "status": status, "seconds": seconds, "why": why})


def _say(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def _forked(check: str, timeout: float, said: IO[bytes]) -> str:
    child = os.fork()
    if child == 0:
        os.setsid()  # so that what the check starts can be ended with it
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
        code = 0
        _seed()
        try:
            exec(compile(check, "<check>", "exec"), {"__name__": "__main__"})
        except SystemExit as error:
            code = 0 if error.code in (None, 0) else 1
            if isinstance(error.code, str):  # as Python itself does
                sys.stderr.write(f"{error.code}\n")
        except BaseException:
            sys.stderr.write(traceback.format_exc())
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "passed" if os.waitstatus_to_exitcode(status) == 0 else "failed"
        time.sleep(POLL_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, 9)
    os.waitpid(child, 0)
    return "timeout"


def _seed() -> None:
    """Every check draws the same numbers whenever it runs."""
    random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def _spawned(check: str, timeout: float, said: IO[bytes]) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-c", check], stdout=said, stderr=said, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return "timeout"
    return "passed" if done.returncode == 0 else "failed"


if __name__ == "__main__":
    main()
