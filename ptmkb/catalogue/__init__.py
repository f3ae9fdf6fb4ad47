"""The catalogue: models, papers and categories as YAML, read safely and checked in full.

catalogue = load_catalogue()            # the one that ships with the package
catalogue.models["bert"].released       # '2018-10-11'
"""

from __future__ import annotations

from pathlib import Path

from ptmkb.catalogue.bibliography import to_bibtex, to_csl, to_csv
from ptmkb.catalogue.checking import ClaimReader, check, cited_papers, dangling
from ptmkb.catalogue.documents import Document, DocumentError, Problem, parse, read_document
from ptmkb.catalogue.loading import DATA, Catalogue, CatalogueError, Entry, Origin, read_catalogue
from ptmkb.catalogue.schema import (
    Categories,
    Category,
    Citation,
    Claim,
    Descent,
    Model,
    Paper,
    Papers,
    Text,
    Variant,
)

__all__ = [
    "DATA",
    "Catalogue",
    "CatalogueError",
    "Categories",
    "Category",
    "Citation",
    "Claim",
    "ClaimReader",
    "Descent",
    "Document",
    "DocumentError",
    "Entry",
    "Model",
    "Origin",
    "Paper",
    "Papers",
    "Problem",
    "Text",
    "Variant",
    "check",
    "cited_papers",
    "dangling",
    "load_catalogue",
    "parse",
    "read_catalogue",
    "read_document",
    "to_bibtex",
    "to_csl",
    "to_csv",
]


def load_catalogue(directory: Path = DATA) -> Catalogue:
    """Read a catalogue whose files are each sound.

    Args:
        directory: Holds `categories.yaml`, `papers/` and `models/`.

    Returns:
        The catalogue; references between its files are not checked here (`check` does that).

    Raises:
        CatalogueError: A file cannot be read or breaks the schema.
    """
    catalogue, problems = read_catalogue(directory)
    if problems:
        raise CatalogueError(problems)
    return catalogue
