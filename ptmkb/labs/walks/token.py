"""How `generate` makes tokens: a small Llama and a small T5, greedily and by sampling, with the cache after every step.

The end token of the greedy run is one that the model chooses by itself, so that a row ends before the others; which one, a run without an
end token tells. Everything else is as `generate` does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ptmkb.labs.recording import Recorder, Watch
from ptmkb.labs.walks import package
from ptmkb.probe.walks import Step, Walk

_GENERATE = "generation/utils.py"
_LLAMA = "models/llama/modeling_llama.py"
_T5 = "models/t5/modeling_t5.py"
_NEW = 6  # tokens to be made
_SEED = 3
_BATCH, _VOCABULARY, _PAD = 2, 61, 0
_LLAMA_SIZES = {
    "hidden_size": 84,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "intermediate_size": 90,
    "num_hidden_layers": 2,
    "initializer_range": 0.5,
}
_T5_SIZES = {
    "d_model": 40,
    "num_heads": 5,
    "d_kv": 8,
    "d_ff": 70,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "initializer_factor": 4.0,
}
_PROMPTS = [[_PAD, _PAD, 11, 12, 13], [14, 15, 16, 17, 18]]  # the first padded on the left
_SOURCE = [[21, 22, 23, 24, 25, 26, 27], [31, 32, 33, 34, 1, _PAD, _PAD]]
_SAMPLING = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.3}


def take() -> Walk:
    """Generate, and keep what each step saw and made."""
    import torch

    llama = _llama()
    prompts = {"input_ids": torch.tensor(_PROMPTS), "attention_mask": (torch.tensor(_PROMPTS) != _PAD).long()}
    open_ended = llama.generate(
        **prompts, do_sample=False, max_new_tokens=_NEW, eos_token_id=None, pad_token_id=_PAD
    )
    end = _end_token(open_ended[:, len(_PROMPTS[0]) :].tolist())
    greedy = _generate(llama, prompts, do_sample=False, eos_token_id=end)
    without = _generate(llama, prompts, do_sample=False, eos_token_id=end, use_cache=False)
    torch.manual_seed(_SEED)
    sampled = _generate(llama, prompts, eos_token_id=None, **_SAMPLING)

    t5 = _t5()
    source = {"input_ids": torch.tensor(_SOURCE), "attention_mask": (torch.tensor(_SOURCE) != _PAD).long()}
    crossed = _generate(t5, source, do_sample=False, eos_token_id=None)
    keys = _cross_keys(crossed)
    decoder_steps, uncached_steps, crossed_steps = _rows(greedy), _rows(without), _rows(crossed)
    return Walk(
        name="token",
        setting={
            "decoder": "LlamaForCausalLM",
            "encoder_decoder": "T5ForConditionalGeneration",
            "sizes": {"batch": _BATCH, "vocabulary": _VOCABULARY, "hidden": _LLAMA_SIZES["hidden_size"]},
            "sampling": _SAMPLING,
            "new_tokens": _NEW,
        },
        facts={
            "end_token": end,
            "prompt_length": len(_PROMPTS[0]),
            "output_length": greedy.output.shape[1],
            "cache_length": decoder_steps[-1]["cache"],
            "bytes_a_token": decoder_steps[-1]["bytes"] // decoder_steps[-1]["cache"],
            "positions_with_cache": sum(row["fed"] for row in decoder_steps),
            "positions_without_cache": sum(row["fed"] for row in uncached_steps),
            "same_tokens_without_cache": bool(torch.equal(greedy.output, without.output)),
            "ended_at": _ended_at(greedy) + 1,
            "steps_after_the_end": len(decoder_steps) - 1 - _ended_at(greedy),
            "encoder_runs": len([step for step in crossed.model if step.module == "encoder"]),
            "decoder_runs": len(crossed_steps),
            "decoder_layers": _T5_SIZES["num_decoder_layers"],
            "cache_layers": crossed_steps[0]["layers"],
            "deeper_decoder": _deeper_decoder(source),
            "source_length": len(_SOURCE[0]),
            "cross_keys_made": keys["made"],
            "cross_keys_reused": keys["reused"],
            "own_keys_made": keys["own"],
            "full": {str(heads): _full_bytes(heads) for heads in (32, 8)},
        },
        steps={
            "prefill": _round(greedy, 0),
            "decode": _round(greedy, 1),
            "cross-keys": keys["steps"],
        },
        pictures={
            "greedy": _table(
                decoder_steps, ("step", "fed", "positions", "mask", "cache", "bytes", "chosen", "unfinished")
            ),
            "uncached": _table(uncached_steps, ("step", "fed", "mask", "chosen")),
            "crossed": _table(crossed_steps, ("step", "fed", "own", "cross", "bytes", "chosen")),
            "growth": _growth(decoder_steps, ("cache",)),
            "cross-growth": _growth(crossed_steps, ("own", "cross")),
            "processors": _processors(sampled),
        },
    )


def _llama() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=_VOCABULARY, pad_token_id=_PAD, bos_token_id=None, eos_token_id=None, **_LLAMA_SIZES
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return LlamaForCausalLM(config).eval()


def _t5(**changes: float) -> Any:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=_VOCABULARY, decoder_start_token_id=_PAD, **(_T5_SIZES | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return T5ForConditionalGeneration(config).eval()


def _deeper_decoder(source: Mapping[str, Any]) -> str:
    """What becomes of a T5 whose decoder has more layers than its encoder: `generates`, or the error's name."""
    layers = _T5_SIZES["num_layers"]
    try:
        _generate(_t5(num_decoder_layers=layers + 1), source, do_sample=False, eos_token_id=None)
    except Exception as error:
        return type(error).__name__
    return "generates"


