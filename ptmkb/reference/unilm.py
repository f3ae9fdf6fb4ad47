"""UniLM: one Transformer that is an encoder, a decoder or both, as its self-attention mask decides.

Dong et al. 2019, "Unified Language Model Pre-training for Natural Language Understanding and Generation" (arXiv
1905.03197). The network is BERT-large; what is UniLM's own is `attention_pattern` and the segment embeddings by objective.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptmkb.reference.blocks import TransformerEncoder, init_bert_weights, padding_mask

Mode = Literal["bidirectional", "left-to-right", "right-to-left", "sequence-to-sequence"]

# The segment embedding also says which objective is at work (section 2.1). Six rows: two for a pair under the bidirectional
# model, one for each one-way model, two for source and target; rows as in the authors' `modeling.py` (unilm-v1).
FIRST_SEGMENT_ROW: dict[str, int] = {
    "bidirectional": 0,
    "left-to-right": 2,
    "right-to-left": 3,
    "sequence-to-sequence": 4,
}
NUM_SEGMENT_ROWS = 6


@dataclass(frozen=True)
class UniLMConfig:
    """The paper's model (section 2.4): 24 layers of 1024 with 16 heads, 28,996 cased word pieces."""

    vocab_size: int = 28996
    hidden_size: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    feed_forward_size: int = 4096
    max_positions: int = 512
    dropout: float = 0.1
    mask_token_id: int = 103  # [MASK]

    @classmethod
    def base(cls) -> "UniLMConfig":
        """The released base size: 12 layers of 768 with 12 heads (README of unilm-v1)."""
        return cls(hidden_size=768, num_layers=12, num_heads=12, feed_forward_size=3072)

    @classmethod
    def tiny(cls) -> "UniLMConfig":
        """A working model of some 20,000 parameters."""
        return cls(
            vocab_size=96,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            feed_forward_size=64,
            max_positions=32,
            mask_token_id=1,
        )


@dataclass
class UniLMOutput:
    """What a forward pass gives.

    Attributes:
        loss: scalar, the sum of those of the two below that there are labels for.
        masked_lm_loss: the cloze loss of the mode in use.
        next_sentence_loss: only in the bidirectional mode.
        logits: (B, T, vocab_size).
        next_sentence_logits: (B, 2), only in the bidirectional mode; column 0: the second segment follows the first.
        last_hidden_state: (B, T, D).
        hidden_states: the embeddings and the result of each layer, (B, T, D) each.
    """

    loss: Tensor | None
    masked_lm_loss: Tensor | None
    next_sentence_loss: Tensor | None
    logits: Tensor
    next_sentence_logits: Tensor | None
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]


def attention_pattern(mode: Mode, token_type_ids: Tensor) -> Tensor:
    """Who may attend to whom: the zeros of the mask matrix M of eqs. 2 and 3 (section 2.3, figure 1).

    Args:
        mode: the objective.
        token_type_ids: (B, T), 0 in the first (source) segment, 1 in the second (target).

    Returns:
        Boolean (B, 1, T, T), or (1, 1, T, T) where segments do not matter; True where M is 0, False where it is -∞.

    Raises:
        ValueError: for an unknown mode.
    """
    length = token_type_ids.shape[1]
    everything = torch.ones(1, 1, length, length, dtype=torch.bool, device=token_type_ids.device)
    if mode == "bidirectional":
        return everything
    if mode == "left-to-right":
        return everything.tril()
    if mode == "right-to-left":
        return everything.triu()
    if mode == "sequence-to-sequence":
        source_key = (token_type_ids == 0)[:, None, None, :]  # (B, 1, 1, T): open to all
        target_query = (token_type_ids == 1)[:, None, :, None]  # (B, 1, T, 1): sees the target up to itself
        return source_key | (target_query & everything.tril())
    raise ValueError(f"unknown mode {mode!r}: one of {', '.join(FIRST_SEGMENT_ROW)}")


