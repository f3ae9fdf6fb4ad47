"""How text becomes inputs and labels: masked, whole-word, in spans and permuted, by the library's own tokenizer and collators.

Single batches show each objective; many draws measure its odds. The draws are the collator's own, from seeds one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ptmkb.labs.recording import Recorder, Watch, plain
from ptmkb.labs.texts import TEXT, bert_tokenizer, token_rows
from ptmkb.labs.walks import package
from ptmkb.probe.walks import Step, Walk

_FILE = "data/data_collator.py"
_MASKED = "DataCollatorForLanguageModeling"
_PERMUTED = "DataCollatorForPermutationLanguageModeling"
_SEED = 23
_WHOLE_SEED = 22  # a draw that takes words of several pieces in both texts
_DRAWS = 1500  # batches whose odds are counted
_ORDERS = 400  # draws of a permutation
_CHINESE = "模型读完整句话再猜被遮住的字"


def _count(*names: str) -> Any:
    """Looks how many places a mask has, under the names that the function gives it."""

    def look(local: Mapping[str, Any]) -> Mapping[str, Any]:
        latest = next((name for name in names if name in local), None)
        return {"count": int(local[latest].sum())} if latest else {}

    return look


_MASK_STEPS = (
    "labels", "probability_matrix", "no_mask_mask", "masked_indices", "indices_replaced", "remaining_prob",
    "random_replace_prob_scaled", "indices_random", "random_words",
)  # fmt: skip
_ORDER_STEPS = (
    "span_length",
    "context_length",
    "start_index",
    "perm_index",
    "target_mapping",
    "non_func_mask",
)


def take() -> Walk:
    """Make the batches, and count the odds."""
    import torch
    from transformers import DataCollatorForLanguageModeling

    tokenizer = bert_tokenizer()
    rows = [tokenizer(TEXT[0]), tokenizer(TEXT[1], TEXT[2]), tokenizer(TEXT[2])]
    watch = Watch(
        _FILE,
        f"{_MASKED}.torch_mask_tokens",
        _MASK_STEPS,
        "masked",
        _count("indices_random", "indices_replaced", "masked_indices"),
    )
    with Recorder(package(), [watch]) as recorder:
        masked = DataCollatorForLanguageModeling(tokenizer, seed=_SEED)(_fresh(rows))

    with_offsets = _with_offsets(tokenizer, padding=True)
    words = Watch(
        _FILE, f"{_MASKED}._calc_word_ids_and_prob_mask", ("is_new_word", "word_ids", "prob_mask"), "whole"
    )
    whole_watch = Watch(_FILE, f"{_MASKED}._whole_word_mask", ("same_word", "return"), "whole")
    with Recorder(package(), [words, whole_watch]) as whole_recorder:
        whole = _whole_word(tokenizer, _WHOLE_SEED)(_fresh(with_offsets))

    pair = [{"input_ids": tokenizer(TEXT[1], TEXT[2])["input_ids"]}]
    permuted, permuted_recorder = _permuted(tokenizer, pair, _SEED)
    facts = _single_odds(tokenizer, rows) | _whole_odds(tokenizer, with_offsets)
    facts |= _permuted_odds(tokenizer, pair) | _spaces(tokenizer)
    return Walk(
        name="masked-batch",
        setting={"tokenizer": "BertTokenizer", "vocabulary": len(tokenizer), "seed": _SEED, "draws": _DRAWS},
        facts=facts
        | {
            "collators": _collators(),
            "odd_length": _odd_length(tokenizer),
            "ragged_whole_words": _ragged(tokenizer),
            "permuted_targets": int((permuted["labels"] != -100).sum()),
            "length": permuted["labels"].shape[1],
            "xlnet_loss": _xlnet_loss(permuted, len(tokenizer)),
        },
        steps={
            "masked": _told(recorder.part("masked")),
            "whole": whole_recorder.part("whole"),
            "permuted": permuted_recorder.part("permuted"),
        },
        pictures={
            "cut": {
                "kind": "tokens",
                "rows": [[[token, "", None] for token in tokenizer.tokenize(text)] for text in TEXT[2:4]],
            },
            "masked-batch": token_rows(masked["input_ids"], masked["labels"], tokenizer),
            "whole-batch": token_rows(whole["input_ids"], whole["labels"], tokenizer),
            "permuted-batch": token_rows(permuted["input_ids"], permuted["labels"], tokenizer),
            "permuted-mask": _order_picture(permuted["perm_mask"][0], torch.eye(permuted["labels"].shape[1])),
            "odds": _odds_picture(facts),
            "targets": _targets_picture(facts),
            "spans": _spans_picture(facts),
        },
    )


def _fresh(rows: list[Any]) -> list[dict[str, Any]]:
    """Copies: padding and collating change what they are given."""
    return [dict(row) for row in rows]


def _with_offsets(tokenizer: Any, *, padding: bool) -> list[dict[str, Any]]:
    """Two texts with the places of their tokens, of equal length or not."""
    both = tokenizer([TEXT[2], TEXT[3]], return_offsets_mapping=True, padding=padding)
    return [{key: both[key][at] for key in both} for at in range(2)]


def _ragged(tokenizer: Any) -> str:
    """What whole-word masking makes of rows that still have to be padded."""
    try:
        _whole_word(tokenizer, 0)(_with_offsets(tokenizer, padding=False))
    except Exception as error:
        return type(error).__name__
    return "a batch"


def _whole_word(tokenizer: Any, seed: int) -> Any:
    import warnings

    from transformers import DataCollatorForLanguageModeling

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it sets 80/10/10 to 100/0/0: the odds show it
        return DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True, seed=seed)


def _permuted(tokenizer: Any, rows: list[Any], seed: int) -> tuple[Mapping[str, Any], Recorder]:
    import torch
    from transformers import DataCollatorForPermutationLanguageModeling

    watch = Watch(_FILE, f"{_PERMUTED}.torch_mask_tokens", _ORDER_STEPS, "permuted")
    with torch.random.fork_rng(devices=[]), Recorder(package(), [watch]) as recorder:
        torch.manual_seed(seed)
        batch = DataCollatorForPermutationLanguageModeling(tokenizer)(_fresh(rows))
    return batch, recorder


def _told(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Counts only where the statement made the mask that was counted."""
    told = {"masked_indices", "indices_replaced", "indices_random"}
    return tuple(step if step.name in told else step.model_copy(update={"beside": {}}) for step in steps)


