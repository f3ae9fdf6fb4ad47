"""VL-BERT: one encoder in which every element, word or region, carries a word and a visual embedding.

Su et al. 2019, "VL-BERT: Pre-training of Generic Visual-Linguistic Representations" (arXiv 1908.08530, ICLR
2020). An element is the sum of four embeddings: token, visual feature, segment and sequence position. Regions
have the token [IMG]; words have the visual feature of the whole image. It is trained to predict masked words
and the classes of masked regions, and not to tell whether image and text match.

Where the paper leaves room, this file follows the authors' code (`jackroos/VL-BERT`, configuration
`base_prec_4x16G_fp32.yaml`): the wavelengths of the geometry embedding, the heads, and the vectors learned
for a masked region, which stand in for blanking its pixels when features come precomputed. The code describes
a box by centre and size, the paper by two corners, as here. The code's way to ease pre-trained BERT weights
in, a dropout, ReLU and layer norm with weights begun at zero around the visual embedding, is no part of the
paper's description and is left out; so is the image network in front, whose features are inputs here.

Shapes: B samples, T tokens, R regions, S = T + R + 1 elements (words, regions, [END]), D the width, F the
width of an appearance feature, G of a geometry embedding, C region classes, V words.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptmkb.reference.blocks import TransformerEncoder, init_bert_weights, padding_mask

IMG, END, MASKED_REGION = range(3)  # rows of the tokens that BERT's vocabulary does not have
IMAGE_SEGMENT = 2  # segment C; A = 0 and B = 1 are for the first and second sentence
WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)  # the box of elements that are no region
COORDINATE_SCALE = 100.0  # coordinates are percentages when their sines are taken
WAVELENGTH_BASE = 1000.0  # wavelengths grow from 2π, in percent, towards 2π times this
LAYER_NORM_EPS = 1e-12
DUMMY_TOKENS, DUMMY_REGIONS = 12, 6


@dataclass(frozen=True)
class VLBERTConfig:
    """Sizes of VL-BERT; the defaults are the base model (the authors' configuration)."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    feed_forward_size: int = 3072
    max_positions: int = 512
    type_vocab_size: int = 3
    region_feature_size: int = 2048
    geometry_size: int = 2048
    num_region_classes: int = 1601
    dropout: float = 0.1

    @classmethod
    def large(cls) -> "VLBERTConfig":
        """The large model (`large_prec_4x16G_fp16.yaml`)."""
        return cls(hidden_size=1024, num_layers=24, num_heads=16, feed_forward_size=4096)

    @classmethod
    def tiny(cls) -> "VLBERTConfig":
        """A working model of fewer than 200k parameters."""
        return cls(
            vocab_size=99,
            hidden_size=32,
            num_layers=3,
            num_heads=4,
            feed_forward_size=64,
            max_positions=32,
            region_feature_size=20,
            geometry_size=16,
            num_region_classes=11,
        )


@dataclass
class VLBERTOutput:
    """What a forward pass gives; losses are None where their labels were left out.

    Attributes:
        loss: masked_lm_loss + masked_region_loss.
        masked_lm_loss: cross-entropy of the masked words (task 1, with visual clues).
        masked_region_loss: cross-entropy of the masked regions' classes (task 2, with linguistic clues).
        logits: (B, T, V), scores of words.
        region_logits: (B, R, C), scores of the detector's classes.
        last_hidden_state: (B, S, D): words, regions, [END].
        hidden_states: embeddings, then the result of every layer, each (B, S, D).
    """

    loss: Tensor | None
    masked_lm_loss: Tensor | None
    masked_region_loss: Tensor | None
    logits: Tensor
    region_logits: Tensor
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]


