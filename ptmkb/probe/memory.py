"""What several measures of a subject want alike is made once: while `kept` is open, functions that are `shared` remember what they gave.

Only for as long as one subject is measured by one measure after another, none of which changes it: outside of `kept`, where anybody may change a
model between two measures, nothing is remembered.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from ptmkb.probe.subject import Subject

_P = ParamSpec("_P")
_R = TypeVar("_R")

_memory: ContextVar[dict[tuple[Any, int], tuple[Subject, Any]] | None] = ContextVar("memory", default=None)


@contextmanager
def kept() -> Iterator[None]:
    """While open, shared functions remember; what they remembered is forgotten at the end."""
    token = _memory.set({})
    try:
        yield
    finally:
        _memory.reset(token)


def shared(function: Callable[Concatenate[Subject, _P], _R]) -> Callable[Concatenate[Subject, _P], _R]:
    """A function of a subject whose result does not depend on its further arguments, and is changed by nobody."""

    @functools.wraps(function)
    def wrapper(subject: Subject, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        memory = _memory.get()
        if memory is None:
            return function(subject, *args, **kwargs)
        key = (function, id(subject))
        if key not in memory:  # the subject is held, so that no other gets its identity
            memory[key] = (subject, function(subject, *args, **kwargs))
        return memory[key][1]  # type: ignore[no-any-return]

    return wrapper  # type: ignore[return-value]  # it may be called with the subject by name too