def _single_odds(tokenizer: Any, rows: list[Any]) -> dict[str, Any]:
    """Shares of tokens chosen, and of the chosen ones masked, swapped and kept; and how many targets a text gets."""
    from transformers import DataCollatorForLanguageModeling

    special = set(tokenizer.all_special_ids)
    collator = DataCollatorForLanguageModeling(tokenizer, seed=0)
    before = tokenizer(TEXT[0])["input_ids"]
    seen: Counter[str] = Counter()
    targets: Counter[int] = Counter()
    for _ in range(_DRAWS):
        batch = collator(_fresh(rows))
        inputs, labels = batch["input_ids"], batch["labels"]
        chosen = labels != -100
        seen["open"] += sum(id_ not in special for row in rows for id_ in row["input_ids"])
        seen["chosen"] += int(chosen.sum())
        seen["masked"] += int((inputs[chosen] == tokenizer.mask_token_id).sum())
        seen["kept"] += int((inputs[chosen] == labels[chosen]).sum())
        targets[int(chosen[0].sum())] += 1
    masked, kept = seen["masked"] / seen["chosen"], seen["kept"] / seen["chosen"]
    return {
        "chosen_share": plain(seen["chosen"] / seen["open"]),
        "masked_share": plain(masked),
        "random_share": plain(1 - masked - kept),
        "kept_share": plain(kept),
        "first_row_open": len(before) - 2,
        "no_target_share": plain(targets[0] / _DRAWS),
        "targets": {str(count): plain(targets[count] / _DRAWS) for count in range(max(targets) + 1)},
    }


def _whole_odds(tokenizer: Any, rows: list[Any]) -> dict[str, Any]:
    collator = _whole_word(tokenizer, 0)
    seen: Counter[str] = Counter()
    for _ in range(_DRAWS):
        batch = collator(_fresh(rows))
        inputs, labels = batch["input_ids"], batch["labels"]
        chosen = labels != -100
        seen["chosen"] += int(chosen.sum())
        seen["masked"] += int((inputs[chosen] == tokenizer.mask_token_id).sum())
        seen["open"] += sum(id_ not in tokenizer.all_special_ids for row in rows for id_ in row["input_ids"])
    return {
        "whole_chosen_share": plain(seen["chosen"] / seen["open"]),
        "whole_masked_share": plain(seen["masked"] / seen["chosen"]),
        "whole_replace_prob": collator.mask_replace_prob,
    }