def geometry_embedding(boxes: Tensor, geometry_size: int) -> Tensor:
    """Sines and cosines of a box's four coordinates at growing wavelengths ("visual geometry embedding").

    Args:
        boxes: (..., 4), x and y of the top-left and of the bottom-right corner over the image's width and
            height.
        geometry_size: G, a multiple of 8: each coordinate gets G / 8 sines and as many cosines.

    Returns:
        (..., G).
    """
    num_waves = geometry_size // 8
    steps = torch.arange(num_waves, dtype=boxes.dtype, device=boxes.device) / num_waves
    angles = COORDINATE_SCALE * boxes.unsqueeze(-1) / WAVELENGTH_BASE**steps  # (..., 4, waves)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class VisualLinguisticEmbedding(nn.Module):
    """The sum of token, visual feature, segment and sequence position embeddings, for every element."""

    def __init__(self, config: VLBERTConfig) -> None:
        super().__init__()
        self.geometry_size = config.geometry_size
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.special_tokens = nn.Embedding(
            3, config.hidden_size
        )  # [IMG], [END] and the token of masked regions
        self.masked_feature = nn.Parameter(torch.zeros(config.region_feature_size))
        self.visual_feature = nn.Linear(config.region_feature_size + config.geometry_size, config.hidden_size)
        self.segments = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_positions, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        text_lengths: Tensor,
        region_features: Tensor,
        region_boxes: Tensor,
        image_features: Tensor,
        masked_regions: Tensor,
    ) -> Tensor:
        """(B, T) twice, (B,), (B, R, F), (B, R, 4), (B, F) and (B, R) -> (B, S, D)."""
        batch_size, num_tokens = input_ids.shape
        num_regions = region_features.shape[1]

        region_tokens = torch.where(masked_regions, MASKED_REGION, IMG)  # (B, R)
        end_tokens = torch.full_like(region_tokens[:, :1], END)  # (B, 1)
        special = self.special_tokens(torch.cat([region_tokens, end_tokens], dim=1))  # (B, R + 1, D)
        tokens = torch.cat([self.words(input_ids), special], dim=1)  # (B, S, D)

        hidden = masked_regions.unsqueeze(-1)  # (B, R, 1)
        appearance = torch.where(hidden, self.masked_feature, region_features)  # (B, R, F)
        of_regions = self._visual(appearance, region_boxes)  # (B, R, D)
        image_box = region_boxes.new_tensor(WHOLE_IMAGE).expand(batch_size, 4)
        of_image = self._visual(image_features, image_box).unsqueeze(1)  # (B, 1, D)
        visual = torch.cat([of_image.expand(-1, num_tokens, -1), of_regions, of_image], dim=1)  # (B, S, D)

        image_segments = token_type_ids.new_full((batch_size, num_regions + 1), IMAGE_SEGMENT)
        segments = self.segments(torch.cat([token_type_ids, image_segments], dim=1))  # (B, S, D)

        # Regions have no order: all share the position after the text, and [END] has the next one.
        word_positions = torch.arange(num_tokens, device=input_ids.device).expand(batch_size, -1)
        after_text = text_lengths.unsqueeze(1)  # (B, 1)
        places = torch.cat([word_positions, after_text.expand(-1, num_regions), after_text + 1], dim=1)
        positions = self.positions(places)  # (B, S, D)

        embedded: Tensor = self.dropout(self.norm(tokens + visual + segments + positions))
        return embedded

    def _visual(self, appearance: Tensor, boxes: Tensor) -> Tensor:
        """(..., F) and (..., 4) -> (..., D): one layer over appearance and geometry, side by side."""
        geometry = geometry_embedding(boxes, self.geometry_size)  # (..., G)
        projected: Tensor = self.visual_feature(torch.cat([geometry, appearance], dim=-1))
        return projected


