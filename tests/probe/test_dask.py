import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from ptmkb.catalogue import load_catalogue
from ptmkb.cli import app
from ptmkb.probe import cluster
from ptmkb.probe.cache import Cache
from ptmkb.probe.children import Limits
from ptmkb.probe.record import ModelRecord
from ptmkb.probe.remote import Answer, Server
from ptmkb.probe.runner import Watcher, probe_all, timeless
from ptmkb.probe.targets import of_entry

distributed = pytest.importorskip("distributed")
CATALOGUE = load_catalogue()
ENTRIES = [
    CATALOGUE.models[model_id].model_copy(update={"variants": []})
    for model_id in ("bert", "gpt2", "elmo", "openai", "distilbert")
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as local:
        yield local.scheduler_address.replace("tcp://", cluster.SCHEME)


def test_a_killed_worker_loses_nothing_and_doubles_nothing(address: str, tmp_path) -> None:
    client = cluster.connect(address)
    ended: list[str] = []
    killed: list[int] = []

    class Killer(Watcher):
        def ends(self, record: ModelRecord) -> None:
            ended.append(record.id)
            if not killed:
                busy = next(worker for worker, tasks in client.processing().items() if tasks)
                killed.append(client.run(os.getpid, workers=[busy])[busy])
                os.kill(killed[0], signal.SIGKILL)

    cache = Cache(tmp_path)
    record, whole = probe_all(ENTRIES, CATALOGUE, cluster.cluster(client), Killer(), cache)
    assert whole
    assert killed
    assert sorted(ended) == sorted(entry.id for entry in ENTRIES)
    assert [model.id for model in record.models] == [entry.id for entry in ENTRIES]
    here, _ = probe_all(ENTRIES, CATALOGUE)
    assert timeless(record).to_json() == timeless(here).to_json()
    assert all(cache.load(of_entry(entry)) for entry in ENTRIES)
    assert killed[0] not in client.run(os.getpid).values()
    client.close()


def test_a_worker_keeps_its_warm_process_and_starts_another_when_it_died() -> None:
    server = Server()
    asked = {"target": of_entry(ENTRIES[3]).model_dump(mode="json", by_alias=True)}
    assert server.pid is None
    first = Answer.model_validate_json(server.ask(asked))
    pid = server.pid
    assert first.why is None
    assert {one.measure for one in first.findings.measured} > {"flow", "norm"}
    again = Answer.model_validate_json(server.ask(asked))
    assert again.findings == first.findings
    assert server.pid == pid
    dead = Answer.model_validate_json(server.ask({**asked, "seconds": 0.01}))
    assert "took longer than 0.01 s" in str(dead.why)
    assert server.pid == pid  # what happens to a child is nothing to it
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while server.pid is not None:
        time.sleep(0.01)
    assert Answer.model_validate_json(server.ask(asked)).findings == first.findings
    assert server.pid not in (None, pid)


def test_a_warm_process_that_dies_at_work_is_the_entry_s_failure() -> None:
    server = Server()
    server.ask({"target": of_entry(ENTRIES[3]).model_dump(mode="json", by_alias=True)})
    assert server.pid is not None
    threading.Timer(0.5, os.kill, (server.pid, signal.SIGKILL)).start()
    answer = Answer.model_validate_json(
        server.ask({"target": of_entry(CATALOGUE.models["t5"]).model_dump(mode="json", by_alias=True)})
    )
    assert answer.why == "its process ended with code -9"
    assert server.pid is None


def test_limits_hold_on_workers(address: str) -> None:
    client = cluster.connect(address)
    slow = cluster.cluster(client, Limits(seconds=0.05))
    (model,) = probe_all(ENTRIES[:1], CATALOGUE, slow)[0].models
    assert model.status == "failed"
    assert model.why is not None
    assert "took longer than 0.05 s and was stopped" in model.why
    client.close()


def test_a_worker_with_other_code_does_not_measure() -> None:
    asked = {"target": of_entry(ENTRIES[0]).model_dump(mode="json", by_alias=True)}
    answer = cluster.Answer.model_validate_json(cluster.measure(asked, "another key"))
    assert answer.why is not None
    assert "other code" in answer.why
    assert answer.findings.measured == ()


def test_the_command_uses_the_cluster(address: str, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PTMKB_CACHE", str(tmp_path))
    monkeypatch.setattr("ptmkb.probe.children._fork", None)  # nothing is measured here
    result = CliRunner().invoke(app, ["probe", "openai", "--executor", address])
    assert result.exit_code == 0, result.output
    assert "1 models: 1 passed" in result.stdout


@pytest.mark.parametrize(
    ("executor", "told"),
    [("ray://x:1", "written dask://HOST:PORT"), ("dask://127.0.0.1:9", "no Dask scheduler answers")],
)
def test_a_cluster_that_is_not_there_is_a_line(monkeypatch, executor: str, told: str) -> None:
    monkeypatch.setattr(cluster, "_CONNECT", 1)
    result = CliRunner().invoke(app, ["probe", "bert", "--executor", executor])
    assert result.exit_code == 2
    assert told in result.stderr
