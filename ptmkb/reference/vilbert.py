"""ViLBERT: two streams, one for words and one for image regions, that meet in co-attentional layers.

Lu et al. 2019, "ViLBERT: Pretraining Task-Agnostic Visiolinguistic Representations for Vision-and-Language
Tasks" (arXiv 1908.02265), sections 2.2 and 3.1. The words first pass alone through a part of BERT-base; then
co-attentional and ordinary layers take turns in both streams. In a co-attentional layer each stream asks with
its own queries and is answered by the keys and values of the other. What the paper leaves open (order of the
layers, width of the visual feed-forward network, pooling) is taken from the authors' code,
`facebookresearch/vilbert-multi-task`, configuration `bert_base_6layer_6conect.json`. Their class holds two
more projections in each co-attentional layer (`q_dense1`, `q_dense2`) that nothing uses; they are not built
here.

Shapes: B samples, T tokens, R regions, S = R + 1 elements of the visual stream ([IMG] first), D and E the
widths of the linguistic and the visual stream, F the width of a region's feature, C classes of the object
detector, V words.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptmkb.reference.blocks import (
    FeedForward,
    MultiHeadAttention,
    TransformerBlock,
    init_bert_weights,
    padding_mask,
)

BOX_SIZE = 5  # x1, y1, x2, y2 as fractions of width and height, and the fraction of the image's area
WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)  # the box of the [IMG] element
LAYER_NORM_EPS = 1e-12
DUMMY_TOKENS, DUMMY_REGIONS = 12, 6


@dataclass(frozen=True)
class ViLBERTConfig:
    """Sizes of ViLBERT; the defaults are the published model (section 3.1 and the authors' configuration).

    `num_layers` counts the ordinary layers of the linguistic stream. The last `num_co_attention_layers` of
    them, and as many in the visual stream, follow a co-attentional layer each.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    feed_forward_size: int = 3072
    max_positions: int = 512
    type_vocab_size: int = 2
    region_feature_size: int = 2048
    region_hidden_size: int = 1024
    region_num_heads: int = 8
    region_feed_forward_size: int = 1024
    num_co_attention_layers: int = 6
    co_attention_size: int = 1024
    co_attention_num_heads: int = 8
    num_region_classes: int = 1601
    dropout: float = 0.1

    @classmethod
    def tiny(cls) -> "ViLBERTConfig":
        """A working model of fewer than 200k parameters: two layers of words alone, then two of each kind."""
        return cls(
            vocab_size=99,
            hidden_size=32,
            num_layers=4,
            num_heads=4,
            feed_forward_size=64,
            max_positions=32,
            region_feature_size=20,
            region_hidden_size=48,
            region_num_heads=3,
            region_feed_forward_size=48,
            num_co_attention_layers=2,
            co_attention_size=48,
            co_attention_num_heads=3,
            num_region_classes=11,
        )


@dataclass
class ViLBERTOutput:
    """What a forward pass gives; losses are None where their labels were left out.

    Attributes:
        loss: sum of the losses below (section 2.2, training tasks).
        masked_lm_loss: cross-entropy of the masked words.
        masked_region_loss: KL divergence to the detector's class distribution at the predicted regions.
        matching_loss: binary cross-entropy of the alignment prediction.
        logits: (B, T, V), scores of words.
        region_logits: (B, R, C), scores of the detector's classes.
        matching_logits: (B,), score that image and text belong together.
        text_last_hidden_state: (B, T, D).
        text_hidden_states: embeddings, then the result of every layer of the linguistic stream,
            co-attentional ones included.
        region_last_hidden_state: (B, S, E), [IMG] first.
        region_hidden_states: the same for the visual stream, each (B, S, E).
    """

    loss: Tensor | None
    masked_lm_loss: Tensor | None
    masked_region_loss: Tensor | None
    matching_loss: Tensor | None
    logits: Tensor
    region_logits: Tensor
    matching_logits: Tensor
    text_last_hidden_state: Tensor
    text_hidden_states: tuple[Tensor, ...]
    region_last_hidden_state: Tensor
    region_hidden_states: tuple[Tensor, ...]


class TextEmbeddings(nn.Module):
    """Word, position and segment embeddings, summed and normalised, as in BERT (section 2.1)."""

    def __init__(self, config: ViLBERTConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_positions, config.hidden_size)
        self.token_types = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Both (B, T) -> (B, T, D)."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)  # (T,)
        summed = self.words(input_ids) + self.positions(positions) + self.token_types(token_type_ids)
        embedded: Tensor = self.dropout(self.norm(summed))  # (B, T, D)
        return embedded


class RegionEmbeddings(nn.Module):
    """Region features plus their projected 5-d location, headed by [IMG] (section 2.2).

    [IMG] stands for the whole image: the mean of the regions' features at the box of the whole image.
    """

    def __init__(self, config: ViLBERTConfig) -> None:
        super().__init__()
        self.features = nn.Linear(config.region_feature_size, config.region_hidden_size)
        self.locations = nn.Linear(BOX_SIZE, config.region_hidden_size)
        self.norm = nn.LayerNorm(config.region_hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, region_features: Tensor, region_boxes: Tensor, region_mask: Tensor) -> Tensor:
        """(B, R, F), (B, R, 4) and (B, R) -> (B, S, E)."""
        present = region_mask.unsqueeze(-1).to(region_features.dtype)  # (B, R, 1)
        image_feature = (region_features * present).sum(1, keepdim=True) / present.sum(1, keepdim=True)
        features = torch.cat([image_feature, region_features], dim=1)  # (B, S, F)

        image_box = region_boxes.new_tensor(WHOLE_IMAGE).expand(region_boxes.shape[0], 1, 4)
        x1, y1, x2, y2 = torch.cat([image_box, region_boxes], dim=1).unbind(-1)  # (B, S) each
        location = torch.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)], dim=-1)  # (B, S, 5)

        embedded: Tensor = self.dropout(self.norm(self.features(features) + self.locations(location)))
        return embedded  # (B, S, E)


