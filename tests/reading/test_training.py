"""The table in the chapter on training comes from the real `training_step`; here it is taken again."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
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
