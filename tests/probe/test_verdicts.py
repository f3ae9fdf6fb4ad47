import subprocess
import sys
from typing import Any

from ptmkb.catalogue import Category, Model, load_catalogue
from ptmkb.catalogue.schema import Discrepancy
from ptmkb.probe.record import Measurement
from ptmkb.probe.verdicts import Pending, judge, pending

NOTE = {"en": "another way of counting", "zh": "另一种数法"}


class Length:
    """A measure of numbers that agree when they differ by at most 1."""

    SCALES = ("tiny", "variant")

    def parse(self, value: Any) -> int:
        if not isinstance(value, int):
            raise ValueError(f"`{value}` is no number")
        return value

    def agrees(self, claimed: int, measured: int) -> bool:
        return abs(claimed - measured) <= 1


class OnlyTiny(Length):
    SCALES = ("tiny",)


MEASURES = {"length": Length(), "only-tiny": OnlyTiny()}
MEASURED = [
    Measurement(measure="length", value=10),
    Measurement(measure="length", part="encoder", variant="big", value=20),
    Measurement(measure="length", part="decoder", variant="big", value=30),
    Measurement(measure="length", part="text", variant="single", value=40),
]


def verdict(
    value: Any,
    part: str | None = None,
    variant: str | None = None,
    noted: int | None = None,
    measure: str = "length",
):
    discrepancy = None if noted is None else Discrepancy.model_validate({"measured": noted, "note": NOTE})
    record = judge(Pending(measure, part, variant, value, discrepancy), MEASURED, {}, MEASURES.__getitem__)
    return record.verdict, record.measured, record.why


def test_claims_are_compared_with_the_reading_of_their_part_and_variant() -> None:
    assert verdict(10) == ("verified", 10, None)
    assert verdict(11) == ("verified", 10, None)
    assert verdict(12)[:2] == ("refuted", 10)
    assert verdict(20, "encoder", "big")[:2] == ("verified", 20)
    assert verdict(20, "decoder", "big")[:2] == ("refuted", 30)


def test_a_claim_about_the_whole_takes_the_only_reading_and_no_other() -> None:
    assert verdict(40, None, "single")[:2] == ("verified", 40)
    assert verdict(20, None, "big") == (
        "unmeasured", None, "no reading of the whole; measured parts: `encoder`, `decoder`",
    )  # fmt: skip
    assert verdict(20, "image", "big") == (
        "unmeasured",
        None,
        "no part `image`; measured parts: `encoder`, `decoder`",
    )
    assert verdict(20, None, "small") == ("unmeasured", None, "no reading of the whole; measured parts: none")


def test_discrepancies() -> None:
    assert verdict(5, noted=10) == ("discrepancy", 10, "another way of counting")
    assert verdict(5, noted=7)[0] == "refuted"
    held = verdict(11, noted=15)
    assert held[0] == "refuted", "the note is out of date: the published value is met"
    assert "out of date" in held[2]


def test_what_cannot_be_judged_says_why() -> None:
    assert verdict("ten")[0] == "unmeasured"
    assert "`ten` is no number" in verdict("ten")[2]
    assert verdict(10, measure="weight")[2] == "there is no measure `weight`"
    assert "leave out `variant`" in verdict(10, variant="big", measure="only-tiny")[2]
    reasons = {("length", None): "the model has no length"}
    record = judge(Pending("length", None, None, 10), MEASURED, reasons, MEASURES.__getitem__)
    assert (record.verdict, record.why) == ("unmeasured", "the model has no length")


def test_categories_make_claims_of_their_members() -> None:
    catalogue = load_catalogue()
    category = next(c for c in catalogue.categories.values() if c.flow)
    entry = next(m for m in catalogue.models.values() if m.category == category.id)
    demanded = [c for c in pending(entry, catalogue) if c.origin == "category"]
    assert {(c.part or "model", c.claimed) for c in demanded} >= set(category.flow.items())
    assert all(c.measure == "flow" and c.variant is None for c in demanded)
    assert len(pending(entry, catalogue)) == len(entry.claims) + len(demanded)


def test_wider_categories_make_claims_too() -> None:
    catalogue = load_catalogue()
    text = {"en": "x", "zh": "中"}
    wide = Category(id="wide", name=text, definition=text, flow={"model": "causal"})
    narrow = Category(id="narrow", name=text, definition=text, parent="wide", flow={"text": "bidirectional"})
    bert = catalogue.models["bert"]
    entry: Model = bert.model_copy(update={"category": "narrow", "also": ["wide"], "claims": []})
    held = type(catalogue)(
        catalogue.directory, catalogue.models, catalogue.papers, {"wide": wide, "narrow": narrow}
    )
    assert [(c.part, c.claimed) for c in pending(entry, held)] == [
        ("text", "bidirectional"),
        (None, "causal"),
    ]


def test_verdicts_need_no_torch() -> None:
    code = "import sys, ptmkb.probe.verdicts, ptmkb.probe.record; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
