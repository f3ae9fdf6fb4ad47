"""What can only be seen with all files at hand: references that dangle, duplicates, lineage against time or in a circle.

The names of the measures and how a claim's value is read belong to the probes, which stand above the catalogue; whoever calls
`check` hands them in.
"""

from __future__ import annotations

import graphlib
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from ptmkb.catalogue.documents import Location
from ptmkb.catalogue.loading import Catalogue, Entry, Origin
from ptmkb.catalogue.problems import Problem, capped, nearest
from ptmkb.catalogue.schema import Category, Claim, Model, Paper

ClaimReader = Callable[[Any], object]
"""Reads a claim's value and raises ValueError (or TypeError, of which no reason is shown) if it is none of the measure's."""


def check(catalogue: Catalogue, measures: Mapping[str, ClaimReader]) -> list[Problem]:
    """Every problem between the entries of a catalogue.

    Args:
        catalogue: As read; problems of single files are `read_catalogue`'s.
        measures: The measures that claims may name, each with the reader of its values.

    Returns:
        Problems sorted by file and line.
    """
    problems: list[Problem] = []
    problems += _duplicates(catalogue.entries)
    for entry in catalogue.entries:
        if isinstance(entry.value, Model):
            problems += _check_model(entry.value, entry.origin, catalogue, measures)
        elif isinstance(entry.value, Category):
            problems += _check_category(entry.value, entry.origin, catalogue, measures)
        else:
            problems += _check_paper(entry.value, entry.origin)
    problems += _circles(catalogue)
    by_file: dict[Path, set[Problem]] = {}
    for problem in problems:
        by_file.setdefault(problem.path, set()).add(problem)
    return [problem for path in sorted(by_file) for problem in capped(path, by_file[path])]


def cited_papers(catalogue: Catalogue) -> set[str]:
    """Ids of the papers that some model or category cites."""
    cited: set[str] = set()
    for model in catalogue.models.values():
        cited |= {
            *model.papers,
            *(c.source.paper for c in model.claims),
            *(d.source.paper for d in model.lineage),
        }
    for category in catalogue.categories.values():
        cited |= {trait.source.paper for trait in (*category.strengths, *category.limits)}
    return cited


def dangling(kind: str, name: str, known: Iterable[str]) -> tuple[str, str]:
    """What and mend of a reference to something that is not there."""
    near = nearest(name, known)
    mend = f"did you mean `{near}`?" if near else f"add that {kind} or name another"
    return f"no {kind} `{name}`", mend


def _duplicates(entries: Iterable[Entry]) -> Iterator[Problem]:
    """Ids, arXiv ids and titles that stand twice, said at the second place."""
    first: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        kind = type(entry.value).__name__.lower()
        keys = {"id": entry.value.id}
        if isinstance(entry.value, Paper):
            keys["title"] = re.sub(r"\W+", " ", entry.value.title.casefold()).strip()
            keys |= {name: value for name in ("arxiv", "doi", "acl") if (value := getattr(entry.value, name))}
        for name, value in keys.items():
            known = first.setdefault((f"{kind}.{name}", value.casefold()), entry)
            if known is not entry and value:
                where = f"{known.origin.document.path.name}:{known.origin.line((name,))}"
                what = f"the {kind}'s `{name}: {value}` stands in {where} already (`{known.value.id}`)"
                yield entry.origin.problem((name,), what, "keep one of the two")


def _check_model(
    model: Model, origin: Origin, catalogue: Catalogue, measures: Mapping[str, ClaimReader]
) -> Iterator[Problem]:
    if model.id and origin.document.path.stem != model.id:
        yield origin.problem(
            ("id",), f"`{model.id}` stands in `{origin.document.path.name}`", "name the file after the id"
        )
    for i, category in enumerate((model.category, *model.also)):
        if category and category not in catalogue.categories:
            location = ("category",) if i == 0 else ("also", i - 1)
            yield origin.problem(location, *dangling("category", category, catalogue.categories))
    for i, paper in enumerate(model.papers):
        if paper not in catalogue.papers:
            yield origin.problem(("papers", i), *dangling("paper", paper, catalogue.papers))
    variants = [variant.name for variant in model.variants]
    for i in _repeated(model.papers):
        yield origin.problem(
            ("papers", i), f"the paper `{model.papers[i]}` stands twice", "keep one of the two"
        )
    for i in _repeated(variants):
        what = f"the variant `{variants[i]}` stands twice"
        yield origin.problem(("variants", i, "name"), what, "keep one of the two")
    for i, claim in enumerate(model.claims):
        if claim.source.paper not in catalogue.papers:
            yield origin.problem(
                ("claims", i, "source", "paper"), *dangling("paper", claim.source.paper, catalogue.papers)
            )
        if claim.variant is not None and claim.variant not in variants:
            yield origin.problem(("claims", i, "variant"), *dangling("variant", claim.variant, variants))
        yield from _check_claim(claim, i, origin, measures)
    for i in _repeated((claim.measure, claim.part, claim.variant) for claim in model.claims):
        yield origin.problem(
            ("claims", i), f"a second claim for {_named(model.claims[i])}", "keep one of the two"
        )
    yield from _check_lineage(model, origin, catalogue)


