"""The chapter on models prints what each model leaves in its cache per token and layer; the models are built and asked again."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel
from transformers.cache_utils import DynamicCache

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(\w+)` \|[^|]*\| ([\d,]+) \| ([\d,]+) \|", re.MULTILINE)


def tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors(part)


@functools.cache
def kept(model_type: str, length: int) -> int:
    """How many numbers one layer holds after `length` tokens, at the default sizes and on no device."""
    config = AutoConfig.for_model(model_type, num_hidden_layers=1)
    cache = DynamicCache(config=config)
    with torch.device("meta"), torch.no_grad():
        model = AutoModel.from_config(config, dtype=torch.bfloat16).eval()
        name = "cache_params" if "mamba" in model_type else "past_key_values"
        model(torch.ones(1, length, dtype=torch.long), **{name: cache}, use_cache=True)
    # A layer also keeps single numbers, such as its window.
    return sum(x.numel() for x in tensors(vars(cache.layers[0])) if x.numel() > 1)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_table_of_caches_is_what_the_models_do(language: str) -> None:
    text = (ROOT / "docs" / language / "reading" / "models" / "index.md").read_text(encoding="utf-8")
    rows = ROW.findall(text)
    assert len(rows) == 6
    for model_type, thousand, ten_thousand in rows:
        printed = [int(number.replace(",", "")) for number in (thousand, ten_thousand)]
        assert [kept(model_type, 1_000), kept(model_type, 10_000)] == printed, model_type
