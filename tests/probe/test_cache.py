import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ptmkb
from ptmkb.catalogue import DATA, load_catalogue
from ptmkb.probe.cache import Cache, _followed, code_digest
from ptmkb.probe.findings import Findings, Silence
from ptmkb.probe.record import Measurement
from ptmkb.probe.runner import Done, Watcher, probe_all, probe_types
from ptmkb.probe.targets import of_entry, of_types

CATALOGUE = load_catalogue()
PACKAGE = Path(ptmkb.__file__).parent
BERT, GPT2, ELMO = (CATALOGUE.models[model_id] for model_id in ("bert", "gpt2", "elmo"))
FOUND = Findings(measured=(Measurement(measure="flow", value={"kind": "causal"}, detail={"noise": 1e-17}),))


def counting(found: Findings, begun: list[str], seconds: float = 1.0):
    """An executor that finds the same for everything, and remembers what it was asked."""

    def execute(entries, watcher: Watcher):
        for model_id in entries:
            begun.append(model_id)
            yield Done(model_id, found, seconds)

    return execute


def probed(entries, cache: Cache, found: Findings = FOUND, seconds: float = 1.0):
    begun: list[str] = []
    record, _ = probe_all(entries, CATALOGUE, counting(found, begun, seconds), cache=cache)
    return record, begun


def test_nothing_is_measured_twice_unless_asked(tmp_path: Path) -> None:
    first, begun = probed([BERT, GPT2], Cache(tmp_path))
    assert sorted(begun) == ["bert", "gpt2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert.json", "gpt2.json"]
    second, begun = probed([BERT, GPT2], Cache(tmp_path))
    assert begun == []
    assert second.to_json() == first.to_json()
    assert sorted(probed([BERT, GPT2], Cache(tmp_path, fresh=True))[1]) == ["bert", "gpt2"]


def test_claims_are_judged_anew_from_kept_findings(tmp_path: Path) -> None:
    probed([GPT2], Cache(tmp_path))
    at = next(i for i, claim in enumerate(GPT2.claims) if claim.measure == "flow")
    false = list(GPT2.claims)
    false[at] = false[at].model_copy(update={"value": "bidirectional"})
    record, begun = probed([GPT2.model_copy(update={"claims": false})], Cache(tmp_path))
    assert begun == []
    assert record.models[0].claims[at].verdict == "refuted"
    assert record.models[0].status == "failed"


def test_a_changed_entry_is_measured_again_and_no_other(tmp_path: Path) -> None:
    probed([BERT, GPT2, ELMO], Cache(tmp_path))
    fewer = BERT.model_copy(update={"variants": BERT.variants[:1]})
    assert probed([fewer, GPT2, ELMO], Cache(tmp_path))[1] == ["bert"]
    assert probed([fewer, GPT2, ELMO], Cache(tmp_path))[1] == []


def test_another_release_is_another_result(tmp_path: Path, monkeypatch) -> None:
    probed([BERT], Cache(tmp_path))
    monkeypatch.setattr("ptmkb.probe.cache.installed", lambda name: "6.0.0")
    assert probed([BERT], Cache(tmp_path))[1] == ["bert"]


def test_what_can_be_otherwise_the_next_time_is_not_kept(tmp_path: Path) -> None:
    for silence, kept in (
        (Silence(measure="flow", why="took too long", failed=True, lasting=False), False),
        (Silence(measure="flow", why="IndexError", failed=True), True),
    ):
        cache = Cache(tmp_path)
        probed([BERT], cache, FOUND.model_copy(update={"silences": (silence,)}))
        assert (cache.load(of_entry(BERT)) is not None) == kept


@pytest.mark.parametrize("damage", [b"", b'{"key": ', b"[]", b'{"key": null}', b"\xff"])
def test_a_damaged_file_is_measured_again(tmp_path: Path, damage: bytes) -> None:
    cache = Cache(tmp_path)
    probed([BERT], cache)
    (tmp_path / "bert.json").write_bytes(damage)
    assert probed([BERT], cache)[1] == ["bert"]
    assert cache.load(of_entry(BERT)) is not None


def test_a_file_with_the_right_key_and_wrong_findings_is_measured_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    (tmp_path / "bert.json").write_text(
        json.dumps({"key": cache.key(of_entry(BERT)), "seconds": 1, "findings": {"x": 1}})
    )
    assert cache.load(of_entry(BERT)) is None


def test_where_nothing_can_be_written_all_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    record, begun = probed([BERT], Cache(tmp_path / "file" / "cache"))
    assert begun == ["bert"]
    assert record.models[0].measured == FOUND.measured


def test_the_longest_of_the_last_run_goes_first(tmp_path: Path) -> None:
    for entry, seconds in ((BERT, 3.0), (GPT2, 9.0), (ELMO, 5.0)):
        probed([entry], Cache(tmp_path), seconds=seconds)
    assert probed([BERT, GPT2, ELMO], Cache(tmp_path, fresh=True))[1] == ["gpt2", "elmo", "bert"]


def recording(begun: list[tuple[str, bool]]):
    """An executor that finds a flow of the tiny model and a count of each variant that it is asked for, and remembers what that was."""

    def execute(targets, watcher: Watcher):
        for name, target in targets.items():
            begun.append((name, target.tiny))
            counts = tuple(
                Measurement(measure="parameters", variant=v.name, value=7) for v in target.variants
            )
            yield Done(name, Findings(measured=(*FOUND.measured * target.tiny, *counts)), 1.0)

    return execute


