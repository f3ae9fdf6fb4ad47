"""The pieces that several reference models share: attention, feed-forward network, post-norm blocks, masks.

Everything follows Vaswani et al. 2017, "Attention Is All You Need" (sections 3.1 to 3.3), with the GELU that BERT put in
the place of the ReLU where a model asks for it. What makes a model itself (its embeddings, its masks, its
objectives) is in that model's own file.

Masks are boolean, True where a query may attend to a key, and broadcast to (B, heads, Q, K).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in several heads (Vaswani et al. 2017, section 3.2, eq. 1).

    Args:
        hidden_size: width D of the queries' source and of the result.
        num_heads: number of heads H.
        dropout: rate on the attention weights.
        key_value_size: width of the source of keys and values; D if left out.
        attention_size: width A of all heads together; D if left out. A head is A / H wide.
        bias: whether the four projections add a bias.

    Raises:
        ValueError: if A is not a multiple of H.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        dropout: float = 0.0,
        *,
        key_value_size: int | None = None,
        attention_size: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        key_value_size = key_value_size or hidden_size
        attention_size = attention_size or hidden_size
        if attention_size % num_heads:
            raise ValueError(f"attention_size {attention_size} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.head_size = attention_size // num_heads
        self.query = nn.Linear(hidden_size, attention_size, bias=bias)
        self.key = nn.Linear(key_value_size, attention_size, bias=bias)
        self.value = nn.Linear(key_value_size, attention_size, bias=bias)
        self.output = nn.Linear(attention_size, hidden_size, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None = None, key_value_states: Tensor | None = None
    ) -> Tensor:
        """Attend from `hidden_states` to `key_value_states`, or to themselves if these are left out.

        Args:
            hidden_states: (B, Q, D), the source of the queries.
            mask: boolean, broadcast to (B, H, Q, K); True = this query may attend to this key.
            key_value_states: (B, K, key_value_size), the source of keys and values.

        Returns:
            (B, Q, D), before any dropout, residual sum or norm.
        """
        source = hidden_states if key_value_states is None else key_value_states
        query = self._split_heads(self.query(hidden_states))  # (B, H, Q, head)
        key = self._split_heads(self.key(source))  # (B, H, K, head)
        value = self._split_heads(self.value(source))  # (B, H, K, head)

        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_size)  # (B, H, Q, K)
        if mask is not None:
            # The lowest finite number, not -inf: a query whose keys are all masked gets a finite (even) mean, no NaN.
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(dim=-1))  # (B, H, Q, K)
        context = (weights @ value).transpose(1, 2).flatten(2)  # (B, Q, A)
        output: Tensor = self.output(context)  # (B, Q, D)
        return output

    def _split_heads(self, projected: Tensor) -> Tensor:
        """(B, T, A) -> (B, H, T, A / H)."""
        batch, length, _ = projected.shape
        return projected.view(batch, length, self.num_heads, self.head_size).transpose(1, 2)


class FeedForward(nn.Module):
    """The position-wise network: widen, activate, narrow (Vaswani et al. 2017, section 3.3, eq. 2).

    Args:
        hidden_size: width D of input and result.
        feed_forward_size: width of the layer between.
        activation: "relu" or "gelu".
    """

    def __init__(self, hidden_size: int, feed_forward_size: int, activation: str = "gelu") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.widen = nn.Linear(hidden_size, feed_forward_size)
        self.narrow = nn.Linear(feed_forward_size, hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), before any dropout, residual sum or norm."""
        output: Tensor = self.narrow(self.activation(self.widen(hidden_states)))
        return output


