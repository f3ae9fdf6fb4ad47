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
GRID = 4
"""Rows and columns of patches, where a model wants patches rather than pictures."""
MEL_FRAMES = 24
FRAMES = 2
"""Pictures of a video, unless its configuration says how many."""
CONTENT = (
    "input_ids", "character_ids", "pixel_values", "pixel_values_videos", "input_values", "input_features", "visual_feats", "visual_pos",
    "visual_embeds", "region_features", "region_boxes", "past_values",
)  # fmt: skip
COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "pixel_values": ("high_res_pixel_values", "image_grid_thw", "image_sizes", "target_sizes"),
    "input_features": ("input_features_mask", "feature_attention_mask"),
    "past_values": ("past_time_features", "past_observed_mask"),
}
"""What a model that takes it wants to know beside an argument, even where its signature calls it optional."""
DECODER_CONTENT = ("decoder_input_ids", "decoder_input_values")
SETTINGS: Mapping[str, Any] = {"output_hidden_states": True, "use_cache": False}
"""Given to every model that takes them: all hidden states are wanted, and nothing may be remembered from one run to the next."""


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
    limit = min([FIRST_SPECIAL, *vocabularies])
    return tuple(i for i in range(min(RESERVED, limit // 2), limit) if i not in special)


def _tokens(count: int) -> Callable[[Wanted], Tensor]:
    return lambda wanted: samples.tokens(count, ordinary_words(wanted.model))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[-2]), int(value[-1]))


def _pixel_values(wanted: Wanted) -> Tensor:
    """Pictures, or their patches in one row where the model wants grids beside them."""
    if any(name in wanted.names for name in ("image_grid_thw", "grid_thw")):
        return _patches(wanted)
    height, width = _pair(wanted.setting("image_size", default=64))
    pictures = samples.images(_colours(wanted), height, width)
    if (frames := wanted.setting("num_frames")) is None:
        return pictures
    return _video(pictures, frames)


def _high_resolution(wanted: Wanted) -> Tensor:
    """The same pictures for the second, finer tower."""
    sizes = [getattr(config, "image_size", None) for config in configurations(wanted.model.config)]
    height, width = max(_pair(size) for size in sizes if size is not None)
    return samples.images(_colours(wanted), height, width)


def _videos(wanted: Wanted) -> Tensor:
    height, width = _pair(wanted.setting("image_size", "crop_size", default=64))
    frames = wanted.setting("num_frames", "frames_per_clip", default=FRAMES)
    return _video(samples.images(_colours(wanted), height, width), frames)


def _video(pictures: Tensor, frames: int) -> Tensor:
    """The picture moves to the right, two columns a frame: (batch, frames, channels, height, width)."""
    return torch.stack([pictures.roll(2 * frame, dims=-1) for frame in range(frames)], dim=1)


def _colours(wanted: Wanted) -> int:
    first = next((m for m in wanted.model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)), None)
    declared: int = wanted.setting("num_channels", default=3)
    return first.in_channels if first is not None and first.in_channels in (1, 3) else declared


def _patches(wanted: Wanted) -> Tensor:
    """(patches of both samples, channels × time × height × width of a patch)."""
    height, width = _pair(wanted.setting("patch_size", default=4))
    time = wanted.setting("temporal_patch_size", "patch_temporal", default=1)
    channels = wanted.setting("in_channels", "num_channels", default=3)
    return samples.vectors(GRID * GRID, channels * time * height * width).flatten(0, 1)


def _grids(wanted: Wanted) -> Tensor:
    return torch.tensor([[1, GRID, GRID]] * samples.BATCH)


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
    bins = _bins(wanted)
    mel = samples.spectrograms(bins, frames)
    first = next((m for m in wanted.model.modules() if _takes(m) == bins), None)
    return mel.transpose(1, 2).contiguous() if isinstance(first, nn.Conv1d) else mel


