"""Runs tasks in forked children, as many at once as there are cores, so that nothing that a task does can hurt anything but itself.

A child is a copy of the warm parent, in a session of its own, with a limit on its address space and on its time; what it prints goes
through a pipe of which the last lines are kept; its result comes back through another, and so does every piece that it emits before. A child
that crashes, exits, hangs, runs out of memory or floods its output is an `Outcome` with a reason and the pieces that came until then. While
children take much memory together, no further one is started. When the parent dies, however suddenly, its children die with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import selectors
import signal
import struct
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ptmkb.probe import footprint

GIB = 1 << 30
_HEADER = struct.Struct(
    "<cQ"
)  # `+` for a piece, `=` for a result, `!` for a failure; then the length of what follows
_CHUNK = 1 << 16
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)

_pipe: int | None = None  # of this process, where it is a child: what it has to say goes there


@dataclass(frozen=True)
class Limits:
    """What a child may use.

    Attributes:
        seconds: Wall-clock time.
        memory: Address space beyond what the parent already has, in bytes.
        output: How much of the end of its output is kept, in bytes.
        together: Memory that the parent and all its children may take before a further child has to wait, in bytes. One child always runs.
    """

    seconds: float = 120.0
    memory: int = 4 * GIB
    output: int = 4096
    together: int = 6 * GIB


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        result: What it returned; None where it failed.
        why: The reason of a failure, one line.
        seconds: Wall-clock time.
        output: The end of what it printed.
        pieces: What it emitted, in order; complete pieces of a task that failed too.
    """

    name: str
    result: bytes | None
    why: str | None
    seconds: float
    output: str = ""
    pieces: tuple[bytes, ...] = ()


class TaskFailedError(Exception):
    """Raised by a task to fail with a reason of one line."""


def emit(piece: bytes) -> None:
    """Hand a piece of the result to the parent, which has it even if this child dies.

    Raises:
        RuntimeError: This process is no child of `run`.
    """
    if _pipe is None:
        raise RuntimeError("only a task that `run` runs can emit")
    _send(b"+", piece)


def _send(kind: bytes, data: bytes) -> None:
    assert _pipe is not None
    waiting = memoryview(_HEADER.pack(kind, len(data)) + data)
    while waiting:
        waiting = waiting[os.write(_pipe, waiting) :]


@dataclass
class _Child:
    name: str
    pid: int
    result: int
    output: int
    started: float
    received: bytearray = field(default_factory=bytearray)
    printed: bytearray = field(default_factory=bytearray)
    overdue: bool = False


def run(
    tasks: Mapping[str, Callable[[], bytes]],
    workers: int | None = None,
    limits: Limits = Limits(),
    on_start: Callable[[str], None] = lambda name: None,
    on_tick: Callable[[], None] = lambda: None,
) -> Generator[Outcome]:
    """Run all tasks and give their outcomes as they end.

    Args:
        tasks: By name; each returns bytes or raises.
        workers: How many at once; by default as many as there are cores.
        limits: Of each child.
        on_start: Called with a task's name when it starts.
        on_tick: Called some times a second.

    Yields:
        One outcome a task. When the iterator is closed or interrupted, the children that still run are killed.
    """
    waiting = list(tasks.items())
    waiting.reverse()
    running: dict[int, _Child] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < (workers or os.cpu_count() or 1) and _fits(running, limits):
                    name, task = waiting.pop()
                    on_start(name)
                    child = _fork(name, task, limits, running.values())
                    running[child.pid] = child
                    for pipe in (child.result, child.output):
                        selector.register(pipe, selectors.EVENT_READ, child)
                for key, _ in selector.select(timeout=0.05):
                    _receive(key.data, key.fd, limits, selector)
                for child in list(running.values()):
                    if time.monotonic() - child.started > limits.seconds and not child.overdue:
                        child.overdue = True
                        _kill(child)
                    if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                        del running[child.pid]
                        yield _outcome(child, limits, selector)
                on_tick()
        finally:
            for child in running.values():
                _kill(child)
                os.waitpid(child.pid, 0)
                _close(child, selector)


def _fits(running: Iterable[int], limits: Limits) -> bool:
    """Whether there is room for one more child, as large as the largest that runs; always for the first."""
    sizes = [footprint.proportional(child) for child in running]
    return not sizes or footprint.proportional(os.getpid()) + sum(sizes) + max(sizes) <= limits.together


