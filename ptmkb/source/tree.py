"""Where a `transformers` tree is and what is in it: the installed one, a folder, or a wheel that nobody unpacked."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import os
import re
import tokenize
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from ptmkb.source.errors import SourceFileNotFoundError, SymbolNotFoundError, TreeNotFoundError
from ptmkb.source.module import Module, Symbol, parse_module, split_lines

PACKAGE = "transformers"

_VERSION = re.compile(rb"^__version__\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)
_LAYOUTS = ("", PACKAGE, f"src/{PACKAGE}")
"""Where the package may lie in a folder: it is the folder, an unpacked wheel or site-packages, a checkout."""


def model_directory(file: str) -> str | None:
    """The model directory of a file of the tree: "bert" for `models/bert/modeling_bert.py`; None outside `models/`."""
    parts = PurePosixPath(file).parts
    if len(parts) < 3 or parts[0] != "models":
        return None
    if parts[1] == "deprecated":
        return parts[2] if len(parts) > 3 else None
    return parts[1]


class SourceTree:
    """The Python files of one `transformers` release. Paths are relative to the package, with forward slashes.

    Attributes:
        where: the package's folder, or the wheel.
        version: of the release, such as "5.23.0".
    """

    def __init__(self, where: Path, version: str) -> None:
        self.where = where
        self.version = version
        self._modules: dict[str, Module] = {}

    def __repr__(self) -> str:
        return f"SourceTree({self.where.as_posix()!r}, version={self.version!r})"

    @cached_property
    def _wheel(self) -> zipfile.ZipFile | None:
        return zipfile.ZipFile(self.where) if self.where.is_file() else None

    @cached_property
    def _files(self) -> tuple[str, ...]:
        if self._wheel is not None:
            prefix = PACKAGE + "/"
            names = (name.removeprefix(prefix) for name in self._wheel.namelist() if name.startswith(prefix))
            return tuple(sorted(name for name in names if name.endswith(".py")))
        return tuple(sorted(path.relative_to(self.where).as_posix() for path in self.where.rglob("*.py")))

    @cached_property
    def _in_wheel(self) -> frozenset[str]:
        return frozenset(self._files)

    def files(self) -> tuple[str, ...]:
        """All Python files, sorted."""
        return self._files

    def stamps(self) -> dict[str, tuple[int, int]]:
        """What tells that a file has changed, for each of `files()`, read anew: size and time, or size and checksum in a wheel."""
        if self._wheel is not None:
            members = {member.filename: member for member in self._wheel.infolist()}
            found = {file: members[f"{PACKAGE}/{file}"] for file in self._files}
            return {file: (member.file_size, member.CRC) for file, member in found.items()}
        stamps = {}
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(self.where / folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{folder}{entry.name}/")
                    elif entry.name.endswith(".py") and entry.is_file():
                        status = entry.stat()
                        stamps[folder + entry.name] = (status.st_size, status.st_mtime_ns)
        return stamps

    def __contains__(self, file: str) -> bool:
        if self._wheel is not None:
            return file in self._in_wheel
        relative = PurePosixPath(file)
        return not relative.is_absolute() and ".." not in relative.parts and (self.where / file).is_file()

    def read_bytes(self, file: str) -> bytes:
        """A file as it is stored.

        Raises:
            SourceFileNotFoundError: if the tree has no such file.
        """
        if file not in self:
            raise SourceFileNotFoundError(
                f"{PACKAGE} {self.version} has no file {file!r}; `ptmkb source files` lists those that it has"
            )
        if self._wheel is not None:
            return self._wheel.read(f"{PACKAGE}/{file}")
        return (self.where / file).read_bytes()

    def read(self, file: str) -> str:
        """A file's text, in the encoding that it declares, its line ends untouched.

        Raises:
            SourceFileNotFoundError: if the tree has no such file.
        """
        data = self.read_bytes(file)
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            return data.decode(encoding)
        except (SyntaxError, UnicodeDecodeError, LookupError):
            return data.decode("utf-8", errors="replace")

    def lines(self, file: str) -> list[str]:
        """A file's lines, without their ends; line n is at n - 1.

        Raises:
            SourceFileNotFoundError: if the tree has no such file.
        """
        return split_lines(self.read(file))

    def module(self, file: str) -> Module:
        """A file, parsed; parsed once and kept.

        Raises:
            SourceFileNotFoundError: if the tree has no such file.
        """
        if file not in self._modules:
            self._modules[file] = parse_module(self.read(file), file)
        return self._modules[file]

    def modules(self) -> Iterator[Module]:
        """Every file, parsed in turn and not kept: the whole tree is 1.2 million lines."""
        for file in self._files:
            yield self._modules.get(file) or parse_module(self.read(file), file)

    def model_directories(self) -> tuple[str, ...]:
        """The model directories, sorted, without `auto` (the factories) and `deprecated` (a shelf of directories)."""
        found = {directory for file in self._files if (directory := model_directory(file))}
        return tuple(sorted(found - {"auto", "deprecated"}))

    def find_symbol(self, name: str, file: str | None = None) -> list[tuple[Module, Symbol]]:
        """Where a symbol is defined.

        Args:
            name: qualified name, such as "LlamaAttention.forward".
            file: look only there.

        Returns:
            Each definition with its file, in the order of files and lines.

        Raises:
            SymbolNotFoundError: if there is none.
            SourceFileNotFoundError: if the tree has no such `file`.
        """
        found = []
        # Parsing the whole tree takes ten seconds, so only files that could define the outermost name are parsed.
        outermost = re.compile(rb"\b(?:def|class)[ \t]+" + re.escape(name.split(".")[0]).encode() + rb"\b")
        for candidate in self._files if file is None else (file,):
            if outermost.search(self.read_bytes(candidate)):
                module = self.module(candidate)
                found += [(module, symbol) for symbol in module.named(name)]
        if not found:
            place = file or f"{PACKAGE} {self.version}"
            raise SymbolNotFoundError(
                f"{place} defines no {name!r}; names are qualified within their file, like LlamaAttention.forward"
            )
        return found


def find_tree(where: str | Path | None = None) -> SourceTree:
    """Find a tree of `transformers` source, without importing it.

    Args:
        where: a wheel; a folder that is the package, holds it, or is a checkout; None for the installed release.

    Returns:
        The tree.

    Raises:
        TreeNotFoundError: if there is none there.
    """
    if where is None:
        return _installed()
    path = Path(where).expanduser()
    if path.is_file():
        return _from_wheel(path)
    if not path.is_dir():
        raise TreeNotFoundError(
            f"{path}: there is no such folder or wheel; name one, or leave it out for the installed release"
        )
    for layout in _LAYOUTS:
        folder = path / layout
        init = folder / "__init__.py"
        if init.is_file() and (version := _VERSION.search(init.read_bytes())):
            return SourceTree(folder, version[1].decode())
    raise TreeNotFoundError(
        f"{path}: no {PACKAGE} package in this folder; name the folder that holds {PACKAGE}/__init__.py, or a checkout"
    )


def _installed() -> SourceTree:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise TreeNotFoundError(
            f"{PACKAGE} is not installed here; install it (pip install {PACKAGE}), or name a folder or a wheel"
        )
    folder = Path(spec.origin).parent
    if version := _VERSION.search(Path(spec.origin).read_bytes()):
        return SourceTree(folder, version[1].decode())
    return SourceTree(folder, importlib.metadata.version(PACKAGE))


def _from_wheel(path: Path) -> SourceTree:
    try:
        wheel = zipfile.ZipFile(path)
        version = _VERSION.search(wheel.read(f"{PACKAGE}/__init__.py"))
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise TreeNotFoundError(
            f"{path}: not a wheel of {PACKAGE} ({error}); get one with `pip download --no-deps {PACKAGE}`"
        ) from error
    if version is None:
        raise TreeNotFoundError(
            f"{path}: {PACKAGE}/__init__.py in it names no __version__; is this a released wheel?"
        )
    tree = SourceTree(path, version[1].decode())
    tree._wheel = wheel  # its directory of thousands of files is not read again
    return tree
