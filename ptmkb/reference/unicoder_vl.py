"""Unicoder-VL: one encoder over words and image regions, trained on three cross-modal tasks.

Li et al. 2019, "Unicoder-VL: A Universal Encoder for Vision and Language by Cross-modal Pre-training" (arXiv
1908.06066, AAAI 2020), section "Approach". Words and regions are embedded apart, each with a layer norm of
its own, and then form one sequence for a BERT-base encoder, so that both meet from the first layer on.

What the paper leaves open is settled here as follows. The [IMG] token that it assigns to every region has no
term in its region embedding; as one vector for all regions it would add nothing that the bias of the
projection does not already give. The words' scores come from BERT's output head. The number K of object
classes is 1601, as in ViLBERT's and VL-BERT's code.

Shapes: B samples, T tokens, R regions, S = T + R elements (words first), D the width, F the width of a
region's feature, C object classes, V words.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptmkb.reference.blocks import TransformerEncoder, init_bert_weights, padding_mask

BOX_SIZE = 5  # x1, y1, x2, y2 as fractions of width and height, and the fraction of the image's area
LAYER_NORM_EPS = 1e-12
DUMMY_TOKENS, DUMMY_REGIONS = 12, 6


@dataclass(frozen=True)
class UnicoderVLConfig:
    """Sizes of Unicoder-VL; the defaults are the published model ("Pre-training Unicoder-VL").

    `max_positions` is BERT-base's, which the model starts from; the paper uses sequences
    of at most 144.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    feed_forward_size: int = 3072
    max_positions: int = 512
    region_feature_size: int = 2048
    num_region_classes: int = 1601
    dropout: float = 0.1

    @classmethod
    def tiny(cls) -> "UnicoderVLConfig":
        """A working model of fewer than 200k parameters."""
        return cls(
            vocab_size=99,
            hidden_size=32,
            num_layers=3,
            num_heads=4,
            feed_forward_size=64,
            max_positions=32,
            region_feature_size=20,
            num_region_classes=11,
        )


@dataclass
class UnicoderVLOutput:
    """What a forward pass gives; losses are None where their labels were left out.

    Attributes:
        loss: (masked_lm_loss + masked_region_loss), both over matching pairs only, + matching_loss.
        masked_lm_loss: cross-entropy of the masked words (MLM).
        masked_region_loss: cross-entropy of the masked regions' object classes (MOC).
        matching_loss: binary cross-entropy of visual-linguistic matching (VLM).
        logits: (B, T, V), scores of words.
        region_logits: (B, R, C), scores of object classes.
        matching_logits: (B,), score that image and text belong together, before the sigmoid.
        last_hidden_state: (B, S, D), words first.
        hidden_states: embeddings, then the result of every layer, each (B, S, D).
    """

    loss: Tensor | None
    masked_lm_loss: Tensor | None
    masked_region_loss: Tensor | None
    matching_loss: Tensor | None
    logits: Tensor
    region_logits: Tensor
    matching_logits: Tensor
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]


class LinguisticEmbedding(nn.Module):
    """Word plus position embedding, then a layer norm ("Linguistic Embedding"); no segment embedding."""

    def __init__(self, config: UnicoderVLConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_positions, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)  # (T,)
        embedded: Tensor = self.dropout(self.norm(self.words(input_ids) + self.positions(positions)))
        return embedded


class ImageEmbedding(nn.Module):
    """Projected feature plus projected 5-d location, then another layer norm ("Image Embedding")."""

    def __init__(self, config: UnicoderVLConfig) -> None:
        super().__init__()
        self.features = nn.Linear(config.region_feature_size, config.hidden_size)
        self.locations = nn.Linear(BOX_SIZE, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, region_features: Tensor, region_boxes: Tensor) -> Tensor:
        """(B, R, F) and (B, R, 4) -> (B, R, D)."""
        x1, y1, x2, y2 = region_boxes.unbind(-1)  # (B, R) each
        location = torch.stack([x1, y1, x2, y2, (y2 - y1) * (x2 - x1)], dim=-1)  # (B, R, 5)
        embedded: Tensor = self.dropout(self.norm(self.features(region_features) + self.locations(location)))
        return embedded


