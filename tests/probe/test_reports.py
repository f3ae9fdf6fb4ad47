import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from ptmkb.probe import progress
from ptmkb.probe.progress import Bar, Clock, Lines
from ptmkb.probe.record import ClaimRecord, ModelRecord, ProbeRecord, read_record
from ptmkb.probe.reports import write_report

RECORD = ProbeRecord(
    transformers="5.0.0",
    torch="2.0.0",
    models=(
        ModelRecord(
            id="good",
            status="passed",
            seconds=1.5,
            claims=(
                ClaimRecord(measure="flow", claimed="causal", measured={"kind": "causal"}, verdict="verified"),
                ClaimRecord(
                    measure="parameters", variant="big", claimed="345M", measured=354823168, verdict="discrepancy",
                    why="counted | otherwise",
                ),
                ClaimRecord(measure="weight", claimed=1, verdict="unmeasured", why="there is no measure `weight`"),
            ),
        ),
        ModelRecord(
            id="false",
            status="failed",
            why="1 of 1 claims refuted: shape",
            seconds=2,
            claims=(
                ClaimRecord(
                    measure="shape", claimed={"layers": 3}, measured={"layers": 2, "width": 4}, verdict="refuted",
                    why="measured otherwise",
                ),
            ),
        ),
        ModelRecord(
            id="broken",
            status="failed",
            why="measure `flow`: ValueError: <a> & \x00 \ud800; 1 of 2 claims refuted: flow",
            claims=(
                ClaimRecord(measure="flow", claimed="causal", verdict="unmeasured", why="ValueError: <a> & \x00"),
                ClaimRecord(measure="flow", claimed="causal", measured={"kind": "full"}, verdict="refuted"),
            ),
        ),
        ModelRecord(id="empty", status="passed"),
        ModelRecord(id="absent", status="skipped", why="never published"),
    ),
)  # fmt: skip


def test_junit_counts_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.xml"
    write_report(RECORD, path)
    root = ElementTree.parse(path).getroot()
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == ["good", "false", "broken", "empty", "absent"]
    for suite in (*suites.values(), root):
        for attribute, tag in (
            ("failures", "failure"),
            ("errors", "error"),
            ("skipped", "skipped"),
            ("tests", "testcase"),
        ):
            assert int(suite.get(attribute)) == len(list(suite.iter(tag))), (suite.get("name"), attribute)
    assert {name: (s.get("failures"), s.get("errors")) for name, s in suites.items()} == {
        "good": ("0", "0"), "false": ("1", "0"), "broken": ("1", "1"), "empty": ("0", "0"), "absent": ("0", "0"),
    }  # fmt: skip
    failure = suites["false"].find("testcase/failure")
    assert failure.get("message") == "claimed layers 3, measured layers 2"
    assert "<a> & \ufffd \ufffd" in suites["broken"].find("testcase/error").get("message")
    assert suites["good"].find("testcase").get("classname") == "good"


def test_markdown_names_what_failed_first_and_keeps_its_tables_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_report(RECORD.model_copy(update={"models": RECORD.models[:2]}), path)
    text = path.read_text()
    assert (
        "2 models: 1 passed, 1 failed, 0 skipped. 4 claims: 1 verified, 1 discrepancy, 1 refuted, 1 unmeasured."
        in text
    )
    assert "- **false**: 1 of 1 claims refuted: shape" in text
    assert "| parameters of big | 345M | 354,823,168 | discrepancy | counted \\| otherwise |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {6, 8}


def test_json_reads_back(tmp_path: Path) -> None:
    record = RECORD.model_copy(update={"models": RECORD.models[:2]})
    write_report(record, tmp_path / "report.json")
    assert read_record(tmp_path / "report.json") == record
    assert json.loads((tmp_path / "report.json").read_text())["models"][1]["why"]


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.json, \.xml, \.md; not 'report\.pdf'"):
        write_report(RECORD, tmp_path / "report.pdf")
    assert list(tmp_path.iterdir()) == []


def test_the_clock_tells_what_is_left(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    clock = Clock({"long": 10, "short": 2, "other": 4}, workers=2)
    assert clock.left() == 10  # the longest, for the others fit beside it
    clock.starts("long")
    clock.starts("short")
    now[0] += 4
    clock.ends("short")  # twice as long as the last time: so will the others be
    clock.starts("other")
    assert clock.left() == pytest.approx(10 * 2 - 4)
    now[0] += 16
    clock.ends("long")
    clock.ends("other")
    assert clock.left() == 0


def test_lines_say_how_far_it_is(capsys) -> None:
    lines = Lines()
    lines.begins(3, {"good": 1.0, "false": 1.0}, 1)
    lines.kept(ModelRecord(id="old", status="passed"))
    for record in RECORD.models[:2]:
        lines.starts(record.id)
        lines.ends(record)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "1 of 3 models: nothing changed since they were measured"
    assert told[1].startswith("[2/3, 0:0")
    assert told[1].endswith("left] good: passed, 1 verified, 1 discrepancy, 1 unmeasured (1.5 s)")
    assert told[2] == "[3/3] false: failed, 1 refuted (2.0 s): 1 of 1 claims refuted: shape"


def test_the_bar_shows_what_runs_what_failed_and_the_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bar = Bar(console)
    bar.begins(3, {"good": 5.0, "false": 60.0}, 1)
    bar.kept(ModelRecord(id="old", status="passed"))
    bar.starts("false")
    bar.ends(RECORD.models[1])
    bar.starts("good")
    bar.ticks()
    drawn = console.file.getvalue()
    bar.close()
    for told in ("probing good", "2/3", "1 failed", "left", "1 of 1 claims refuted: shape"):
        assert told in drawn, told
