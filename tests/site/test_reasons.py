"""Why something was not measured: said in the reader's language, whatever the record holds."""

from __future__ import annotations

import re

import pytest

from ptmkb.probe.record import read_architectures, read_evidence
from ptmkb.site.reasons import reason_text

HAN = re.compile(r"[\u4e00-\u9fff]")


def _said() -> set[str]:
    """Every reason of both records that is no entry's own note."""
    said = set()
    for record in (read_architectures(), read_evidence()):
        assert record is not None
        for model in record.models:
            said |= {one.why for one in model.unmeasured} | ({model.why} if model.why else set())
            said |= {claim.why for claim in model.claims if claim.why and claim.verdict == "unmeasured"}
    return said


def test_every_reason_on_record_is_said_in_chinese() -> None:
    said = _said()
    assert len(said) > 40
    for why in said:
        assert reason_text(why, "en") == " ".join(why.split())
        text = reason_text(why, "zh")
        for piece in text.split("；"):
            assert HAN.search(piece), f"`data/reasons.yaml` does not know: {piece}"


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("it decodes no tokens", "它不逐词元解码"),
        ("text: its length cannot be changed", "文本：长度无法改变"),
        (
            "text: its length cannot be changed; image: its cost does not follow from the length alone",
            "文本：长度无法改变；图像：计算量不只取决于长度",
        ),
        ("no layer has positions of text and image alone", "没有哪一层的位置只属于文本与图像"),
        (
            "its forward pass fails when a cache is asked for: TypeError: a; b",
            "要求返回缓存时，前向计算报错：TypeError: a; b",
        ),
        ("no part `ctc`; measured parts: the whole", "没有测得 `ctc` 这一部分，只测得整体"),
        (
            "no part `a`; measured parts: `b`, `c`, the whole",
            "没有测得 `a` 这一部分；测得的有 `b`, `c` 和整体",
        ),
        ("a reason that nobody has put into words yet", "a reason that nobody has put into words yet"),
    ],
)
def test_reasons(why: str, text: str) -> None:
    assert reason_text(why, "zh") == text
