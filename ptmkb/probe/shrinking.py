"""Makes a configuration small by what its fields mean, so that the architecture stays what it is and only the sizes go down.

A rule is a pattern over field names and the size that such a field gets. Equal things stay equal (every width becomes `WIDTH`, in nested
configurations too), what differs by design stays different (fewer key-value heads than heads, an embedding narrower than the model, a
gap between width and feed-forward width), and every kind of layer that the architecture has keeps at least one layer. What the rules
cannot know is data: `data/tiny.yaml`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

WIDTH = 32
HEADS = 4
KEY_VALUE_HEADS = 2
HEAD_SIZE = 8
FEED_FORWARD = 64
EXPERT_FEED_FORWARD = 24
NARROW = 16
LAYERS = 2
MAX_LAYERS = 6
VOCABULARY = 128
CODES = 32
POSITIONS = 64
SOUNDS = 12  # positions of a speech encoder that insists on as many frames as fill all of them
WINDOW = 4
EXPERTS = 4
PATCH = 4
IMAGE = 16
PYRAMID_IMAGE = 64
MEL_BINS = 16
QUERIES = 8
FILTERS = 4
RATIO = 2  # by which a sound gets shorter, or longer, from one stage of convolutions to the next
FRAMES = 4
"""Pictures of a video."""
FIRST_SPECIAL = 100
"""Special tokens of a tiny vocabulary lie below `RESERVED` or from here on; ordinary words lie between."""
RESERVED = 8


def _at_most(limit: int) -> Callable[[int], int]:
    return lambda value: min(value, limit)


def _heads(value: int) -> int:
    """As many heads as divide every width here: a power of two."""
    return 1 << (min(value, HEADS).bit_length() - 1) if value > 0 else value


def _key_value_heads(value: int, heads: int | None) -> int:
    if heads is None or value >= heads:
        return _heads(value)
    return min(value, KEY_VALUE_HEADS)


# The first pattern that matches the whole name decides. Patterns are grouped by meaning; a field that none matches keeps its value.
_SIZES: tuple[tuple[str, Callable[[int], int]], ...] = (
    # Not sizes, though they look like some of those below.
    (
        r"num_feat_extract_layers|num_adapter_layers|depth_separable_.*|.*_kernel(_size)?|.*conv.*kernel.*|.*stride.*",
        lambda v: v,
    ),
    (
        r"type_vocab_size|modality_type_vocab_size|.*_per_tok(en)?s?_norm|num_channels|.*_layer_id|visual_pos_dim",
        lambda v: v,
    ),
    # Vocabularies and codebooks.
    (r"(.*_)?vocab(ulary)?_size(_.*)?", _at_most(VOCABULARY)),
    (r"(.*_)?codebook_size|num_embeddings|num_codevectors_per_group|.*_vocab_size", _at_most(CODES)),
    # Experts.
    (r"(num|n|moe_num)_(local_|routed_)?experts|moe_num_experts", _at_most(EXPERTS)),
    (r"num_experts_per_tok(en)?|moe_top_?k|moe_k|num_selected_experts|expert_capacity", _at_most(2)),
    (r"(n|num)_(group|expert_group)", _at_most(2)),
    (r"topk_group", _at_most(1)),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index", _at_most(1)),
    (r"(.*_)?sparse_step|interleave_moe_layer_step", _at_most(2)),
    (
        r"(moe|shared_expert|expert|shared)_(.*_)?(intermediate|ffn|hidden)_(size|dim)",
        _at_most(EXPERT_FEED_FORWARD),
    ),
    # Heads and their sizes.
    # Scores of an indexer are sums of rectified ones: with few heads many are 0, and which of equals are chosen is nobody's decision.
    (r"index_n_heads", _at_most(4 * HEADS)),
    (
        r"(.*_)?(num|n)_(key_value|kv)_heads|(.*_)?num_query_groups",
        lambda v: v,
    ),  # needs the number of heads, see `_shrunk`
    (
        r"(.*_)?(num_attention|attention|num|n|self_attention|cross_attention)_heads?",
        _heads,
    ),
    (r"(.*_)?linear_num_(key|value)_heads", _heads),
    (
        r"(.*_)?(head_dim|head_size|d_kv|d_head|kv_channels|dim_head)|(qk_nope|qk_rope|v)_head_dim",
        _at_most(HEAD_SIZE),
    ),
    (r"qk_head_dim", lambda v: 2 * HEAD_SIZE),
    (r"(q|kv|o)_lora_rank", _at_most(NARROW)),
    (r"rotary_dim", _at_most(HEAD_SIZE // 2)),
    (r"(.*_)?groups", lambda v: min(v, WIDTH) if v > WIDTH else v),
    # Depth.
    (
        r"(num_|n_)?(.*_)?(hidden_)?(layers?|blocks)|(.*_)?depth|num_layer|n_layer|num_.*_flows",
        _at_most(LAYERS),
    ),
    # State spaces.
    (r"(.*_)?(d_state|state_size|ssm_state_size|time_step_rank|mamba_dt_rank)", _at_most(HEAD_SIZE)),
    # Lengths.
    (
        r"(attention_|sliding_|local_|swa_)?(window|attention|window_size)(_size)?|sliding_window.*",
        _at_most(WINDOW),
    ),
    (r"(mask_time|mask_feature)_length", _at_most(2)),
    (r"attention_chunk_size|chunk_size|mamba_chunk_size|index_topk", _at_most(WINDOW)),
    (r"num_conv_pos_embeddings", _at_most(NARROW)),
    (r"num_conv_pos_embedding_groups", _at_most(2)),
    (r"num_negatives", _at_most(4)),
    (r"mm_tokens_per_image", _at_most(4)),
    (r"num_quer(ies|y_tokens)|resampler_n_latents", _at_most(QUERIES)),
    (r"num_frames", _at_most(FRAMES)),
    (r"max_(img|image)_size", _at_most(PYRAMID_IMAGE)),
    (r"min_(img|image)_size", _at_most(IMAGE)),
    (r"max_vit_seq_len|img_max_token_num", _at_most(4 * POSITIONS)),
    (r"(fpn|mask)_feature_size", _at_most(WIDTH)),
    (r"num_filters", _at_most(FILTERS)),
    (r"num_self_attends_per_block", _at_most(LAYERS)),
    (r"num_latents", _at_most(NARROW)),
    (r"d_latents", _at_most(WIDTH)),
    (r".*_group_vocab|num_(bpe|wordpiece|character)_labels", _at_most(VOCABULARY)),
    (r".*_linear_units|dim_ff", _at_most(FEED_FORWARD)),
    (r"num_pos_feats", _at_most(WIDTH // 2)),
    (r"max_source_positions", _at_most(SOUNDS)),
    (
        r"(max_position|max_.*|n|num_position|position)_?(position|ctx|positions|embeddings)(_embeddings)?|n_positions|max_seq(uence)?_len(gth)?|seq_len|n_ctx|context_length|model_max_length|mem_len",
        _at_most(POSITIONS),
    ),
    # Feed-forward widths, then the other widths.
    (
        r"(.*_)?(intermediate_size|intermediate_dim|ffn_dim|ffn_hidden_size|d_ff|d_inner|mlp_dim|n_inner|dim_feedforward|feedforward_dim)(_mlp)?",
        _at_most(FEED_FORWARD),
    ),
    (r"num_mel_bins|spectrogram_bins", _at_most(MEL_BINS)),
    (
        r"(.*_)?(hidden_size|hidden_dim|d_model|n_embd|embed_dim|dim|size_global|proj_size|_units|emb_dim)|.*_hidden_size(_.*)?|(.*_)?channels?|.*_dimension|flow_size|feature_size",
        _at_most(WIDTH),
    ),
    (r"num_(qa|object|attr)_labels", _at_most(NARROW)),
)
_COMPILED = tuple((re.compile(pattern), size) for pattern, size in _SIZES)
_KEY_VALUE = re.compile(r"(.*_)?(num|n)_(key_value|kv)_heads|(.*_)?num_query_groups")
_HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head")
_DEPTH = re.compile(r"num_hidden_layers|n_layers?|num_layers")
_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim")
_NARROWER = re.compile(r"embedding_size|word_embed_proj_dim")
_TOKEN = re.compile(r"(.*_)?(token_id|token_ids|token_index|_tokens)|(begin_)?suppress_tokens")
_CHANNELS = re.compile(r"(stem|stage|encoder_in)_(.*_)?channels")
_UNFILLED = {
    "vocab_size": VOCABULARY,
    "num_experts_per_tok": 2,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
}
"""What some classes leave to the published configuration: their models cannot be built without."""
_LAYER_SCALE = re.compile(r"layer_?scale.*value|.*layer_scale_init.*")


def channels(value: int) -> int:
    """Channels of a convolution by what they are at full size, so that equal ones stay equal wherever they are named."""
    return value if value <= NARROW else max(NARROW, value // 16)


def size_of(name: str, value: int) -> int:
    """The tiny value of an integer field, by its name; unchanged where no rule speaks of it."""
    for pattern, size in _COMPILED:
        if pattern.fullmatch(name):
            return size(value)
    return value


def shrunk(config: PreTrainedConfig, overrides: Mapping[str, Any] | None = None) -> PreTrainedConfig:
    """A small configuration of the same architecture.

    Args:
        config: A configuration at full size; nested ones are made small too.
        overrides: What the rules cannot know, by field name; a dotted name reaches into a nested configuration.

    Returns:
        A new configuration of the same class.
    """
    return _shrunk(config, dict(overrides or {}), _Tokens(), explicit=frozenset())


class _Tokens:
    """Gives special tokens that lie outside the tiny vocabulary a place in it, the same place for the same token everywhere."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}

    def place(self, token: int) -> int:
        if token < RESERVED:
            return token
        return self._places.setdefault(
            token, VOCABULARY - 1 - len(self._places) % (VOCABULARY - FIRST_SPECIAL)
        )