class CoAttentionBlock(nn.Module):
    """One co-attentional Transformer layer (section 2.2, figure 2b).

    It is an ordinary post-norm layer in each stream, but for keys and values, which come from the other
    stream. Both attentions read what entered the layer, so neither stream goes first.
    """

    def __init__(self, config: ViLBERTConfig) -> None:
        super().__init__()
        text_size, region_size = config.hidden_size, config.region_hidden_size
        heads, width = config.co_attention_num_heads, config.co_attention_size
        self.text_attention = MultiHeadAttention(
            text_size, heads, config.dropout, key_value_size=region_size, attention_size=width
        )
        self.text_attention_norm = nn.LayerNorm(text_size, eps=LAYER_NORM_EPS)
        self.text_feed_forward = FeedForward(text_size, config.feed_forward_size)
        self.text_feed_forward_norm = nn.LayerNorm(text_size, eps=LAYER_NORM_EPS)

        self.region_attention = MultiHeadAttention(
            region_size, heads, config.dropout, key_value_size=text_size, attention_size=width
        )
        self.region_attention_norm = nn.LayerNorm(region_size, eps=LAYER_NORM_EPS)
        self.region_feed_forward = FeedForward(region_size, config.region_feed_forward_size)
        self.region_feed_forward_norm = nn.LayerNorm(region_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, text: Tensor, regions: Tensor, text_mask: Tensor, region_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, T, D), (B, S, E) and the masks of both as keys -> the same shapes."""
        from_regions = self.dropout(self.text_attention(text, region_mask, regions))  # (B, T, D)
        from_text = self.dropout(self.region_attention(regions, text_mask, text))  # (B, S, E)

        text = self.text_attention_norm(text + from_regions)  # (B, T, D)
        text = self.text_feed_forward_norm(text + self.dropout(self.text_feed_forward(text)))

        regions = self.region_attention_norm(regions + from_text)  # (B, S, E)
        regions = self.region_feed_forward_norm(regions + self.dropout(self.region_feed_forward(regions)))
        return text, regions


class ViLBERT(nn.Module):
    """ViLBERT with its two tasks: masked multi-modal modelling and multi-modal alignment prediction."""

    config_class = ViLBERTConfig

    def __init__(self, config: ViLBERTConfig) -> None:
        super().__init__()
        self.config = config
        text_size, region_size = config.hidden_size, config.region_hidden_size
        self.text_embeddings = TextEmbeddings(config)
        self.region_embeddings = RegionEmbeddings(config)

        self.text_layers = nn.ModuleList(
            TransformerBlock(
                text_size, config.num_heads, config.feed_forward_size, config.dropout, config.dropout
            )
            for _ in range(config.num_layers)
        )
        self.co_attention_layers = nn.ModuleList(
            CoAttentionBlock(config) for _ in range(config.num_co_attention_layers)
        )
        self.region_layers = nn.ModuleList(
            TransformerBlock(
                region_size,
                config.region_num_heads,
                config.region_feed_forward_size,
                config.dropout,
                config.dropout,
            )
            for _ in range(config.num_co_attention_layers)
        )

        # The scores of the words reuse the word embeddings as output matrix, as in BERT.
        self.word_transform = nn.Sequential(
            nn.Linear(text_size, text_size), nn.GELU(), nn.LayerNorm(text_size, eps=LAYER_NORM_EPS)
        )
        self.word_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.region_classifier = nn.Sequential(
            nn.Linear(region_size, region_size),
            nn.GELU(),
            nn.LayerNorm(region_size, eps=LAYER_NORM_EPS),
            nn.Linear(region_size, config.num_region_classes),
        )
        self.text_pooler = nn.Sequential(nn.Linear(text_size, config.co_attention_size), nn.ReLU())
        self.region_pooler = nn.Sequential(nn.Linear(region_size, config.co_attention_size), nn.ReLU())
        self.matching_dropout = nn.Dropout(config.dropout)
        self.matching_classifier = nn.Linear(config.co_attention_size, 1)
        init_bert_weights(self)

    def forward(
        self,
        input_ids: Tensor,
        region_features: Tensor,
        region_boxes: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        region_mask: Tensor | None = None,
        masked_regions: Tensor | None = None,
        labels: Tensor | None = None,
        region_targets: Tensor | None = None,
        matching_labels: Tensor | None = None,
    ) -> ViLBERTOutput:
        """Encode both streams and score words, regions and their alignment.

        Args:
            input_ids: (B, T), with [CLS] first and masked words already replaced.
            region_features: (B, R, F), pooled features of the detector.
            region_boxes: (B, R, 4), x1, y1, x2, y2 as fractions of the image's width and height.
            token_type_ids: (B, T), segment of each token; all 0 if left out.
            attention_mask: (B, T), 1 = attend.
            region_mask: (B, R), 1 = attend.
            masked_regions: (B, R), 1 = this region's feature is hidden, that is, replaced by zeros.
            labels: (B, T), the words to predict, -100 elsewhere.
            region_targets: (B, R, C), the detector's class distribution at regions to predict, rows of zeros
                elsewhere. A region may be predicted without being hidden, as a tenth of them are in training.
            matching_labels: (B,), 1 = the text describes the image, 0 = it does not.
        """
        batch_size, num_regions = region_features.shape[:2]
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if region_mask is None:
            region_mask = input_ids.new_ones(batch_size, num_regions)
        if masked_regions is not None:
            region_features = region_features.masked_fill(masked_regions.bool().unsqueeze(-1), 0.0)

        text = self.text_embeddings(input_ids, token_type_ids)  # (B, T, D)
        regions = self.region_embeddings(region_features, region_boxes, region_mask)  # (B, S, E)
        text_keys = padding_mask(attention_mask)  # (B, 1, 1, T)
        region_keys = padding_mask(F.pad(region_mask, (1, 0), value=1))  # (B, 1, 1, S), [IMG] is always there
        text_states, region_states = [text], [regions]

        layers_alone = self.config.num_layers - self.config.num_co_attention_layers
        for text_layer in self.text_layers[:layers_alone]:  # words see only words
            text = text_layer(text, text_keys)  # (B, T, D)
            text_states.append(text)
        for co_attention, text_layer, region_layer in zip(
            self.co_attention_layers, self.text_layers[layers_alone:], self.region_layers, strict=True
        ):
            text, regions = co_attention(text, regions, text_keys, region_keys)  # (B, T, D), (B, S, E)
            text_states.append(text)
            region_states.append(regions)
            text = text_layer(text, text_keys)  # (B, T, D)
            regions = region_layer(regions, region_keys)  # (B, S, E)
            text_states.append(text)
            region_states.append(regions)

        logits = F.linear(self.word_transform(text), self.text_embeddings.words.weight, self.word_bias)
        region_logits = self.region_classifier(regions[:, 1:])  # (B, R, C)
        joint = self.text_pooler(text[:, 0]) * self.region_pooler(regions[:, 0])  # h_CLS ⊙ h_IMG
        matching_logits = self.matching_classifier(self.matching_dropout(joint)).squeeze(-1)  # (B,)

        masked_lm_loss = masked_region_loss = matching_loss = None
        if labels is not None:
            summed = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            masked_lm_loss = summed / (labels != -100).sum().clamp(min=1)
        if region_targets is not None:
            divergence = F.kl_div(region_logits.log_softmax(-1), region_targets, reduction="none").sum(-1)
            masked_region_loss = divergence.sum() / region_targets.any(-1).sum().clamp(min=1)
        if matching_labels is not None:
            matching_loss = F.binary_cross_entropy_with_logits(
                matching_logits, matching_labels.to(matching_logits.dtype)
            )
        losses = [x for x in (masked_lm_loss, masked_region_loss, matching_loss) if x is not None]
        return ViLBERTOutput(
            loss=torch.stack(losses).sum() if losses else None,
            masked_lm_loss=masked_lm_loss,
            masked_region_loss=masked_region_loss,
            matching_loss=matching_loss,
            logits=logits,
            region_logits=region_logits,
            matching_logits=matching_logits,
            text_last_hidden_state=text,
            text_hidden_states=tuple(text_states),
            region_last_hidden_state=regions,
            region_hidden_states=tuple(region_states),
        )

    def dummy_inputs(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two samples with all labels; each masks two words (by the last word's id) and hides two regions."""
        config, dtype = self.config, self.word_bias.dtype
        size = (2, DUMMY_TOKENS)
        words = torch.randint(config.vocab_size - 1, size, generator=generator)  # (2, 12)
        masked_words = torch.rand(size, generator=generator).argsort(-1) < 2  # two of them in each row
        masked_regions = torch.rand(2, DUMMY_REGIONS, generator=generator).argsort(-1) < 2  # (2, 6)
        scores = torch.randn(2, DUMMY_REGIONS, config.num_region_classes, generator=generator, dtype=dtype)
        first, second = torch.rand(2, 2, DUMMY_REGIONS, 2, generator=generator, dtype=dtype)  # two corners
        features = torch.randn(2, DUMMY_REGIONS, config.region_feature_size, generator=generator, dtype=dtype)
        inputs = {
            "input_ids": words.masked_fill(masked_words, config.vocab_size - 1),
            "token_type_ids": torch.zeros_like(words),
            "attention_mask": torch.ones_like(words),
            "region_features": features,
            "region_boxes": torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1),
            "region_mask": torch.ones(2, DUMMY_REGIONS, dtype=torch.long),
            "masked_regions": masked_regions,
            "labels": words.masked_fill(~masked_words, -100),
            "region_targets": scores.softmax(-1) * masked_regions.unsqueeze(-1),
            "matching_labels": torch.tensor([1, 0]),
        }
        return {name: tensor.to(self.word_bias.device) for name, tensor in inputs.items()}
