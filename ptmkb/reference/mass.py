"""MASS: an encoder-decoder that reads a sentence with a fragment masked and writes the fragment.

Song et al. 2019, "MASS: Masked Sequence to Sequence Pre-training for Language Generation" (arXiv 1905.02450). What the
paper's text leaves open follows the authors' code, github.com/microsoft/MASS (`MASS/src/model/transformer.py` for the
network, `MASS/src/trainer.py` for the masking and the positions).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptmkb.reference.blocks import TransformerBlock, TransformerEncoder, causal_mask, padding_mask


@dataclass(frozen=True)
class MASSConfig:
    """The paper's model: 6 + 6 layers, 1024 wide, 4096 inside, 60,000 sub-words shared by two languages."""

    vocab_size: int = 60000
    hidden_size: int = 1024
    num_layers: int = 6  # in the encoder, and as many in the decoder
    num_heads: int = 8
    feed_forward_size: int = 4096
    max_positions: int = 512
    num_languages: int = 2
    dropout: float = 0.1
    mask_token_id: int = 5  # [M]
    fragment_share: float = 0.5  # k / m: how much of a sentence the fragment is

    @classmethod
    def tiny(cls) -> "MASSConfig":
        """A working model of some 50,000 parameters."""
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
class MASSOutput:
    """What a forward pass gives.

    Attributes:
        loss: scalar, the mean negative log-likelihood of the fragment, if labels were given.
        logits: (B, K, vocab_size), for the K tokens of the fragment.
        last_hidden_state: (B, K, D), the decoder's.
        hidden_states: the decoder's embeddings and the result of each of its layers, (B, K, D) each.
        encoder_last_hidden_state: (B, S, D).
        encoder_hidden_states: the encoder's embeddings and the result of each of its layers, (B, S, D) each.
    """

    loss: Tensor | None
    logits: Tensor
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]
    encoder_last_hidden_state: Tensor
    encoder_hidden_states: tuple[Tensor, ...]


class Embeddings(nn.Module):
    """Token + learned position + language, layer-normed; the encoder and the decoder have one each.

    Args:
        config: sizes.
    """

    def __init__(self, config: MASSConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_positions, config.hidden_size)
        self.language = nn.Embedding(config.num_languages, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)
        for table in (self.token, self.position, self.language):
            nn.init.normal_(table.weight, std=config.hidden_size**-0.5)

    def forward(self, token_ids: Tensor, position_ids: Tensor, language_ids: Tensor) -> Tensor:
        """(B, T) tokens, (B, T) positions in the whole sentence, (B,) languages -> (B, T, D)."""
        summed = (
            self.token(token_ids) + self.position(position_ids) + self.language(language_ids)[:, None]
        )  # (B, T, D)
        embedded: Tensor = self.dropout(self.norm(summed))
        return embedded


