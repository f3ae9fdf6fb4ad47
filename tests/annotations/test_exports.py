"""The notes in the formats of others: valid by their specifications, at the right places, in both languages; and the commands that write."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ptmkb.annotations import load_notes, notes_directory, resolve_notes
from ptmkb.annotations.exports import annotation_pages, article_tours, by_file, code_tours, span
from ptmkb.catalogue import load_catalogue
from ptmkb.cli import app
from ptmkb.source import find_tree

TREE = find_tree()
NOTES = load_notes(notes_directory()).notes
RESOLVED = resolve_notes(NOTES, TREE)
PAPERS = load_catalogue().papers

TOUR = {"title": str, "description": str, "ref": str, "steps": list, "$schema": str}
STEP = {"file": str, "line": int, "selection": dict, "title": str, "description": str}
"""What CodeTour's schema.json knows of the keys that are written here."""


@pytest.mark.parametrize("language", ["en", "zh"])
def test_tours_keep_to_the_schema_and_select_the_lines_of_each_note(language: Any) -> None:
    tours = code_tours(RESOLVED, TREE, language, PAPERS)
    assert len(tours) == len(by_file(RESOLVED))
    steps = 0
    for name, tour in tours.items():
        assert name.endswith(".tour")
        assert "/" not in name
        assert set(tour) <= set(TOUR)
        assert all(isinstance(tour[key], kind) for key, kind in TOUR.items())
        assert tour["ref"] == f"v{TREE.version}"
        assert json.loads(json.dumps(tour)) == tour
        for step in tour["steps"]:
            assert all(isinstance(step[key], kind) for key, kind in STEP.items())
            assert set(step) <= set(STEP)
            file = step["file"].removeprefix("src/transformers/")
            start, end = step["selection"]["start"], step["selection"]["end"]
            lines = TREE.lines(file)[start["line"] - 1 : end["line"]]
            [note] = [
                one.note
                for one in RESOLVED
                if one.note.file == file and step["title"] in (one.note.title.en, one.note.title.zh)
            ]
            assert [line.strip() for line in lines] == [
                line.strip() for line in note.quote.rstrip().splitlines()
            ]
            assert (start["character"], end["character"]) == (1, len(lines[-1]) + 1)
            assert step["line"] == end["line"]
            text = note.text.zh if language == "zh" else note.text.en
            assert step["description"].startswith(text.strip())
            for citation in note.papers:
                assert f"]({PAPERS[citation.paper].link}), {citation.at}" in step["description"]
            steps += 1
    assert steps == len(NOTES)


def test_a_tour_runs_from_top_to_bottom() -> None:
    for tour in code_tours(RESOLVED, TREE).values():
        lines = [step["selection"]["start"]["line"] for step in tour["steps"]]
        assert lines == sorted(lines)


def test_the_tours_of_articles_lead_across_files_in_their_own_order() -> None:
    stops = ["t5-unscaled-scores", "bert-scaled-scores", "no-such-note", "llama-rounds-before-the-weight"]
    tours = article_tours([("a", "A way", stops), ("empty", "Nothing", ["no-such-note"])], RESOLVED, TREE)
    assert list(tours) == ["a.tour"]
    tour = tours["a.tour"]
    assert (tour["title"], tour["ref"]) == ("A way", f"v{TREE.version}")
    files = [f"src/transformers/models/{name}/modeling_{name}.py" for name in ("t5", "bert", "llama")]
    assert [step["file"] for step in tour["steps"]] == files


