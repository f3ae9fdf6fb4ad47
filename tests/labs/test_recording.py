"""The recorder sees what statements bind, where and in which order, and leaves what it watches alone."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from ptmkb.labs.recording import NotWatchedError, Recorder, Watch, statements

SOURCE = '''
def same(x):
    return x

class Box:
    def fill(self, x):
        self.kept = x * 2
        try:
            y = int("no number")
        except ValueError:
            y = 7
        return (
            self.kept
            + y
        )

def flow(x, box):
    x = same(x)
    total, last = 0, None
    for step in range(3):
        total = total + (
            step *
            2
        )
    size = box.fill(x)
    return total
'''  # fmt: skip
Walked = Callable[..., list[Any]]


@pytest.fixture
def source(tmp_path: Path) -> ModuleType:
    path = tmp_path / "flowing.py"
    path.write_text(SOURCE.lstrip())
    spec = importlib.util.spec_from_file_location("flowing", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def seen(source: ModuleType, tmp_path: Path) -> Walked:
    def walked(symbol: str, *names: str, x: Any = 5, look: Any = None) -> list[Any]:
        watch = Watch("flowing.py", symbol, names, "part", look)
        with Recorder(tmp_path, [watch]) as recorder:
            source.flow(x, source.Box())
        return list(recorder.part("part"))

    return walked


def test_a_statement_is_seen_once_it_has_run_even_where_it_binds_the_same_object(seen: Walked) -> None:
    (step,) = seen("flow", "x")
    assert (step.line, step.symbol, step.code, step.value) == (17, "flow", "x = same(x)", 5)


def test_a_statement_over_several_lines_counts_once_a_round(seen: Walked) -> None:
    assert [(step.line, step.value) for step in seen("flow", "total")] == [(18, 0), (20, 0), (20, 2), (20, 6)]


def test_attributes_methods_and_what_comes_back(seen: Walked) -> None:
    steps = seen("Box.fill", "self.kept", "return")
    assert [(step.name, step.line, step.value) for step in steps] == [
        ("self.kept", 6, 10),
        ("return", 11, 17),
    ]


def test_a_statement_that_failed_has_bound_nothing(seen: Walked) -> None:
    assert [(step.line, step.value) for step in seen("Box.fill", "y")] == [(10, 7)]


def test_of_a_tensor_shape_and_dtype_are_kept_and_numbers_where_there_are_few(seen: Walked) -> None:
    (small,) = seen("flow", "x", x=torch.tensor([[1, 2]]))
    assert (small.shape, small.dtype, small.value) == ((1, 2), "int64", [[1, 2]])
    (large,) = seen("flow", "x", x=torch.ones(5, 50))
    assert (large.shape, large.dtype, large.value) == ((5, 50), "float32", None)
    (meta,) = seen("flow", "size", x=torch.ones(2, device="meta"))
    assert (meta.shape, meta.value) == ((2,), None)


def test_a_look_sees_the_names_of_that_moment(seen: Walked) -> None:
    steps = seen("flow", "total", look=lambda names: {"step": names.get("step")})
    assert [step.beside["step"] for step in steps] == [None, 0, 1, 2]


def test_the_trace_hook_of_others_comes_back(source: ModuleType, tmp_path: Path) -> None:
    def other(frame: Any, event: str, argument: Any) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(other)
    try:
        with Recorder(tmp_path, [Watch("flowing.py", "flow", ("x",), "part")]):
            assert sys.gettrace() is not other
        assert sys.gettrace() is other
    finally:
        sys.settrace(before)


def test_what_is_not_there_cannot_be_watched(seen: Walked, tmp_path: Path) -> None:
    with pytest.raises(NotWatchedError, match=r"no function `flow\.inner`"):
        statements(tmp_path / "flowing.py", "flow.inner")
    with pytest.raises(NotWatchedError, match="nothing of the part"):
        seen("flow", "nothing")
