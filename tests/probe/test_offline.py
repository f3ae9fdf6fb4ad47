"""The network guard in the hands of an ordinary user, who has no privilege to make a network namespace but within a user namespace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
CODE = """
import encodings.ascii, fcntl, os, random, subprocess, sys, tempfile
sys.path.insert(0, {root!r})
from ptmkb.probe.offline import attempts_elsewhere, isolated, refuse_network  # the user may not read where it is
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({nobody})
    os.setuid({nobody})
def reach():
    return subprocess.run(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/{port}"], capture_output=True).returncode
before = reach()
refuse_network()
quiet = attempts_elsewhere()
with tempfile.NamedTemporaryFile() as file:
    owner = os.stat(file.name).st_uid
print(os.getuid(), before, isolated(), quiet, reach(), len(attempts_elsewhere()), owner == os.getuid())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces are Linux's")
def test_an_ordinary_user_is_kept_off_the_network_too() -> None:
    """A program that the process starts reaches a server on this machine before, and nothing afterwards; and that it tried is seen."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = CODE.format(nobody=NOBODY, root=str(ROOT), port=server.getsockname()[1])
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd="/tmp", check=False
        )
    assert process.returncode == 0, process.stderr
    if " False " in process.stdout:
        pytest.skip("the system forbids namespaces; only Python code is kept off the network")
    user = NOBODY if os.getuid() == 0 else os.getuid()
    assert process.stdout.split() == [str(user), "0", "True", "[]", "1", "1", "True"]