class UniLM(nn.Module):
    """The shared network with its cloze head and BERT's next-sentence head (sections 2.2 to 2.4).

    In pre-training a third of the batches are bidirectional, a third sequence-to-sequence, a sixth each one-way (section 2.4).

    Args:
        config: sizes.
    """

    config_class: ClassVar[type[UniLMConfig]] = UniLMConfig
    modes: ClassVar[tuple[str, ...]] = tuple(FIRST_SEGMENT_ROW)

    def __init__(self, config: UniLMConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_positions, config.hidden_size)
        self.segment_embedding = nn.Embedding(NUM_SEGMENT_ROWS, config.hidden_size)
        self.embedding_norm = nn.LayerNorm(config.hidden_size, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = TransformerEncoder(
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.feed_forward_size,
            config.dropout,
            config.dropout,
        )
        self.head_transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.head_norm = nn.LayerNorm(config.hidden_size, eps=1e-12)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size))  # its matrix is the token embedding
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.next_sentence_head = nn.Linear(config.hidden_size, 2)
        init_bert_weights(self)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        mode: Mode = "bidirectional",
    ) -> UniLMOutput:
        """Encode under one of the masks and fill in the masked tokens.

        Args:
            input_ids: (B, T), "[SOS] first segment [EOS] second segment [EOS]" with some tokens replaced by [MASK].
            token_type_ids: (B, T), 0 in the first segment and 1 in the second; all 0 if left out. The one-way modes read one
                segment and do not look at it.
            attention_mask: (B, T), 1 = attend.
            labels: (B, T), the tokens under the masks at their own positions (nothing is shifted, in no mode); -100 elsewhere.
            next_sentence_label: (B,), 0 = the second segment follows the first, 1 = it does not. Part of the
                bidirectional objective (section 2.3); the other modes have no such loss and leave it aside.
            mode: which mask and which segment embeddings.

        Returns:
            The outputs.
        """
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        mask = attention_pattern(mode, token_type_ids)  # (B | 1, 1, T, T)
        if attention_mask is not None:
            mask = mask & padding_mask(attention_mask)  # (B, 1, T, T)

        one_way = mode in ("left-to-right", "right-to-left")
        segments = FIRST_SEGMENT_ROW[mode] + (
            torch.zeros_like(input_ids) if one_way else token_type_ids
        )  # (B, T)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)  # (T,)
        embeddings = (
            self.token_embedding(input_ids)
            + self.position_embedding(positions)
            + self.segment_embedding(segments)
        )  # (B, T, D)
        hidden_states = self.encoder(self.dropout(self.embedding_norm(embeddings)), mask)  # (B, T, D) each
        last_hidden_state = hidden_states[-1]

        transformed = self.head_norm(F.gelu(self.head_transform(last_hidden_state)))  # (B, T, D)
        logits = transformed @ self.token_embedding.weight.T + self.head_bias  # (B, T, vocab)
        masked_lm_loss = None
        if labels is not None:
            masked_lm_loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())

        next_sentence_logits = next_sentence_loss = None
        if mode == "bidirectional":
            pooled = torch.tanh(self.pooler(last_hidden_state[:, 0]))  # (B, D), from [SOS]
            next_sentence_logits = self.next_sentence_head(self.dropout(pooled))  # (B, 2)
            if next_sentence_label is not None:
                next_sentence_loss = F.cross_entropy(next_sentence_logits, next_sentence_label)

        losses = [loss for loss in (masked_lm_loss, next_sentence_loss) if loss is not None]
        return UniLMOutput(
            loss=torch.stack(losses).sum() if losses else None,
            masked_lm_loss=masked_lm_loss,
            next_sentence_loss=next_sentence_loss,
            logits=logits,
            next_sentence_logits=next_sentence_logits,
            last_hidden_state=last_hidden_state,
            hidden_states=hidden_states,
        )

    def dummy_inputs(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two pairs of segments of 6 tokens each, two tokens of every segment masked; good in every mode."""
        input_ids = torch.randint(2, self.config.vocab_size, (2, 12), generator=generator)
        token_type_ids = torch.tensor([0] * 6 + [1] * 6).repeat(2, 1)
        masked = torch.tensor([0, 1, 0, 1, 0, 0] * 2).bool().repeat(2, 1)
        return {
            "input_ids": input_ids.masked_fill(masked, self.config.mask_token_id),
            "token_type_ids": token_type_ids,
            "labels": input_ids.masked_fill(~masked, -100),
            "next_sentence_label": torch.randint(2, (2,), generator=generator),
        }
