"""What was measured on each model, kept in the user's cache directory for as long as nothing changes that it depends on.

One file a model, written in one step as soon as the model's child ends: a run that is killed has lost nothing that was done, and the next one
goes on from there. A file's keys are digests of what its findings depend on: the implementation and (in a key of its own) the variants, the code
and data that build and measure models (found by following imports from it), the reference implementation, the versions of `transformers`, `torch`
and Python. Claims are no part of them, because verdicts are made anew from the findings in every run. A model type and the entry that builds the
same share a file: whichever is measured first, its tiny model is not measured again for the other. Needs no torch.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ptmkb
from ptmkb.probe.findings import Findings, joined, part
from ptmkb.probe.targets import Target

_PACKAGE = Path(ptmkb.__file__).parent
_PROBE = _PACKAGE / "probe"
_STALE = 3600  # seconds after which nobody still writes
_INSTALLED = ("transformers", "torch", "tokenizers", "numpy")


def directory() -> Path:
    """Where findings are kept: in `$PTMKB_CACHE`, else in `ptmkb` in the platform's cache directory for the user."""
    if chosen := os.environ.get("PTMKB_CACHE"):
        return Path(chosen) / "probe"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")
        return Path(local) / "ptmkb" / "Cache" / "probe"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ptmkb" / "probe"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ptmkb" / "probe"


class Cache:
    """The kept findings.

    Args:
        where: The directory; the user's by default.
        fresh: Find nothing, but go on keeping.
    """

    def __init__(self, where: Path | None = None, fresh: bool = False) -> None:
        self.where = where or directory()
        self._fresh = fresh

    def load(self, target: Target) -> tuple[Findings, float] | None:
        """All findings about a target, and how many seconds they took; None where there are none that still hold."""
        held = self._held(target)
        if held is None:
            return None
        found, seconds, whole = held
        if not target.variants:
            return part(found, tiny=True), seconds
        return (found, seconds) if whole else None

    def tiny(self, target: Target) -> tuple[Findings, float] | None:
        """Those about its tiny model alone."""
        held = self._held(target)
        return None if held is None else (part(held[0], tiny=True), held[1])

    def seconds(self, target: Target) -> float | None:
        """How long the target took when it was last measured, in whatever state it was then."""
        held = self._read(target)
        seconds = held.get("seconds") if held else None
        return float(seconds) if isinstance(seconds, int | float) else None

    def save(self, target: Target, findings: Findings, seconds: float) -> None:
        """Keep findings; where nothing can be written, nothing is kept.

        Args:
            target: What they are about.
            findings: Tiny model and variants; of a target without variants those that are held and still go with the tiny model stay.
            seconds: How long they took.
        """
        key, variants = self.key(target), self.variants_key(target)
        if not target.variants and (held := self._held(target)) is not None:
            rest = part(held[0], tiny=False)
            if rest.measured or rest.silences:
                read = self._read(target) or {}
                findings, variants, seconds = joined([findings, rest]), str(read.get("variants")), held[1]
        data = {
            "key": key,
            "variants": variants,
            "seconds": round(seconds, 2),
            "findings": findings.model_dump(mode="json"),
        }
        name = None
        try:
            self.where.mkdir(parents=True, exist_ok=True)
            for left in self.where.glob(
                f".{target.held_as}.*.part"
            ):  # by a run that was killed while it wrote
                if time.time() - left.stat().st_mtime > _STALE:
                    left.unlink()
            handle, name = tempfile.mkstemp(dir=self.where, prefix=f".{target.held_as}.", suffix=".part")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(data, file, ensure_ascii=False)
            Path(name).replace(self._path(target))
        except OSError:
            if name is not None:
                with contextlib.suppress(OSError):
                    Path(name).unlink()

    def key(self, target: Target) -> str:
        """A digest of all that the findings about the tiny model depend on."""
        made = target.implementation
        reference = made.module if made.kind == "reference" else None
        parts = {
            "implementation": made.model_dump(mode="json"),
            "code": self._code,
            "reference": _digest(_followed([_PACKAGE / "reference" / f"{reference}.py"]))
            if reference
            else None,
            "installed": self._installed,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @staticmethod
    def variants_key(target: Target) -> str:
        """A digest of what else those about the variants depend on."""
        parts = [variant.model_dump(mode="json", exclude={"hub"}) for variant in target.variants]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _held(self, target: Target) -> tuple[Findings, float, bool] | None:
        """What is held and still goes with the tiny model, its seconds, and whether its variants are the target's."""
        held = self._read(target)
        if self._fresh or held is None or held.get("key") != self.key(target):
            return None
        try:
            found, seconds = Findings.model_validate(held["findings"]), float(held["seconds"])
        except (ValueError, KeyError, TypeError):
            return None
        return found, seconds, held.get("variants") == self.variants_key(target)

    @cached_property
    def _code(self) -> str:
        return code_digest()

    @cached_property
    def _installed(self) -> dict[str, str]:
        return {"python": platform.python_version()} | {name: installed(name) for name in _INSTALLED}

    def _path(self, target: Target) -> Path:
        return self.where / f"{target.held_as}.json"

    def _read(self, target: Target) -> dict[str, Any] | None:
        try:
            held = json.loads(self._path(target).read_bytes())
        except (OSError, ValueError):
            return None
        return held if isinstance(held, dict) else None


def installed(name: str) -> str:
    """The version of an installed package, without importing it; empty where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def code_digest(package: Path = _PACKAGE) -> str:
    """A digest of the code and data that findings come from: what builds models, what measures them, and all that these import."""
    probe = package / "probe"
    starts = [probe / "subjects.py", *sorted((probe / "measures").glob("*.py"))]
    files = {probe / "probing.py", *_followed(starts), *(probe / "data").rglob("*.yaml")}
    return _digest(files, package)


def _digest(files: Iterable[Path], package: Path = _PACKAGE) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _followed(starts: Iterable[Path]) -> set[Path]:
    """Files of this package that others import, from wherever in them, with those themselves; of the catalogue only its schema."""
    found: set[Path] = set()
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        package = next(parent for parent in path.parents if parent.name == "ptmkb")
        waiting.extend(package.joinpath(*name) for name in _imports(path.read_bytes()))
    return found


@cache
def _imports(source: bytes) -> tuple[tuple[str, ...], ...]:
    """Files of this package that a source text may import, as paths from the package on."""

    def names() -> Iterator[str]:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    found = []
    for name in names():
        first, *rest = name.split(".")
        if first != "ptmkb" or (rest[:1] == ["catalogue"] and rest[1:] != ["schema"]):
            continue
        found += [(*rest, "__init__.py"), (*rest[:-1], f"{rest[-1]}.py")] if rest else []
    return tuple(dict.fromkeys(found))
