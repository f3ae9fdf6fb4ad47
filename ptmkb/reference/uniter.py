"""UNITER: one encoder over words and image regions, with four pre-training tasks and conditional masking.

Chen et al. 2019/2020, "UNITER: UNiversal Image-TExt Representation Learning" (arXiv 1909.11740, ECCV 2020).
Words and regions are embedded apart and form one sequence for a BERT encoder. Beside masked words, masked
regions (in three variants) and image-text matching, it aligns words with regions by optimal transport.
Masking is conditional: a sample hides words or regions, never both, so that what is hidden can be read off
the other modality (section 3.1).

Where the paper leaves room, this file follows the authors' code (`ChenRocks/UNITER`, `model/` and
`pretrain.py`): the heads, BERT's pooler before image-text matching, the number of iterations and the weight
of the alignment, and that the distance of a mismatched pair counts with a minus sign. The code's extra layer
norms around the two projections of a region and the vector it learns for hidden features are no part of the
paper's description and are left out.

Shapes: B samples, T tokens, R regions, S = T + R elements (words first), D the width, F the width of a
region's feature, C object classes, V words.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptmkb.reference.blocks import TransformerEncoder, init_bert_weights, padding_mask

BOX_SIZE = 7  # x1, y1, x2, y2, w, h and w·h as fractions of width, height and area (section 3.1, footnote 3)
TEXT, IMAGE = range(2)  # rows of the modality embedding (section 3.1, footnote 5)
IPOT_ITERATIONS = 50
IPOT_STEP = 0.5  # β of equation 6
LAYER_NORM_EPS = 1e-12
DUMMY_TOKENS, DUMMY_REGIONS = 12, 6


@dataclass(frozen=True)
class UNITERConfig:
    """Sizes of UNITER; the defaults are UNITER-base (section 4, footnote 12).

    `alignment_weight` is the weight of word-region alignment in the loss (`itm_ot_lambda` in the authors'
    configurations).
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    feed_forward_size: int = 3072
    max_positions: int = 512
    region_feature_size: int = 2048
    num_region_classes: int = 1601
    alignment_weight: float = 0.1
    dropout: float = 0.1

    @classmethod
    def large(cls) -> "UNITERConfig":
        """UNITER-large (section 4, footnote 12)."""
        return cls(hidden_size=1024, num_layers=24, num_heads=16, feed_forward_size=4096)

    @classmethod
    def tiny(cls) -> "UNITERConfig":
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
class UNITEROutput:
    """What a forward pass gives; losses and the plan are None where their labels were left out.

    Attributes:
        loss: sum of the losses below, word-region alignment times its weight.
        masked_lm_loss: cross-entropy of the masked words (equation 1).
        masked_region_loss: sum of the variants of masked region modelling that were asked for (equation 4).
        region_feature_loss: variant 1, squared error of the features of hidden regions (MRFR).
        region_class_loss: variant 2, cross-entropy of the detector's likeliest class (MRC).
        region_kl_loss: variant 3, KL divergence to the detector's class distribution (MRC-kl).
        matching_loss: binary cross-entropy of image-text matching (equation 2).
        alignment_loss: transport distance of words and regions, mean over pairs, mismatched ones negative
            (equation 3).
        logits: (B, T, V), scores of words.
        region_logits: (B, R, C), scores of object classes.
        region_predictions: (B, R, F), regressed features.
        matching_logits: (B,), score that image and text belong together, before the sigmoid.
        transport_plan: (B, T, R), how much of each word is carried to each region.
        last_hidden_state: (B, S, D), words first.
        hidden_states: embeddings, then the result of every layer, each (B, S, D).
    """

    loss: Tensor | None
    masked_lm_loss: Tensor | None
    masked_region_loss: Tensor | None
    region_feature_loss: Tensor | None
    region_class_loss: Tensor | None
    region_kl_loss: Tensor | None
    matching_loss: Tensor | None
    alignment_loss: Tensor | None
    logits: Tensor
    region_logits: Tensor
    region_predictions: Tensor
    matching_logits: Tensor
    transport_plan: Tensor | None
    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]