class UnicoderVL(nn.Module):
    """Unicoder-VL with its three tasks: masked words, masked objects, matching of image and text."""

    config_class = UnicoderVLConfig

    def __init__(self, config: UnicoderVLConfig) -> None:
        super().__init__()
        self.config = config
        self.linguistic_embedding = LinguisticEmbedding(config)
        self.image_embedding = ImageEmbedding(config)
        self.encoder = TransformerEncoder(
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.feed_forward_size,
            config.dropout,
            config.dropout,
            layer_norm_eps=LAYER_NORM_EPS,
        )
        # The scores of the words reuse the word embeddings as output matrix, as in BERT.
        self.word_transform = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.GELU(),
            nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS),
        )
        self.word_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.object_classifier = nn.Linear(config.hidden_size, config.num_region_classes)
        self.matching_classifier = nn.Linear(config.hidden_size, 1)
        init_bert_weights(self)

    def forward(
        self,
        input_ids: Tensor,
        region_features: Tensor,
        region_boxes: Tensor,
        attention_mask: Tensor | None = None,
        region_mask: Tensor | None = None,
        masked_regions: Tensor | None = None,
        labels: Tensor | None = None,
        region_labels: Tensor | None = None,
        matching_labels: Tensor | None = None,
    ) -> UnicoderVLOutput:
        """Encode words and regions together and score words, objects and their match.

        Args:
            input_ids: (B, T), with [CLS] first, [SEP] last and masked words already replaced.
            region_features: (B, R, F), pooled features of the detector.
            region_boxes: (B, R, 4), x1, y1, x2, y2 as fractions of the image's width and height.
            attention_mask: (B, T), 1 = attend.
            region_mask: (B, R), 1 = attend.
            masked_regions: (B, R), 1 = this region's feature is hidden, that is, replaced by zeros.
            labels: (B, T), the words to predict, -100 elsewhere.
            region_labels: (B, R), the detector's likeliest class at regions to predict, -100 elsewhere. A
                region may be predicted without being hidden, as a tenth of them are in training.
            matching_labels: (B,), 1 = the text describes the image, 0 = it does not; all 1 if left out.
        """
        batch_size, num_tokens = input_ids.shape
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if region_mask is None:
            region_mask = input_ids.new_ones(batch_size, region_features.shape[1])
        if masked_regions is not None:
            region_features = region_features.masked_fill(masked_regions.bool().unsqueeze(-1), 0.0)

        words = self.linguistic_embedding(input_ids)  # (B, T, D)
        regions = self.image_embedding(region_features, region_boxes)  # (B, R, D)
        keys = padding_mask(torch.cat([attention_mask, region_mask], dim=1))  # (B, 1, 1, S)
        hidden_states = self.encoder(torch.cat([words, regions], dim=1), keys)  # of (B, S, D)
        words, regions = hidden_states[-1].split([num_tokens, region_features.shape[1]], dim=1)

        logits = F.linear(self.word_transform(words), self.linguistic_embedding.words.weight, self.word_bias)
        region_logits = self.object_classifier(regions)  # (B, R, C)
        matching_logits = self.matching_classifier(words[:, 0]).squeeze(-1)  # (B,), from [CLS]

        masked_lm_loss = masked_region_loss = matching_loss = None
        if matching_labels is not None:
            matching_loss = F.binary_cross_entropy_with_logits(
                matching_logits, matching_labels.to(matching_logits.dtype)
            )
            # (MLM + MOC) · I[y = 1]: in a pair that does not match, neither side tells of the other.
            mismatched = (matching_labels == 0).unsqueeze(-1)  # (B, 1)
            labels = None if labels is None else labels.masked_fill(mismatched, -100)
            region_labels = None if region_labels is None else region_labels.masked_fill(mismatched, -100)
        if labels is not None:
            summed = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            masked_lm_loss = summed / (labels != -100).sum().clamp(min=1)
        if region_labels is not None:
            summed = F.cross_entropy(region_logits.flatten(0, 1), region_labels.flatten(), reduction="sum")
            masked_region_loss = summed / (region_labels != -100).sum().clamp(min=1)
        losses = [x for x in (masked_lm_loss, masked_region_loss, matching_loss) if x is not None]
        return UnicoderVLOutput(
            loss=torch.stack(losses).sum() if losses else None,
            masked_lm_loss=masked_lm_loss,
            masked_region_loss=masked_region_loss,
            matching_loss=matching_loss,
            logits=logits,
            region_logits=region_logits,
            matching_logits=matching_logits,
            last_hidden_state=hidden_states[-1],
            hidden_states=hidden_states,
        )

    def dummy_inputs(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A matching and a mismatched sample with all labels.

        In each, two words are masked (by the last word's id) and two regions hidden.
        """
        config, dtype = self.config, self.word_bias.dtype
        size = (2, DUMMY_TOKENS)
        words = torch.randint(config.vocab_size - 1, size, generator=generator)  # (2, 12)
        masked_words = torch.rand(size, generator=generator).argsort(-1) < 2  # two of them in each row
        masked_regions = torch.rand(2, DUMMY_REGIONS, generator=generator).argsort(-1) < 2  # (2, 6)
        classes = torch.randint(config.num_region_classes, (2, DUMMY_REGIONS), generator=generator)
        first, second = torch.rand(2, 2, DUMMY_REGIONS, 2, generator=generator, dtype=dtype)  # two corners
        features = torch.randn(2, DUMMY_REGIONS, config.region_feature_size, generator=generator, dtype=dtype)
        inputs = {
            "input_ids": words.masked_fill(masked_words, config.vocab_size - 1),
            "attention_mask": torch.ones_like(words),
            "region_features": features,
            "region_boxes": torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1),
            "region_mask": torch.ones(2, DUMMY_REGIONS, dtype=torch.long),
            "masked_regions": masked_regions,
            "labels": words.masked_fill(~masked_words, -100),
            "region_labels": classes.masked_fill(~masked_regions, -100),
            "matching_labels": torch.tensor([1, 0]),
        }
        return {name: tensor.to(self.word_bias.device) for name, tensor in inputs.items()}
