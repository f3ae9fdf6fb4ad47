"""What the chapter on training says of an update comes from the real `training_step`; here it is taken again."""

from __future__ import annotations

import functools
import inspect
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
import transformers.trainer as trainer
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

DOCS = Path(__file__).parents[2] / "docs"
LENGTHS = [3, 3, 4, 6, 12, 14, 30, 32]
SMALL: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "initializer_range": 0.2,
}  # fmt: skip


def update(
    model: torch.nn.Module, batches: list[dict[str, torch.Tensor]], **known: Any
) -> tuple[float, torch.Tensor]:
    """One update's loss, and the gradient of all parameters, as the loop makes them from these micro-batches."""
    me = SimpleNamespace(
        args=SimpleNamespace(
            torch_empty_cache_steps=None,
            n_gpu=1,
            optim=None,
            average_tokens_across_devices=False,
            world_size=1,
        ),
        accelerator=SimpleNamespace(
            distributed_type=None, parallelism_config=None, backward=lambda loss: loss.backward()
        ),
        model=model,
        optimizer=None,
        label_smoother=None,
        compute_loss_func=None,
        current_gradient_accumulation_steps=len(batches),
        compute_loss_context_manager=nullcontext,
        get_tp_size=lambda: 1,
        get_cp_size=lambda: 1,
        get_sp_size=lambda: 1,
        _prepare_inputs=lambda inputs: inputs,
        _prepare_context_parallel_inputs=lambda model, inputs: (nullcontext, inputs),
        **{"loss_is_scaled_for_ga": None, "model_accepts_loss_kwargs": True, "_loss_shifts_labels": False}
        | known,
    )
    me.compute_loss = functools.partial(trainer.Trainer.compute_loss, me)
    count = trainer.Trainer._get_num_items_in_batch(me, batches, "cpu")
    model.zero_grad()
    loss = sum(trainer.Trainer.training_step(me, model, dict(batch), count).item() for batch in batches)
    return loss, torch.cat(
        [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    )


@pytest.fixture(scope="module")
def rows() -> list[tuple[float, float, float]]:
    """Loss, norm and cosine of each line of the table."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        # The name comes from accelerate, which the arithmetic does not need.
        patch.setattr(trainer, "DistributedType", SimpleNamespace(DEEPSPEED="deepspeed"), raising=False)
        torch.manual_seed(0)
        llama = LlamaForCausalLM(LlamaConfig(**SMALL))
        ids = torch.randint(3, 50, (8, 32))
        mask = torch.arange(32)[None] < torch.tensor(LENGTHS)[:, None]
        bert = BertForSequenceClassification(
            BertConfig(**SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        )

        def split(labels: torch.Tensor, size: int) -> list[dict[str, torch.Tensor]]:
            whole = {"input_ids": ids, "attention_mask": mask.long(), "labels": labels}
            return [{key: value[at : at + size] for key, value in whole.items()} for at in range(0, 8, size)]

        words, classes = ids.masked_fill(~mask, -100), torch.tensor([0, 1] * 4)
        assert [int((part["labels"][:, 1:] != -100).sum()) for part in split(words, 2)] == [4, 8, 24, 60]
        updates = [
            update(llama, split(words, 8), _loss_shifts_labels=True),
            update(llama, split(words, 2), _loss_shifts_labels=True),
            update(llama, split(words, 2), model_accepts_loss_kwargs=False),
            update(bert, split(classes, 8)),
            update(bert, split(classes, 2)),
            update(bert, split(classes, 2), loss_is_scaled_for_ga=False),
        ]
    figures = []
    for number, (loss, gradient) in enumerate(updates):
        reference = updates[number // 3 * 3][1]
        cosine = torch.nn.functional.cosine_similarity(gradient, reference, dim=0)
        figures.append((loss, gradient.norm().item(), cosine.item()))
    return figures


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_table_is_what_the_loop_does(language: str, rows: list[tuple[float, float, float]]) -> None:
    lines = (DOCS / language / "reading/training/index.md").read_text(encoding="utf-8").splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    assert len(table) == len(rows)
    for (_, loss, norm, cosine), measured in zip(table, rows, strict=True):
        assert [float(loss), float(norm), float(cosine)] == pytest.approx(measured, abs=0.006)


TASKS = ("ForSequenceClassification", "ForTokenClassification", "ForMaskedLM", "ForCausalLM")
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
T5_SIZES = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
BART_SIZES = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    **dict.fromkeys(("Bert", "Roberta", "Electra", "DebertaV2", "Albert"), (TASKS[:3], SMALL | ENDS)),
    "ModernBert": (TASKS[:3], SMALL | ENDS | {"cls_token_id": 1, "sep_token_id": 2}),
    "DistilBert": (TASKS[:3], {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}),
    "Llama": ((TASKS[0], TASKS[1], TASKS[3]), SMALL | ENDS),
    "Qwen3": ((TASKS[0], TASKS[1], TASKS[3]), SMALL | ENDS | {"head_dim": 16, "num_key_value_heads": 2}),
    "GPT2": (("LMHeadModel",), {"n_embd": 16, "n_layer": 1, "n_head": 2} | ENDS),
    "T5": (("ForConditionalGeneration",), T5_SIZES),
    "Bart": (("ForConditionalGeneration",), BART_SIZES | ENDS),
}


def test_of_thirty_models_all_accept_the_count_and_four_use_it() -> None:
    ids, tried, used = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(0)), 0, []
    for family, (tasks, sizes) in FAMILIES.items():
        config = getattr(transformers, f"{family}Config")(**sizes | {"vocab_size": 50, "num_labels": 3})
        for task in tasks:
            labels = {TASKS[0]: torch.tensor([0, 1]), TASKS[1]: ids % 3}.get(task, ids)
            model = getattr(transformers, family + task)(config).eval()
            parameters = inspect.signature(model.forward).parameters.values()
            assert any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
            assert not hasattr(model, "accepts_loss_kwargs")
            told = model(input_ids=ids, labels=labels, num_items_in_batch=torch.tensor(1000.0)).loss
            tried += 1
            if not torch.allclose(told, model(input_ids=ids, labels=labels).loss):
                used.append(family + task)
    assert tried == 30
    assert sorted(used) == [
        "GPT2LMHeadModel",
        "LlamaForCausalLM",
        "ModernBertForMaskedLM",
        "Qwen3ForCausalLM",
    ]
