"""The figures in the chapter on the framework come from a load and three calls; here both are done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import MixtralConfig, MixtralForCausalLM, MixtralForSequenceClassification, modeling_utils

DOCS = Path(__file__).parents[2] / "docs"
ARTICLES = [DOCS / language / "reading" / "framework" / "index.md" for language in ("en", "zh")]


def times(shape: Any) -> str:
    return " × ".join(map(str, shape))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixtral")
    config = MixtralConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, num_local_experts=4,
    )  # fmt: skip
    MixtralForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def row(article: Path, table: int, number: int) -> str:
    """A line of one of the article's tables, headings not counted, all from 0."""
    tables, inside = [], False
    for line in article.read_text(encoding="utf-8").splitlines():
        if line.startswith("|") and not inside:
            tables.append([])
        inside = line.startswith("|")
        if inside:
            tables[-1].append(line)
    return tables[table][2 + number]


@pytest.mark.parametrize("article", ARTICLES, ids=("en", "zh"))
def test_the_load_is_as_told(article: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with safe_open(saved / "model.safetensors", "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    first = next(key for key in shapes if key.endswith("layers.0.block_sparse_moe.experts.0.w1.weight"))
    of_experts = [key for key in shapes if "experts" in key]
    for figure in (
        str(len(shapes)),
        str(len(of_experts)),
        first.removeprefix("model."),
        times(shapes[first]),
    ):
        assert figure in row(article, 0, 0)

    seen = {}
    load = modeling_utils.PreTrainedModel._load_pretrained_model

    def spy(model: Any, *args: Any) -> Any:
        seen["skeleton"] = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}
        seen["dtype"] = {parameter.dtype for parameter in model.parameters()}
        result = load(model, *args)
        seen["loaded"] = {parameter.device.type for parameter in model.parameters()}
        seen["buffers"] = {name.split(".")[-1]: buffer.device.type for name, buffer in model.named_buffers()}
        seen["info"] = result[0]
        return result

    monkeypatch.setattr(modeling_utils.PreTrainedModel, "_load_pretrained_model", staticmethod(spy))
    model = MixtralForCausalLM.from_pretrained(saved)
    assert str(len(model.state_dict())) in row(article, 0, 1)
    assert seen["skeleton"] == {"meta"}
    assert seen["dtype"] == {torch.bfloat16}
    assert seen["loaded"] == {"cpu"}
    assert seen["buffers"] == {"inv_freq": "meta", "original_inv_freq": "meta"}
    assert not seen["info"].missing_keys
    assert not seen["info"].unexpected_keys
    experts = model.model.layers[0].mlp.experts
    for parameter in (experts.gate_up_proj, experts.down_proj):
        assert times(parameter.shape) in row(article, 0, 3)
    frequencies = model.model.rotary_emb.inv_freq
    assert frequencies.device.type == "cpu"
    assert frequencies.dtype == torch.float32
    assert not model.training

    _, info = MixtralForSequenceClassification.from_pretrained(saved, output_loading_info=True)
    assert info["missing_keys"] == {"score.weight"}
    assert info["unexpected_keys"] == {"lm_head.weight"}


@pytest.fixture(scope="module")
def calls(saved: Path) -> list[dict[str, Any]]:
    """What SDPA was given in the first layer: a prompt, the same with one row padded, one token more."""
    model = MixtralForCausalLM.from_pretrained(saved)
    seen: list[dict[str, Any]] = []
    original = torch.nn.functional.scaled_dot_product_attention

    def spy(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        seen.append({"query": query.shape, "key": key.shape, **kwargs})
        return original(query, key, value, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
        ids = torch.arange(10).view(2, 5)
        output = model(ids, use_cache=True)
        model(ids, attention_mask=torch.tensor([[0, 0, 1, 1, 1], [1] * 5]))
        model(torch.tensor([[1], [2]]), past_key_values=output.past_key_values)
    return seen[::2]


@pytest.mark.parametrize("article", ARTICLES, ids=("en", "zh"))
def test_the_three_calls_are_as_told(article: Path, calls: list[dict[str, Any]]) -> None:
    said = {"en": ("none", "yes", "no"), "zh": ("无", "是", "否")}[article.parents[2].name]
    nothing, yes, no = said
    assert len(calls) == 3
    for number, call in enumerate(calls):
        _, query, key, mask, causal, shared = (
            cell.strip() for cell in row(article, 1, number).strip("|").split("|")
        )
        assert (query, key) == (times(call["query"]), times(call["key"]))
        assert mask == (nothing if call["attn_mask"] is None else times(call["attn_mask"].shape))
        assert causal == (yes if call["is_causal"] else no)
        assert shared.startswith(yes if call.get("enable_gqa") else no)


@pytest.mark.parametrize("article", ARTICLES, ids=("en", "zh"))
def test_the_number_of_modular_files_is_as_told(article: Path) -> None:
    models = Path(modeling_utils.__file__).parent / "models"
    assert f"{len({path.parent for path in models.glob('*/modular_*.py')})} " in article.read_text(
        encoding="utf-8"
    )
