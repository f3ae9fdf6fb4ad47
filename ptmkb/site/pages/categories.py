"""The taxonomy, and a page a category."""

from __future__ import annotations

from collections.abc import Iterator

from ptmkb.catalogue import Category, Model
from ptmkb.catalogue.schema import Trait
from ptmkb.site.drawings import drawing, flow_matrix
from ptmkb.site.knowledge import Knowledge
from ptmkb.site.page import Page, table
from ptmkb.site.values import badge, part_text, value_text

ORDER = 20
SECTION = "nav.taxonomy"


def pages(knowledge: Knowledge) -> Iterator[Page]:
    """The taxonomy, then the categories in their own order."""
    yield Page("categories/index.md", _taxonomy(knowledge), knowledge.word("taxonomy.title"))
    for category in knowledge.catalogue.categories.values():
        path = f"categories/{category.id}.md"
        yield Page(path, _category(category, path, knowledge), knowledge.text(category.name))


def children(category: Category, kb: Knowledge) -> list[Category]:
    """The categories below one."""
    return [other for other in kb.catalogue.categories.values() if other.parent == category.id]


def cards(categories: list[Category], path: str, kb: Knowledge) -> str:
    """A card a category: its drawing, its name, its first sentence, its members."""
    items = []
    for category in categories:
        picture = drawing(category.drawings[0], kb.language) if category.drawings else ""
        members = kb.catalogue.members(category.id)
        names = "、" if kb.language == "zh" else ", "
        links = names.join(kb.model_link(path, model.id) for model in members)
        items.append(
            f'<div class="kb-card" markdown>\n{picture}\n\n**{kb.category_link(path, category.id)}**\n\n'
            f'{first_sentence(kb.text(category.definition), kb.language)}\n\n<small markdown="span">{links}</small>\n</div>'
        )
    return '<div class="kb-cards" markdown>\n' + "\n".join(items) + "\n</div>"


def first_sentence(text: str, language: str) -> str:
    """The first sentence of a text."""
    end = "。" if language == "zh" else ". "
    head, mark, _ = text.partition(end)
    return (head + mark).strip()


def _taxonomy(kb: Knowledge) -> str:
    path = "categories/index.md"
    top = [category for category in kb.catalogue.categories.values() if category.parent is None]
    parts = [f"# {kb.word('taxonomy.title')}", kb.word("taxonomy.lead")]
    parts.append(cards([category for category in top if not children(category, kb)], path, kb))
    for category in top:
        if below := children(category, kb):
            parts += [
                f"## {kb.text(category.name)}",
                kb.text(category.definition),
                cards(below, path, kb),
            ]
    return "\n\n".join(parts) + "\n"


def _category(category: Category, path: str, kb: Knowledge) -> str:
    parts = [f"# {kb.text(category.name)}"]
    if category.parent:
        parts.append(f"↑ {kb.category_link(path, category.parent)}")
    parts.append(f'<p class="kb-lead" markdown>{kb.text(category.definition)}</p>')
    if category.drawings:
        figures = "\n".join(f"<figure>{drawing(name, kb.language)}</figure>" for name in category.drawings)
        parts.append(f'<div class="kb-drawings">\n{figures}\n</div>')
    if below := children(category, kb):
        parts += [f"## {kb.word('category.below')}", cards(below, path, kb)]
    for name in ("strengths", "limits"):
        if traits := getattr(category, name):
            parts += [f"## {kb.word(f'category.{name}')}", _traits(traits, path, kb)]
    if category.flow:
        rows = [
            [
                kb.word("category.whole") if part == "model" else part_text(part, kb.language),
                _value(value, kb),
            ]
            for part, value in category.flow.items()
        ]
        parts += [
            f"## {kb.word('category.demands')}",
            kb.word("category.demands.lead"),
            table([kb.word("category.part"), kb.word("category.value")], rows),
        ]
    parts += [f"## {kb.word('category.members')}", _members(category, path, kb)]
    return "\n\n".join(parts) + "\n"


def _value(value: str, kb: Knowledge) -> str:
    return value_text("flow", value, kb.language)


def _traits(traits: list[Trait], path: str, kb: Knowledge) -> str:
    return "\n".join(f"- {kb.text(trait.text)} ({kb.citation(path, trait.source)})" for trait in traits)


def _members(category: Category, path: str, kb: Knowledge) -> str:
    rows = [
        [
            kb.model_link(path, model.id),
            f'<span class="kb-date">{model.released}</span>',
            model.organisation,
            _proof(category, model, kb),
        ]
        for model in kb.catalogue.members(category.id)
    ]
    head = ["field.name", "field.released", "field.organisation", "category.value"]
    return table([kb.word(key) for key in head], rows)


def _proof(category: Category, model: Model, kb: Knowledge) -> str:
    """The member's measured flow in the parts that the category speaks of, as small pictures with their verdicts."""
    record = kb.evidence(model.id)
    if record is None:
        return badge("unmeasured", kb.language)
    flows = {m.part: m for m in record.measured if m.measure == "flow" and "matrix" in m.detail}
    wanted = {None if part == "model" else part for part in category.flow} or set(flows)
    shown = []
    for part, flow in flows.items():
        if part in wanted:
            caption = " ".join(x for x in (part_text(part, kb.language), _value(flow.value, kb)) if x)
            shown.append(
                f'<span class="kb-mini">{flow_matrix(flow.detail["matrix"], caption)} {caption}</span>'
            )
    return " ".join(shown) or badge(record.verdict, kb.language)
