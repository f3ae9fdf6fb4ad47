"""`ptmkb walk`: what it prints, and what it refuses."""

from __future__ import annotations

import json

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ptmkb.cli import app


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["walk", *words])


def test_a_walk_as_a_table_and_for_programs() -> None:
    told = run("token")
    assert told.exit_code == 0, told.output
    for text in ("token: prefill", "GenerationMixin._sample", "2 × 61 float32", "cross_keys_made"):
        assert text in told.stdout
    data = json.loads(run("token", "--format", "json").stdout)
    assert [walk["name"] for walk in data["walks"]] == ["token"]
    assert data["walks"][0]["facts"]["same_tokens_without_cache"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name walks, or give --all; there are bert-flow, masked-batch, one-file, token"),
        (["token", "--all"], "name walks, or give --all"),
        (["tokens"], "there is no walk `tokens`"),
        (["token", "--evidence"], "--evidence is about all walks"),
    ],
)
def test_wrong_usage_is_refused_with_a_line(words: list[str], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert said in result.stderr
