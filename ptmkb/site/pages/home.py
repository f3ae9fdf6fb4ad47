"""The front page: what this is, shown by four measurements."""

from __future__ import annotations

from collections.abc import Iterator

from ptmkb.probe.record import Measurement
from ptmkb.site.drawings import flow_matrix
from ptmkb.site.knowledge import Knowledge
from ptmkb.site.page import Page, link
from ptmkb.site.pages.categories import cards
from ptmkb.site.values import value_text

ORDER = 0
SECTION = "nav.home"

_PATH = "index.md"
_SHOWN = (("bert", None), ("gpt2", None), ("unilm", "sequence-to-sequence"), ("xlnet", "content"))
"""Models and parts whose measured flow stands on the front page: four answers to one question."""


def pages(knowledge: Knowledge) -> Iterator[Page]:
    """The front page."""
    yield Page(_PATH, _home(knowledge), knowledge.word("nav.home"), {"hide": ["navigation", "toc"]})


def _home(kb: Knowledge) -> str:
    top = [category for category in kb.catalogue.categories.values() if not _has_children(category.id, kb)]
    ways = "\n".join(
        f"- **[{kb.word(f'nav.{key}')}]({target})**{'：' if kb.language == 'zh' else ': '}{kb.word(f'home.way.{key}')}"
        for key, target in (
            ("taxonomy", "categories/index.md"),
            ("architectures", "architectures/index.md"),
            ("lineage", "lineage/index.md"),
            ("source", "source/index.md"),
        )
        if key != "architectures" or kb.architectures is not None
    )
    buttons = " ".join(
        f"[{kb.word(f'home.{key}')}]({target}){{ .md-button{' .md-button--primary' if i == 0 else ''} }}"
        for i, (key, target) in enumerate(
            (("browse", "categories/index.md"), ("graph", "lineage/index.md"), ("read", "source/index.md"))
        )
    )
    return f"""<div class="kb-hero" markdown>

# {kb.word("home.title")}

<p class="kb-lead" markdown>{kb.word("home.lead")}</p>

{buttons}

{_counts(kb)}

</div>

{_proofs(kb)}

## {kb.word("home.kinds")}

{cards(top, _PATH, kb)}

## {kb.word("home.ways.title")}

{ways}
"""


def _has_children(category: str, kb: Knowledge) -> bool:
    return any(other.parent == category for other in kb.catalogue.categories.values())


def _counts(kb: Knowledge) -> str:
    claims = [c for m in kb.record.models for c in m.claims if c.origin == "entry"] if kb.record else []
    counts = {
        "models": len(kb.catalogue.models),
        "claims": sum(claim.verdict != "unmeasured" for claim in claims),
        "verified": sum(claim.verdict == "verified" for claim in claims),
        "papers": len(kb.catalogue.papers),
        "notes": len(kb.notes),
    }
    items = "".join(
        f"<li><b>{number}</b> {kb.word(f'home.{key}')}</li>" for key, number in counts.items() if number
    )
    return f'<ul class="kb-counts">{items}</ul>'


def _proofs(kb: Knowledge) -> str:
    figures = []
    for model_id, part in _SHOWN:
        flow = _flow(model_id, part, kb)
        if flow is None:
            continue
        value = value_text("flow", flow.value, kb.language)
        name = kb.model_link(_PATH, model_id)
        picture = flow_matrix(flow.detail["matrix"], f"{kb.catalogue.models[model_id].name}: {value}")
        figures.append(
            f'<figure markdown>\n{picture}\n<figcaption markdown="span">{name}<br>{value}</figcaption>\n</figure>'
        )
    if not figures:
        return ""
    body = "\n".join(figures)
    more = f"[{kb.word('nav.method')} →]({link(_PATH, 'method/index.md')})"
    return f"""## {kb.word("home.proof.title")}

{kb.word("home.proof.text")} {more}

<div class="kb-figures" markdown>
{body}
</div>"""


def _flow(model_id: str, part: str | None, kb: Knowledge) -> Measurement | None:
    record = kb.evidence(model_id)
    for measurement in record.measured if record else ():
        if (measurement.measure, measurement.part) == ("flow", part) and "matrix" in measurement.detail:
            return measurement
    return None
