"""`ptmkb check`, `models`, `papers`, `lineage` as a person or a program calls them."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest
from typer.testing import CliRunner

from ptmkb.catalogue import DATA, load_catalogue
from ptmkb.cli import app

BERT = "models/bert.yaml"


@pytest.fixture(scope="module")
def runner() -> CliRunner:
    return CliRunner()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's own catalogue, to be broken; beside it a directory without notes."""
    shutil.copytree(DATA, tmp_path / "catalogue")
    (tmp_path / "notes").mkdir()
    return tmp_path / "catalogue"


def command(*arguments: object, text: bool = True) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "ptmkb", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=text, timeout=120)


def change(path: Path, old: str, new: str) -> int:
    """Change the first place of a text; the line it stands on."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1


def check(runner: CliRunner, directory: Path, *arguments: str):
    notes = directory.parent / "notes"
    return runner.invoke(
        app, ["--catalogue", str(directory), "--annotations", str(notes), "check", *arguments]
    )


def test_check_of_a_sound_copy(runner, copy):
    result = check(runner, copy)
    catalogue = load_catalogue()
    claims = sum(len(model.claims) for model in catalogue.models.values())
    counts = f"{len(catalogue.models)} models, {claims} claims, {len(catalogue.papers)} papers"
    assert (result.exit_code, result.output) == (0, f"{counts}: 0 problems\n")


def test_check_shows_every_problem_and_fails(runner, copy):
    measure = change(copy / BERT, "measure: flow", "measure: flwo")
    date = change(copy / "models/gpt2.yaml", "released: 2019-02-14", "released: 2019-02-30")
    paper = change(copy / "models/t5.yaml", "papers: [", "papers: [nobody2019x, ")
    change(copy / "models/xlnet.yaml", "id: xlnet", "id: [")
    result = check(runner, copy)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == f"{copy}/models/bert.yaml:{measure}: no measure `flwo`; did you mean `flow`?"
    assert (
        f"{copy}/models/gpt2.yaml:{date}: `2019-02-30` is not a day of the calendar; "
        "write YYYY, YYYY-MM or YYYY-MM-DD" in lines
    )
    assert f"{copy}/models/t5.yaml:{paper}: no paper `nobody2019x`; add that paper or name another" in lines
    assert lines[-1].endswith(f": {len(lines) - 1} problems")
    assert all(line.startswith(f"{copy}/models/xlnet.yaml:") for line in lines[3:-1])


@pytest.mark.parametrize(("value", "wrong"), [("140 million", True), ("sideways", True), ("140M", False)])
def test_check_asks_the_measures_own_readers(runner, copy, value, wrong):
    line = change(copy / BERT, "value: 110M", f"value: {value}")
    result = check(runner, copy)
    assert result.exit_code == wrong
    assert (f"bert.yaml:{line}: " in result.output) == wrong


def test_check_as_json(runner, copy):
    line = change(copy / BERT, "name: BERT", "nmae: BERT")
    result = check(runner, copy, "--format", "json")
    assert result.exit_code == 1
    file = str(copy / BERT)
    assert json.loads(result.output) == [
        {"file": file, "line": 2, "what": "`name` is missing", "mend": "add it"},
        {"file": file, "line": line, "what": "unknown key `nmae`", "mend": "did you mean `name`?"},
    ]


def test_check_writes_the_schemas(runner, tmp_path: Path):
    result = runner.invoke(app, ["check", "--schema", "--out", str(tmp_path / "schemas")])
    assert result.exit_code == 0
    names = sorted(path.name for path in (tmp_path / "schemas").iterdir())
    assert names == [f"{name}.schema.json" for name in ("categories", "model", "notes", "papers")]
    for name in names:
        schema = json.loads((tmp_path / "schemas" / name).read_text())
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$defs"]


def test_check_prints_the_schemas(runner):
    result = runner.invoke(app, ["check", "--schema"])
    assert result.exit_code == 0
    schemas = json.loads(result.stdout)
    assert sorted(schemas) == ["categories", "model", "notes", "papers"]
    assert "released" in schemas["model"]["required"]
    assert runner.invoke(app, ["check", "--out", "x"]).exit_code == 2


def test_every_file_names_its_schema_for_editors():
    for path in DATA.rglob("*.yaml"):
        kind = {"models": "model", "papers": "papers"}.get(path.parent.name, "categories")
        first = path.read_text().splitlines()[0]
        schema = first.removeprefix("# yaml-language-server: $schema=")
        root = DATA.parents[2]
        assert (path.parent / schema).resolve() == root / "schemas" / f"{kind}.schema.json", path


def test_idle_papers_of_the_own_catalogue_are_problems(runner, monkeypatch: pytest.MonkeyPatch):
    import ptmkb.catalogue

    monkeypatch.setattr(ptmkb.catalogue, "cited_papers", lambda catalogue: set())
    result = runner.invoke(app, ["check"])
    assert result.exit_code == 1
    assert "nothing cites `" in result.output


def test_notes_of_the_package_need_not_fit_another_catalogue(runner, copy):
    shutil.rmtree(copy / "models")
    shutil.rmtree(copy / "papers")
    (copy / "categories.yaml").write_text("[]")
    result = runner.invoke(app, ["--catalogue", str(copy), "check"])
    assert (result.exit_code, result.output) == (0, "0 models, 0 claims, 0 papers: 0 problems\n")


def test_models_as_json_is_as_designed(runner):
    result = runner.invoke(app, ["models", "--format", "json"])
    assert result.exit_code == 0
    rows = json.loads(result.output)
    catalogue = load_catalogue()
    assert [row["id"] for row in rows] == sorted(
        catalogue.models, key=lambda name: (catalogue.models[name].released, name)
    )
    keys = ["id", "name", "status", "category", "released", "papers", "implementation", "lineage", "evidence"]
    assert all(list(row) == keys for row in rows)
    verdicts = {row["evidence"]["verdict"] for row in rows}
    assert verdicts <= {"verified", "discrepancy", "refuted", "unmeasured"}
    (bert,) = [row for row in rows if row["id"] == "bert"]
    evidence = bert["evidence"]
    del bert["evidence"]
    assert bert == {
        "id": "bert",
        "name": "BERT",
        "status": "curated",
        "category": "encoder-ae",
        "released": "2018-10-11",
        "papers": ["devlin2018bert"],
        "implementation": {"kind": "transformers", "model_type": "bert"},
        "lineage": [{"from": "transformer", "relation": "architecture"}],
    }
    assert set(evidence) == {"verdict", "claims", "verified"}
    assert evidence["claims"] == len(catalogue.models["bert"].claims)
    assert 0 <= evidence["verified"] <= evidence["claims"]


def test_models_by_category_and_status(runner):
    catalogue = load_catalogue()
    result = runner.invoke(app, ["models", "--category", "encoder-ae", "--format", "json"])
    assert [row["id"] for row in json.loads(result.output)] == [m.id for m in catalogue.members("encoder-ae")]
    result = runner.invoke(app, ["models", "--status", "curated", "--format", "json"])
    curated = {model.id for model in catalogue.models.values() if model.status == "curated"}
    assert {row["id"] for row in json.loads(result.output)} == curated
    table = runner.invoke(app, ["models", "--category", "encoder-ae"])
    assert table.exit_code == 0
    assert "roberta" in table.output
    assert "gpt2" not in table.output


def test_papers_in_every_format(runner):
    papers = load_catalogue().papers
    outputs = {
        name: runner.invoke(app, ["papers", "--format", name]).output
        for name in ("json", "csl", "csv", "bibtex", "table")
    }
    rows = json.loads(outputs["json"])
    assert all(list(row) == ["id", "title", "year", "arxiv", "url"] for row in rows)
    assert {row["id"]: row["url"] for row in rows} == {paper.id: paper.link for paper in papers.values()}
    assert next(row for row in rows if row["id"] == "devlin2018bert")["arxiv"] == "1810.04805"
    assert [item["id"] for item in json.loads(outputs["csl"])] == list(papers)
    assert [row["id"] for row in csv.DictReader(io.StringIO(outputs["csv"]))] == list(papers)
    assert outputs["bibtex"].count("\n@") + 1 == len(papers)
    assert "devlin2018bert" in outputs["table"]


def test_papers_of_a_year(runner):
    result = runner.invoke(app, ["papers", "--year", "2018", "--format", "json"])
    rows = json.loads(result.output)
    assert rows
    assert {row["year"] for row in rows} == {2018}


def test_brackets_in_a_title_are_shown(copy):
    change(
        copy / "papers/2018.yaml",
        "title: Deep contextualized",
        "title: 'Deep [bold]x[/] [/oops] :star:' #",
    )
    result = command("--catalogue", copy, "papers", "--year", "2018")
    assert result.returncode == 0, result.stderr
    assert "Deep [bold]x[/] [/oops] :star:" in result.stdout


def test_lineage_in_every_format(runner):
    data = json.loads(runner.invoke(app, ["lineage", "--format", "json"]).output)
    names = {node["id"] for node in data["nodes"]}
    assert names == set(load_catalogue().models)
    relations = {edge["relation"] for edge in data["edges"]}
    assert {"architecture", "weights", "code"} <= relations
    assert all({edge["source"], edge["target"]} <= names for edge in data["edges"])
    graphml = runner.invoke(app, ["lineage", "--format", "graphml", "--no-code"]).output
    graph = nx.read_graphml(io.BytesIO(graphml.encode()), force_multigraph=True)
    assert graph.number_of_edges() == sum(edge["relation"] != "code" for edge in data["edges"])
    assert runner.invoke(app, ["lineage", "--format", "dot"]).output.startswith("digraph lineage {")
    tree = runner.invoke(app, ["lineage"]).output
    assert "── BERT 2018-10-11 ← architecture" in tree


def test_lineage_below_a_model(runner):
    data = json.loads(runner.invoke(app, ["lineage", "gpt2", "--format", "json", "--no-code"]).output)
    names = [node["id"] for node in data["nodes"]]
    assert names[0] == "gpt2"
    assert "gpt3" in names
    assert "transformer" not in names
    assert all({edge["source"], edge["target"]} <= set(names) for edge in data["edges"])


WRONG = [
    (["models", "--category", "nope"], "no category `nope`; there are encoder-ae"),
    (["models", "--status", "nope"], "nope"),
    (["models", "--format", "yaml"], "yaml"),
    (["papers", "--year", "soon"], "--year"),
    (["papers", "--format", "xml"], "xml"),
    (["lineage", "brt"], "no model `brt`; did you mean `bert`?"),
    (["lineage", "--format", "svg"], "svg"),
    (["check", "extra"], "extra"),
    (["nope"], "nope"),
    (["--nope"], "nope"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_wrong_usage_ends_with_two(runner, arguments, said):
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [["models"], ["papers"], ["lineage"], ["models", "--format", "json"]])
def test_a_broken_catalogue_is_lines_on_stderr_and_one(copy, arguments):
    line = change(copy / BERT, "name: BERT", "nmae: BERT")
    result = command("--catalogue", copy, *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"{copy}/{BERT}:2: `name` is missing; add it",
        f"{copy}/{BERT}:{line}: unknown key `nmae`; did you mean `name`?",
    ]


def test_no_such_catalogue():
    for arguments in (["models"], ["check"]):
        result = command("--catalogue", "/nonexistent", *arguments)
        assert result.returncode == 1
        said = result.stdout + result.stderr
        assert said.startswith("/nonexistent:1: no such directory; name the directory that holds `models/`\n")


def test_what_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    result = command("check", "--schema", "--out", tmp_path / "file" / "schemas")
    assert result.returncode == 1
    assert result.stderr == f"ptmkb: {tmp_path}/file/schemas: Not a directory\n"


def test_a_terminal_without_the_characters(copy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    change(copy / BERT, "id: bert", "id: bert\n编码: x")
    result = command("--catalogue", copy, "check")
    assert result.returncode == 1
    assert "unknown key `\\u7f16\\u7801`" in result.stdout
    assert "Traceback" not in result.stderr
    assert command("lineage").returncode == 0


def test_a_reader_that_goes_away_is_no_error():
    line = f"{sys.executable} -m ptmkb papers --format bibtex | head -n 1"
    result = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("@")
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["check", "--help"], ["lineage", "-h"]])
def test_help(runner, arguments):
    result = runner.invoke(app, arguments)
    assert result.exit_code == (0 if arguments else 2)
    assert "Usage: ptmkb" in result.output or "Usage: root" in result.output


def test_the_command_loads_nothing_heavy_before_it_needs_it():
    program = (
        "import sys, ptmkb.cli\n"
        "heavy = {'torch', 'transformers', 'networkx', 'pydantic', 'yaml', 'mkdocs', 'rapidfuzz', 'pyvis', 'jieba'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.parametrize("arguments", [["check"], ["models"], ["lineage", "--format", "json"]])
def test_torch_is_never_imported(arguments):
    program = "import sys; from ptmkb.cli import app; app(sys.argv[1:], standalone_mode=False)"
    blocked = f"import sys; sys.modules['torch'] = sys.modules['transformers'] = None; {program}"
    result = subprocess.run([sys.executable, "-c", blocked, *arguments], capture_output=True, text=True)
    assert "Traceback" not in result.stderr, result.stderr[-600:]
    assert result.stdout
