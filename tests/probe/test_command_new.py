import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ptmkb.catalogue import DATA
from ptmkb.cli import app


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("PTMKB_CACHE", str(tmp_path / "cache"))
    shutil.copytree(DATA, tmp_path / "data")
    return tmp_path / "data"


def test_a_draft_is_measured_and_asks_for_the_rest(catalogue: Path) -> None:
    result = call("--catalogue", str(catalogue), "new", "model", "qwen3_moe")
    assert result.exit_code == 0, result.output
    path = catalogue / "models" / "qwen3_moe.yaml"
    text = path.read_text()
    assert "the measured flow fits decoder-ar" in text
    assert "modalities: [text]" in text
    assert "{measure: flow, value: causal, source:" in text
    assert re.search(r"measure: shape, variant: defaults, value: \{layers: 24, .*experts: 128\}", text)
    assert "variant: defaults, value: 15039566848" in text

    told = call("--catalogue", str(catalogue), "check")
    assert told.exit_code == 1
    lines = {line for line in (told.stdout + told.stderr).splitlines() if "qwen3_moe.yaml:" in line}
    for key in ("name", "released", "organisation", "category", "  en", "  zh"):
        number = next(i for i, line in enumerate(text.splitlines(), 1) if line.startswith(f"{key}:"))
        assert any(f"qwen3_moe.yaml:{number}: " in line for line in lines), (key, lines)

    # What a person does: fills in the blanks, and gives every measured claim its source.
    for key, value in {
        "name": "Qwen3 MoE", "released": "2025", "organisation": "X", "category": "decoder-ar", "  en": "A text.", "  zh": "一段文字。",
    }.items():  # fmt: skip
        text = re.sub(rf"^{key}:.*$", f"{key}: {value}", text, flags=re.MULTILINE)
    text = text.replace("claims: []", "claims:").replace("#  - {measure", "  - {measure")
    text = text.replace('{paper: , at: ""}', '{paper: vaswani2017attention, at: "§3"}')
    path.write_text(text)
    checked = call("--catalogue", str(catalogue), "check")
    assert checked.exit_code == 0, checked.output
    probed = call("--catalogue", str(catalogue), "probe", "qwen3_moe")
    assert probed.exit_code == 0, probed.output
    claims = text.count("  - {measure")
    assert claims >= 8
    assert (
        f"{claims + 1} claims: {claims + 1} verified, 0 discrepancy, 0 refuted, 0 unmeasured" in probed.stdout
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bert"], "in the catalogue already"),
        (["brt"], "no model type `brt`; did you mean `bert`"),
        (["Upper Case", "--type", "bert"], "no id"),
    ],
)
def test_what_cannot_be_drafted_is_refused(catalogue: Path, arguments: list[str], told: str) -> None:
    result = call("--catalogue", str(catalogue), "new", "model", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(list((catalogue / "models").iterdir())) == len(list((DATA / "models").iterdir()))


def test_a_draft_never_overwrites(catalogue: Path) -> None:
    path = catalogue.parent / "mine.yaml"
    path.write_text("mine")
    result = call("--catalogue", str(catalogue), "new", "model", "gemma2", "--out", str(path))
    assert result.exit_code == 2
    assert path.read_text() == "mine"
