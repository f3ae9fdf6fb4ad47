"""Measures entries on a Dask cluster, for catalogues that outgrow one machine (extra `[cluster]`).

Every worker needs this package with the same code and the same releases of `transformers` and `torch`; one that has others says so instead of
measuring. A worker that dies takes nothing with it: the scheduler gives what it had to another.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from typing import Any

from ptmkb.probe.cache import Cache
from ptmkb.probe.children import Limits
from ptmkb.probe.findings import Findings
from ptmkb.probe.remote import Answer, Server
from ptmkb.probe.runner import Done, Executor, Watcher
from ptmkb.probe.targets import Target

SCHEME = "dask://"
_OF_THREAD = (
    threading.local()
)  # a worker's threads have a process each, which dies with the thread that started it
_CONNECT = 10  # seconds to find the scheduler in


class ClusterError(Exception):
    """The cluster cannot be used; one line."""


def connect(address: str) -> Any:
    """A client of the scheduler at `dask://HOST:PORT`.

    Raises:
        ClusterError: There is none, or Dask is not installed.
    """
    if not address.startswith(SCHEME):
        raise ClusterError(f"an executor is written dask://HOST:PORT; not {address!r}")
    try:
        from distributed import Client
    except ImportError:
        raise ClusterError("a cluster needs Dask: pip install 'ptmkb[cluster]'") from None
    try:
        return Client(f"tcp://{address.removeprefix(SCHEME)}", timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address}: {' '.join(str(error).split())[:200]}"
        ) from None


def workers(client: Any) -> int:
    """How many entries the cluster can measure at once."""
    threads: dict[str, int] = client.nthreads()
    return max(1, sum(threads.values()))


def cluster(client: Any, limits: Limits = Limits()) -> Executor:  # noqa: B008 - frozen
    """Measures on a cluster.

    Args:
        client: From `connect`.
        limits: Of each entry's child on its worker.
    """

    def execute(targets: Mapping[str, Target], watcher: Watcher) -> Generator[Done]:
        from distributed import as_completed

        cache = Cache()
        futures = {}
        for place, (name, target) in enumerate(targets.items()):
            asked = {
                "target": target.model_dump(mode="json", by_alias=True),
                "seconds": limits.seconds,
                "memory": limits.memory,
            }
            future = client.submit(measure, asked, _key(cache, target), pure=False, priority=-place)
            futures[future] = name
        try:
            for future in as_completed(list(futures), loop=client.loop):
                yield _done(futures.pop(future), future)
                watcher.ticks()
        finally:
            client.cancel(list(futures), force=True)

    return execute


def _done(model_id: str, future: Any) -> Done:
    if future.status == "finished":
        found = Answer.model_validate_json(future.result())
        return Done(model_id, found.findings, found.seconds, found.why)
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return Done(model_id, Findings(), 0.0, "the workers that measured it died, one after another")
    return Done(
        model_id,
        Findings(),
        0.0,
        f"its worker failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
    )


def _key(cache: Cache, target: Target) -> str:
    return cache.key(target) + cache.variants_key(target)


def measure(asked: dict[str, Any], key: str) -> bytes:
    """What a worker does: have its warm process measure a target, if it would measure what the client would."""
    if _key(Cache(), Target.model_validate(asked["target"])) != key:
        why = "its worker has other code, or another release of transformers, torch or Python, than this machine"
        return Answer(findings=Findings(), seconds=0.0, why=why).model_dump_json().encode()
    if not hasattr(_OF_THREAD, "server"):
        _OF_THREAD.server = Server()
    server: Server = _OF_THREAD.server
    return server.ask(asked)
