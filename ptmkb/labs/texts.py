"""A few sentences, and real tokenizers whose vocabularies are made of nothing else: text for studies that need no download."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

TEXT = (
    "a masked token is hidden from the model and the model predicts the hidden token",
    "the loss is the mean over hidden tokens",
    "unhidden neighbours are read from both sides",
    "a word may be cut into pieces and the pieces of a word are masked together",
    "the permuted model predicts a token from the tokens before it in a drawn order",
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WHOLE_FROM = 2  # a word that comes this often has an entry of its own
SHORT = 4  # characters: so has a word that is no longer
PIECE = 4  # characters of the pieces that other words are cut into


def vocabulary(texts: tuple[str, ...] = TEXT) -> dict[str, int]:
    """WordPiece entries for a text: frequent and short words whole, others in pieces of four letters."""
    words = Counter(word for text in texts for word in re.findall(r"\w+", text.lower()))
    entries = list(SPECIAL)
    for word, count in words.items():
        if count >= WHOLE_FROM or len(word) <= SHORT:
            entries.append(word)
        else:
            cuts = [word[at : at + PIECE] for at in range(0, len(word), PIECE)]
            entries += [cuts[0], *(f"##{cut}" for cut in cuts[1:])]
    return {entry: at for at, entry in enumerate(dict.fromkeys(entries))}


def bert_tokenizer() -> Any:
    """`BertTokenizer` with that vocabulary."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab=vocabulary())


def token_rows(inputs: Any, labels: Any, tokenizer: Any) -> dict[str, Any]:
    """A batch as a picture shows it: what the model reads, and what it is asked for there.

    Args:
        inputs: (batch, length), token ids.
        labels: (batch, length), the ids asked for; -100 where nothing is asked.
        tokenizer: knows the tokens.

    Returns:
        Rows of [token, what became of it, the token asked for]; the second is `masked`, `random`, `kept`, `padding` or empty.
    """
    mask, padding = tokenizer.mask_token_id, tokenizer.pad_token_id
    rows = []
    for ids, asked in zip(inputs.tolist(), labels.tolist(), strict=True):
        row = []
        for token, answer in zip(ids, asked, strict=True):
            kind = "" if token != padding else "padding"
            if answer != -100:
                kind = "masked" if token == mask else "kept" if token == answer else "random"
            name = tokenizer.convert_ids_to_tokens(token)
            row.append([name, kind, None if answer == -100 else tokenizer.convert_ids_to_tokens(answer)])
        rows.append(row)
    return {"kind": "tokens", "rows": rows}