def _takes(module: nn.Module) -> int | None:
    """How many features a layer wants of each position."""
    if isinstance(module, nn.Conv1d):
        return module.in_channels
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1]
    return module.in_features if isinstance(module, nn.Linear) else None


def _bins(wanted: Wanted) -> int:
    return int(
        wanted.setting(
            "num_mel_bins",
            "n_mels",
            "feature_projection_input_dim",
            "input_feat_size",
            "input_feat_per_channel",
            "feature_size",
            "input_dim",
            default=80,
        )
    )


def _frame_mask(wanted: Wanted) -> Tensor:
    """No frame is padding."""
    features: Tensor = wanted.made["input_features"]
    frames = features.shape[1] if features.shape[-1] == _bins(wanted) else features.shape[-1]
    return torch.ones(samples.BATCH, frames, dtype=torch.long)


def _sound_mask(wanted: Wanted) -> Tensor:
    """No sample, or where sounds come as features no frame, is padding."""
    if "input_values" not in wanted.made:
        return _frame_mask(wanted)
    return torch.ones(samples.BATCH, wanted.made["input_values"].shape[-1], dtype=torch.long)


def _picture_sizes(wanted: Wanted) -> Tensor:
    return torch.tensor([list(wanted.made["pixel_values"].shape[-2:])] * samples.BATCH)


def _picture_mask(wanted: Wanted) -> Tensor:
    """No pixel is padding."""
    shape = wanted.made["pixel_values"].shape
    return torch.ones(*shape[:-3], *shape[-2:], dtype=torch.long)


def _series_length(wanted: Wanted) -> int:
    """The context, and before it what the model looks back from its beginning."""
    length: int = wanted.setting("context_length", "context_len", default=wanted.setting("prediction_length"))
    return length + max(wanted.setting("lags_sequence", default=[0]))


def _series(wanted: Wanted) -> Tensor:
    """(batch, time), and where the model takes several series at once a last axis for these."""
    channels = wanted.setting("num_input_channels", "input_size", default=1)
    values = samples.vectors(_series_length(wanted), channels)
    return values if hasattr(wanted.model.config, "num_input_channels") or channels > 1 else values[..., 0]


_MAKERS: Mapping[str, Callable[[Wanted], Any]] = {
    "input_ids": _tokens(TOKENS),
    "decoder_input_ids": _tokens(DECODER_TOKENS),
    "attention_mask": lambda wanted: torch.ones(samples.BATCH, TOKENS, dtype=torch.long),
    "visual_attention_mask": lambda wanted: torch.ones(samples.BATCH, REGIONS, dtype=torch.long),
    "pixel_values": _pixel_values,
    "pixel_values_videos": _videos,
    "high_res_pixel_values": _high_resolution,
    "pixel_attention_mask": _picture_mask,
    "pixel_mask": _picture_mask,
    "image_sizes": _picture_sizes,
    "target_sizes": _picture_sizes,
    "input_values": _input_values,
    "input_features_mask": _frame_mask,
    "padding_mask": _sound_mask,
    "feature_attention_mask": _frame_mask,
    "past_values": _series,
    "past_time_features": lambda wanted: samples.vectors(
        _series_length(wanted), wanted.setting("num_time_features")
    ),
    "past_observed_mask": lambda wanted: torch.ones_like(wanted.made["past_values"]),
    "input_features": _input_features,
    "image_grid_thw": _grids,
    "grid_thw": _grids,
    "hidden_states": _patches,
    "bbox": lambda wanted: (1000 * samples.boxes(TOKENS)).long(),
    "decoder_input_values": lambda wanted: samples.spectrograms(
        wanted.setting("num_mel_bins", default=80), DECODER_TOKENS
    ),
    "visual_feats": lambda wanted: samples.vectors(REGIONS, wanted.setting("visual_feat_dim")),
    "visual_pos": lambda wanted: samples.boxes(REGIONS, wanted.setting("visual_pos_dim", default=4)),
    "visual_embeds": lambda wanted: samples.vectors(REGIONS, wanted.setting("visual_embedding_dim")),
}


