"""The lineage graph, and the same as a list for those who cannot see or script it."""

from __future__ import annotations

from collections.abc import Iterator

from ptmkb.lineage import network_data, vis_network_files
from ptmkb.lineage.rendering import to_script
from ptmkb.site.knowledge import Knowledge
from ptmkb.site.page import Page

ORDER = 40
SECTION = "nav.lineage"

_PATH = "lineage/index.md"
_RELATIONS = ("architecture", "objective", "component", "weights", "distillation", "scale", "data", "code")


def pages(knowledge: Knowledge) -> Iterator[Page]:
    """The graph's page, its data, and the library that draws it."""
    yield Page(
        _PATH,
        _page(knowledge),
        knowledge.word("lineage.title"),
        {"hide": ["navigation", "toc"]},
    )
    for name, file in vis_network_files().items():
        yield Page(f"assets/vis-network/{name}", file.read_text(encoding="utf-8"))


def _page(kb: Knowledge) -> str:
    def address(model_id: str) -> str:
        return kb.model_url(_PATH, model_id)

    data = network_data(kb.graph, kb.layout, kb.catalogue, kb.language, address)
    present = {edge["relation"] for edge in data["edges"]}
    boxes = "".join(
        f'<label class="kb-edge-{name}"><input type="checkbox" name="relation" value="{name}"'
        f"{'' if name == 'code' else ' checked'}> {kb.word(f'relation.{name}')}</label>"
        for name in _RELATIONS
        if name in present
    )
    names = "".join(f"<option>{node['label']}</option>" for node in data["nodes"])
    return f"""# {kb.word("lineage.title")}

{kb.word("lineage.lead")}

<div class="kb-graph" data-search-exclude>
<form class="kb-graph-tools"><input type="search" list="kb-graph-names" placeholder="{kb.word("lineage.find")}" aria-label="{kb.word("lineage.find")}"><datalist id="kb-graph-names">{names}</datalist>{boxes}<button type="button">{kb.word("lineage.fit")}</button></form>
<div class="kb-graph-canvas" role="img" aria-label="{kb.word("lineage.title")}"></div>
<noscript>{kb.word("lineage.noscript")}</noscript>
</div>
<script type="application/json" id="kb-graph-data">{to_script(data)}</script>

## {kb.word("lineage.text")}

{_list(kb)}
"""


def _list(kb: Knowledge) -> str:
    lines = []
    for node in kb.graph.nodes:
        model = kb.catalogue.models[node]
        edges = ("；" if kb.language == "zh" else "; ").join(
            f"{kb.model_link(_PATH, edge.ancestor)} ({kb.word(f'relation.{edge.relation}')}{'：' if kb.language == 'zh' else ': '}{kb.text(edge.note)})"
            for edge in model.lineage
        )
        lines.append(
            f'- <span id="{node}"></span>{kb.model_link(_PATH, node)} {model.released}{" ← " + edges if edges else ""}'
        )
    return "\n".join(lines)