def _end_token(chosen: list[list[int]]) -> int:
    """A token that one row chooses in the middle, the other never, and no prompt holds.

    Raises:
        RuntimeError: There is none; another seed is needed.
    """
    for row, other in (chosen, chosen[::-1]):
        for at, token in enumerate(row):
            if 2 <= at < _NEW - 2 and token not in (*other, *row[:at], *_PROMPTS[0], *_PROMPTS[1]):
                return token
    raise RuntimeError("no token ends one row alone")


def _look_at_model(names: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the model is given in a step."""
    ids = names["input_ids"]
    positions, mask = names.get("position_ids"), names.get("attention_mask")
    return {
        "fed": ids.shape[1],
        "positions": None if positions is None else [_span(row) for row in positions.tolist()],
        "mask": None if mask is None else mask.shape[-1],
    }


def _span(row: list[int]) -> str:
    """`0 0 0 1 2` or `5`; a shared row of positions stands once."""
    return ",".join(map(str, row))


def _look_at_cache(names: Mapping[str, Any]) -> Mapping[str, Any]:
    """How much the cache holds once the model has run."""
    cache = names["model_kwargs"].get("past_key_values")
    if cache is None:
        return {}
    crossed = hasattr(cache, "cross_attention_cache")
    own = cache.self_attention_cache if crossed else cache
    if not own.layers or not own.layers[0].is_initialized:
        return {}
    sizes = {"cache": own.layers[0].keys.shape[-2], "bytes": _bytes(own)}
    if crossed:
        cross = cache.cross_attention_cache
        sizes |= {"own": sizes["cache"], "cross": cross.layers[0].keys.shape[-2], "layers": len(own.layers)}
        sizes["bytes"] += _bytes(cross)
    return sizes


def _bytes(cache: Any) -> int:
    return sum(
        tensor.numel() * tensor.element_size()
        for layer in cache.layers
        for tensor in (layer.keys, layer.values)
        if tensor is not None
    )


def _look_at_processor(names: Mapping[str, Any]) -> Mapping[str, Any]:
    scores = names["scores"].detach()
    best = scores.softmax(-1).max(-1).values.tolist()
    return {
        "processor": type(names["processor"]).__name__,
        "left": scores.isfinite().sum(-1).tolist(),
        "best": [round(one, 3) for one in best],
    }


def _look_at_logits(names: Mapping[str, Any]) -> Mapping[str, Any]:
    logits = names["next_token_logits"]
    best = logits.softmax(-1).max(-1).values.tolist()
    return {
        "processor": "logits",
        "left": logits.isfinite().sum(-1).tolist(),
        "best": [round(one, 3) for one in best],
    }


def _look_at_attention(names: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"cross": names["is_cross_attention"]}


_SAMPLE = "GenerationMixin._sample"
_CHOICE = ("next_token_scores", "probs", "next_tokens", "input_ids", "unfinished_sequences")
_WATCHES = (
    Watch(_LLAMA, "LlamaModel.forward", ("inputs_embeds",), "model", _look_at_model),
    Watch(_T5, "T5Stack.forward", ("inputs_embeds",), "model", _look_at_model),
    Watch(_T5, "T5Attention.forward", ("key_states",), "keys", _look_at_attention),
    Watch("generation/logits_process.py", "LogitsProcessorList.__call__", ("scores",), "processors", _look_at_processor),
)  # fmt: skip


@dataclass
class _Run:
    """One call of `generate`.

    Attributes:
        output: (batch, length) ids.
        model: The steps of the stacks, one a forward pass.
        rounds: The steps of the loop, by round.
        others: All that was watched, by part.
    """

    output: Any
    model: list[Step]
    rounds: list[list[Step]]
    others: Mapping[str, list[Step]]


def _generate(model: Any, inputs: Mapping[str, Any], **options: Any) -> _Run:
    modules = {id(module): name for name, module in model.named_modules()}
    # One watch a function: the looks of the loop's own statements are told apart by what they bind.
    loop = Watch(_GENERATE, _SAMPLE, ("model_kwargs", "next_token_logits", *_CHOICE), "loop", _look_at_loop)
    with Recorder(package(), [*_WATCHES, loop], modules) as recorder:
        output = model.generate(**inputs, max_new_tokens=_NEW, pad_token_id=_PAD, **options)
    parts: dict[str, list[Step]] = {}
    for part, step in recorder.steps:
        parts.setdefault(part, []).append(step)
    rounds: list[list[Step]] = []
    for step in parts["loop"]:
        if step.name == "model_kwargs":
            rounds.append([])
        if rounds:  # what stands before the loop belongs to no round
            rounds[-1].append(step)
    return _Run(output, parts["model"], rounds, parts)


def _look_at_loop(names: Mapping[str, Any]) -> Mapping[str, Any]:
    seen = dict(_look_at_cache(names))
    if "next_token_logits" in names:
        seen.update(_look_at_logits(names))
    return seen


def _rows(run: _Run) -> list[dict[str, Any]]:
    """One row a step: what the model was given, what the cache holds after it, what was chosen."""
    given = [step for step in run.model if step.module != "encoder"]
    rows = []
    for at, (model, loop) in enumerate(zip(given, run.rounds, strict=True), start=1):
        last = {step.name: step for step in loop}
        row = {"step": at, **model.beside, **loop[0].beside}
        row["chosen"] = last["next_tokens"].value
        row["unfinished"] = last["unfinished_sequences"].value
        rows.append(row)
    return rows


def _round(run: _Run, nth: int) -> tuple[Step, ...]:
    """What ran in one round: the model's first statement, then the loop's."""
    shown = [step for step in run.rounds[nth] if step.name != "model_kwargs"]
    return tuple(step.model_copy(update={"beside": {}}) for step in (run.model[nth], *shown))


def _ended_at(run: _Run) -> int:
    """After which step one row was finished while another was not."""
    flags = [row["unfinished"] for row in _rows(run)]
    return next(at for at, flag in enumerate(flags) if min(flag) == 0 and max(flag) == 1)


def _cross_keys(run: _Run) -> dict[str, Any]:
    """How often the decoder's attentions computed keys and how often they took them from the cache; and one of them in two steps."""
    decoder = [step for step in run.others["keys"] if (step.module or "").startswith("decoder")]
    made = [step for step in decoder if "self.k(" in step.code]
    cross = [step for step in decoder if step.beside["cross"] and "update" not in step.code]
    one = [step for step in decoder if step.beside["cross"] and step.module == cross[0].module]
    return {
        "made": len([step for step in made if step.beside["cross"]]),
        "reused": len(cross) - len([step for step in made if step.beside["cross"]]),
        "own": len([step for step in made if not step.beside["cross"]]),
        "steps": tuple(step.model_copy(update={"beside": {}}) for step in one[:3]),
    }


def _full_bytes(key_value_heads: int) -> int:
    """Bytes that a token takes in the cache of a Llama of the default size in bfloat16, from tensors on `meta`."""
    import torch
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(num_key_value_heads=key_value_heads)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
        cache = DynamicCache(config=config)
        model(torch.zeros(1, 1, dtype=torch.long), past_key_values=cache)
    return _bytes(cache)


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> dict[str, Any]:
    return {
        "kind": "table",
        "columns": list(columns),
        "rows": [[row.get(key) for key in columns] for row in rows],
    }


def _growth(rows: list[dict[str, Any]], series: tuple[str, ...]) -> dict[str, Any]:
    return {
        "kind": "growth",
        "steps": [row["step"] for row in rows],
        "series": [{"name": name, "values": [row[name] for row in rows]} for name in series],
    }


def _processors(run: _Run) -> dict[str, Any]:
    """The queue of processors in the first step, for the first row of the batch: how many tokens are left, and the best one's share."""
    logits = next(step for step in run.rounds[0] if step.name == "next_token_logits")
    queue = [logits, *run.others["processors"]]
    first = queue[: 1 + len({step.beside["processor"] for step in run.others["processors"]})]
    rows = [[step.beside["processor"], step.beside["left"][0], step.beside["best"][0]] for step in first]
    return {"kind": "table", "columns": ["processor", "left", "best"], "rows": rows}