MADE_LAST = ("mm_token_type_ids",)
"""Known only when the placeholders are in the text."""
_MEDIA: tuple[tuple[tuple[str, ...], str, int], ...] = (
    # The fields that name the placeholder, the method that makes what takes its place, and the type of such a token.
    (("image_token_id", "image_token_index"), "get_image_features", 1),
    (("video_token_id", "video_token_index"), "get_video_features", 2),
    (("audio_token_id", "audio_token_index"), "get_audio_features", 3),
)


def with_placeholders(
    model: nn.Module, made: Mapping[str, Any], named: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
    """The inputs, the text now with as many placeholders for pictures and sounds before its last words as the model makes of them.

    Args:
        model: The model.
        made: Its inputs, the text without placeholders.
        named: The arguments of its forward pass.
    """
    inputs = dict(made)
    tokens: Tensor = inputs["input_ids"]
    for tokens_of, method, _ in _MEDIA:
        token = Wanted(model).setting(*tokens_of)
        features = next((found for m in model.modules() if (found := getattr(m, method, None))), None)
        if not isinstance(token, int) or features is None:
            continue
        wants = inspect.signature(features).parameters
        given = {name: tokens if name == "input_ids" else made[name] for name in wants if name in made}
        if not any(name in CONTENT for name in given):
            continue
        with torch.no_grad():
            found = features(**given)
        pooled = getattr(found, "pooler_output", None)
        found = getattr(found, "last_hidden_state", found) if pooled is None else pooled
        pieces = [found] if isinstance(found, Tensor) else [p for p in found if isinstance(p, Tensor)]
        count = sum(piece.numel() // piece.shape[-1] for piece in pieces) // samples.BATCH
        held = torch.full((samples.BATCH, count), token)
        tokens = torch.cat([tokens[:, :2], held, tokens[:, 2:]], dim=1)
    inputs["input_ids"] = tokens
    if "mm_token_type_ids" in named:
        types = torch.zeros_like(tokens)
        for tokens_of, _, kind in _MEDIA:
            if isinstance(token := Wanted(model).setting(*tokens_of), int):
                types[tokens == token] = kind
        inputs["mm_token_type_ids"] = types
    if isinstance(mask := inputs.get("attention_mask"), Tensor) and mask.shape != tokens.shape:
        inputs["attention_mask"] = torch.ones_like(tokens)
    return inputs


def sample_inputs(
    model: nn.Module,
    extra: Mapping[str, Any] | None = None,
    transposed: Sequence[str] = (),
    unsqueezed: Sequence[str] = (),
) -> dict[str, Any]:
    """Inputs of a forward pass, without labels; a batch of 2, on the CPU (for a model on `meta` too: see `meta`).

    Args:
        model: A model of `transformers`.
        extra: What the signature does not tell: names of further arguments (value None: made as usual; else see `described`).
        transposed: Arguments whose last two axes are the other way round in this model.
        unsqueezed: Arguments that want one more axis after the batch (one of several pictures, the only channel).

    Raises:
        ValueError: The model cannot do without an argument that nothing here knows how to make.
    """
    signature = inspect.signature(model.forward).parameters
    named = {n: p for n, p in signature.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    main = getattr(model, "main_input_name", "input_ids")
    wanted = Wanted(model, tuple(named))
    demanded = [name for name, parameter in named.items() if parameter.default is parameter.empty]
    content = [name for name in CONTENT if name in named]
    if main in content and not main.startswith("pixel_values") and not _sees(model):
        content = [name for name in content if not name.startswith("pixel_values")]
    for tower, prefix in (("vision_config", "pixel_"), ("audio_config", "input_features")):
        if vars(model.config).get(tower, ...) is None:
            content = [name for name in content if not name.startswith(prefix)]
    if "pixel_values" in content and "pixel_values_videos" in content:
        content.remove("pixel_values_videos")  # a picture stands for both
    if any(name in named for name in DECODER_CONTENT) and getattr(model.config, "is_encoder_decoder", False):
        content += [name for name in DECODER_CONTENT if name in named]
    content += [name for of in content for name in COMPANIONS.get(of, ()) if name in named]
    extra = dict(extra or {})
    for name in dict.fromkeys([*content, *demanded, *extra]):
        if (how := extra.get(name)) is not None:
            wanted.made[name] = described(how, wanted)
        elif name in _MAKERS:
            wanted.made[name] = _MAKERS[name](wanted)
        elif name not in MADE_LAST:
            raise ValueError(
                f"{type(model).__name__} wants `{name}`, which has no maker in ptmkb/probe/inputs.py"
            )
    for name in transposed:
        wanted.made[name] = wanted.made[name].transpose(-1, -2).contiguous()
    for name in set(unsqueezed) & set(wanted.made):
        wanted.made[name] = wanted.made[name].unsqueeze(1)
    made = {name: value for name, value in wanted.made.items() if value is not None}
    if "input_ids" in made and "input_ids" not in extra:
        made = with_placeholders(model, made, named)
    return made | {
        name: value
        for name, value in SETTINGS.items()
        if name in named or (takes_any and name == "output_hidden_states")
    }


def described(how: Any, wanted: Wanted) -> Any:
    """An argument made as `data/subjects.yaml` says.

    Args:
        how: A list: the sizes of vectors (without the batch) in numbers and names of configuration fields. A mapping of one kind to its
            whole shape: `ones`, `zeros`, `yes`, `no`, `some` (every third), `words`, `waves` (real numbers), `images`, `steps` (0, 1,
            2, … along the last axis), `places` (row and column of each cell of a grid). Of `value` to the value itself. `none`: the
            argument is left out.
        wanted: What a maker may look at.
    """
    if how == "none":
        return None
    if isinstance(how, list):
        return samples.vectors(*_sizes(how, wanted))
    ((kind, what),) = how.items()
    if kind == "value":
        return torch.tensor(what) if isinstance(what, list) else what
    shape = _sizes(what, wanted)
    if kind in ("ones", "zeros"):
        return torch.full(shape, int(kind == "ones"))
    if kind in ("yes", "no"):
        return torch.full(shape, kind == "yes")
    if kind == "some":
        return (torch.arange(shape[1])[None] + torch.arange(shape[0])[:, None]) % 3 == 1
    if kind == "places":
        batch, rows, columns = shape
        return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).expand(batch, -1, 2).contiguous()
    if kind == "steps":
        return torch.arange(shape[-1]).expand(shape).contiguous()
    if kind == "words":
        return samples.tokens(math.prod(shape[1:]), ordinary_words(wanted.model)).view(shape)
    if kind == "images":
        return samples.images(math.prod(shape[1:-2]), shape[-2], shape[-1]).view(shape)
    return samples.vectors(math.prod(shape) // (samples.BATCH * shape[-1]), shape[-1]).view(shape)


def _sizes(shape: Sequence[Any], wanted: Wanted) -> list[int]:
    sizes = []
    for size in shape:
        value: Any = wanted.model.config if isinstance(size, str) else size
        for step in size.split(".") if isinstance(size, str) else ():
            value = value[int(step)] if step.isdigit() else getattr(value, step)
        sizes.append(int(value))
    return sizes


def _sees(model: nn.Module) -> bool:
    return any(
        getattr(config, name, None) is not None
        for config in configurations(model.config)
        for name in ("image_size", "patch_size")
    )


def frame_length(total: int, positions: int, strides: list[int] | tuple[int, ...] | None) -> int:
    """How many samples, frames or columns of an input belong to one position of the output."""
    return math.prod(strides) if strides and math.prod(strides) * positions <= total else total // positions
