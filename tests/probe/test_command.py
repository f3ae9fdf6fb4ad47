import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ptmkb.catalogue import DATA
from ptmkb.cli import probe as commands
from ptmkb.cli.state import State

app = typer.Typer()


@app.callback()
def options(ctx: typer.Context, catalogue: Path | None = None) -> None:
    ctx.obj = State(catalogue_dir=catalogue)


commands.register(app)


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A copy of the catalogue that a test may spoil."""
    folder = tmp_path_factory.mktemp("catalogue") / "data"
    shutil.copytree(DATA, folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PTMKB_CACHE", str(tmp_path / "cache"))


def test_a_report_is_written_and_everything_holds(small: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = call(
        "--catalogue", str(small), "probe", "openai", "elmo", "--report", str(report), "--format", "json"
    )
    written = json.loads(report.read_text())
    assert [model["id"] for model in written["models"]] == ["openai", "elmo"]
    claims = [claim for model in written["models"] for claim in model["claims"]]
    refuted = [claim for claim in claims if claim["verdict"] == "refuted"]
    assert result.exit_code == (1 if refuted else 0)
    assert sum(claim["verdict"] == "verified" for claim in claims) >= 8
    printed = json.loads(result.stdout)
    assert printed["transformers"] == written["transformers"]


def test_types_are_measured_claimed_or_not(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = call("probe", "--types", "vit", "timm_wrapper", "--report", str(report), "--format", "json")
    assert result.exit_code == 0
    vit, wrapper = json.loads(report.read_text())["models"]
    assert (vit["id"], vit["status"], vit["claims"]) == ("vit", "passed", [])
    assert {"flow", "norm", "structure"} <= {one["measure"] for one in vit["measured"]}
    assert {one["measure"] for one in vit["unmeasured"]} >= {"cache", "routing"}
    assert wrapper["status"] == "skipped"
    printed = json.loads(result.stdout)["models"][0]["measured"]
    assert printed == vit["measured"]
    again = call("probe", "--types", "vit", "timm_wrapper", "--report", str(tmp_path / "report.md"))
    assert "nothing changed since they were measured" in again.stderr
    assert "2 types: 1 passed, 0 failed, 1 skipped" in again.stdout
    written = (tmp_path / "report.md").read_text()
    assert "### vit" in written
    assert "| norm | kind LayerNorm, placement pre" in written
    assert "| cache |  | it decodes no tokens |" in written
    call("probe", "--types", "vit", "timm_wrapper", "--report", str(tmp_path / "report.xml"))
    assert 'testsuite tests="1" failures="0" errors="0"' in (tmp_path / "report.xml").read_text()


def test_a_false_entry_ends_in_exit_code_1(small: Path) -> None:
    path = small / "models" / "openai.yaml"
    text = path.read_text()
    assert "measure: flow, value: causal" in text
    path.write_text(text.replace("measure: flow, value: causal", "measure: flow, value: bidirectional"))
    try:
        result = call("--catalogue", str(small), "probe", "openai")
    finally:
        path.write_text(text)
    assert result.exit_code == 1
    assert "1 refuted" in result.stdout
    assert "claims refuted: flow" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["probe", "brt"], "did you mean `bert`"),
        (["probe"], "name the models to probe"),
        (["probe", "bert", "--all"], "not both"),
        (["probe", "bert", "--evidence"], "add --all"),
        (["probe", "--types", "vti"], "no model type `vti`; did you mean `vit`"),
        (["probe", "--types", "--all"], "leave out --all"),
        (["probe", "--types", "vit", "--evidence"], "leave out the names"),
        (["probe", "--types", "vit", "--checkpoint", "x"], "--checkpoint"),
        (["probe", "bert", "--report", "report.txt"], "written as .json, .xml, .md; not 'report.txt'"),
        (["tiny", "brt"], "did you mean `bert`"),
        (["tiny", "bert", "--class", "BertForNothing"], "no class `BertForNothing`"),
        (["tiny", "elmo", "--save", "x"], "reference implementation"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_a_line(arguments: list[str], told: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert "Traceback" not in result.output


def test_tiny_saves_what_loads_again(tmp_path: Path) -> None:
    result = call("tiny", "gpt2", "--save", str(tmp_path / "gpt2"), "--class", "GPT2LMHeadModel")
    assert result.exit_code == 0
    assert "GPT2LMHeadModel: " in result.stdout
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "gpt2")
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in result.stdout


def test_tiny_takes_catalogue_ids_and_model_types() -> None:
    assert "OpenAIGPTLMHeadModel" in call("tiny", "openai").stdout  # the entry; the model type is openai-gpt
    assert "ELMo: " in call("tiny", "elmo").stdout
    assert "Gemma2ForCausalLM: " in call("tiny", "gemma2").stdout
