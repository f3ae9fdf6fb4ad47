"""Watches chosen functions of the real code while they run, and keeps what their statements bind.

`Recorder` uses the interpreter's own trace hook, as a debugger does: nothing is replaced or computed again, and each value is known
together with the statement that made it. It imports no torch; a tensor is whatever has `shape` and `dtype`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from ptmkb.probe.walks import Step

RETURN = "return"
LONGEST = (
    88  # characters of a statement that is shown whole; of a longer one the call's arguments are left out
)
SHOWN = 24  # numbers of a tensor that are kept; a larger one keeps its shape
DIGITS = 4  # of a number with a fractional part

Look = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_Trace = Callable[[FrameType, str, Any], Any]


class NotWatchedError(LookupError):
    """The source has no such function, or a walk watched for something that never came."""


@dataclass(frozen=True)
class Watch:
    """A function to watch, and for which names.

    Attributes:
        file: Below the package.
        symbol: Its qualified name.
        names: Names that its statements bind (`query`, `self.keys`), or `return`.
        part: The part of the walk that these steps belong to.
        look: Given the function's local names right after the statement: further values to keep.
    """

    file: str
    symbol: str
    names: tuple[str, ...]
    part: str
    look: Look | None = None


@dataclass(frozen=True)
class _Plan:
    watch: Watch
    statements: Mapping[int, ast.stmt]  # by line, the innermost statement that stands there


@dataclass
class Recorder:
    """Records while it is entered.

    Attributes:
        package: The directory of the package whose files the watches name.
        watches: What to watch.
        modules: By identity, how a model calls its modules.
        steps: What was seen, in order, each with its part.
    """

    package: Path
    watches: Iterable[Watch]
    modules: Mapping[int, str] = field(default_factory=dict)
    steps: list[tuple[str, Step]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._plans = {
            (str(self.package / watch.file), watch.symbol): _Plan(
                watch, statements(self.package / watch.file, watch.symbol)
            )
            for watch in self.watches
        }
        self._known: dict[CodeType, _Plan | None] = {}

    def __enter__(self) -> Recorder:
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def part(self, name: str) -> tuple[Step, ...]:
        """The steps of one part.

        Raises:
            NotWatchedError: There were none.
        """
        found = tuple(step for part, step in self.steps if part == name)
        if not found:
            raise NotWatchedError(f"nothing of the part `{name}` ran")
        return found

    def _enter(self, frame: FrameType, event: str, argument: Any) -> _Trace | None:
        code = frame.f_code
        if code not in self._known:
            self._known[code] = self._plans.get((code.co_filename, code.co_qualname))
        plan = self._known[code]
        return None if plan is None else self._follow(plan)

    def _follow(self, plan: _Plan) -> _Trace:
        running: ast.stmt | None = None

        def local(frame: FrameType, event: str, argument: Any) -> _Trace:
            nonlocal running
            if event == "exception":
                running = None  # it did not run to its end
            elif event == "return":
                if isinstance(running, ast.Return) and RETURN in plan.watch.names:
                    self._keep(plan, running, RETURN, argument, frame)
                elif running is not None:
                    self._bound(plan, running, frame)
            elif event == "line":
                now = plan.statements.get(frame.f_lineno)
                if now is not running:
                    if running is not None:
                        self._bound(plan, running, frame)
                    running = now
            return local

        return local

    def _bound(self, plan: _Plan, statement: ast.stmt, frame: FrameType) -> None:
        for name in _targets(statement):
            if name in plan.watch.names:
                first, *rest = name.split(".")
                value = frame.f_locals.get(first)
                for attribute in rest:
                    value = getattr(value, attribute)
                self._keep(plan, statement, name, value, frame)

    def _keep(self, plan: _Plan, statement: ast.stmt, name: str, value: Any, frame: FrameType) -> None:
        watch, names = plan.watch, frame.f_locals
        seen = summary(value)
        beside = {key: plain(found) for key, found in watch.look(names).items()} if watch.look else {}
        step = Step(
            file=watch.file,
            line=statement.lineno,
            symbol=watch.symbol,
            code=shown(statement),
            name=name,
            module=self.modules.get(id(names.get("self"))),
            beside=beside,
            **seen,
        )
        self.steps.append((watch.part, step))


def summary(value: Any) -> dict[str, Any]:
    """What is kept of a value: of a tensor shape, dtype and, where it is small, its numbers; of plain data the data; else nothing."""
    shape = getattr(value, "shape", None)
    if shape is None or not hasattr(value, "dtype"):
        return {"value": plain(value)} if _is_plain(value) else {}
    kept: dict[str, Any] = {
        "shape": tuple(int(n) for n in shape),
        "dtype": str(value.dtype).removeprefix("torch."),
    }
    size = 1
    for n in shape:
        size *= int(n)
    device = getattr(value, "device", None)
    if size <= SHOWN and (device is None or str(device) != "meta"):
        kept["value"] = plain(value.tolist())
    return kept


def plain(value: Any) -> Any:
    """A value as JSON has it, numbers rounded; tensors as their shapes."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if value is None or isinstance(value, str | int):
        return value
    if hasattr(value, "shape"):
        return [int(n) for n in value.shape]
    raise TypeError(f"a walk keeps plain values, not {type(value).__name__}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, str | int | float)


@cache
def statements(path: Path, symbol: str) -> Mapping[int, ast.stmt]:
    """The statements of a function by the lines that they stand on.

    Raises:
        NotWatchedError: The file has no such function.
    """
    found = _function(ast.parse(path.read_text(encoding="utf-8")), symbol.split("."))
    if found is None:
        raise NotWatchedError(f"{path.name} has no function `{symbol}`")
    lines: dict[int, ast.stmt] = {}
    for statement in _within(found.body):
        for line in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1):
            lines[line] = statement  # inner statements come later and take their lines
    return lines


def _function(node: ast.AST, names: list[str]) -> ast.FunctionDef | None:
    if not names:
        return node if isinstance(node, ast.FunctionDef) else None
    first, rest = names[0], [name for name in names[1:] if name != "<locals>"]
    for child in ast.walk(node) if isinstance(node, ast.FunctionDef) else ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == first:
            return _function(child, rest)
    return None


def _within(body: list[ast.stmt]) -> Iterable[ast.stmt]:
    for statement in body:
        yield statement
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            for block in ("body", "orelse", "finalbody"):
                yield from _within(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                yield from _within(handler.body)


def _targets(statement: ast.stmt) -> list[str]:
    """The names that a statement binds."""
    if isinstance(statement, ast.Assign):
        targets: list[ast.expr] = list(statement.targets)
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
        targets = [statement.target]
    else:
        return []
    flat = [one for target in targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [ast.unparse(one.value if isinstance(one, ast.Subscript) else one) for one in flat]


def shown(statement: ast.stmt) -> str:
    """A statement on one line; where it is long, without its call's arguments."""
    text = " ".join(ast.unparse(statement).split())
    if len(text) <= LONGEST:
        return text
    value = getattr(statement, "value", None)
    if isinstance(value, ast.Call):
        whole = ast.unparse(value)
        text = text.replace(whole, f"{ast.unparse(value.func)}(…)")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
