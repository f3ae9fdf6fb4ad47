"""The table of the inference chapter, measured again: what a model is fed when one prompt is continued in seven ways."""

from __future__ import annotations

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def rows_of(language: str) -> list[tuple[int, list[int], int, str]]:
    """Passes, columns pass by pass, rows times columns, and the shape of a layer's keys, as the chapter prints them."""
    text = (DOCS / language / "reading/inference/index.md").read_text(encoding="utf-8")
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    numbers = [[cell.strip() for cell in row[1:]] for row in cells if row[1].strip().isdecimal()]
    return [
        (int(passes), [int(n) for n in fed.split(",")], int(total), keys)
        for passes, fed, total, keys in numbers
    ]


def measured() -> tuple[list[tuple[int, list[int], int, str]], list[list[int]]]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.5, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model, assistant = LlamaForCausalLM(config).eval(), LlamaForCausalLM(config).eval()
    assistant.load_state_dict(model.state_dict())
    assistant.generation_config.num_assistant_tokens = 3
    assistant.generation_config.assistant_confidence_threshold = 0.0
    prompt = torch.tensor([[5, 6, 7, 8, 9, 5, 6, 7]])
    fed: list[tuple[int, int]] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    routes = (
        {},
        {"use_cache": False},
        {"prefill_chunk_size": 3},
        {"cache_implementation": "static"},
        {"num_beams": 3},
        {"assistant_model": assistant},
        {"prompt_lookup_num_tokens": 3},
    )
    rows, texts = [], []
    for options in routes:
        fed.clear()
        output = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=6,
            return_dict_in_generate=True, **options,
        )  # fmt: skip
        cache = output.past_key_values
        keys = "–" if cache is None else str(tuple(cache.layers[0].keys.shape))
        rows.append((len(fed), [columns for _, columns in fed], sum(r * c for r, c in fed), keys))
        texts.append(output.sequences[0].tolist())
    return rows, texts


@pytest.fixture(scope="module")
def runs() -> tuple[list[tuple[int, list[int], int, str]], list[list[int]]]:
    return measured()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_table_is_what_a_run_gives(language: str, runs) -> None:
    assert rows_of(language) == runs[0]


def test_all_routes_but_the_beams_give_the_same_text(runs) -> None:
    greedy, *_, beams, assisted, looked_up = runs[1]
    assert all(text == greedy for text in (*runs[1][:4], assisted, looked_up))
    assert beams != greedy
