"""From token ids to the loss through `BertForMaskedLM`, with the shape of every step, in a small model and in bert-base.

The sizes of the small model are all different, so that no dimension can be taken for another. bert-base runs on the `meta` device,
where tensors have shapes and no numbers. Attention is run in its written-out form (`eager`), in which the scores can be seen.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ptmkb.labs.recording import Recorder, Watch, plain
from ptmkb.labs.texts import TEXT, bert_tokenizer, token_rows
from ptmkb.labs.walks import package
from ptmkb.probe.walks import Step, Walk

_BERT = "models/bert/modeling_bert.py"
_HIDDEN = ("hidden_states",)
WATCHES = (
    Watch(_BERT, "BertEmbeddings.forward", ("position_ids", "inputs_embeds", "token_type_embeddings", "embeddings", "position_embeddings"), "embeddings"),
    Watch(_BERT, "BertModel._create_attention_masks", ("attention_mask",), "mask"),
    Watch(_BERT, "BertSelfAttention.forward", ("hidden_shape", "query_layer", "key_layer", "value_layer", "attn_output"), "attention"),
    Watch(_BERT, "eager_attention_forward", ("attn_weights", "attn_output"), "attention"),
    Watch(_BERT, "BertSelfOutput.forward", _HIDDEN, "layer"),
    Watch(_BERT, "BertIntermediate.forward", _HIDDEN, "layer"),
    Watch(_BERT, "BertOutput.forward", _HIDDEN, "layer"),
    Watch(_BERT, "BertLayer.forward", ("layer_output",), "stack"),
    Watch(_BERT, "BertForMaskedLM.forward", ("sequence_output", "prediction_scores", "masked_lm_loss"), "head"),
    Watch(_BERT, "BertPredictionHeadTransform.forward", _HIDDEN, "head"),
    Watch(_BERT, "BertLMPredictionHead.forward", _HIDDEN, "head"),
)  # fmt: skip
_EACH_LAYER = ("attention", "layer")  # parts that every layer runs; the first layer's steps are kept
_SIZES = {
    "hidden_size": 35,
    "num_attention_heads": 5,
    "intermediate_size": 82,
    "num_hidden_layers": 4,
    "max_position_embeddings": 40,
}
_FULL_BATCH, _FULL_LENGTH = 16, 128
_SEED = 23  # a draw in which all three treatments of a chosen token occur


@dataclass
class _Run:
    recorder: Recorder
    model: Any
    output: Any


def take() -> Walk:
    """Walk one masked batch through the model."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling

    tokenizer = bert_tokenizer()
    torch.manual_seed(_SEED)
    rows = [tokenizer(TEXT[0]), tokenizer(TEXT[1], TEXT[2]), tokenizer(TEXT[2])]
    batch = DataCollatorForLanguageModeling(tokenizer, seed=_SEED)(rows)
    config = BertConfig(vocab_size=len(tokenizer), **_SIZES)
    small = _run(BertForMaskedLM, config, batch)
    shape = (_FULL_BATCH, _FULL_LENGTH)
    wide = {name: torch.zeros(shape, dtype=torch.long, device="meta") for name in ("input_ids", "labels")}
    # The code asks a two-dimensional mask whether it hides anything, which one without numbers cannot answer; one of four passes as it is.
    wide["attention_mask"] = torch.zeros(_FULL_BATCH, 1, _FULL_LENGTH, _FULL_LENGTH, device="meta")
    full = _run(BertForMaskedLM, BertConfig(), wide, device="meta")
    steps = {part: _beside(small, full, part) for part in dict.fromkeys(watch.part for watch in WATCHES)}
    _no_two_alike(config, batch)
    return Walk(
        name="bert-flow",
        setting={
            "class": "BertForMaskedLM",
            "attention": "eager",
            "sizes": {
                "batch": batch["input_ids"].shape[0],
                "length": batch["input_ids"].shape[1],
                "heads": config.num_attention_heads,
                "head_size": config.hidden_size // config.num_attention_heads,
                "hidden": config.hidden_size,
                "intermediate": config.intermediate_size,
                "vocabulary": config.vocab_size,
                "positions": config.max_position_embeddings,
                "layers": config.num_hidden_layers,
            },
            "full": {"name": "bert-base", "batch": _FULL_BATCH, "length": _FULL_LENGTH},
            "seed": _SEED,
        },
        facts=_facts(small, full, batch) | _mask_facts(config, batch),
        steps=steps,
        pictures={
            "batch": token_rows(batch["input_ids"], batch["labels"], tokenizer),
            "seen": _seen(small, batch),
        },
    )


def _run(cls: Any, config: Any, batch: Mapping[str, Any], device: str = "cpu") -> _Run:
    """Run a model under watch."""
    import torch

    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(_SEED)
        model = cls(config).eval()
    modules = {id(module): name for name, module in model.named_modules()}
    with Recorder(package(), WATCHES, modules) as recorder:
        output = model(**batch)
    return _Run(recorder, model, output)


