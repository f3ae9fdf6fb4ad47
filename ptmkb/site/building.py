"""Builds both languages side by side, keeps the result while nothing changes, and serves it.

What the output depends on is written beside it as a fingerprint: our files, the configuration, and the releases of what makes the pages. A
build goes into a directory of its own that takes the place of the old one at the end, so a stopped build leaves the old site whole.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CONFIGURATIONS = {"en": "mkdocs.yml", "zh": "mkdocs.zh.yml"}
_STAMP = ".fingerprint"
_INPUTS = ("mkdocs.yml", "mkdocs.zh.yml", "docs", "ptmkb", "annotations")
_RELEASES = (
    "mkdocs",
    "mkdocs-material",
    "mkdocstrings",
    "mkdocstrings-python",
    "transformers",
    "pyvis",
    "networkx",
)


class SiteError(Exception):
    """The site cannot be built; the message says why and what to do."""


def project_root() -> Path:
    """The checkout that holds the configuration of the site.

    Raises:
        SiteError: This is an installed package: its pages can be had with `ptmkb pages`.
    """
    root = Path(__file__).parents[2]
    if not (root / "mkdocs.yml").is_file():
        raise SiteError(
            "the site is built in a checkout of ptmkb; `ptmkb pages --out DIR` writes its pages anywhere"
        )
    return root


def fingerprint(root: Path) -> str:
    """What the built site depends on, as one hash."""
    digest = hashlib.sha256(sys.version.encode())
    for name in _RELEASES:
        with contextlib.suppress(PackageNotFoundError):
            digest.update(f"{name}=={version(name)}\n".encode())
    for path in _files(root):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    for name in _INPUTS:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def build(root: Path, *, strict: bool = False, force: bool = False) -> bool:
    """Build both languages into `site/`.

    Args:
        root: The checkout.
        strict: Warnings (a broken link) end the build.
        force: Build even where nothing changed.

    Returns:
        Whether anything was built; False where the site there is already of this fingerprint.

    Raises:
        SiteError: A language could not be built; the old site stays.
    """
    site = root / "site"
    wanted = fingerprint(root)
    stamp = site / _STAMP
    if not force and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return False
    fresh = root / "build" / f"site-{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    context = multiprocessing.get_context("spawn")
    targets = {"en": fresh / "en", "zh": fresh / "zh"}
    workers = {
        language: context.Process(target=_build_one, args=(root, language, target, strict))
        for language, target in targets.items()
    }
    try:
        for worker in workers.values():
            worker.start()
        for worker in workers.values():
            worker.join()
        failed = [language for language, worker in workers.items() if worker.exitcode != 0]
        if failed:
            raise SiteError(f"the {' and '.join(failed)} site could not be built; the lines above say why")
        shutil.move(targets["zh"], targets["en"] / "zh")
        (targets["en"] / _STAMP).write_text(wanted, encoding="utf-8")
        shutil.rmtree(site, ignore_errors=True)
        shutil.move(targets["en"], site)
    finally:
        for worker in workers.values():
            if worker.is_alive():
                worker.terminate()
        shutil.rmtree(fresh, ignore_errors=True)
    return True


def _build_one(root: Path, language: str, target: Path, strict: bool) -> None:
    """Build one language; runs in a process of its own."""
    from mkdocs.commands.build import build as mkdocs_build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort, MkDocsException

    from ptmkb.catalogue import CatalogueError

    logging.basicConfig(
        level=logging.WARNING, format=f"{language}: %(levelname)s %(message)s", stream=sys.stderr
    )
    import jieba

    jieba.setLogLevel(
        logging.WARNING
    )  # Material's search segments Chinese with it; it reports every start otherwise
    try:
        configuration = root / CONFIGURATIONS[language]
        mkdocs_build(load_config(str(configuration), site_dir=str(target), strict=strict))
    except CatalogueError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    except (Abort, MkDocsException) as error:
        sys.stderr.write(f"{language}: {error}\n")
        raise SystemExit(1) from None


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line a request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the base class)
        """Say nothing."""


def server(directory: Path, host: str, port: int) -> http.server.ThreadingHTTPServer:
    """A server of the built site, not yet running.

    Raises:
        OSError: The address cannot be had.
    """
    handler = functools.partial(_Handler, directory=str(directory))
    return http.server.ThreadingHTTPServer((host, port), handler)