def cosine_cost(words: Tensor, regions: Tensor) -> Tensor:
    """Cosine distance of every word to every region (section 3.2): (B, T, D), (B, R, D) -> (B, T, R)."""
    return 1 - F.normalize(words, dim=-1) @ F.normalize(regions, dim=-1).transpose(1, 2)


@torch.no_grad()
def transport_plan(cost: Tensor, word_mass: Tensor, region_mass: Tensor) -> Tensor:
    """Optimal transport from words to regions by inexact proximal points (IPOT; appendix A.7, algorithm 1).

    Each iteration takes one proximal step from the last plan (equation 6), solved by one scaling of columns
    and rows. The algorithm is written for any masses, of which the paper's 1/n and 1/m are a case; mass 0
    marks padding. The plan is a constant for gradients: they flow through the cost alone.

    Args:
        cost: (B, T, R).
        word_mass: (B, T), sums to 1 over T.
        region_mass: (B, R), sums to 1 over R.

    Returns:
        (B, T, R), not negative, its columns sum to `region_mass`, its rows nearly to `word_mass`.
    """
    kernel = torch.exp(-cost / IPOT_STEP)  # (B, T, R)
    present = word_mass.unsqueeze(2) * region_mass.unsqueeze(1) > 0  # (B, T, R)
    plan = present.to(cost.dtype)  # (B, T, R)
    of_regions = region_mass  # σ, (B, R)
    smallest = torch.finfo(cost.dtype).tiny  # keeps 0 / 0 of padding at 0
    for _ in range(IPOT_ITERATIONS):
        step = kernel * plan  # Q, (B, T, R)
        of_words = word_mass / (step @ of_regions.unsqueeze(2)).squeeze(2).clamp(min=smallest)  # δ, (B, T)
        of_regions = region_mass / (of_words.unsqueeze(1) @ step).squeeze(1).clamp(min=smallest)  # σ
        plan = of_words.unsqueeze(2) * step * of_regions.unsqueeze(1)
    return plan


