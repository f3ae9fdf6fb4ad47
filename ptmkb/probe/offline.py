"""Keeps a process off the network and remembers every attempt, so that one that is caught and hidden is seen all the same."""

from __future__ import annotations

import os
import socket
from typing import Any, NoReturn

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

_attempts: list[str] = []


class NetworkRefusedError(ConnectionError):
    """Something tried to leave the machine."""


def refuse_network() -> list[str]:
    """From now on, refuse every connection and name look-up of this process.

    Sockets inside the machine's own file system stay allowed.

    Returns:
        A list that grows by one line for every attempt.
    """
    os.environ.update(ENVIRONMENT)
    _attempts.clear()

    def refused(host: object, port: object) -> NoReturn:
        line = f"tried to reach {host}:{port}; probes run offline"
        _attempts.append(line)
        raise NetworkRefusedError(line)

    def connect(self: socket.socket, address: Any, *rest: Any) -> Any:
        if self.family == getattr(socket, "AF_UNIX", None):
            return _connect(self, address, *rest)
        return refused(*_host_port(address))

    def send(self: socket.socket, data: Any, *rest: Any) -> Any:
        address = rest[-1] if rest else None
        return refused(*_host_port(address))

    _connect = socket.socket.connect
    socket.socket.connect = connect  # type: ignore[assignment, method-assign]
    socket.socket.connect_ex = connect  # type: ignore[assignment, method-assign]
    socket.socket.sendto = send  # type: ignore[assignment, method-assign]
    socket.getaddrinfo = lambda host, port, *rest, **more: refused(host, port)
    socket.gethostbyname = lambda host: refused(host, "?")
    socket.gethostbyname_ex = lambda host: refused(host, "?")
    return _attempts


def _host_port(address: Any) -> tuple[object, object]:
    return (address[0], address[1]) if isinstance(address, tuple) and len(address) > 1 else (address, "?")


def hub_attempt(error: BaseException) -> str | None:
    """The clear line for an error that says that the hub's client wanted the network but was kept offline; None for any other error."""
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ in ("OfflineModeIsEnabled", "LocalEntryNotFoundError"):
            return f"tried to reach the model hub; probes run offline ({str(seen).splitlines()[0]})"
        seen = seen.__cause__ or seen.__context__
    text = " ".join(str(error).split())
    if "couldn't connect to" in text and "huggingface.co" in text:
        return f"tried to reach the model hub; probes run offline ({text[:160]})"
    return None
