"""Transformer-XL: a causal Transformer that carries its hidden states from segment to segment.

Dai et al. 2019, "Transformer-XL: Attentive Language Models beyond a Fixed-Length Context" (arXiv 1901.02860): recurrence
between segments (section 3.2), attention by relative distance (section 3.3, appendix B), adaptive embeddings and softmax
(section 4.1). Sizes of the WikiText-103 models are those of the authors' scripts, github.com/kimiyoung/transformer-xl
(`pytorch/run_wt103_base.sh`, `tf/scripts/wt103_large_tpu.sh`). Those scripts also stretch the memory and clamp
distances when they evaluate; nothing here does.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptmkb.reference.blocks import FeedForward, sinusoids


@dataclass(frozen=True)
class TransformerXLConfig:
    """The standard WikiText-103 model of table 1.

    `cutoffs` divide the vocabulary, most frequent word first, into clusters. Cluster i has embeddings of
    `hidden_size / embedding_divisor**i`; with a divisor of 1 all are `hidden_size` wide and nothing needs projecting.
    """

    vocab_size: int = 267735
    cutoffs: tuple[int, ...] = (20000, 40000, 200000)
    embedding_divisor: int = 1
    hidden_size: int = 410
    num_layers: int = 16
    num_heads: int = 10
    head_size: int = 41
    feed_forward_size: int = 2100
    memory_length: int = 150
    shared_biases: bool = (
        True  # one u and one v for all layers, as in the paper's equations, or a pair for each
    )
    dropout: float = 0.1
    attention_dropout: float = 0.0

    @classmethod
    def large(cls) -> "TransformerXLConfig":
        """The large WikiText-103 model of table 1."""
        return cls(
            embedding_divisor=4,
            hidden_size=1024,
            num_layers=18,
            num_heads=16,
            head_size=64,
            feed_forward_size=4096,
            memory_length=384,
            shared_biases=False,
            dropout=0.2,
            attention_dropout=0.2,
        )

    @classmethod
    def tiny(cls) -> "TransformerXLConfig":
        """A working model of some 20,000 parameters with three clusters of words, 32, 16 and 8 wide."""
        return cls(
            vocab_size=96,
            cutoffs=(32, 64),
            embedding_divisor=2,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            head_size=8,
            feed_forward_size=64,
            memory_length=12,
            attention_dropout=0.1,
        )


@dataclass
class TransformerXLOutput:
    """What a forward pass gives.

    Attributes:
        loss: scalar, if labels were given.
        logits: (B, T, vocab_size), log-probabilities: an adaptive softmax has no scores that are comparable before it.
        last_hidden_state: (B, T, D).
        hidden_states: the embeddings and the result of each layer, (B, T, D) each.
        memory: for every layer the last inputs that it has seen, (B, up to memory_length, D) each, without gradient; hand it to
            the next segment.
    """

    loss: Tensor | None
    logits: Tensor
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]
    memory: tuple[Tensor, ...]


class AdaptiveEmbedding(nn.Module):
    """Frequent words get wide vectors, rare words narrow ones; all are projected to D and multiplied by √D.

    Args:
        config: sizes.
    """

    def __init__(self, config: TransformerXLConfig) -> None:
        super().__init__()
        self.edges = (0, *config.cutoffs, config.vocab_size)
        self.hidden_size = config.hidden_size
        sizes = [config.hidden_size // config.embedding_divisor**i for i in range(len(self.edges) - 1)]
        self.tables = nn.ModuleList(
            nn.Embedding(stop - start, size)
            for (start, stop), size in zip(pairwise(self.edges), sizes, strict=True)
        )
        self.projections: nn.ModuleList | None = None
        if config.embedding_divisor > 1:
            self.projections = nn.ModuleList(
                nn.Linear(size, config.hidden_size, bias=False) for size in sizes
            )

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        embedded: Tensor | None = None
        for i, (start, stop) in enumerate(pairwise(self.edges)):
            inside = (input_ids >= start) & (input_ids < stop)  # (B, T)
            part = self.tables[i]((input_ids - start).clamp(0, stop - start - 1))  # (B, T, D / divisor^i)
            if self.projections is not None:
                part = self.projections[i](part)  # (B, T, D)
            part = (
                part * inside[..., None]
            )  # every word is in one cluster: the sum has one part that is not 0
            embedded = part if embedded is None else embedded + part
        assert embedded is not None
        return embedded * math.sqrt(self.hidden_size)


class AdaptiveSoftmax(nn.Module):
    """First a softmax over the frequent words and one entry a rarer cluster, then one within the cluster.

    Grave et al. 2016, as section 4.1 cites it. Word vectors are the embedding's; so are the projections, but the first:
    that of the frequent words is the softmax's own (`proj_share_all_but_first` in the authors' script).

    Args:
        config: sizes.
    """

    def __init__(self, config: TransformerXLConfig) -> None:
        super().__init__()
        num_rare = len(config.cutoffs)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.clusters = nn.Linear(config.hidden_size, num_rare)
        self.projection: nn.Linear | None = None
        if config.embedding_divisor > 1:
            self.projection = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: Tensor, embedding: AdaptiveEmbedding) -> Tensor:
        """(B, T, D) -> (B, T, vocab_size), log-probabilities."""
        frequent_words = embedding.edges[1]
        log_probabilities: list[Tensor] = []
        cluster_log_probabilities: Tensor | None = None
        for i, (start, stop) in enumerate(pairwise(embedding.edges)):
            table = embedding.tables[i]
            assert isinstance(table, nn.Embedding)
            narrowed = hidden_states  # (B, T, D)
            if i == 0 and self.projection is not None:
                narrowed = self.projection(hidden_states)  # (B, T, D)
            elif embedding.projections is not None:
                projection = embedding.projections[i]
                assert isinstance(projection, nn.Linear)
                narrowed = (
                    hidden_states @ projection.weight
                )  # (B, T, D / divisor^i), the embedding's way back
            scores = narrowed @ table.weight.T + self.bias[start:stop]  # (B, T, words of this cluster)
            if cluster_log_probabilities is None:
                head = torch.cat((scores, self.clusters(narrowed)), dim=-1).log_softmax(dim=-1)
                log_probabilities.append(head[..., :frequent_words])
                cluster_log_probabilities = head[..., frequent_words:]  # (B, T, rarer clusters)
            else:
                within = scores.log_softmax(dim=-1)  # (B, T, words of this cluster)
                log_probabilities.append(within + cluster_log_probabilities[..., i - 1, None])
        return torch.cat(log_probabilities, dim=-1)


class RelativeAttention(nn.Module):
    """Attention whose scores depend on contents and on distances (the four terms of section 3.3).

    Args:
        config: sizes.
    """

    def __init__(self, config: TransformerXLConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.head_size = config.head_size
        size = config.num_heads * config.head_size
        self.query = nn.Linear(config.hidden_size, size, bias=False)  # W_q
        self.key = nn.Linear(config.hidden_size, size, bias=False)  # W_{k,E}
        self.value = nn.Linear(config.hidden_size, size, bias=False)  # W_v
        self.position_key = nn.Linear(config.hidden_size, size, bias=False)  # W_{k,R}
        self.output = nn.Linear(size, config.hidden_size, bias=False)
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(
        self,
        hidden_states: Tensor,
        memory: Tensor,
        distances: Tensor,
        content_bias: Tensor,
        position_bias: Tensor,
    ) -> Tensor:
        """Attend from a segment to its memory and, causally, to itself.

        Args:
            hidden_states: (B, T, D), the segment.
            memory: (B, M, D), what came before it.
            distances: (M + T, D), the sinusoids of the distances M + T - 1, ..., 1, 0.
            content_bias: (H, head), u.
            position_bias: (H, head), v.

        Returns:
            (B, T, D), before dropout, residual sum and norm.
        """
        context = torch.cat((memory, hidden_states), dim=1)  # (B, K, D), K = M + T
        query = self._split_heads(self.query(hidden_states))  # (B, H, T, head)
        key = self._split_heads(self.key(context))  # (B, H, K, head)
        value = self._split_heads(self.value(context))  # (B, H, K, head)
        position_key = self._split_heads(self.position_key(distances)[None])  # (1, H, K, head)

        # Terms (a) and (c), then (b) and (d): u and v stand in for the query's own absolute position.
        content_scores = (query + content_bias[:, None]) @ key.transpose(-1, -2)  # (B, H, T, K)
        position_scores = (query + position_bias[:, None]) @ position_key.transpose(-1, -2)  # (B, H, T, K)
        scores = (content_scores + relative_shift(position_scores)) / math.sqrt(self.head_size)

        length, width = scores.shape[-2:]
        visible = torch.ones(length, width, dtype=torch.bool, device=scores.device).tril(
            width - length
        )  # (T, K)
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(dim=-1))  # (B, H, T, K)
        attended = (weights @ value).transpose(1, 2).flatten(2)  # (B, T, H * head)
        output: Tensor = self.output(attended)  # (B, T, D)
        return output

    def _split_heads(self, projected: Tensor) -> Tensor:
        """(B, L, H * head) -> (B, H, L, head)."""
        batch, length, _ = projected.shape
        return projected.view(batch, length, self.num_heads, self.head_size).transpose(1, 2)


def relative_shift(scores: Tensor) -> Tensor:
    """Put the scores of distances under their keys (appendix B), without making T x K distance vectors.

    Column c of `scores` belongs to the distance K - 1 - c, in every row. Query i of T stands at K - T + i, so that key j is
    K - T + i - j away from it: its score is in column T - 1 - i + j, and row i has to move left by T - 1 - i. A column
    of zeros in front makes rows of K + 1; read again as rows of K, each begins one place later than the row above.

    Args:
        scores: (B, H, T, K).

    Returns:
        (B, H, T, K); right wherever the key is not after the query, leftovers elsewhere, which the causal mask hides.
    """
    batch, heads, length, width = scores.shape
    padded = F.pad(scores, (1, 0))  # (B, H, T, K + 1)
    return padded.view(batch, heads, width + 1, length)[:, :, 1:].view(batch, heads, length, width)


class TransformerXLLayer(nn.Module):
    """Relative attention and feed-forward network, each with residual sum and norm after it (section 3.3).

    Args:
        config: sizes.
    """

    def __init__(self, config: TransformerXLConfig) -> None:
        super().__init__()
        self.attention = RelativeAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size)
        self.feed_forward = FeedForward(config.hidden_size, config.feed_forward_size, "relu")
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_states: Tensor,
        memory: Tensor,
        distances: Tensor,
        content_bias: Tensor,
        position_bias: Tensor,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); arguments as in `RelativeAttention`."""
        attended = self.dropout(
            self.attention(hidden_states, memory, distances, content_bias, position_bias)
        )  # (B, T, D)
        hidden_states = self.attention_norm(hidden_states + attended)  # (B, T, D)
        transformed = self.dropout(self.feed_forward(hidden_states))  # (B, T, D)
        output: Tensor = self.feed_forward_norm(hidden_states + transformed)  # (B, T, D)
        return output


