"""Names as words: what the index is searched by. `LlamaRotaryEmbedding` and `apply_rotary_pos_emb` both hold "rotary embedding".

SQLite's own tokenizers do not split names and Python cannot give it another, so names are split here, before they are stored and before
they are looked for; SQLite's `porter` tokenizer then makes "embeddings" and "embedding" one word.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

_PIECE = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_WORD = re.compile(r"\w+")

SHORT_FOR = {
    "attn": "attention",
    "cfg": "configuration",
    "config": "configuration",
    "conv": "convolution",
    "dec": "decoder",
    "emb": "embedding",
    "embed": "embedding",
    "embeds": "embedding",
    "enc": "encoder",
    "freq": "frequency",
    "freqs": "frequencies",
    "img": "image",
    "params": "parameters",
    "pos": "position",
    "positional": "position",
    "proj": "projection",
    "seq": "sequence",
}
"""What is usually shortened in the names of this code, so that either form finds the other."""

MEANS = {
    "ffn": "feed forward",
    "gqa": "grouped query attention",
    "mla": "multi head latent attention",
    "mlp": "feed forward",
    "moe": "mixture of experts",
    "rope": "rotary position embedding",
}
"""Abbreviations of several words: a name that holds one is found by these words too."""

SHORTEST_BEGINNING = 3
"""Letters from which on a word may be the beginning of another: fewer begin half of all words."""

_FILLERS = frozenset(
    ["a", "an", "and", "as", "by", "for", "from", "in", "is", "of", "on", "or", "the", "to", "with"]
)
"""Words that a question may hold and a name need not; they are looked for only where nothing else is asked."""


@lru_cache(maxsize=50_000)  # methods are mostly called alike, and each names its class
def name_words(name: str) -> str:
    """The words of a name, in full, with each pair of neighbours joined: people write `MoE`, `moe`, `Wav2Vec2`, `wav2vec` and `SwiGLU`.

    Args:
        name: an identifier, a qualified name or a path.
    """
    words: list[str] = []
    for identifier in re.split(r"[^0-9A-Za-z]+", name):
        pieces = [piece.lower() for piece in _PIECE.findall(identifier)]
        joined = [one + other for one, other in pairwise(pieces)]
        words += [SHORT_FOR.get(piece, piece) for piece in pieces]
        words += joined
        words += [word for piece in (*pieces, *joined) for word in MEANS.get(piece, "").split()]
    return " ".join(words)


def query(question: str, *, all_words: bool = True) -> str | None:
    """A question as an FTS5 expression over what `name_words` made.

    Args:
        question: words or names, in any case.
        all_words: whether each of them has to be there; else one is enough, and a word may go on ("embed" finds "embedding").

    Returns:
        The expression, or None where the question has no word in it.
    """
    words = _WORD.findall(question.replace("_", " "))
    words = [word for word in words if word.lower() not in _FILLERS] or words
    parts = [part for word in words if (part := _either(word, begins=not all_words))]
    return (" AND " if all_words else " OR ").join(parts) or None


def coverage(name: str, question: str) -> float:
    """How much of a name a question asks for, from 0 to 1.

    All of `BertEmbeddings` for "bert embeddings", half of `LlamaRotaryEmbedding.forward` for "rotary embedding".

    Args:
        name: an identifier or a qualified name.
        question: words or names.
    """
    asked = set(_roots(question))
    words = _roots(name)
    return sum(word in asked for word in words) / len(words) if words else 0.0


def _roots(text: str) -> list[str]:
    pieces = [piece.lower() for word in re.split(r"[^0-9A-Za-z]+", text) for piece in _PIECE.findall(word)]
    return [SHORT_FOR.get(piece, piece).removesuffix("s") for piece in pieces]


def _either(word: str, *, begins: bool) -> str:
    """A word as it was typed, or all the pieces that it splits into."""
    whole = SHORT_FOR.get(word.lower(), word.lower())
    pieces = [SHORT_FOR.get(piece.lower(), piece.lower()) for piece in _PIECE.findall(word)]
    star = "*" if begins and len(word) >= SHORTEST_BEGINNING else ""
    if len(pieces) < 2:
        return f'"{whole}"{star}'
    return f'("{whole}"{star} OR (' + " AND ".join(f'"{piece}"' for piece in pieces) + "))"
