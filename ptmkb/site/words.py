"""The few words of the site that no entry brings: headings, labels, verdicts, in both languages."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

_DATA = Path(__file__).parent / "data"


@cache
def _all() -> dict[str, dict[str, str]]:
    words: dict[str, dict[str, str]] = {}
    for path in sorted(_DATA.glob("words*.yaml")):
        words |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return words


def word(key: str, language: str, **values: object) -> str:
    """A label in a language.

    Args:
        key: Its name in `data/words*.yaml`.
        language: `en` or `zh`.
        **values: What its `{placeholders}` stand for.

    Returns:
        The label. A key without an entry is an error of ours, not of the data: KeyError.
    """
    text = _all()[key][language]
    return text.format(**values) if values else text


def word_or(family: str, value: str, language: str, *others: str) -> str:
    """A label of an open vocabulary (a part's name, a measured value), or the value itself where it has none.

    Args:
        family: The first part of the key in `data/words*.yaml`.
        value: The rest of the key.
        language: `en` or `zh`.
        *others: Families to look in, in order, where the first has no such label.
    """
    texts = next((found for one in (family, *others) if (found := _all().get(f"{one}.{value}"))), None)
    return texts[language] if texts else value