class TransformerXL(nn.Module):
    """Language model over segments of a long text.

    Args:
        config: sizes.
    """

    config_class: ClassVar[type[TransformerXLConfig]] = TransformerXLConfig

    def __init__(self, config: TransformerXLConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = AdaptiveEmbedding(config)
        self.layers = nn.ModuleList(TransformerXLLayer(config) for _ in range(config.num_layers))
        num_biases = 1 if config.shared_biases else config.num_layers
        self.content_bias = nn.Parameter(torch.empty(num_biases, config.num_heads, config.head_size))  # u
        self.position_bias = nn.Parameter(torch.empty(num_biases, config.num_heads, config.head_size))  # v
        self.softmax = AdaptiveSoftmax(config)
        self.dropout = nn.Dropout(config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.content_bias, std=0.02)
        nn.init.normal_(self.position_bias, std=0.02)

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None, memory: tuple[Tensor, ...] | None = None
    ) -> TransformerXLOutput:
        """Read one segment after what the memory holds.

        Args:
            input_ids: (B, T), the segment.
            labels: (B, T), the same segment; -100 = ignored. The token at t is predicted from those before t, so that the
                segment's first is not predicted.
            memory: the `memory` of the segment before; none at the beginning of a text.

        Returns:
            The outputs.
        """
        hidden_states = self.dropout(self.embedding(input_ids))  # (B, T, D)
        if memory is None:
            memory = tuple(hidden_states[:, :0].detach() for _ in self.layers)  # (B, 0, D) each
        length = memory[0].shape[1] + input_ids.shape[1]  # M + T
        positions = torch.arange(length - 1, -1, -1, device=input_ids.device)  # (M + T,), farthest first
        distances = self.dropout(
            sinusoids(positions, self.config.hidden_size, hidden_states.dtype)
        )  # (M + T, D)

        all_states = [hidden_states]
        for i, layer in enumerate(self.layers):
            bias = 0 if self.config.shared_biases else i
            hidden_states = layer(
                hidden_states, memory[i], distances, self.content_bias[bias], self.position_bias[bias]
            )  # (B, T, D)
            all_states.append(hidden_states)
        last_hidden_state = hidden_states

        logits = self.softmax(self.dropout(last_hidden_state), self.embedding)  # (B, T, vocab)
        loss = None
        if labels is not None:
            loss = F.nll_loss(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return TransformerXLOutput(
            loss=loss,
            logits=logits,
            last_hidden_state=last_hidden_state,
            hidden_states=tuple(all_states),
            memory=self._remember(memory, all_states),
        )

    def _remember(self, memory: tuple[Tensor, ...], all_states: list[Tensor]) -> tuple[Tensor, ...]:
        """The last `memory_length` inputs of every layer, cut off from the gradient: SG of section 3.2."""
        kept = []
        for old, new in zip(memory, all_states, strict=False):  # the top layer's result is nobody's input
            joined = torch.cat((old, new), dim=1).detach()  # (B, M + T, D)
            kept.append(joined[:, max(0, joined.shape[1] - self.config.memory_length) :])
        return tuple(kept)

    def dummy_inputs(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two segments of 12 tokens, each predicting itself, token after token."""
        input_ids = torch.randint(self.config.vocab_size, (2, 12), generator=generator)
        return {"input_ids": input_ids, "labels": input_ids.clone()}