def _spaces(tokenizer: Any) -> dict[str, Any]:
    """How many words the collator finds where no spaces are."""
    from transformers import BertTokenizer

    chinese = BertTokenizer(
        vocab={
            entry: at for at, entry in enumerate([*tokenizer.all_special_tokens, *dict.fromkeys(_CHINESE)])
        }
    )
    facts: dict[str, Any] = {"chinese_text": _CHINESE}
    watch = Watch(
        _FILE,
        f"{_MASKED}._calc_word_ids_and_prob_mask",
        ("word_ids",),
        "words",
        lambda names: {"words": int(names["word_ids"].max())},
    )
    for name, maker, text in (("chinese", chinese, _CHINESE), ("english", tokenizer, TEXT[2])):
        row = maker(text, return_offsets_mapping=True)
        with Recorder(package(), [watch]) as recorder:
            _whole_word(maker, 0)([dict(row)])
        facts |= {
            f"{name}_tokens": len(row["input_ids"]) - 2,
            f"{name}_words": recorder.part("words")[0].beside["words"],
        }
    return facts


def _permuted_odds(tokenizer: Any, rows: list[Any]) -> dict[str, Any]:
    """Span lengths as they are drawn, and the share of targets, over many orders."""
    lengths: Counter[int] = Counter()
    targets = places = 0
    for seed in range(_ORDERS):
        batch, recorder = _permuted(tokenizer, rows, seed)
        lengths.update(step.value for _, step in recorder.steps if step.name == "span_length")
        targets += int((batch["labels"] != -100).sum())
        places += sum(id_ not in tokenizer.all_special_ids for id_ in rows[0]["input_ids"])
    drawn = sum(lengths.values())
    return {
        "target_share": plain(targets / places),
        "spans_drawn": drawn,
        "mean_span": plain(sum(length * count for length, count in lengths.items()) / drawn),
        "spans": {str(length): plain(lengths[length] / drawn) for length in sorted(lengths)},
    }


def _odd_length(tokenizer: Any) -> str:
    """What a row of odd length brings."""
    try:
        _permuted(tokenizer, [{"input_ids": tokenizer(TEXT[2])["input_ids"]}], 0)
    except Exception as error:
        return type(error).__name__
    return "a batch"


def _xlnet_loss(batch: Mapping[str, Any], vocabulary: int) -> float:
    """The batch as XLNet takes it."""
    import torch
    from transformers import XLNetConfig, XLNetLMHeadModel

    config = XLNetConfig(vocab_size=vocabulary, d_model=30, n_layer=2, n_head=3, d_inner=50)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        model = XLNetLMHeadModel(config).eval()
        return float(plain(model(**batch).loss.item()))


def _collators() -> list[str]:
    """The collators that the library has."""
    import transformers

    return sorted(name for name in dir(transformers) if name.startswith("DataCollator"))


def _order_picture(perm_mask: Any, diagonal: Any) -> dict[str, Any]:
    """Who may see whom: the query stream as the mask says, the content stream itself too."""
    closed = perm_mask.bool()
    query = ["".join("0" if shut else "1" for shut in row) for row in closed.tolist()]
    content = ["".join("0" if shut else "1" for shut in row) for row in (closed & ~diagonal.bool()).tolist()]
    return {
        "kind": "matrices",
        "matrices": [{"name": "query", "rows": query}, {"name": "content", "rows": content}],
    }


def _odds_picture(facts: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        ("odds_chosen", facts["chosen_share"], 0.15),
        ("odds_masked", facts["masked_share"], 0.8),
        ("odds_random", facts["random_share"], 0.1),
        ("odds_kept", facts["kept_share"], 0.1),
        ("odds_whole_chosen", facts["whole_chosen_share"], 0.15),
        ("odds_whole_masked", facts["whole_masked_share"], 0.8),
    ]
    return {
        "kind": "bars",
        "unit": "%",
        "rows": [{"name": name, "value": value, "expected": paper} for name, value, paper in rows],
    }


def _targets_picture(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "bars",
        "unit": "%",
        "rows": [{"name": count, "value": share} for count, share in facts["targets"].items()],
    }


def _spans_picture(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "bars",
        "unit": "%",
        "rows": [
            {"name": length, "value": share, "expected": 0.2} for length, share in facts["spans"].items()
        ],
    }