def test_the_command_writes_the_tours_of_the_articles_too(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["annotations", "export", "--format", "codetour", "--lang", "zh", "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    tour = json.loads((tmp_path / "reading-models-bert-flows.tour").read_text(encoding="utf-8"))
    assert tour["title"] == "BERT 里的数据流"
    assert len({step["file"] for step in tour["steps"]}) > 1


def test_web_annotations_have_what_the_model_demands() -> None:
    pages = annotation_pages(RESOLVED, TREE, PAPERS)
    ids: list[str] = []
    for name, page in pages.items():
        assert page["@context"] == "http://www.w3.org/ns/anno.jsonld"
        assert page["type"] == "AnnotationPage"
        file = name.replace(".jsonld", ".py")
        text = TREE.read(file)
        ids.append(page["id"])
        for annotation in page["items"]:
            assert annotation["type"] == "Annotation"
            ids.append(annotation["id"])
            choice, *links = annotation["body"]
            assert choice["type"] == "Choice"
            assert [body["language"] for body in choice["items"]] == ["en", "zh-Hans"]
            assert {body["format"] for body in choice["items"]} == {"text/markdown"}
            assert all(link["source"].startswith("https://") for link in links)
            target = annotation["target"]
            assert target["source"].endswith(f"/v{TREE.version}/src/transformers/{file}")
            quote, position = target["selector"]
            assert (quote["type"], position["type"]) == ("TextQuoteSelector", "TextPositionSelector")
            start, end = position["start"], position["end"]
            assert text[start:end] == quote["exact"]
            assert text[start - len(quote["prefix"]) : start] == quote["prefix"]
            assert text[end : end + len(quote["suffix"])] == quote["suffix"]
            assert quote["prefix"].endswith("\n")
            assert quote["suffix"].startswith("\n")
            # with its surroundings, a quotation is found once
            assert text.count(quote["prefix"] + quote["exact"] + quote["suffix"]) == 1
    assert len(set(ids)) == len(ids) == len(NOTES) + len(pages)
    assert all(uuid.UUID(one.removeprefix("urn:uuid:")).version == 5 for one in ids)
    assert annotation_pages(RESOLVED, TREE, PAPERS) == pages


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_positions_count_code_points_whatever_ends_a_line(newline: str) -> None:
    text = newline.join(["a = '𝛼'", "b = 'é'", "c"])
    assert [text[slice(*span(text, first, last))] for first, last in ((1, 1), (2, 2), (3, 3))] == text.split(
        newline
    )
    assert text[slice(*span(text, 1, 2))] == f"a = '𝛼'{newline}b = 'é'"


def test_columns_are_those_of_an_editor(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text('__version__ = "9.9.9"\n', encoding="utf-8")
    (tmp_path / "some.py").write_text("x = '𝛼'\n", encoding="utf-8")
    tree = find_tree(tmp_path)
    note = NOTES[0].model_copy(update={"file": "some.py", "quote": "x = '𝛼'", "at": "<module>"})
    [tour] = code_tours(resolve_notes([note], tree), tree).values()
    assert tour["steps"][0]["selection"]["end"] == {"line": 1, "character": 8 + 1}


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["annotations", *arguments])


def test_the_commands_write_both_formats_and_the_woven_files(tmp_path: Path) -> None:
    files = {note.file for note in NOTES}
    result = run("export", "--format", "codetour", "--lang", "zh", "--out", str(tmp_path / "tours"))
    assert result.exit_code == 0, result.output
    written = [path for path in (tmp_path / "tours").iterdir() if not path.name.startswith("reading-")]
    tours = [json.loads(path.read_text(encoding="utf-8")) for path in written]  # those of articles go across
    assert sum(len(tour["steps"]) for tour in tours) == len(NOTES)
    assert all("批注" in tour["title"] for tour in tours)
    result = run("export", "bert-scaled-scores", "--format", "jsonld", "--out", str(tmp_path / "web"))
    assert result.exit_code == 0, result.output
    [page] = (tmp_path / "web").rglob("*.jsonld")
    assert page.relative_to(tmp_path / "web").as_posix() == "models/bert/modeling_bert.jsonld"
    result = run("weave", "--out", str(tmp_path / "woven"), "--lang", "zh")
    assert result.exit_code == 0, result.output
    assert {
        path.relative_to(tmp_path / "woven").as_posix() for path in (tmp_path / "woven").rglob("*.py")
    } == files
    assert f"{len(NOTES)} notes in {len(files)} files" in result.stdout


def test_weaving_into_the_source_itself_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "transformers"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "9.9.9"\n', encoding="utf-8")
    for out in (package, package / "models"):
        result = run("weave", "--tree", str(tmp_path), "--out", str(out))
        assert result.exit_code == 2
        assert "lies in the source itself" in result.stderr
    assert [path.name for path in package.iterdir()] == ["__init__.py"]


def test_notes_without_a_place_are_named_and_end_with_1(tmp_path: Path) -> None:
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").write_text('__version__ = "9.9.9"\n', encoding="utf-8")
    for command in (["weave"], ["export", "--format", "codetour"]):
        result = run(*command, "bert-scaled-scores", "--tree", str(tmp_path), "--out", str(tmp_path / "out"))
        assert result.exit_code == 1
        assert (
            "left out bert-scaled-scores: transformers 9.9.9 has no file models/bert/modeling_bert.py"
            in result.stderr
        )