class VLBERT(nn.Module):
    """VL-BERT with its two tasks on image-text pairs ("Pre-training VL-BERT", tasks 1 and 2)."""

    config_class = VLBERTConfig

    def __init__(self, config: VLBERTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = VisualLinguisticEmbedding(config)
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
        self.region_classifier = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.num_region_classes),
        )
        init_bert_weights(self)

    def forward(
        self,
        input_ids: Tensor,
        region_features: Tensor,
        region_boxes: Tensor,
        image_features: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        region_mask: Tensor | None = None,
        masked_regions: Tensor | None = None,
        labels: Tensor | None = None,
        region_labels: Tensor | None = None,
    ) -> VLBERTOutput:
        """Encode words and regions together and score words and region classes.

        Args:
            input_ids: (B, T), with [CLS] first, [SEP] last and masked words already replaced.
            region_features: (B, R, F), appearance features of the regions.
            region_boxes: (B, R, 4), x1, y1, x2, y2 as fractions of the image's width and height.
            image_features: (B, F), appearance feature of the whole image, which all words share.
            token_type_ids: (B, T), 0 = first sentence (A), 1 = second (B); all 0 if left out.
            attention_mask: (B, T), 1 = attend; padding comes last.
            region_mask: (B, R), 1 = attend.
            masked_regions: (B, R), 1 = this region's appearance and token are hidden.
            labels: (B, T), the words to predict, -100 elsewhere.
            region_labels: (B, R), the detector's class at regions to predict, -100 elsewhere.
        """
        batch_size, num_tokens = input_ids.shape
        num_regions = region_features.shape[1]
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if region_mask is None:
            region_mask = input_ids.new_ones(batch_size, num_regions)
        if masked_regions is None:
            masked_regions = torch.zeros_like(region_mask)

        embedded = self.embedding(
            input_ids,
            token_type_ids,
            attention_mask.sum(1),
            region_features,
            region_boxes,
            image_features,
            masked_regions.bool(),
        )  # (B, S, D)
        present = torch.cat([attention_mask, F.pad(region_mask, (0, 1), value=1)], dim=1)  # (B, S)
        hidden_states = self.encoder(embedded, padding_mask(present))  # of (B, S, D)
        words, regions, _ = hidden_states[-1].split([num_tokens, num_regions, 1], dim=1)

        logits = F.linear(
            self.word_transform(words), self.embedding.words.weight, self.word_bias
        )  # (B, T, V)
        region_logits = self.region_classifier(regions)  # (B, R, C)

        masked_lm_loss = masked_region_loss = None
        if labels is not None:
            summed = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            masked_lm_loss = summed / (labels != -100).sum().clamp(min=1)
        if region_labels is not None:
            summed = F.cross_entropy(region_logits.flatten(0, 1), region_labels.flatten(), reduction="sum")
            masked_region_loss = summed / (region_labels != -100).sum().clamp(min=1)
        losses = [x for x in (masked_lm_loss, masked_region_loss) if x is not None]
        return VLBERTOutput(
            loss=torch.stack(losses).sum() if losses else None,
            masked_lm_loss=masked_lm_loss,
            masked_region_loss=masked_region_loss,
            logits=logits,
            region_logits=region_logits,
            last_hidden_state=hidden_states[-1],
            hidden_states=hidden_states,
        )

    def dummy_inputs(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two samples with all labels; each masks two words (by the last word's id) and hides two regions."""
        config, dtype = self.config, self.word_bias.dtype
        size = (2, DUMMY_TOKENS)
        words = torch.randint(config.vocab_size - 1, size, generator=generator)  # (2, 12)
        masked_words = torch.rand(size, generator=generator).argsort(-1) < 2  # two of them in each row
        masked_regions = torch.rand(2, DUMMY_REGIONS, generator=generator).argsort(-1) < 2  # (2, 6)
        classes = torch.randint(config.num_region_classes, (2, DUMMY_REGIONS), generator=generator)
        first, second = torch.rand(2, 2, DUMMY_REGIONS, 2, generator=generator, dtype=dtype)  # two corners
        features = torch.randn(
            2, DUMMY_REGIONS + 1, config.region_feature_size, generator=generator, dtype=dtype
        )
        inputs = {
            "input_ids": words.masked_fill(masked_words, config.vocab_size - 1),
            "token_type_ids": torch.zeros_like(words),
            "attention_mask": torch.ones_like(words),
            "region_features": features[:, 1:],
            "region_boxes": torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1),
            "image_features": features[:, 0],
            "region_mask": torch.ones(2, DUMMY_REGIONS, dtype=torch.long),
            "masked_regions": masked_regions,
            "labels": words.masked_fill(~masked_words, -100),
            "region_labels": classes.masked_fill(~masked_regions, -100),
        }
        return {name: tensor.to(self.word_bias.device) for name, tensor in inputs.items()}