def _fork(name: str, task: Callable[[], bytes], limits: Limits, running: Iterable[_Child]) -> _Child:
    global _pipe
    parent = os.getpid()
    result_in, result_out = os.pipe()
    output_in, output_out = os.pipe()
    pid = os.fork()
    if pid == 0:  # the child never returns from here
        code = 70
        try:
            os.setsid()
            die_with(parent)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for other in running:
                os.close(other.result)
                os.close(other.output)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output_out, 1)
            os.dup2(output_out, 2)
            faulthandler.enable(2)  # where it crashed goes to its own output
            limit = _address_space() + limits.memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            _pipe = result_out
            _send(*_do(task))
            code = 0
        finally:
            os._exit(code)
    os.close(result_out)
    os.close(output_out)
    os.set_blocking(result_in, False)
    os.set_blocking(output_in, False)
    return _Child(name, pid, result_in, output_in, time.monotonic())


def die_with(parent: int) -> None:
    """Have the system kill this process when its parent is gone; where there is no such thing, the time limit of the child's own work must do."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it went before that was said
        os._exit(70)


def _do(task: Callable[[], bytes]) -> tuple[bytes, bytes]:
    try:
        return b"=", task()
    except SystemExit as error:
        return b"!", f"called exit({error.code!r})".encode()
    except BaseException as error:
        if not isinstance(error, TaskFailedError | MemoryError):
            traceback.print_exc()
        return b"!", reason(error).encode(errors="replace")


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(error).split())
    if is_out_of_memory(error):
        return f"out of memory: {text[:300]}" if text else "out of memory"
    return text if isinstance(error, TaskFailedError) else f"{type(error).__name__}: {text[:500]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, Python's or torch's."""
    return isinstance(error, MemoryError) or any(
        sign in str(error) for sign in ("can't allocate memory", "not enough memory")
    )


def _address_space() -> int:
    """Of this process now, in bytes; 0 where the system does not say."""
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a device
        return int(file.read().split()[0]) * resource.getpagesize()
    return 0


def _receive(child: _Child, pipe: int, limits: Limits, selector: selectors.BaseSelector) -> bool:
    """Take what is there; whether there may be more."""
    try:
        data = os.read(pipe, _CHUNK)
    except BlockingIOError:
        return False
    if not data:
        with contextlib.suppress(KeyError):
            selector.unregister(pipe)
        return False
    if pipe == child.result:
        child.received += data
    else:
        child.printed += data
        del child.printed[: -limits.output]
    return True


def _kill(child: _Child) -> None:
    """The child and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)


def _close(child: _Child, selector: selectors.BaseSelector) -> None:
    for pipe in (child.result, child.output):
        with contextlib.suppress(KeyError):
            selector.unregister(pipe)
        os.close(pipe)


def _outcome(child: _Child, limits: Limits, selector: selectors.BaseSelector) -> Outcome:
    seconds = time.monotonic() - child.started
    _kill(child)  # what it left behind; its own number is still taken, for it has not been waited for
    _, status = os.waitpid(child.pid, 0)
    for pipe in (child.result, child.output):
        while _receive(child, pipe, limits, selector):
            pass
    _close(child, selector)
    output = child.printed.decode(errors="replace")
    messages = list(_messages(bytes(child.received)))
    pieces = tuple(data for kind, data in messages if kind == b"+")
    kind, data = messages[-1] if messages else (b"", b"")
    if child.overdue:
        why: str | None = f"took longer than {limits.seconds:g} s and was stopped"
    elif kind == b"=":
        return Outcome(child.name, data, None, seconds, output, pieces)
    elif kind == b"!":
        why = data.decode(errors="replace")
    elif os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        why = f"killed by signal {number} ({signal.Signals(number).name})"
    else:
        why = f"exited with code {os.waitstatus_to_exitcode(status)} before it was done"
    return Outcome(child.name, None, why, seconds, output, pieces)


def _messages(received: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of every message that is complete."""
    at = 0
    while at + _HEADER.size <= len(received):
        kind, length = _HEADER.unpack_from(received, at)
        end = at + _HEADER.size + length
        if end > len(received):
            return
        yield kind, received[at + _HEADER.size : end]
        at = end
