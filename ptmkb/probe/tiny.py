"""`build("bert")`: a small, working model of any architecture, for probes and for anybody's own tests.

The sizes come from `shrinking`; here are the choice of the class, the weights, and the models at full size on the `meta` device that
probes count without memory. Weights are those of the model's own initialisation but for two things that hide what an architecture does:
a parameter that starts as nothing but zeros (a gate, a bias) gets small values, and everything is drawn from one seed.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto import modeling_auto

from ptmkb.catalogue.schema import ReferenceImplementation, TransformersImplementation
from ptmkb.probe.meta import runnable
from ptmkb.probe.shrinking import shrunk
from ptmkb.probe.targets import Buildable
from ptmkb.reference import load

_DATA = Path(__file__).parent / "data" / "tiny.yaml"
_UNLOADED = Path(__file__).parent / "data" / "unloaded.yaml"
_UNBUILT = Path(__file__).parent / "data" / "unbuilt.yaml"

# Which head a model gets by default: the one it was pre-trained with. `PRETRAINING` says so where it is filled in; else a head that uses all
# of the model (both stacks of an encoder-decoder, both modalities) goes before one that uses a part, and a masked LM before a causal
# one, because models that have both are encoders whose causal head is an extra.
_HEADS = (
    "PRETRAINING", "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "MASKED_LM", "CAUSAL_LM",
    "TEXT_TO_WAVEFORM", "TEXT_TO_SPECTROGRAM", "CTC", "RNNT", "TDT", "TIME_SERIES_PREDICTION", "ZERO_SHOT_IMAGE_CLASSIFICATION",
    "IMAGE_CLASSIFICATION", "MASKED_IMAGE_MODELING", "OBJECT_DETECTION", "VIDEO_CLASSIFICATION", "AUDIO_CLASSIFICATION",
)  # fmt: skip

_FAINT = 0.5  # of EfficientNet's batch norms, which are drawn like other weights
_NOTHING = 1e-6  # some models (BLIP-2's pictures) begin with weights of a spread of 1e-10, through which nothing is felt


class UnknownModelTypeError(LookupError):
    """`transformers` has no model type of this name."""


@cache
def tiny_data() -> dict[str, dict[str, Any]]:
    """What rules cannot know, by model type (`data/tiny.yaml`)."""
    return dict(yaml.safe_load(_DATA.read_text(encoding="utf-8")))


def model_types() -> tuple[str, ...]:
    """All model types that the automatic classes of `transformers` have a model for."""
    return tuple(modeling_auto.MODEL_MAPPING_NAMES)


@cache
def unbuilt() -> dict[str, dict[str, str]]:
    """The model types that cannot be built or run, by name: `why`, and `needs` where a missing package is the reason."""
    return dict(yaml.safe_load(_UNBUILT.read_text(encoding="utf-8")))


@cache
def unloaded() -> dict[str, str]:
    """The model types whose saved tiny model the automatic class does not load again, and why."""
    return dict(yaml.safe_load(_UNLOADED.read_text(encoding="utf-8")))


def architectures(model_type: str) -> tuple[str, ...]:
    """The classes for a model type: those with its main heads, most fitting first, then the base model.

    Raises:
        UnknownModelTypeError: There is no such type.
    """
    base = modeling_auto.MODEL_MAPPING_NAMES.get(model_type)
    heads = [tiny_data().get(model_type, {}).get("architecture")]
    heads += [getattr(modeling_auto, f"MODEL_FOR_{head}_MAPPING_NAMES").get(model_type) for head in _HEADS]
    names = [base] if base is None or isinstance(base, str) else list(base)
    found = [
        name for entry in [*heads, *names] for name in ([entry] if isinstance(entry, str) else entry or [])
    ]
    if not found:
        raise UnknownModelTypeError(
            f"transformers {transformers.__version__} has no model type `{model_type}`"
        )
    return tuple(dict.fromkeys(found))


def base_architecture(model_type: str) -> str:
    """The class without a head."""
    base = modeling_auto.MODEL_MAPPING_NAMES.get(model_type) or architectures(model_type)[-1]
    return base if isinstance(base, str) else str(base[0])


def tiny_config(model_type: str, overrides: Mapping[str, Any] | None = None) -> PreTrainedConfig:
    """A configuration of this type, made small.

    Args:
        model_type: Such as `bert`; a key of `transformers.CONFIG_MAPPING`.
        overrides: Fields to set otherwise; dotted names reach into nested configurations.
    """
    if model_type not in CONFIG_MAPPING:
        raise UnknownModelTypeError(
            f"transformers {transformers.__version__} has no model type `{model_type}`"
        )
    data = tiny_data().get(model_type, {})
    full = CONFIG_MAPPING[model_type]()
    config = shrunk(full, {**data.get("config", {}), **(overrides or {})})
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = (
            getattr(config, "pad_token_id", None) or 0
        )  # a decoder must begin with something
    return _plain_experts(config)


def model_class(name: str, config: PreTrainedConfig | None = None) -> type[nn.Module]:
    """A model class of `transformers` by its name, where a configuration is given also one that only its own module knows."""
    found = getattr(transformers, name, None)
    if found is None and config is not None:
        home = type(config).__module__.replace(".configuration_", ".modeling_")
        found = getattr(importlib.import_module(home), name, None)
    if not isinstance(found, type):
        raise LookupError(f"transformers {transformers.__version__} has no class `{name}`")
    return found


def build(model_type: str, architecture: str | None = None, seed: int = 0, **overrides: Any) -> nn.Module:
    """A small, working model of an architecture, with random weights, in `eval` mode, float32, on the CPU.

    Args:
        model_type: Such as `bert`: a model type of `transformers`.
        architecture: A class of that type, such as `BertForMaskedLM`; by default the one with the model's pre-training or main head.
        seed: The same seed gives the same weights.
        overrides: Configuration fields to set otherwise (`num_hidden_layers=3`).

    Raises:
        UnknownModelTypeError: There is no such type.
        LookupError: There is no such class.
    """
    config = tiny_config(model_type, overrides)
    name = architecture or architectures(model_type)[0]
    data = tiny_data().get(model_type, {})
    if "part" in data and name == data["architecture"]:
        config = getattr(config, data["part"])
    return _built(model_class(name, config), config, seed)


def build_entry(entry: Buildable, seed: int = 0) -> nn.Module:
    """The small model of a catalogue entry, one of `transformers` or a reference implementation.

    Raises:
        LookupError: The entry has no implementation.
    """
    implementation = entry.implementation
    if isinstance(implementation, TransformersImplementation):
        return build(implementation.model_type, implementation.architecture, seed)
    if isinstance(implementation, ReferenceImplementation):
        cls: Any = load(implementation.module, implementation.class_name)
        return _built(cls, cls.config_class.tiny(), seed)
    raise LookupError(f"`{entry.id}` has no implementation")


def variant(entry: Buildable, name: str) -> nn.Module:
    """A published size of a model at full size, on the `meta` device: it can be counted and run, but holds no numbers.

    Args:
        entry: A catalogue entry.
        name: One of its variants.

    Returns:
        The class that the variant names in `architecture`, by default the base model without a head.

    Raises:
        LookupError: There is no such variant or nothing to build.
    """
    found = next((candidate for candidate in entry.variants if candidate.name == name), None)
    if found is None:
        names = ", ".join(candidate.name for candidate in entry.variants) or "none"
        raise LookupError(f"`{entry.id}` has no variant `{name}`; it has: {names}")
    implementation = entry.implementation
    settings = found.config
    if isinstance(implementation, TransformersImplementation):
        config: Any = _plain_experts(CONFIG_MAPPING[implementation.model_type](**settings))
        cls: Any = model_class(found.architecture or base_architecture(implementation.model_type))
    elif isinstance(implementation, ReferenceImplementation):
        cls = load(implementation.module, found.architecture or implementation.class_name)
        config = cls.config_class(**settings)
    else:
        raise LookupError(f"`{entry.id}` has no implementation")
    with torch.device("meta"):
        return runnable(cls(config).eval())


def _built(cls: Any, config: Any, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = cls(copy.deepcopy(config)).float().eval()
        _stir(model)
    return model


def _plain_experts(config: PreTrainedConfig) -> PreTrainedConfig:
    """Experts that run one after another: the grouped kernels know neither float64 nor every size."""
    config._experts_implementation = "eager"
    return config


def _stir(model: nn.Module) -> None:
    """Small values for parameters that are nothing but zeros, or next to nothing: what is multiplied by them could not be seen otherwise.

    A batch norm that begins with small random scales gets them about 1: one behind another, dozens of them let nothing through.
    """
    with torch.no_grad():
        for module in model.modules():
            norm = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
            if norm and 0 < float(module.weight.abs().max()) < _FAINT:  # type: ignore[operator]
                module.weight.add_(1)  # type: ignore[operator]
        for parameter in model.parameters():
            if (
                parameter.is_floating_point()
                and parameter.numel()
                and float(parameter.abs().max()) < _NOTHING
            ):
                parameter.normal_(std=0.02)
