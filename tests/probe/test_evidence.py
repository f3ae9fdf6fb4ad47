"""The committed evidence belongs to the entries as they are, and proves them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptmkb.catalogue import load_catalogue
from ptmkb.probe.record import EVIDENCE, ProbeRecord, newest, read_evidence, read_record, write_record


@pytest.fixture(scope="module")
def record() -> ProbeRecord:
    found = read_evidence()
    assert found is not None
    return found


def test_every_claim_of_every_entry_is_in_the_evidence_as_it_stands(record: ProbeRecord) -> None:
    for model in load_catalogue().models.values():
        proof = record.model(model.id)
        assert proof is not None, f"{model.id}: run `make probe`"
        claimed = [(c.measure, c.part, c.variant, c.value) for c in model.claims]
        proved = [(c.measure, c.part, c.variant, c.claimed) for c in proof.claims if c.origin == "entry"]
        assert json.loads(json.dumps(proved)) == json.loads(json.dumps(claimed)), (
            f"{model.id}: run `make probe`"
        )


def test_no_claim_is_refuted_and_nearly_all_are_measured(record: ProbeRecord) -> None:
    claims = [claim for model in record.models for claim in model.claims]
    assert [model.id for model in record.models if model.status != "passed"] == []
    assert not [claim for claim in claims if claim.verdict == "refuted"]
    unmeasured = [claim for claim in claims if claim.verdict == "unmeasured"]
    assert all(claim.why for claim in unmeasured)
    assert len(unmeasured) <= 0.05 * len(claims)


def test_every_curated_model_shows_its_measured_flow(record: ProbeRecord) -> None:
    for model in record.models:
        flows = [m for m in model.measured if m.measure == "flow"]
        assert flows, model.id
        for flow in flows:
            rows = flow.detail["matrix"]
            assert rows, model.id
            assert {len(row) for row in rows} == {len(rows[0])}
            assert set("".join(rows)) <= {"0", "1"}


def test_evidence_holds_no_times_so_that_equal_results_are_equal_bytes(record: ProbeRecord) -> None:
    assert {model.seconds for model in record.models} == {0.0}


def test_writing_and_reading_a_record_changes_nothing(
    record: ProbeRecord, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("record") / "transformers-0.json"
    write_record(record, path)
    assert read_record(path) == record
    committed = EVIDENCE / f"transformers-{record.transformers}.json"
    assert path.read_bytes() == committed.read_bytes()
    assert list(path.parent.iterdir()) == [path], "no half-written file is left behind"


def test_the_newest_record_of_a_kind_is_by_its_release(tmp_path: Path) -> None:
    for name in ("walks-5.9.0", "walks-5.23.0", "transformers-6.0.0"):
        (tmp_path / f"{name}.json").touch()
    assert newest("walks", tmp_path) == tmp_path / "walks-5.23.0.json"
    assert newest("transformers", tmp_path) == tmp_path / "transformers-6.0.0.json"
    assert newest("architectures", tmp_path) is None
    assert newest("walks", tmp_path / "nowhere") is None
