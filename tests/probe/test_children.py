import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptmkb.probe.children import GIB, Limits, TaskFailedError, run
from ptmkb.probe.offline import refuse_network


def segfault() -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def leave() -> bytes:
    sys.exit(3)


def leave_at_once() -> bytes:
    os._exit(0)


def never_end() -> bytes:
    while True:
        time.sleep(0.01)


def never_end_and_ignore_signals() -> bytes:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return never_end()


def reach_out() -> bytes:
    refuse_network()
    socket.create_connection(("huggingface.co", 443), timeout=2)
    return b""


def flood() -> bytes:
    for _ in range(200):
        sys.stdout.write("x" * 100_000)
    sys.stdout.flush()
    os.write(2, b"the last words")
    return b"done"


def eat() -> bytes:
    return bytes(3 * GIB)[:1]


def fail() -> bytes:
    raise TaskFailedError("for a reason")


def stumble() -> bytes:
    return [b""][1]


def answer() -> bytes:
    return b"fine" * 1_000_000


def leave_a_child_behind() -> bytes:
    process = subprocess.Popen(["sleep", "60"])
    return str(process.pid).encode()


MISBEHAVIOUR = {
    "segfault": (segfault, r"killed by signal 11 \(SIGSEGV\)"),
    "exit": (leave, r"called exit\(3\)"),
    "exit at once": (leave_at_once, "exited with code 0 before it was done"),
    "endless": (never_end, "took longer than 2 s and was stopped"),
    "stubborn": (never_end_and_ignore_signals, "took longer than 2 s and was stopped"),
    "network": (reach_out, "tried to reach huggingface.co:443; probes run offline"),
    "memory": (eat, "out of memory"),
    "failure": (fail, "^for a reason$"),
    "exception": (stumble, "IndexError: list index out of range"),
}


def test_whatever_a_child_does_the_others_are_unharmed() -> None:
    tasks = {name: task for name, (task, _) in MISBEHAVIOUR.items()} | {"good": answer, "loud": flood}
    outcomes = {o.name: o for o in run(tasks, workers=4, limits=Limits(seconds=2, memory=GIB))}
    assert set(outcomes) == set(tasks)
    for name, (_, reason) in MISBEHAVIOUR.items():
        assert outcomes[name].result is None
        assert outcomes[name].why is not None
        assert re.search(reason, outcomes[name].why), (name, outcomes[name].why)
    assert outcomes["good"].result == b"fine" * 1_000_000
    assert outcomes["loud"].result == b"done"
    assert len(outcomes["loud"].output) <= Limits().output
    assert outcomes["loud"].output.endswith("the last words")


def test_no_more_run_at_once_than_there_are_workers() -> None:
    running: list[str] = []
    most = 0

    def started(name: str) -> None:
        nonlocal most
        running.append(name)
        most = max(most, len(running))

    def task() -> bytes:
        time.sleep(0.1)
        return b""

    for outcome in run({str(i): task for i in range(7)}, workers=3, on_start=started):
        running.remove(outcome.name)
    assert most == 3


def test_what_a_child_leaves_behind_is_stopped() -> None:
    (outcome,) = run({"parent": leave_a_child_behind})
    assert outcome.result is not None
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{int(outcome.result)}/stat").read_text().split()[2]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    pytest.fail("the grandchild still runs")


def test_closing_early_stops_the_rest() -> None:
    def quick() -> bytes:
        return b""

    outcomes = run({"quick": quick, "slow": never_end, "slower": never_end}, workers=3)
    next(outcomes)
    assert len(children_of(os.getpid())) == 2
    outcomes.close()
    assert children_of(os.getpid()) == []


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_attempts_that_are_caught_are_remembered() -> None:
    def hidden() -> bytes:
        attempts = refuse_network()
        with contextlib.suppress(OSError):
            socket.getaddrinfo("example.org", 80)
        with socket.socket() as plain, contextlib.suppress(OSError):
            plain.connect(("10.1.2.3", 8080))
        return "\n".join(attempts).encode()

    (outcome,) = run({"hidden": hidden})
    assert outcome.result == (
        b"tried to reach example.org:80; probes run offline\ntried to reach 10.1.2.3:8080; probes run offline"
    )
