"""Entries that say something false on purpose: the probe must refute it, and nothing else."""

import pytest

from ptmkb.catalogue import load_catalogue
from ptmkb.probe.probing import probe

CATALOGUE = load_catalogue()


def falsified(model_id: str, match: dict, value: object):
    """An entry with one claim (the first that fits `match`) changed, and the index of that claim."""
    entry = CATALOGUE.models[model_id]
    index = next(
        i
        for i, c in enumerate(entry.claims)
        if all(getattr(c, key) == wanted for key, wanted in match.items())
    )
    claims = list(entry.claims)
    claims[index] = claims[index].model_copy(update={"value": value})
    variants = [v for v in entry.variants if v.name == claims[index].variant]
    return entry.model_copy(update={"claims": claims, "variants": variants}), index


@pytest.mark.parametrize(
    ("model_id", "match", "value"),
    [
        ("gpt2", {"measure": "flow"}, "bidirectional"),
        ("bert", {"measure": "flow"}, "causal"),
        ("t5", {"measure": "flow", "part": "decoder"}, "bidirectional"),
        ("unilm", {"measure": "flow", "part": "sequence-to-sequence"}, "causal"),
        ("clip", {"measure": "flow", "part": "image>text"}, "full"),
        ("bert", {"measure": "parameters", "variant": "bert-base-uncased"}, "140M"),
        (
            "bert",
            {"measure": "shape", "variant": "bert-base-uncased"},
            {"layers": 12, "width": 768, "heads": 16},
        ),
        (
            "bert",
            {"measure": "shape", "variant": "bert-base-uncased"},
            {"layers": 11, "width": 768, "heads": 12},
        ),
    ],
)
def test_a_false_claim_is_refuted(model_id: str, match: dict, value: object) -> None:
    true = probe(
        CATALOGUE.models[model_id].model_copy(
            update={"variants": falsified(model_id, match, value)[0].variants}
        ),
        CATALOGUE,
    )
    entry, index = falsified(model_id, match, value)
    record = probe(entry, CATALOGUE)
    assert true.claims[index].verdict == "verified"
    assert record.claims[index].verdict == "refuted"
    assert record.status == "failed"
    assert record.why is not None
    assert match["measure"] in record.why
    others = [
        (a.verdict, b.verdict)
        for i, (a, b) in enumerate(zip(true.claims, record.claims, strict=True))
        if i != index
    ]
    assert all(before == after for before, after in others)
