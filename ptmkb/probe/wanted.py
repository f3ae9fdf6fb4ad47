"""What the makers of inputs look at: a model's configurations and the words that they leave for ordinary use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ptmkb.probe.shrinking import FIRST_SPECIAL, RESERVED

CONTENT = (
    "input_ids", "character_ids", "pixel_values", "pixel_values_videos", "input_values", "input_features", "visual_feats", "visual_pos",
    "visual_embeds", "region_features", "region_boxes", "past_values",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What a maker may look at.

    Attributes:
        model: The model that the inputs are for.
        names: The arguments that its forward pass has.
        made: The inputs made so far.
    """

    model: nn.Module
    names: tuple[str, ...] = ()
    made: dict[str, Any] = field(default_factory=dict)

    def setting(self, *names: str, default: Any = None) -> Any:
        """The first of these configuration fields that is there, nested configurations included."""
        for config in configurations(self.model.config):
            for name in names:
                if (value := getattr(config, name, None)) is not None and not isinstance(value, property):
                    return value
        return default


def configurations(config: Any) -> list[Any]:
    """A configuration and those nested in it, outermost first."""
    nested = [
        value for value in vars(config).values() if hasattr(value, "model_type") and hasattr(value, "to_dict")
    ]
    return [config, *(inner for value in nested for inner in configurations(value))]


def ordinary_words(model: nn.Module) -> tuple[int, ...]:
    """Ids of words without a special meaning: neither the first few, nor padding and the like, nor out of the vocabulary."""
    vocabularies: list[int] = []
    special: set[Any] = set()
    for config in configurations(model.config):
        if isinstance(size := getattr(config, "vocab_size", None), int):
            vocabularies.append(size)
        for name, value in vars(config).items():
            if name.endswith(("token_id", "token_index", "token_ids")):
                special.update(value if isinstance(value, list | tuple) else [value])
            if name == "vocabulary_map" and isinstance(
                value, dict
            ):  # names of words that stand for pieces of a picture
                special.update(value.values())
    limit = min([FIRST_SPECIAL, *vocabularies])
    return tuple(i for i in range(min(RESERVED, limit // 2), limit) if i not in special)
