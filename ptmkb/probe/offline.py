"""Keeps a process off the network and remembers every attempt, so that one that is caught and hidden is seen all the same.

Two guards, one behind the other:
- An audit hook of Python refuses connections, look-ups and datagrams that Python code makes, and knows where they were meant to go.
- On Linux the process moves into a network namespace of its own, from which nothing can be reached, not even the machine that it runs on. That
  holds for C code and for programs that the process starts too, and the namespace counts what they tried. It takes no privilege where the system
  lets users make namespaces of their own.

Where there are no namespaces (another system, or one that forbids them) the audit hook stands alone: what C code and other programs do is neither
refused nor seen there, and `isolated()` says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # CLONE_NEWNET and CLONE_NEWUSER of unshare(2)
_SET_ADDRESS, _SET_FLAGS, _UP_AND_RUNNING = (
    0x8916,
    0x8914,
    0x41,
)  # SIOCSIFADDR, SIOCSIFFLAGS, IFF_UP | IFF_RUNNING of netdevice(7)
_NOBODYS_ADDRESS = "192.0.2.1"  # set aside for documentation (RFC 5737)
_COUNTED = {"IpOutNoRoutes", "TcpActiveOpens", "UdpOutDatagrams", "Ip6OutNoRoutes", "Udp6OutDatagrams"}
_NAMES = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}
_ADDRESSES = {"socket.connect", "socket.sendto", "socket.sendmsg"}

_attempts: list[str] = []
_state = {"hooked": False, "isolated": False}


class NetworkRefusedError(ConnectionError):
    """Something tried to leave the machine."""


def refuse_network() -> list[str]:
    """From now on, and for good, refuse this process and all that it starts every connection and name look-up.

    Sockets inside the machine's own file system stay allowed.

    Returns:
        A list that grows by one line for every attempt of Python code; `attempts_elsewhere` knows of others.
    """
    os.environ.update(ENVIRONMENT)
    if (hub := sys.modules.get("huggingface_hub.constants")) is not None:
        vars(hub)["HF_HUB_OFFLINE"] = (
            True  # it has read the environment already, and would try again and again
        )
    _attempts.clear()
    if not _state["hooked"]:
        sys.addaudithook(_hook)
        _state["isolated"] = _leave_network()
        _state["hooked"] = True
    return _attempts


def isolated() -> bool:
    """Whether C code and programs that this process starts are kept off the network too."""
    return _state["isolated"]


def attempts_elsewhere() -> list[str]:
    """A line where C code or a program that was started tried to reach the network; none where that cannot be seen."""
    if not _state["isolated"] or not _tried():
        return []
    return ["a program it started, or C code, tried to reach the network; probes run offline"]


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event in _ADDRESSES:
        if args[0].family == getattr(socket, "AF_UNIX", None):
            return
        address = args[1]
        if address is None:  # already connected, which was refused
            return
        host, port = address[:2] if isinstance(address, tuple) and len(address) > 1 else (address, "?")
    elif event in _NAMES:
        host, port = (args[0], args[1]) if event == "socket.getaddrinfo" else (args[0], "?")
    else:
        return
    line = f"tried to reach {host}:{port}; probes run offline"
    _attempts.append(line)
    raise NetworkRefusedError(line)


def _leave_network() -> bool:
    """Move this process into a network namespace of its own; whether that went well."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (OSError, AttributeError):
        return False
    user, group = os.getuid(), os.getgid()
    if unshare(_NEW_NETWORK) != 0:
        if unshare(_NEW_USER | _NEW_NETWORK) != 0:
            return False
        # In a user namespace of its own a process is nobody, who cannot make files, until it is said who it is outside.
        with contextlib.suppress(OSError):
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{user} {user} 1"),
                ("gid_map", f"{group} {group} 1"),
            ):
                Path("/proc/self", name).write_text(text, encoding="ascii")
    _give_address()
    return True


def _give_address() -> None:
    """An address that leads nowhere: without one the C library does not even try to look up a name, and nothing would be counted."""
    import fcntl

    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        address = struct.pack("16sHH4s8x", b"lo", socket.AF_INET, 0, socket.inet_aton(_NOBODYS_ADDRESS))
        fcntl.ioctl(handle, _SET_ADDRESS, address)
        fcntl.ioctl(handle, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP_AND_RUNNING))


def _tried() -> int:
    """How many connections, datagrams and look-ups this namespace has seen, whether or not there was a way for them."""
    count = 0
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/self/net/snmp").read_text(encoding="ascii").splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            group, *fields = names.split()
            for name, value in zip(fields, values.split()[1:], strict=True):
                count += int(value) if group[:-1] + name in _COUNTED else 0
        for line in Path("/proc/self/net/snmp6").read_text(encoding="ascii").splitlines():
            name, value = line.split()
            count += int(value) if name in _COUNTED else 0
    return count


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