class TransformerBlock(nn.Module):
    """One post-norm layer: LayerNorm(x + Dropout(Sublayer(x))) twice, or three times with cross-attention.

    Vaswani et al. 2017, section 3.1 (the two or three sub-layers) and section 5.4 (where dropout goes).

    Args:
        hidden_size: width D.
        num_heads: number of attention heads.
        feed_forward_size: width inside the feed-forward network.
        dropout: rate on each sub-layer's result.
        attention_dropout: rate on attention weights.
        activation: "relu" or "gelu".
        layer_norm_eps: added to the variance.
        cross_attention: whether a second attention, over an encoder's output, stands between the two.
        attention_bias: whether the attention projections add a bias.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        feed_forward_size: int,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        *,
        activation: str = "gelu",
        layer_norm_eps: float = 1e-12,
        cross_attention: bool = False,
        attention_bias: bool = True,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(hidden_size, num_heads, attention_dropout, bias=attention_bias)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.cross_attention: MultiHeadAttention | None = None
        if cross_attention:
            self.cross_attention = MultiHeadAttention(
                hidden_size, num_heads, attention_dropout, bias=attention_bias
            )
            self.cross_attention_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.feed_forward = FeedForward(hidden_size, feed_forward_size, activation)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        encoder_states: Tensor | None = None,
        encoder_mask: Tensor | None = None,
    ) -> Tensor:
        """One layer.

        Args:
            hidden_states: (B, T, D).
            mask: boolean, broadcast to (B, H, T, T); True = may attend.
            encoder_states: (B, S, D), only with `cross_attention`.
            encoder_mask: boolean, broadcast to (B, H, T, S).

        Returns:
            (B, T, D).
        """
        attended = self.dropout(self.attention(hidden_states, mask))  # (B, T, D)
        hidden_states = self.attention_norm(hidden_states + attended)  # (B, T, D)
        if self.cross_attention is not None:
            attended = self.dropout(self.cross_attention(hidden_states, encoder_mask, encoder_states))
            hidden_states = self.cross_attention_norm(hidden_states + attended)  # (B, T, D)
        transformed = self.dropout(self.feed_forward(hidden_states))  # (B, T, D)
        output: Tensor = self.feed_forward_norm(hidden_states + transformed)  # (B, T, D)
        return output


class TransformerEncoder(nn.Module):
    """A stack of post-norm blocks as in BERT: every layer over the whole (masked) sequence.

    Args:
        num_layers: number of blocks.
        hidden_size: width D.
        num_heads: number of attention heads.
        feed_forward_size: width inside the feed-forward networks.
        dropout: rate on each sub-layer's result.
        attention_dropout: rate on attention weights.
        activation: "relu" or "gelu".
        layer_norm_eps: added to the variance.
        attention_bias: whether the attention projections add a bias.
    """

    def __init__(
        self,
        num_layers: int,
        hidden_size: int,
        num_heads: int,
        feed_forward_size: int,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        *,
        activation: str = "gelu",
        layer_norm_eps: float = 1e-12,
        attention_bias: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerBlock(
                hidden_size,
                num_heads,
                feed_forward_size,
                dropout,
                attention_dropout,
                activation=activation,
                layer_norm_eps=layer_norm_eps,
                attention_bias=attention_bias,
            )
            for _ in range(num_layers)
        )

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """All layers in turn.

        Args:
            hidden_states: (B, T, D), the embeddings.
            mask: boolean, broadcast to (B, H, T, T); True = may attend.

        Returns:
            The embeddings as given, then the result of each layer: num_layers + 1 tensors of (B, T, D).
        """
        all_states = [hidden_states]
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask)  # (B, T, D)
            all_states.append(hidden_states)
        return tuple(all_states)


def padding_mask(attention_mask: Tensor) -> Tensor:
    """(B, K) with 1 = attend -> boolean (B, 1, 1, K), the same for every head and query."""
    return attention_mask.bool()[:, None, None, :]


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """Boolean (1, 1, length, length): query i may attend to keys 0..i (Vaswani et al. 2017, section 3.1)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]


def sinusoids(positions: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Sine and cosine of every position at `size / 2` wavelengths from 2π to 10000·2π (Vaswani et al. 2017, section 3.5).

    Args:
        positions: (T,), absolute or relative; any real numbers.
        size: width of the result, even.
        dtype: of the result. Angles are computed in float64: float32 loses their fraction at far positions.

    Returns:
        (T, size): column 2i holds sin(pos / 10000^(2i / size)), column 2i + 1 the cosine of the same angle.
    """
    exponents = torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size  # (size / 2,)
    angles = positions.double()[:, None] / 10000.0**exponents  # (T, size / 2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).to(dtype)  # (T, size)


def init_bert_weights(model: nn.Module, std: float = 0.02) -> None:
    """Draw every linear and embedding weight from N(0, std²), set biases to 0 and norms to the identity.

    The truncation of BERT's initialiser (at two standard deviations) is kept.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