class TextEmbedder(nn.Module):
    """Word, position and modality embedding, then a layer norm (section 3.1)."""

    def __init__(self, config: UNITERConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_positions, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor, modality: Tensor) -> Tensor:
        """(B, T) and (D,) -> (B, T, D)."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)  # (T,)
        embedded: Tensor = self.dropout(
            self.norm(self.words(input_ids) + self.positions(positions) + modality)
        )
        return embedded


class ImageEmbedder(nn.Module):
    """Projected feature, projected 7-d location and modality embedding, then a layer norm (section 3.1)."""

    def __init__(self, config: UNITERConfig) -> None:
        super().__init__()
        self.features = nn.Linear(config.region_feature_size, config.hidden_size)
        self.locations = nn.Linear(BOX_SIZE, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, region_features: Tensor, region_boxes: Tensor, modality: Tensor) -> Tensor:
        """(B, R, F), (B, R, 4) and (D,) -> (B, R, D)."""
        x1, y1, x2, y2 = region_boxes.unbind(-1)  # (B, R) each
        width, height = x2 - x1, y2 - y1
        location = torch.stack([x1, y1, x2, y2, width, height, width * height], dim=-1)  # (B, R, 7)
        embedded: Tensor = self.dropout(
            self.norm(self.features(region_features) + self.locations(location) + modality)
        )
        return embedded


class UNITER(nn.Module):
    """UNITER with its four tasks: masked words, masked regions, image-text matching, word-region alignment.

    In training each step draws one task (section 3.1): call with that task's labels only. Labels of several
    tasks given together are summed; keep the masking conditional, then, by hiding words in some samples and
    regions in others.
    """

    config_class = UNITERConfig

    def __init__(self, config: UNITERConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.modalities = nn.Embedding(2, size)
        self.text_embedder = TextEmbedder(config)
        self.image_embedder = ImageEmbedder(config)
        self.encoder = TransformerEncoder(
            config.num_layers,
            size,
            config.num_heads,
            config.feed_forward_size,
            config.dropout,
            config.dropout,
            layer_norm_eps=LAYER_NORM_EPS,
        )
        self.pooler = nn.Sequential(nn.Linear(size, size), nn.Tanh())
        # The scores of the words reuse the word embeddings as output matrix, as in BERT, and the regressed
        # features the projection that brought the features in.
        self.word_transform = nn.Sequential(
            nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size, eps=LAYER_NORM_EPS)
        )
        self.word_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.feature_transform = nn.Sequential(
            nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size, eps=LAYER_NORM_EPS)
        )
        self.feature_bias = nn.Parameter(torch.zeros(config.region_feature_size))
        self.region_classifier = nn.Sequential(
            nn.Linear(size, size),
            nn.GELU(),
            nn.LayerNorm(size, eps=LAYER_NORM_EPS),
            nn.Linear(size, config.num_region_classes),
        )
        self.matching_classifier = nn.Linear(size, 1)
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
        region_feature_targets: Tensor | None = None,
        region_labels: Tensor | None = None,
        region_targets: Tensor | None = None,
        matching_labels: Tensor | None = None,
    ) -> UNITEROutput:
        """Encode words and regions together; score words, regions and their match; align words and regions.

        Args:
            input_ids: (B, T), with [CLS] first and masked words already replaced.
            region_features: (B, R, F), pooled features of the detector.
            region_boxes: (B, R, 4), x1, y1, x2, y2 as fractions of the image's width and height.
            attention_mask: (B, T), 1 = attend.
            region_mask: (B, R), 1 = attend.
            masked_regions: (B, R), 1 = this region's feature is hidden, that is, replaced by zeros.
            labels: (B, T), the words to predict, -100 elsewhere.
            region_feature_targets: (B, R, F), the features to regress at the hidden regions;
                `region_features` in training.
            region_labels: (B, R), the detector's likeliest class at regions to predict, -100 elsewhere.
            region_targets: (B, R, C), the detector's class distribution at regions to predict, rows of zeros
                elsewhere.
            matching_labels: (B,), 1 = the text describes the image, 0 = it does not. Alignment is computed
                with these.
        """
        config = self.config
        batch_size, num_tokens = input_ids.shape
        num_regions = region_features.shape[1]
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if region_mask is None:
            region_mask = input_ids.new_ones(batch_size, num_regions)
        if masked_regions is None:
            masked_regions = torch.zeros_like(region_mask)
        hidden = masked_regions.bool()  # (B, R)

        words = self.text_embedder(input_ids, self.modalities.weight[TEXT])  # (B, T, D)
        visible = region_features.masked_fill(hidden.unsqueeze(-1), 0.0)  # (B, R, F)
        regions = self.image_embedder(visible, region_boxes, self.modalities.weight[IMAGE])  # (B, R, D)
        keys = padding_mask(torch.cat([attention_mask, region_mask], dim=1))  # (B, 1, 1, S)
        hidden_states = self.encoder(torch.cat([words, regions], dim=1), keys)  # of (B, S, D)
        words, regions = hidden_states[-1].split([num_tokens, num_regions], dim=1)

        logits = F.linear(self.word_transform(words), self.text_embedder.words.weight, self.word_bias)
        region_logits = self.region_classifier(regions)  # (B, R, C)
        region_predictions = F.linear(
            self.feature_transform(regions), self.image_embedder.features.weight.T, self.feature_bias
        )  # (B, R, F)
        matching_logits = self.matching_classifier(self.pooler(words[:, 0])).squeeze(-1)  # (B,), from [CLS]

        masked_lm_loss = region_feature_loss = region_class_loss = region_kl_loss = None
        matching_loss = alignment_loss = plan = None
        if labels is not None:
            summed = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            masked_lm_loss = summed / (labels != -100).sum().clamp(min=1)
        if region_feature_targets is not None:
            # The paper sums the squares over the F entries; the code's mean over them only rescales this.
            squares = (region_predictions - region_feature_targets).square().mean(-1)  # (B, R)
            region_feature_loss = (squares * hidden).sum() / hidden.sum().clamp(min=1)
        if region_labels is not None:
            summed = F.cross_entropy(region_logits.flatten(0, 1), region_labels.flatten(), reduction="sum")
            region_class_loss = summed / (region_labels != -100).sum().clamp(min=1)
        if region_targets is not None:
            divergence = F.kl_div(region_logits.log_softmax(-1), region_targets, reduction="none").sum(-1)
            region_kl_loss = divergence.sum() / region_targets.any(-1).sum().clamp(min=1)
        if matching_labels is not None:
            matching_loss = F.binary_cross_entropy_with_logits(
                matching_logits, matching_labels.to(matching_logits.dtype)
            )
            cost = cosine_cost(words, regions)  # (B, T, R)
            word_mass = attention_mask.to(cost.dtype) / attention_mask.sum(1, keepdim=True)  # (B, T)
            region_mass = region_mask.to(cost.dtype) / region_mask.sum(1, keepdim=True)  # (B, R)
            plan = transport_plan(cost, word_mass, region_mass)  # (B, T, R)
            distances = (plan * cost).sum((1, 2))  # (B,)
            alignment_loss = torch.where(matching_labels.bool(), distances, -distances).mean()

        variants = [x for x in (region_feature_loss, region_class_loss, region_kl_loss) if x is not None]
        masked_region_loss = torch.stack(variants).sum() if variants else None
        weighted_alignment = None if alignment_loss is None else config.alignment_weight * alignment_loss
        tasks = (masked_lm_loss, masked_region_loss, matching_loss, weighted_alignment)
        losses = [x for x in tasks if x is not None]
        return UNITEROutput(
            loss=torch.stack(losses).sum() if losses else None,
            masked_lm_loss=masked_lm_loss,
            masked_region_loss=masked_region_loss,
            region_feature_loss=region_feature_loss,
            region_class_loss=region_class_loss,
            region_kl_loss=region_kl_loss,
            matching_loss=matching_loss,
            alignment_loss=alignment_loss,
            logits=logits,
            region_logits=region_logits,
            region_predictions=region_predictions,
            matching_logits=matching_logits,
            transport_plan=plan,
            last_hidden_state=hidden_states[-1],
            hidden_states=hidden_states,
        )

    def dummy_inputs(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two matching samples with all labels, masked conditionally.

        The first has two words masked (by the last word's id), the second two regions hidden.
        """
        config, dtype = self.config, self.word_bias.dtype
        size, region_size = (2, DUMMY_TOKENS), (2, DUMMY_REGIONS)
        words = torch.randint(config.vocab_size - 1, size, generator=generator)  # (2, 12)
        masked_words = torch.rand(size, generator=generator).argsort(-1) < 2
        masked_words[1] = False
        masked_regions = torch.rand(region_size, generator=generator).argsort(-1) < 2  # (2, 6)
        masked_regions[0] = False
        scores = torch.randn(*region_size, config.num_region_classes, generator=generator, dtype=dtype)
        first, second = torch.rand(2, *region_size, 2, generator=generator, dtype=dtype)  # two corners
        features = torch.randn(*region_size, config.region_feature_size, generator=generator, dtype=dtype)
        inputs = {
            "input_ids": words.masked_fill(masked_words, config.vocab_size - 1),
            "attention_mask": torch.ones_like(words),
            "region_features": features,
            "region_boxes": torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1),
            "region_mask": torch.ones(region_size, dtype=torch.long),
            "masked_regions": masked_regions,
            "labels": words.masked_fill(~masked_words, -100),
            "region_feature_targets": features,
            "region_labels": scores.argmax(-1).masked_fill(~masked_regions, -100),
            "region_targets": scores.softmax(-1) * masked_regions.unsqueeze(-1),
            "matching_labels": torch.tensor([1, 1]),
        }
        return {name: tensor.to(self.word_bias.device) for name, tensor in inputs.items()}