class MASS(nn.Module):
    """Encoder over the sentence without its fragment, decoder over the fragment.

    Args:
        config: sizes.
    """

    config_class: ClassVar[type[MASSConfig]] = MASSConfig

    def __init__(self, config: MASSConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder_embeddings = Embeddings(config)
        self.encoder = TransformerEncoder(
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.feed_forward_size,
            config.dropout,
            config.dropout,
        )
        self.decoder_embeddings = Embeddings(config)
        self.decoder_layers = nn.ModuleList(
            TransformerBlock(
                config.hidden_size,
                config.num_heads,
                config.feed_forward_size,
                config.dropout,
                config.dropout,
                cross_attention=True,
            )
            for _ in range(config.num_layers)
        )
        self.output_bias = nn.Parameter(
            torch.zeros(config.vocab_size)
        )  # its matrix is the decoder's token table
        # Linear layers keep torch's own initial weights, as in the authors' code.

    def forward(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor,
        decoder_position_ids: Tensor,
        attention_mask: Tensor | None = None,
        language_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> MASSOutput:
        """Predict the fragment, token after token, from the rest of the sentence and the fragment's earlier tokens.

        Args:
            input_ids: (B, S), the sentence with its fragment masked (see `mask_fragment`).
            decoder_input_ids: (B, K), for every token of the fragment the token before it.
            decoder_position_ids: (B, K), where in the whole sentence those tokens stand.
            attention_mask: (B, S), 1 = attend.
            language_ids: (B,), the sentence's language; language 0 if left out.
            labels: (B, K), the fragment; -100 = ignored.

        Returns:
            The outputs.
        """
        if language_ids is None:
            language_ids = input_ids.new_zeros(input_ids.shape[0])  # (B,)
        encoder_mask = None if attention_mask is None else padding_mask(attention_mask)  # (B, 1, 1, S)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)  # (B, S)
        embedded = self.encoder_embeddings(input_ids, positions, language_ids)  # (B, S, D)
        encoder_states = self.encoder(embedded, encoder_mask)  # (B, S, D) each

        # The decoder may look at the words that are left, not at the encoder's states over [M] (authors' `mass_step`).
        readable = padding_mask(input_ids != self.config.mask_token_id)  # (B, 1, 1, S)
        if encoder_mask is not None:
            readable = readable & encoder_mask
        causal = causal_mask(decoder_input_ids.shape[1], decoder_input_ids.device)  # (1, 1, K, K)
        hidden_states = self.decoder_embeddings(
            decoder_input_ids, decoder_position_ids, language_ids
        )  # (B, K, D)
        decoder_states = [hidden_states]
        for layer in self.decoder_layers:
            hidden_states = layer(hidden_states, causal, encoder_states[-1], readable)  # (B, K, D)
            decoder_states.append(hidden_states)

        logits = hidden_states @ self.decoder_embeddings.token.weight.T + self.output_bias  # (B, K, vocab)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return MASSOutput(
            loss=loss,
            logits=logits,
            last_hidden_state=hidden_states,
            hidden_states=tuple(decoder_states),
            encoder_last_hidden_state=encoder_states[-1],
            encoder_hidden_states=encoder_states,
        )

    def mask_fragment(self, token_ids: Tensor, start: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Make the inputs of one pre-training step: cut a fragment of k = m · `fragment_share` tokens out of sentences.

        Of the fragment's tokens the encoder sees [M] eight times in ten, a random token or the token itself one time in ten
        each, as in BERT. In the paper's figure the decoder's input holds [M] at every position outside the fragment; here,
        as in the authors' code, those positions are left out and the others keep their places in the sentence.

        Args:
            token_ids: (B, m), whole sentences.
            start: first position of the fragment, the same in all; at least 1, the first token is never masked.
            generator: draws what replaces a token.

        Returns:
            The keyword arguments of `forward`, labels included; K = k.

        Raises:
            ValueError: if the fragment does not fit between position 1 and the end.
        """
        size = round(token_ids.shape[1] * self.config.fragment_share)
        end = start + size
        if not 1 <= start < end <= token_ids.shape[1]:
            raise ValueError(f"a fragment {start}..{end} does not fit in 1..{token_ids.shape[1]}")
        fragment = token_ids[:, start:end]  # (B, K)
        draw = torch.rand(fragment.shape, generator=generator)  # (B, K)
        random_ids = torch.randint(self.config.vocab_size, fragment.shape, generator=generator)
        shown = torch.where(draw < 0.1, random_ids, fragment).masked_fill(
            draw >= 0.2, self.config.mask_token_id
        )
        return {
            "input_ids": torch.cat((token_ids[:, :start], shown, token_ids[:, end:]), dim=1),
            "decoder_input_ids": token_ids[:, start - 1 : end - 1],
            "decoder_position_ids": torch.arange(start - 1, end - 1).expand_as(fragment),
            "labels": fragment,
        }

    def dummy_inputs(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two sentences of 12 tokens with their tokens 3 to 8 (of 0 to 11) as the fragment, without padding."""
        token_ids = torch.randint(2, self.config.vocab_size, (2, 12), generator=generator)
        language_ids = torch.randint(self.config.num_languages, (2,), generator=generator)
        return {**self.mask_fragment(token_ids, 3, generator), "language_ids": language_ids}
