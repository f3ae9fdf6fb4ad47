"""What can go wrong when a source tree is read; each message says what was looked for, where, and how to mend it."""

from __future__ import annotations


class SourceError(Exception):
    """A source tree, a file in it or a symbol could not be had."""

    @property
    def problems(self) -> list[str]:
        """The message as the command prints what a person can mend."""
        return [f"ptmkb: {self}"]


class TreeNotFoundError(SourceError):
    """There is no `transformers` source where one was asked for."""


class SourceFileNotFoundError(SourceError):
    """The tree has no such file."""


class SymbolNotFoundError(SourceError):
    """No file of the tree defines such a symbol, or more than one does and a file must be named."""
