"""Why something could not be measured, in the reader's language. The record says it in English; `data/reasons.yaml` has the Chinese."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import yaml

from ptmkb.site.values import part_text

_DATA = Path(__file__).parent / "data" / "reasons.yaml"
_PLACES = {"stream": "[^:;]+", "part": "[^`]+", "text": ".+"}


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    texts: dict[str, str] = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    found = []
    for english, chinese in texts.items():
        pattern = re.escape(english)
        for name, values in _PLACES.items():
            pattern = pattern.replace(rf"\{{{name}\}}", f"(?P<{name}>{values})")
        found.append((re.compile(pattern), chinese))
    return tuple(found)


def reason_text(why: str, language: str) -> str:
    """A reason in one line.

    Args:
        why: As the record says it, several joined by semicolons.
        language: `en` or `zh`.

    Returns:
        The reason; as it is where `data/reasons.yaml` does not know it.
    """
    plain = " ".join(why.split())
    if language == "en":
        return plain
    whole = _one(plain, language)
    return whole if whole != plain else "；".join(_one(piece, language) for piece in plain.split("; "))


def _one(why: str, language: str) -> str:
    for pattern, text in _patterns():
        if found := pattern.fullmatch(why):
            places = found.groupdict()
            if "stream" in places:
                places["stream"] = "与".join(
                    part_text(name, language) for name in places["stream"].split(" and ")
                )
            return text.format(**places)
    return why
