"""The Transformer: an encoder-decoder made of attention alone.

Vaswani et al. 2017, "Attention Is All You Need" (arXiv 1706.03762). The sub-layers are in `blocks.py`; here are the
embeddings with their sinusoids, the two stacks, the one matrix that all three embeddings share, and the training loss.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptmkb.reference.blocks import TransformerBlock, TransformerEncoder, causal_mask, padding_mask, sinusoids


@dataclass(frozen=True)
class TransformerConfig:
    """The base model of table 3; the vocabulary is the shared English-German one of section 5.1 ("about 37000")."""

    vocab_size: int = 37000
    hidden_size: int = 512
    num_layers: int = 6  # in the encoder, and as many in the decoder
    num_heads: int = 8
    feed_forward_size: int = 2048
    dropout: float = 0.1
    label_smoothing: float = 0.1
    start_token_id: int = 0  # what the decoder reads before the first target

    @classmethod
    def big(cls) -> "TransformerConfig":
        """The big model: bottom line of table 3."""
        return cls(hidden_size=1024, num_heads=16, feed_forward_size=4096, dropout=0.3)

    @classmethod
    def tiny(cls) -> "TransformerConfig":
        """A working model of some 45,000 parameters."""
        return cls(vocab_size=96, hidden_size=32, num_layers=2, num_heads=4, feed_forward_size=64)


@dataclass
class TransformerOutput:
    """What a forward pass gives.

    Attributes:
        loss: scalar, if labels were given.
        logits: (B, T, vocab_size).
        last_hidden_state: (B, T, D), the decoder's.
        hidden_states: the decoder's embeddings and the result of each of its layers, (B, T, D) each.
        encoder_last_hidden_state: (B, S, D).
        encoder_hidden_states: the encoder's embeddings and the result of each of its layers, (B, S, D) each.
    """

    loss: Tensor | None
    logits: Tensor
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]
    encoder_last_hidden_state: Tensor
    encoder_hidden_states: tuple[Tensor, ...]


class Transformer(nn.Module):
    """Encoder-decoder for sequence transduction (section 3).

    Args:
        config: sizes.
    """

    config_class: ClassVar[type[TransformerConfig]] = TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        # One matrix for source embedding, target embedding and the projection before the softmax (section 3.4).
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.encoder = TransformerEncoder(
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.feed_forward_size,
            config.dropout,
            attention_dropout=0.0,  # section 5.4 names sub-layer results and embedding sums only
            activation="relu",
            layer_norm_eps=1e-5,
            attention_bias=False,  # section 3.2.2: the projections are matrices; eq. 2 alone has biases
        )
        self.decoder_layers = nn.ModuleList(
            TransformerBlock(
                config.hidden_size,
                config.num_heads,
                config.feed_forward_size,
                config.dropout,
                attention_dropout=0.0,
                activation="relu",
                layer_norm_eps=1e-5,
                cross_attention=True,
                attention_bias=False,
            )
            for _ in range(config.num_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self._init_weights()

    def _init_weights(self) -> None:
        """Keep variances through the network; the paper does not say how it draws its weights."""
        # Variance 1 / D, so that embeddings times √D stand beside the sinusoids on equal terms and tied logits stay small.
        nn.init.normal_(self.embedding.weight, std=self.config.hidden_size**-0.5)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> TransformerOutput:
        """Encode the source, decode the target with every position seeing only those before it.

        Args:
            input_ids: (B, S), the source.
            decoder_input_ids: (B, T), the target moved right by one (see `shift_right`).
            attention_mask: (B, S), 1 = attend.
            decoder_attention_mask: (B, T), 1 = attend.
            labels: (B, T), the target; -100 = ignored.

        Returns:
            The outputs. In training mode the loss is smoothed by `label_smoothing` (section 5.4), in eval mode it is the
            plain cross-entropy.
        """
        source_mask = None if attention_mask is None else padding_mask(attention_mask)  # (B, 1, 1, S)
        encoder_states = self.encoder(self._embed(input_ids), source_mask)  # (B, S, D) each

        target_mask = causal_mask(decoder_input_ids.shape[1], decoder_input_ids.device)  # (1, 1, T, T)
        if decoder_attention_mask is not None:
            target_mask = target_mask & padding_mask(decoder_attention_mask)  # (B, 1, T, T)
        hidden_states = self._embed(decoder_input_ids)  # (B, T, D)
        decoder_states = [hidden_states]
        for layer in self.decoder_layers:
            hidden_states = layer(hidden_states, target_mask, encoder_states[-1], source_mask)  # (B, T, D)
            decoder_states.append(hidden_states)

        logits = hidden_states @ self.embedding.weight.T  # (B, T, vocab)
        loss = None
        if labels is not None:
            smoothing = self.config.label_smoothing if self.training else 0.0
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)
        return TransformerOutput(
            loss=loss,
            logits=logits,
            last_hidden_state=hidden_states,
            hidden_states=tuple(decoder_states),
            encoder_last_hidden_state=encoder_states[-1],
            encoder_hidden_states=encoder_states,
        )

    def _embed(self, token_ids: Tensor) -> Tensor:
        """Embeddings times √D plus sinusoids, then dropout (sections 3.4, 3.5, 5.4): (B, T) -> (B, T, D)."""
        embedded = self.embedding(token_ids) * math.sqrt(self.config.hidden_size)  # (B, T, D)
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)  # (T,)
        encoded: Tensor = self.dropout(
            embedded + sinusoids(positions, self.config.hidden_size, embedded.dtype)
        )
        return encoded

    def shift_right(self, labels: Tensor) -> Tensor:
        """(B, T) targets -> (B, T) decoder input: the start token, then the targets but the last (section 3.1)."""
        start = labels.new_full((labels.shape[0], 1), self.config.start_token_id)
        return torch.cat((start, labels[:, :-1]), dim=1)

    def dummy_inputs(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two source sentences of 12 tokens with target sentences of 12, without padding."""
        input_ids = torch.randint(1, self.config.vocab_size, (2, 12), generator=generator)
        labels = torch.randint(1, self.config.vocab_size, (2, 12), generator=generator)
        return {"input_ids": input_ids, "decoder_input_ids": self.shift_right(labels), "labels": labels}
