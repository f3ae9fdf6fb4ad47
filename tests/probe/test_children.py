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

from ptmkb.probe import children, footprint
from ptmkb.probe.children import GIB, Limits, TaskFailedError, emit, run
from ptmkb.probe.offline import attempts_elsewhere, isolated, refuse_network


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


def hold_a_while() -> bytes:
    held = bytearray(b"x") * GIB  # every page of it written
    time.sleep(4)
    return str(time.monotonic()).encode() if held else b""


def wait_a_while() -> bytes:
    time.sleep(2)
    return b""


def say_when() -> bytes:
    return str(time.monotonic()).encode()


def fail() -> bytes:
    raise TaskFailedError("for a reason")


@pytest.mark.parametrize(
    ("room", "waits"),
    [
        (8 * GIB, False),  # with room for all, the last starts when the small one ends
        (GIB // 2, True),  # the first two start before one has grown; the last has no room until that is gone
    ],
)
def test_while_children_take_much_together_no_further_one_starts(room: int, waits: bool) -> None:
    tasks = {"large": hold_a_while, "small": wait_a_while, "last": say_when}
    limits = Limits(together=footprint.proportional(os.getpid()) + room)
    outcomes = {outcome.name: outcome for outcome in run(tasks, workers=2, limits=limits)}
    assert [outcome.why for outcome in outcomes.values()] == [None] * 3
    assert (float(outcomes["last"].result or 0) > float(outcomes["large"].result or 0)) == waits


def test_one_child_always_runs() -> None:
    outcomes = list(run({"one": say_when, "two": say_when}, workers=2, limits=Limits(together=0)))
    assert [outcome.why for outcome in outcomes] == [None, None]
    one, two = (float(outcome.result) for outcome in outcomes if outcome.result)
    assert one < two


def test_shared_pages_count_once() -> None:
    held = bytearray(GIB // 2)
    before = footprint.together(footprint.tree())
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    try:
        time.sleep(0.3)
        assert child in list(footprint.tree())
        together = footprint.together(footprint.tree())
        assert footprint.proportional(child) > len(held) // 3, "half of what both hold is the child's"
        assert together < before + len(held) // 4, "a fork that writes nothing takes next to nothing"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert footprint.proportional(child) == 0


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

    others = {*children_of(os.getpid())}  # of other tests in this process, such as a browser's driver
    outcomes = run({"quick": quick, "slow": never_end, "slower": never_end}, workers=3)
    next(outcomes)
    assert len({*children_of(os.getpid())} - others) == 2
    outcomes.close()
    assert {*children_of(os.getpid())} <= others


def test_pieces_survive_the_death_of_the_child() -> None:
    def die() -> bytes:
        emit(b"first")
        emit(b"x" * 3_000_000)
        os.write(children._pipe, b"+half a head")
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    (outcome,) = run({"die": die})
    assert outcome.pieces == (b"first", b"x" * 3_000_000)
    assert outcome.why == "killed by signal 9 (SIGKILL)"
    with pytest.raises(RuntimeError, match="only a task"):
        emit(b"here")


def test_children_die_with_their_parent() -> None:
    code = (
        "import os, time\n"
        "from ptmkb.probe.children import run\n"
        "def task():\n    print('child', flush=True)\n    os.write(3, b'%d ' % os.getpid())\n    time.sleep(60)\n"
        "list(run({'a': task, 'b': task}, workers=2))\n"
    )
    told_in, told_out = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.dup2({told_out}, 3)\n{code}"], pass_fds=[told_out]
    )
    os.close(told_out)
    pids: list[int] = []
    while len(pids) < 2:
        data = os.read(told_in, 100)
        assert data
        pids += [int(pid) for pid in data.split()]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "children outlive their parent"
        time.sleep(0.02)
    os.close(told_in)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces are Linux's")
def test_c_code_and_other_programs_are_kept_off_the_network() -> None:
    """A listener on this machine is not reached by a program that a task starts, and the attempt is seen."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def call() -> bytes:
            refuse_network()
            code = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)"
            told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            assert told.returncode, "it was reached"
            return "\n".join([str(isolated()), *attempts_elsewhere()]).encode()

        def behave() -> bytes:
            refuse_network()
            left, right = socket.socketpair()
            left.sendall(b"inside")
            return right.recv(6) + b"".join(line.encode() for line in attempts_elsewhere())

        outcomes = {o.name: o for o in run({"call": call, "behave": behave})}
    if outcomes["call"].result is None:
        assert outcomes["call"].why == "AssertionError: it was reached"
        pytest.skip("the system forbids namespaces; only Python code is kept off the network")
    assert outcomes["call"].result.decode().splitlines() == [
        "True",
        "a program it started, or C code, tried to reach the network; probes run offline",
    ]
    assert outcomes["behave"].result == b"inside"


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