def _shrunk(
    config: PreTrainedConfig, overrides: dict[str, Any], tokens: _Tokens, explicit: frozenset[str]
) -> PreTrainedConfig:
    if config.is_heterogeneous:
        config.allow_global_per_layer_attribute_access = True
    kept, depth = _layers_kept(config)
    heads = next((value for name in _HEADS if isinstance(value := getattr(config, name, None), int)), None)
    wide = next((value for name in _WIDTHS if isinstance(value := getattr(config, name, None), int)), None)
    patched = isinstance(getattr(config, "patch_size", None), int | list | tuple) and not hasattr(
        config, "depths"
    )
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name, None)
        if name in ("_out_features", "_out_indices"):
            continue  # see `_stages`
        inner = {key.partition(".")[2]: o for key, o in overrides.items() if key.startswith(f"{name}.")}
        if isinstance(value, PreTrainedConfig):
            arguments[name] = _nested(config, name, value, inner, tokens)
            continue
        multimodal = "mrope_section" in getattr(config, "ignore_keys_at_rope_validation", ())
        if name == "rope_parameters" and multimodal and isinstance(value, dict) and "rope_type" in value:
            arguments[name] = {**value, "mrope_section": _sections(value)}
            continue
        if value is None or (isinstance(value, bool | str | dict) and name not in explicit):
            if _differs(field, value):
                arguments[name] = value
            continue
        if _TOKEN.fullmatch(name):
            small: Any = _mapped(value, tokens.place)
        elif isinstance(value, float):
            small = max(value, 0.1) if _LAYER_SCALE.fullmatch(name) and value else value
        elif isinstance(value, int):
            if _KEY_VALUE.fullmatch(name):
                small = _key_value_heads(value, heads)
            elif _DEPTH.fullmatch(name):
                small = len(kept) if kept and value == depth else size_of(name, value)
            elif name == "image_size":
                small = min(value, IMAGE if patched else PYRAMID_IMAGE)
            elif name == "embed_dim" and hasattr(config, "depths"):
                small = min(value, NARROW)  # doubled from stage to stage
            elif name == "patch_size":
                small = min(value, PATCH)
            elif name == "encoder_hidden_size" and hasattr(config, "downsampling_ratios"):
                small = min(value, FILTERS)  # doubled from stage to stage
            elif name == "window_size" and hasattr(config, "depths"):
                small = min(value, WINDOW // 2)  # the smallest stage of a pyramid has no room for more
            elif name == "window_size" and hasattr(config, "spatial_merge_size"):
                small = min(value, 2 * PATCH * config.spatial_merge_size)  # in pixels
            elif _NARROWER.fullmatch(name):
                small = min(value, NARROW if wide and value < wide else WIDTH)
            elif name == "hidden_dim" and wide and value > wide:
                small = FEED_FORWARD
            else:
                small = size_of(name, value)
        else:
            small = _list(name, value, kept, depth, patched)
        if small != value or (_differs(field, value) and (field.default is not None or name in explicit)):
            arguments[name] = small
    if hasattr(config, "out_indices") and hasattr(config, "stage_names"):
        arguments.update(_stages(config, arguments, kept))
    for name, meant in _UNFILLED.items():
        if name in vars(config) and getattr(config, name) is None:
            arguments[name] = meant
    if vars(config).get("head_dim", 0) is None and heads:
        arguments["head_dim"] = WIDTH // min(heads, HEADS)
    for key, override in overrides.items():
        if isinstance(override, dict) and "model_type" in override:  # another kind of nested configuration
            rest = {field: value for field, value in override.items() if field != "model_type"}
            override = _shrunk(CONFIG_MAPPING[override["model_type"]](), rest, tokens, frozenset(rest))
        if "." not in key:
            arguments[key] = override
    return type(config)(**arguments)


def _stages(config: Any, arguments: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """A backbone that gives as many stages as before; one without a pyramid gets as many layers as that takes."""
    taken = [index for index in config.out_indices if index >= 0]
    if (
        hasattr(config, "num_hidden_layers")
        and "num_hidden_layers" in vars(config)
        and not hasattr(config, "depths")
    ):
        layers = max(int(arguments.get("num_hidden_layers", config.num_hidden_layers)), len(taken))
        first = layers - len(taken) + 1
        return {"num_hidden_layers": layers, "out_indices": list(range(first, layers + 1))}
    return {"out_indices": taken}


def _sections(rope: Mapping[str, Any]) -> list[int]:
    """How many rotary frequencies time, height and width get: half a head's rotary part in all."""
    frequencies = int(HEAD_SIZE * rope.get("partial_rotary_factor", 1.0)) // 2
    return [frequencies - 2 * (frequencies // 3), frequencies // 3, frequencies // 3]


def _nested(
    config: PreTrainedConfig, name: str, value: PreTrainedConfig, overrides: dict[str, Any], tokens: _Tokens
) -> PreTrainedConfig:
    spec = type(config).sub_configs_defaults.get(name)
    explicit = frozenset(spec.init_kwargs) if spec else frozenset()
    return _shrunk(value, overrides, tokens, explicit)


def _differs(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return False
    return field.default is not dataclasses.MISSING and field.default != value and not isinstance(value, dict)


def _layers_kept(config: PreTrainedConfig) -> tuple[tuple[int, ...], int]:
    """Which layers of the full model stand for all of them: the first of every kind, in order; () where all are of one kind."""
    if hasattr(config, "depths") or isinstance(getattr(config, "depth", None), list | tuple):
        return (), 0  # a pyramid: its lists are about stages
    depth = next(
        (
            v
            for n in ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
            if isinstance(v := getattr(config, n, None), int)
        ),
        0,
    )
    patterns = [
        value
        for field in dataclasses.fields(config)
        if isinstance(value := getattr(config, field.name, None), list | tuple)
        and len(value) == depth > 1
        and all(isinstance(item, str) for item in value)
    ]
    if not patterns:
        return (), depth
    firsts: dict[tuple[str, ...], int] = {}
    for index, kinds in enumerate(zip(*patterns, strict=True)):
        firsts.setdefault(kinds, index)
    kept = sorted(firsts.values())[:MAX_LAYERS]
    kept += [index for index in range(depth) if index not in kept][: max(0, LAYERS - len(kept))]
    return tuple(sorted(kept)), depth


def _list(name: str, value: Sequence[Any], kept: tuple[int, ...], depth: int, patched: bool) -> Any:
    make: Any = type(value)
    layers = len(kept) or LAYERS
    if not value or not all(isinstance(item, int | float | str | list | tuple) for item in value):
        return value
    if len(value) == depth > 1 and not _is_range(value):
        chosen = kept or tuple(range(LAYERS))
        return make(value[index] for index in chosen)
    if all(isinstance(item, int) for item in value):
        if (
            re.fullmatch(r"(.*_)?(index|indexes|indices|idxs|layers|layer_ids|blocks)", name)
            and depth
            and not name.startswith("encode_proj")  # levels of a pyramid
            and max(value) < 4 * depth
        ):
            return make(dict.fromkeys(item if item < 0 else min(item, layers - 1) for item in value))
        if name == "image_size":
            return make(min(item, IMAGE if patched else PYRAMID_IMAGE) for item in value)
        if name == "patch_size":
            return make(min(item, PATCH) for item in value)
        if name == "channel_multiplier":
            return make(min(item, 2) for item in value)
        if _CHANNELS.fullmatch(name):
            return make(channels(item) for item in value)
        if re.fullmatch(r"depths|(stage_)?num_blocks|blocks_per_stage|layers", name):
            return make(min(item, LAYERS) for item in value)
        if re.fullmatch(r"(down|up)sampling_ratios", name):
            return make(min(item, RATIO) for item in value)
        if re.fullmatch(
            r"(.*_)?(hidden_sizes|embed_dims?|channels|dims?|embed_dim_per_stage|conv_channels)", name
        ):
            steps = sorted(
                {item for item in value if item > NARROW // 2}
            )  # what is smaller counts colours, not features
            small = {
                item: NARROW << min(step, 3) if len(steps) > 1 else WIDTH for step, item in enumerate(steps)
            }
            return make(min(item, small.get(item, item)) for item in value)
        return make(size_of(name, item) for item in value)
    return value


def _is_range(value: Sequence[Any]) -> bool:
    return all(isinstance(item, int) for item in value) and list(value) == list(range(len(value)))


def _mapped(value: Any, place: Callable[[int], int]) -> Any:
    if isinstance(value, int):
        return place(value)
    return type(value)(place(item) if isinstance(item, int) else item for item in value)