def _repeated(items: Iterable[Hashable]) -> Iterator[int]:
    """Where items stand that stood before."""
    seen: set[Hashable] = set()
    for i, item in enumerate(items):
        if item in seen:
            yield i
        seen.add(item)


def _named(claim: Claim) -> str:
    return " of ".join(f"`{word}`" for word in (claim.measure, claim.part, claim.variant) if word)


def _check_claim(
    claim: Claim, i: int, origin: Origin, measures: Mapping[str, ClaimReader]
) -> Iterator[Problem]:
    if claim.measure not in measures:
        yield origin.problem(("claims", i, "measure"), *dangling("measure", claim.measure, measures))
        return
    values: list[tuple[Location, Any]] = [(("claims", i, "value"), claim.value)]
    if claim.discrepancy:
        values.append((("claims", i, "discrepancy", "measured"), claim.discrepancy.measured))
    for location, value in values:
        try:
            measures[claim.measure](value)
        except (TypeError, ValueError) as error:
            yield origin.problem(location, *_said(error, f"write a value that `{claim.measure}` can give"))


def _said(error: TypeError | ValueError, mend: str) -> tuple[str, str]:
    """What and mend of a reader's refusal; a reader that knows a mend writes it after its last semicolon."""
    if isinstance(error, TypeError):
        return "the value is of a kind that the measure never gives", mend
    what, _, own = str(error).rpartition("; ")
    return (what, own) if what and not own.startswith("not ") else (str(error).replace("; ", ", "), mend)


def _check_lineage(model: Model, origin: Origin, catalogue: Catalogue) -> Iterator[Problem]:
    for i in _repeated((descent.ancestor, descent.relation) for descent in model.lineage):
        what = f"a second edge `{model.lineage[i].relation}` from `{model.lineage[i].ancestor}`"
        yield origin.problem(("lineage", i), what, "keep one of the two")
    for i, descent in enumerate(model.lineage):
        if descent.source.paper not in catalogue.papers:
            yield origin.problem(
                ("lineage", i, "source", "paper"), *dangling("paper", descent.source.paper, catalogue.papers)
            )
        ancestor = catalogue.models.get(descent.ancestor)
        if ancestor is None:
            yield origin.problem(
                ("lineage", i, "from"), *dangling("model", descent.ancestor, catalogue.models)
            )
        elif _surely_later(ancestor.released, model.released):
            what = f"`{ancestor.id}` ({ancestor.released}) is younger than `{model.id}` ({model.released})"
            yield origin.problem(("lineage", i, "from"), what, "turn the edge round or mend a date")


def _surely_later(one: str, other: str) -> bool:
    """Whether a date lies after another, as far as both are known: 2019 is not surely later than 2019-03."""
    known = min(len(one), len(other))
    return one[:known] > other[:known]


def _circles(catalogue: Catalogue) -> Iterator[Problem]:
    """Circles of the lineage until none is left, each said at each of its edges."""
    origins = {entry.value.id: entry.origin for entry in catalogue.entries if isinstance(entry.value, Model)}
    edges: dict[tuple[str, str], list[int]] = {}
    for model in catalogue.models.values():
        for i, descent in enumerate(model.lineage):
            edges.setdefault((descent.ancestor, model.id), []).append(i)
    while True:
        ancestors: dict[str, list[str]] = {}
        for ancestor, descendant in edges:
            ancestors.setdefault(descendant, []).append(ancestor)
        try:
            graphlib.TopologicalSorter(ancestors).prepare()
        except graphlib.CycleError as error:
            circle = error.args[1]  # each an ancestor of the next, the last the first again
            what = f"the lineage runs in a circle: {' → '.join(circle)}"
            for edge in dict.fromkeys(pairwise(circle)):
                for i in edges.pop(edge):
                    yield origins[edge[1]].problem(("lineage", i, "from"), what, "remove one of its edges")
        else:
            return


def _check_category(
    category: Category, origin: Origin, catalogue: Catalogue, measures: Mapping[str, ClaimReader]
) -> Iterator[Problem]:
    parent = category.parent and catalogue.categories.get(category.parent)
    if category.parent and not parent:
        yield origin.problem(("parent",), *dangling("category", category.parent, catalogue.categories))
    if parent and parent.parent:
        what = f"`{category.id}` would stand three levels deep"
        yield origin.problem(("parent",), what, "name a parent that has none itself")
    for part, value in category.flow.items():
        try:
            if "flow" in measures:
                measures["flow"](value)
        except (TypeError, ValueError) as error:
            yield origin.problem(("flow", part), *_said(error, "write a flow that the measure can give"))
    for name in ("strengths", "limits"):
        for i, trait in enumerate(getattr(category, name)):
            if trait.source.paper not in catalogue.papers:
                location = (name, i, "source", "paper")
                yield origin.problem(location, *dangling("paper", trait.source.paper, catalogue.papers))


def _check_paper(paper: Paper, origin: Origin) -> Iterator[Problem]:
    file = origin.document.path
    if paper.year and re.fullmatch(r"[0-9]{4}", file.stem) and int(file.stem) != paper.year:
        what = f"`{paper.id}` is of {paper.year} but stands in `{file.name}`"
        yield origin.problem(("year",), what, f"move it to `{paper.year}.yaml` or mend the year")