def _beside(small: _Run, full: _Run, part: str) -> tuple[Step, ...]:
    """The steps of a part, each with its shape at full size; of parts that every layer runs, the first layer's."""
    pairs = zip(*(_first_layer(run.recorder.part(part), part) for run in (small, full)), strict=False)
    steps = []
    for here, there in pairs:
        if here.shape is None and here.value is None:
            continue  # `masked_lm_loss = None`, before there is one
        if (here.line, here.name) != (there.line, there.name):
            raise RuntimeError(f"the two sizes took different ways: line {here.line} and line {there.line}")
        given = part == "mask"  # at full size the mask went in ready
        steps.append(here.model_copy(update={"full": None if given else there.shape}))
    return tuple(steps)


def _first_layer(steps: tuple[Step, ...], part: str) -> tuple[Step, ...]:
    if part not in _EACH_LAYER:
        return steps
    first = next(at for at, step in enumerate(steps) if at and step.line == steps[0].line)
    return steps[:first]


def _facts(small: _Run, full: _Run, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the run says of itself beyond shapes."""
    import torch

    labels, logits, loss = batch["labels"], small.output.logits, small.output.loss
    words = small.model.bert.embeddings.word_embeddings.weight
    by_logits, by_words = torch.autograd.grad(loss, [logits, words], retain_graph=True)
    states = small.model.bert(
        **{key: value for key, value in batch.items() if key != "labels"}, output_hidden_states=True
    ).hidden_states
    counts = Counter(
        "padding" if not real else "chosen" if label != -100 else "unchosen"
        for real, label in zip(
            batch["attention_mask"].flatten().tolist(), labels.flatten().tolist(), strict=True
        )
    )
    return {
        "tokens": labels.numel(),
        "real_tokens": int(batch["attention_mask"].sum()),
        "padding": counts["padding"],
        "labelled": int((labels != -100).sum()),
        "loss": plain(loss.item()),
        "uniform_loss": plain(torch.tensor(float(logits.shape[-1])).log().item()),
        "positions_with_gradient": int(by_logits.abs().sum(-1).gt(0).sum()),
        "embedding_rows": words.shape[0],
        "embedding_rows_with_gradient": int(by_words.abs().sum(-1).gt(0).sum()),
        "distinct_inputs": int(batch["input_ids"].unique().numel()),
        "deviation_by_layer": [plain(state.std(-1, unbiased=False).mean().item()) for state in states],
        "parameters": sum(parameter.numel() for parameter in small.model.parameters()),
        "full_parameters": sum(parameter.numel() for parameter in full.model.parameters()),
        "full_embedding_parameters": sum(
            parameter.numel() for parameter in full.model.bert.embeddings.parameters()
        ),
        "full_head_parameters": sum(
            parameter.numel() for name, parameter in full.model.named_parameters() if name.startswith("cls.")
        ),
    }


def _mask_facts(config: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the attention of the layers is given as a mask, by implementation, with padding in the batch and without."""
    import torch
    from transformers import BertModel

    facts: dict[str, Any] = {}
    full = torch.ones_like(batch["attention_mask"])
    config = copy.deepcopy(config)  # the model that was walked keeps its own
    for implementation in ("eager", "sdpa"):
        config._attn_implementation = implementation
        model = BertModel(config).eval()
        for padding, mask in (("padded", batch["attention_mask"]), ("unpadded", full)):
            watch = Watch(_BERT, "BertModel._create_attention_masks", ("attention_mask",), "mask")
            with Recorder(package(), [watch]) as recorder:
                model(batch["input_ids"], attention_mask=mask)
            (step,) = recorder.part("mask")
            facts[f"mask_{implementation}_{padding}"] = (
                None if step.shape is None else {"shape": list(step.shape), "dtype": step.dtype}
            )
    return facts


def _seen(small: _Run, batch: Mapping[str, Any]) -> dict[str, Any]:
    """From which positions the queries of the first layer take something, by row of the batch.

    Raises:
        RuntimeError: Heads differ in it, so that one picture cannot stand for all.
    """
    import torch

    seen: list[Any] = []
    attention = small.model.bert.encoder.layer[0].attention.self
    handle = attention.register_forward_hook(lambda module, args, result: seen.append(result[1]))
    with torch.no_grad():
        small.model(**batch)
    handle.remove()
    taken = seen[0].gt(0)  # batch, heads, queries, keys
    if not torch.equal(taken.any(1), taken.all(1)):
        raise RuntimeError("some heads see what others do not")
    matrices = [["".join(str(int(one)) for one in row) for row in matrix] for matrix in taken[:, 0].tolist()]
    return {"kind": "matrices", "matrices": [{"name": "", "rows": rows} for rows in matrices]}


def _no_two_alike(config: Any, batch: Mapping[str, Any]) -> None:
    """Refuse sizes of which two are equal: a dimension could be taken for another."""
    sizes = [
        *batch["input_ids"].shape, config.num_attention_heads, config.hidden_size // config.num_attention_heads,
        config.hidden_size, config.intermediate_size, config.vocab_size, config.max_position_embeddings,
    ]  # fmt: skip
    if len(set(sizes)) < len(sizes):
        raise RuntimeError(f"two sizes are alike: {sizes}")
