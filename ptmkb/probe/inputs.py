"""Makes the inputs that a model's forward pass wants, from its signature, its main input and its configuration.

Each argument that the field's models share (`input_ids`, `pixel_values`, `visual_feats`, …) has one maker here. A model gets the arguments
that it cannot do without, and everything that carries content; masks, positions and caches are left to their defaults.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe import samples
from ptmkb.probe.shrinking import FIRST_SPECIAL, RESERVED

TOKENS = 12
DECODER_TOKENS = 10
"""Not as many as go into the encoder, so that the two cannot be mixed up."""
REGIONS = 6
MEL_FRAMES = 24
CONTENT = (
    "input_ids", "character_ids", "pixel_values", "input_values", "input_features", "visual_feats", "visual_pos", "visual_embeds",
    "region_features", "region_boxes",
)  # fmt: skip
DECODER_CONTENT = ("decoder_input_ids", "decoder_input_values")
SETTINGS: Mapping[str, Any] = {"output_hidden_states": True, "use_cache": False}
"""Given to every model that takes them: all hidden states are wanted, and nothing may be remembered from one run to the next."""


@dataclass(frozen=True)
class Wanted:
    """What a maker may look at.

    Attributes:
        model: The model that the inputs are for.
        made: The inputs made so far.
    """

    model: nn.Module
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
    limit = min([FIRST_SPECIAL, *vocabularies])
    return tuple(i for i in range(min(RESERVED, limit // 2), limit) if i not in special)


def _tokens(count: int) -> Callable[[Wanted], Tensor]:
    return lambda wanted: samples.tokens(count, ordinary_words(wanted.model))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[-2]), int(value[-1]))


def _pixel_values(wanted: Wanted) -> Tensor:
    height, width = _pair(wanted.setting("image_size", default=64))
    return samples.images(wanted.setting("num_channels", "in_channels", default=3), height, width)


def _input_values(wanted: Wanted) -> Tensor:
    strides, kernels = wanted.setting("conv_stride"), wanted.setting("conv_kernel")
    if not strides:
        return samples.waveforms(16_000)
    length, reach, step = TOKENS, 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        reach, step = reach + (kernel - 1) * step, step * stride
    return samples.waveforms((length - 1) * step + reach, wanted.setting("sampling_rate", default=16_000))


def _input_features(wanted: Wanted) -> Tensor:
    frames = 2 * wanted.setting("max_source_positions", default=MEL_FRAMES // 2)
    return samples.spectrograms(wanted.setting("num_mel_bins", "feature_size", default=80), frames)


_MAKERS: Mapping[str, Callable[[Wanted], Any]] = {
    "input_ids": _tokens(TOKENS),
    "decoder_input_ids": _tokens(DECODER_TOKENS),
    "attention_mask": lambda wanted: torch.ones(samples.BATCH, TOKENS, dtype=torch.long),
    "visual_attention_mask": lambda wanted: torch.ones(samples.BATCH, REGIONS, dtype=torch.long),
    "pixel_values": _pixel_values,
    "input_values": _input_values,
    "input_features": _input_features,
    "decoder_input_values": lambda wanted: samples.spectrograms(
        wanted.setting("num_mel_bins", default=80), DECODER_TOKENS
    ),
    "visual_feats": lambda wanted: samples.vectors(REGIONS, wanted.setting("visual_feat_dim")),
    "visual_pos": lambda wanted: samples.boxes(REGIONS, wanted.setting("visual_pos_dim", default=4)),
    "visual_embeds": lambda wanted: samples.vectors(REGIONS, wanted.setting("visual_embedding_dim")),
}


def sample_inputs(
    model: nn.Module, extra: Mapping[str, Any] | None = None, transposed: Sequence[str] = ()
) -> dict[str, Any]:
    """Inputs of a forward pass, without labels; a batch of 2, on the CPU (for a model on `meta` too: see `meta`).

    Args:
        model: A model of `transformers`.
        extra: What the signature does not tell: names of further arguments (value None: made as usual), or shapes in numbers and names
            of configuration fields.
        transposed: Arguments whose last two axes are the other way round in this model.

    Raises:
        ValueError: The model cannot do without an argument that nothing here knows how to make.
    """
    signature = inspect.signature(model.forward).parameters
    named = {n: p for n, p in signature.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    main = getattr(model, "main_input_name", "input_ids")
    wanted = Wanted(model)
    demanded = [name for name, parameter in named.items() if parameter.default is parameter.empty]
    content = [name for name in CONTENT if name in named]
    if main in content and "pixel_values" in content and not _sees(model):
        content.remove("pixel_values")
    if any(name in named for name in DECODER_CONTENT) and getattr(model.config, "is_encoder_decoder", False):
        content += [name for name in DECODER_CONTENT if name in named]
    extra = dict(extra or {})
    for name in dict.fromkeys([*content, *demanded, *extra]):
        if (shape := extra.get(name)) is not None:
            sizes = [getattr(model.config, size) if isinstance(size, str) else size for size in shape]
            wanted.made[name] = samples.vectors(*sizes)
        elif name in _MAKERS:
            wanted.made[name] = _MAKERS[name](wanted)
        else:
            raise ValueError(
                f"{type(model).__name__} wants `{name}`, which has no maker in ptmkb/probe/inputs.py"
            )
    for name in transposed:
        wanted.made[name] = wanted.made[name].transpose(-1, -2).contiguous()
    return wanted.made | {
        name: value
        for name, value in SETTINGS.items()
        if name in named or (takes_any and name == "output_hidden_states")
    }


def _sees(model: nn.Module) -> bool:
    return any(getattr(config, "image_size", None) is not None for config in configurations(model.config))


def frame_length(total: int, positions: int, strides: list[int] | tuple[int, ...] | None) -> int:
    """How many samples, frames or columns of an input belong to one position of the output."""
    return math.prod(strides) if strides and math.prod(strides) * positions <= total else total // positions