def test_a_type_and_its_entry_are_measured_once(tmp_path: Path) -> None:
    begun: list[tuple[str, bool]] = []
    (openai,) = [entry for entry in CATALOGUE.models.values() if entry.id == "openai"]
    assert openai.implementation.model_type == "openai-gpt"
    assert openai.variants

    def entry():
        return probe_all([openai], CATALOGUE, recording(begun), cache=Cache(tmp_path))[0].models[0].measured

    def model_type():
        record, _ = probe_types(["openai-gpt"], CATALOGUE, recording(begun), cache=Cache(tmp_path))
        return record.models[0].measured

    assert model_type() == model_type() == FOUND.measured
    assert begun == [("openai-gpt", True)]
    whole = entry()
    assert begun == [("openai-gpt", True), ("openai", False)], "only the published sizes were left"
    assert [one.variant for one in whole] == [None, *(variant.name for variant in openai.variants)]
    assert model_type() == FOUND.measured
    assert entry() == whole
    assert len(begun) == 2
    Cache(tmp_path).save(of_types(["openai-gpt"], CATALOGUE)[0], FOUND, 2.0)
    assert entry() == whole, "what is known of the sizes stays when the tiny model is measured again"
    assert len(begun) == 2


def test_a_changed_size_leaves_the_tiny_model_alone(tmp_path: Path) -> None:
    begun: list[tuple[str, bool]] = []
    for variants in (BERT.variants, BERT.variants[:1]):
        changed = BERT.model_copy(update={"variants": variants})
        record, _ = probe_all([changed], CATALOGUE, recording(begun), cache=Cache(tmp_path))
        assert [one.variant for one in record.models[0].measured] == [None, *(one.name for one in variants)]
    assert begun == [("bert", True), ("bert", False)]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(
        PACKAGE, tmp_path / "ptmkb", ignore=shutil.ignore_patterns("__pycache__", "evidence", "data")
    )
    shutil.copytree(PACKAGE / "probe" / "data", tmp_path / "ptmkb" / "probe" / "data")
    return tmp_path / "ptmkb"


def test_the_digest_is_of_what_results_depend_on_and_of_nothing_else(copy: Path) -> None:
    before = code_digest(copy)
    for name, counts in {
        "probe/measures/flow.py": True,
        "probe/influence.py": True,  # a helper that a measure imports inside a function
        "probe/shrinking.py": True,
        "probe/probing.py": True,
        "probe/data/tiny.yaml": True,
        "catalogue/schema.py": True,
        "probe/runner.py": False,
        "probe/reports.py": False,
        "catalogue/checking.py": False,
        "cli/probe.py": False,
        "reference/elmo.py": False,  # counts for ELMo's entry alone
    }.items():
        path = copy / name
        text = path.read_text()
        path.write_text(text + "\n# changed\n")
        assert (code_digest(copy) != before) == counts, name
        path.write_text(text)
    (copy / "probe/measures/new.py").write_text("SCALES = ()\n")
    assert code_digest(copy) != before


def test_a_reference_implementation_counts_for_its_own_entry(tmp_path: Path) -> None:
    assert ELMO.implementation.kind == "reference"
    assert _followed([PACKAGE / "reference" / "elmo.py"]) >= {PACKAGE / "reference" / "elmo.py"}
    cache = Cache(tmp_path)
    entries = CATALOGUE.models.values()
    keys = {entry.implementation.model_dump_json(): cache.key(of_entry(entry)) for entry in entries}
    assert len(set(keys.values())) == len(keys) > 30
    whole = {(cache.key(of_entry(entry)), cache.variants_key(of_entry(entry))) for entry in entries}
    assert len(whole) == len(entries), "two entries may be built the same, with other sizes"


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "probe"
    command = [sys.executable, "-m", "ptmkb", "--catalogue", str(DATA), "probe"]
    command += ["bert", "gpt2", "elmo", "openai", "--jobs", "1", "--report", str(tmp_path / "report.json")]
    environment = os.environ | {"PTMKB_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[2/4"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (tmp_path / "report.json").exists()
    kept = {path.name for path in cache.glob("*.json")}
    assert 2 <= len(kept) < 4
    for path in cache.glob("*.json"):
        assert json.loads(path.read_text())["findings"]["measured"]
    times = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.json")}
    second = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert f"{len(kept)} of 4 models: nothing changed" in second.stderr
    assert len(re.findall(r"^\[\d/4", second.stderr, re.MULTILINE)) == 4 - len(kept)
    assert {name: (cache / name).stat().st_mtime_ns for name in kept} == times
    report = json.loads((tmp_path / "report.json").read_text())
    assert [model["id"] for model in report["models"]] == ["bert", "gpt2", "elmo", "openai"]
    start = time.perf_counter()
    third = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert time.perf_counter() - start < 3
    assert "4 of 4 models: nothing changed" in third.stderr
    assert json.loads((tmp_path / "report.json").read_text()) == report
    whole = subprocess.run([*command, "--fresh"], env=environment, capture_output=True, text=True)
    assert "nothing changed" not in whole.stderr
    again = json.loads((tmp_path / "report.json").read_text())
    for model in (*report["models"], *again["models"]):
        model["seconds"] = 0
    assert again == report
