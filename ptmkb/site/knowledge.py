"""Everything the pages are made from, gathered once a build: catalogue, graph, evidence, source and notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from ptmkb.annotations import ResolvedNote, load_notes, notes_directory, resolve_notes
from ptmkb.catalogue import DATA, Catalogue, CatalogueError, Citation, Text, load_catalogue
from ptmkb.lineage import Layout, build_graph, code_edges, place
from ptmkb.lineage.graph import Graph
from ptmkb.probe.record import ModelRecord, ProbeRecord, read_architectures, read_evidence
from ptmkb.site.page import link, url
from ptmkb.site.tours import Tours, read_tours
from ptmkb.site.words import word
from ptmkb.source import SourceTree, TreeNotFoundError, find_tree

Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Knowledge:
    """What the pages of one language are made from.

    Attributes:
        language: Of the pages.
        catalogue: Models, papers, categories.
        graph: Their lineage, code edges included.
        layout: Where the graph's nodes stand.
        record: The evidence; None where nothing was probed yet.
        tree: The source that notes are anchored to; None where no `transformers` is installed.
        notes: Every note with its place in that source, in the order of files and lines.
        architectures: What was measured on every model type of `transformers`; None where there is no such record.
        tours: The ways through the notes that the articles lay.
    """

    language: Language
    catalogue: Catalogue
    graph: Graph
    layout: Layout
    record: ProbeRecord | None
    tree: SourceTree | None
    notes: tuple[ResolvedNote, ...] = field(repr=False, default=())
    architectures: ProbeRecord | None = field(repr=False, default=None)
    tours: Tours = field(repr=False, default=Tours())

    def text(self, text: Text) -> str:
        """A text in the language of the pages."""
        return text.zh if self.language == "zh" else text.en

    @property
    def colon(self) -> str:
        """What stands between a label and what it is a label of."""
        return "：" if self.language == "zh" else ": "

    def word(self, key: str, **values: object) -> str:
        """A label in the language of the pages."""
        return word(key, self.language, **values)

    def evidence(self, model_id: str) -> ModelRecord | None:
        """What the last full probe said of a model."""
        return self.record.model(model_id) if self.record else None

    @cached_property
    def entries_by_type(self) -> dict[str, list[str]]:
        """The entries' ids by the model type of `transformers` that they are built from."""
        entries: dict[str, list[str]] = {}
        for model in self.catalogue.models.values():
            if model.implementation.kind == "transformers":
                entries.setdefault(model.implementation.model_type, []).append(model.id)
        return entries

    @cached_property
    def measured_types(self) -> frozenset[str]:
        """The model types that have a page of their own."""
        return (
            frozenset(record.id for record in self.architectures.models)
            if self.architectures
            else frozenset()
        )

    @cached_property
    def notes_by_file(self) -> dict[str, list[ResolvedNote]]:
        """Notes by source file, top to bottom; notes that found no place come last."""
        files: dict[str, list[ResolvedNote]] = {}
        for resolved in self.notes:
            files.setdefault(resolved.note.file, []).append(resolved)
        for notes in files.values():
            notes.sort(
                key=lambda r: (r.resolution.first_line is None, r.resolution.first_line or 0, r.note.id)
            )
        return dict(sorted(files.items()))

    def related(self, note_id: str) -> list[ResolvedNote]:
        """The notes that a note points at, then those that point at it."""
        return [self.notes_by_id[other] for other in self._related.get(note_id, ())]

    @cached_property
    def notes_by_id(self) -> dict[str, ResolvedNote]:
        """Notes by id."""
        return {resolved.note.id: resolved for resolved in self.notes}

    @cached_property
    def _related(self) -> dict[str, dict[str, None]]:
        related: dict[str, dict[str, None]] = {}
        for resolved in self.notes:
            related.setdefault(resolved.note.id, {}).update(dict.fromkeys(resolved.note.see))
        for resolved in self.notes:
            for other in resolved.note.see:
                related[other][resolved.note.id] = None
        return related

    def model_link(self, origin: str, model_id: str) -> str:
        """A Markdown link to a model's page, or its bare id where it has none."""
        model = self.catalogue.models.get(model_id)
        return f"[{model.name}]({link(origin, f'models/{model_id}.md')})" if model else f"`{model_id}`"

    def category_link(self, origin: str, category_id: str) -> str:
        """A Markdown link to a category's page."""
        category = self.catalogue.categories[category_id]
        return f"[{self.text(category.name)}]({link(origin, f'categories/{category_id}.md')})"

    def citation(self, origin: str, citation: Citation) -> str:
        """A Markdown link to the paper's record, with the place in it."""
        paper = self.catalogue.papers[citation.paper]
        authors = paper.authors[0] if paper.kind == "web" else short_authors(paper.authors, self.language)
        return f"[{authors} {paper.year}]({link(origin, f'papers/index.md#{paper.id}')}) {citation.at}"

    def model_url(self, origin: str, model_id: str) -> str:
        """The address of a model's page as the built site serves it, for SVG and scripts."""
        return url(origin, f"models/{model_id}.md")


def short_authors(authors: list[str], language: str) -> str:
    """`Devlin et al.`, `Peters and Neumann`, `Radford`: how a citation names authors."""
    family = [name.split()[-1] for name in authors if name != "et al."]
    if len(authors) == 1:
        return family[0]
    if len(authors) == 2 and "et al." not in authors:
        return f"{family[0]} {'和' if language == 'zh' else 'and'} {family[1]}"
    return f"{family[0]} {'等' if language == 'zh' else 'et al.'}"


def gather(
    language: Language,
    catalogue_dir: Path | None = None,
    annotations_dir: Path | None = None,
    docs: Path | None = None,
) -> Knowledge:
    """Read everything that the pages of a language are made from.

    Args:
        language: `en` or `zh`.
        catalogue_dir: Another catalogue than the package's.
        annotations_dir: Other notes than the package's.
        docs: The chapters of that language, for their tours.

    Returns:
        The knowledge.

    Raises:
        CatalogueError: Catalogue or notes break their schema.
    """
    catalogue = load_catalogue(catalogue_dir or DATA)
    try:
        tree = find_tree()
    except TreeNotFoundError:
        tree = None
    found = load_notes(annotations_dir or notes_directory(), catalogue)
    if found.problems:
        raise CatalogueError(list(found.problems))
    graph = build_graph(catalogue, code_edges(tree) if tree else ())
    return Knowledge(
        language=language,
        catalogue=catalogue,
        graph=graph,
        layout=place(graph),
        record=read_evidence(),
        tree=tree,
        notes=tuple(resolve_notes(found.notes, tree)) if tree else (),
        architectures=read_architectures(),
        tours=read_tours(docs) if docs else Tours(),
    )
