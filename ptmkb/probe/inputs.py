"""Makes the inputs that a model's forward pass wants, from its signature, its main input and its configuration.

Each argument that the field's models share (`input_ids`, `pixel_values`, `visual_feats`, …) has one maker here. A model gets the arguments
that it cannot do without, and everything that carries content; masks, positions and caches are left to their defaults.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe import samples
from ptmkb.probe.placeholders import MADE_LAST, needed, with_placeholders
from ptmkb.probe.wanted import CONTENT, Wanted
from ptmkb.probe.wanted import configurations as configurations
from ptmkb.probe.wanted import ordinary_words as ordinary_words

TOKENS = 12
DECODER_TOKENS = 10
"""Not as many as go into the encoder, so that the two cannot be mixed up."""
REGIONS = 6
GRID = 4
"""Rows and columns of patches, where a model wants patches rather than pictures."""
MEL_FRAMES = 24
SECOND = 16_000
"""Samples of a sound of which nothing says how many a position has."""
FRAMES = 2
"""Pictures of a video, unless its configuration says how many."""
COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "pixel_values": ("image_grid_thw",),
    "input_features": ("input_features_mask", "feature_attention_mask"),
    "past_values": ("past_time_features", "past_observed_mask"),
}
"""What a model that takes it wants to know beside an argument, even where its signature calls it optional."""
DECODER_CONTENT = ("decoder_input_ids", "decoder_input_values")
SETTINGS: Mapping[str, Any] = {"output_hidden_states": True, "use_cache": False}
"""Given to every model that takes them: all hidden states are wanted, and nothing may be remembered from one run to the next."""


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
        ratios = wanted.setting("downsampling_ratios", "upsampling_ratios", default=())
        return samples.waveforms(min(TOKENS * math.prod(ratios), SECOND) if ratios else SECOND)
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
        return int(module.normalized_shape[-1])
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


def _session(wanted: Wanted) -> Any:
    """A video as far as its first frame: what is asked for is the next.

    Either a phrase says what to look for, or one object was pointed at in the first frame, and has been found there.
    """
    home = sys.modules[type(wanted.model).__module__]
    session_class: Any = next(v for n, v in vars(home).items() if n.endswith("InferenceSession"))
    height, width = _pair(wanted.setting("image_size"))
    video = _frames(wanted)[:1]
    session = session_class(video=video, video_height=height, video_width=width, dtype=torch.float32)
    if hasattr(session, "add_prompt"):
        prompt = session.add_prompt("disc")
        session.prompt_input_ids[prompt] = samples.tokens(TOKENS, ordinary_words(wanted.model))[:1]
        session.prompt_attention_masks[prompt] = torch.ones(1, TOKENS, dtype=torch.long)
        return session
    point = {
        "point_coords": torch.tensor([[[[width / 2, height / 2]]]]),
        "point_labels": torch.ones(1, 1, 1).int(),
    }
    session.add_point_inputs(session.obj_id_to_idx(1), 0, point)
    session.obj_with_new_inputs = [1]
    with torch.no_grad():
        wanted.model(session, frame_idx=0)
    return session


def _frames(wanted: Wanted) -> Tensor:
    """The frames of one video: (frames, channels, height, width)."""
    return _video(samples.images(3, *_pair(wanted.setting("image_size"))), FRAMES)[0]


def _series_length(wanted: Wanted) -> int:
    """The context, and before it what the model looks back from its beginning."""
    length: int = wanted.setting("context_length", "context_len", default=wanted.setting("prediction_length"))
    return length + int(max(wanted.setting("lags_sequence", default=[0])))


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
    "inference_session": _session,
    "frame": lambda wanted: _frames(wanted)[1:],
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


def sample_inputs(
    model: nn.Module,
    extra: Mapping[str, Any] | None = None,
    transposed: Sequence[str] = (),
    unsqueezed: Sequence[str] = (),
    placeholders: Mapping[str, int] | None = None,
    token_types: str | None = None,
) -> dict[str, Any]:
    """Inputs of a forward pass, without labels; a batch of 2, on the CPU (for a model on `meta` too: see `meta`).

    Args:
        model: A model of `transformers`.
        extra: What the signature does not tell: names of further arguments (value None: made as usual; else see `described`).
        transposed: Arguments whose last two axes are the other way round in this model.
        unsqueezed: Arguments that want one more axis after the batch (one of several pictures, the only channel).
        placeholders: How many tokens stand for an `image` or `audio`, where the model has no method that tells.
        token_types: See `placeholders.with_placeholders`.

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
    content += [name for name in needed(model, content) if name in named and name in _MAKERS]
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
        made = with_placeholders(model, made, named, placeholders or {}, token_types)
    return made | {
        name: value
        for name, value in SETTINGS.items()
        if name not in extra and (name in named or (takes_any and name == "output_hidden_states"))
    }


def described(how: Any, wanted: Wanted) -> Any:
    """An argument made as `data/subjects.yaml` says.

    Args:
        how: A list: the sizes of vectors (without the batch) in numbers and names of configuration fields. A mapping of one kind to its
            whole shape: `ones`, `zeros`, `all`, `never`, `some` (every third), `words`, `codes` (of a codebook), `waves` (real numbers), `images`, `steps` (0, 1,
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
    if kind in ("all", "never"):
        return torch.full(shape, kind == "all")
    if kind == "some":
        return (torch.arange(shape[1])[None] + torch.arange(shape[0])[:, None]) % 3 == 1
    if kind == "places":
        batch, rows, columns = shape
        return (
            torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).expand(batch, -1, 2).contiguous()
        )
    if kind == "steps":
        return torch.arange(shape[-1]).expand(shape).contiguous()
    if kind == "words":
        return samples.tokens(math.prod(shape[1:]), ordinary_words(wanted.model))[: shape[0]].view(shape)
    if kind == "codes":
        codes = range(wanted.setting("codebook_size"))
        return samples.tokens(math.prod(shape[1:]), codes)[: shape[0]].view(shape)
    if kind == "images":
        return samples.images(math.prod(shape[1:-2]), shape[-2], shape[-1])[: shape[0]].view(shape)
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
