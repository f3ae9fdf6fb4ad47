"""What is inside of a layer and around it: norms, positions, experts, the cache, the loss."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.mutations import patches
from benchmarks.mutations.attention import Change
from benchmarks.mutations.patches import Router
from benchmarks.mutations.registry import attending, layers, mutation, stacks_of
from ptmkb.probe.subject import Subject

# --- norms ----------------------------------------------------------------------------------------------------------------------------


def _norms(layer: nn.Module) -> list[nn.Module]:
    """A layer's norms, by the name of their class; not those of queries and keys."""
    found = [
        (name, module)
        for name, module in layer.named_modules()
        if re.search(r"Norm(?!al)|_norm$", type(module).__name__)
        and not re.search(r"(^|[._])(q|k|query|key)", name)
        and any(True for _ in module.parameters(recurse=False))
        and not any(True for _ in module.children())
    ]
    return [module for _, module in sorted(found, key=lambda row: "." in row[0])]  # the layer's own first


@mutation("first norm of each layer removed", "norm")
def _normless(subject: Subject) -> Subject | None:
    changed = False
    for layer in layers(subject):
        for norm in _norms(layer)[:1]:
            patches.around(norm, lambda module, forward, args, kwargs: args[0])
            changed = True
    return subject if changed else None


@mutation("LayerNorm replaced by RMSNorm", "norm")
def _to_rms(subject: Subject) -> Subject | None:
    return _renormed(subject, _centres, lambda hidden, shape: F.rms_norm(hidden, shape))


@mutation("RMSNorm replaced by LayerNorm", "norm")
def _to_layer_norm(subject: Subject) -> Subject | None:
    return _renormed(
        subject, lambda norm: not _centres(norm), lambda hidden, shape: F.layer_norm(hidden, shape)
    )


def _centres(norm: nn.Module) -> bool:
    """Whether a number added to all features changes nothing: what a LayerNorm does, whatever its class is called."""
    width = next(norm.parameters()).shape[-1]
    hidden = torch.randn(1, 3, width, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            return bool(torch.allclose(norm(hidden), norm(hidden + 3.0), atol=1e-4))
    except (RuntimeError, TypeError):
        return isinstance(norm, nn.LayerNorm)


def _renormed(
    subject: Subject, wanted: Callable[[nn.Module], bool], norm: Callable[[Tensor, torch.Size], Tensor]
) -> Subject | None:
    changed = False
    for layer in layers(subject):
        for module in filter(wanted, _norms(layer)):
            patches.around(
                module, lambda self, forward, args, kwargs: norm(args[0], args[0].shape[-1:]) * self.weight
            )
            changed = True
    return subject if changed else None


@mutation("norm moved from before a layer to behind it", "norm")
def _moved(subject: Subject) -> Subject | None:
    changed = False
    for layer in layers(subject):
        taken: list[int] = []
        given: list[int] = []
        norms = _norms(layer)
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, args, kwargs, taken=taken: taken.extend(id(v) for v in (*args, *kwargs.values())),
                with_kwargs=True,
            )
        ]
        hooks += [
            norm.register_forward_pre_hook(
                lambda _, args, given=given: given.append(id(args[0]) if args else 0)
            )
            for norm in norms[:1]
        ]
        subject.outputs()
        for hook in hooks:
            hook.remove()
        if not given or given[0] not in taken:
            continue
        plain = copy.deepcopy(norms[0])
        patches.around(norms[0], lambda module, forward, args, kwargs: args[0])
        layer.moved_norm = plain
        patches.on_output(layer, lambda module, _, hidden: module.moved_norm(hidden))
        changed = True
    return subject if changed else None


@mutation("queries and keys normalised", "norm")
def _query_norm(subject: Subject) -> Subject | None:
    if any(
        re.search(r"(^|[._])(q|k)_?(norm|ln|layernorm)", name) for name, _ in subject.model.named_modules()
    ):
        return None
    return attending(subject, Change(normalise=True))


# --- positions ------------------------------------------------------------------------------------------------------------------------

_TABLES = (
    "position_emb",
    "pos_emb",
    "wpe",
    "embed_positions",
    "positions_embed",
    "pos_embed",
    "position_table",
    "positional",
)
_RELATIVE = (
    "relative_attention_bias",
    "rel_embeddings",
    "relative_position_bias",
    "relative_position",
    "rel_pos",
    "embed_rel",
    "pe_k",
)


def _position_tables(subject: Subject) -> list[Tensor]:
    named = patches.tables(subject.model, *_TABLES)
    others = (*_RELATIVE, "conv", "rotary", "norm")
    found = [value for name, value in named if value.ndim > 1 and not any(word in name for word in others)]
    return [table for table in found if _counts(subject, table)]


def _counts(subject: Subject, table: Tensor) -> bool:
    """Whether a table has a say in what comes out."""
    before = subject.outputs()
    with torch.no_grad():
        kept = table.clone()
        table.add_(torch.randn(table.shape, generator=torch.Generator().manual_seed(0)))
        after = subject.outputs()
        table.copy_(kept)
    return any(not torch.equal(before[name], after[name]) for name in before)


@mutation("position table zeroed", "position")
def _no_table(subject: Subject) -> Subject | None:
    return _written(subject, lambda table: table.zero_())


@mutation("trained positions frozen", "position", silent=True)
def _frozen_table(subject: Subject) -> Subject | None:
    found = [table for table in _position_tables(subject) if table.requires_grad]
    for table in found:
        table.requires_grad_(False)
    return subject if found else None


def _written(subject: Subject, write: Callable[[Tensor], Any]) -> Subject | None:
    found = _position_tables(subject)
    with torch.no_grad():
        for table in found:
            write(table)
    return subject if found else None


@mutation("relative positions zeroed", "position")
def _no_relative(subject: Subject) -> Subject | None:
    found = [value for name, value in patches.tables(subject.model, *_RELATIVE) if value.ndim > 1]
    with torch.no_grad():
        for table in found:
            table.zero_()
    return subject if found else None


@mutation("rotary positions off", "position")
def _no_rotary(subject: Subject) -> Subject | None:
    changed = False
    for module in subject.model.modules():
        if "Rotary" in type(module).__name__:

            def still(_: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
                turned = forward(*args, **kwargs)
                if isinstance(turned, tuple) and len(turned) == 2:
                    return torch.ones_like(turned[0]), torch.zeros_like(turned[1])
                return torch.ones_like(turned) if turned.is_complex() else turned

            patches.around(module, still)
            changed = True
    return subject if changed else None


@mutation("sinusoids added", "position")
def _sinusoids(subject: Subject) -> Subject | None:
    """Where no table of positions is known of."""
    stacks = stacks_of(subject)
    if _position_tables(subject) or not stacks or len(subject.streams) > 1:
        return None
    for blocks in stacks.values():
        patches.on_input(blocks[0], _placed)
    return subject if all(len(set(blocks)) == len(blocks) for blocks in stacks.values()) else None


def _placed(_: nn.Module, hidden: Tensor) -> Tensor:
    """With sinusoids added, along the longer of the first two axes (samples are two)."""
    if hidden.shape[0] > hidden.shape[1]:
        return hidden + patches.sinusoids(hidden.shape[0], hidden.shape[2])[:, None].to(hidden)
    return hidden + patches.sinusoids(*hidden.shape[1:]).to(hidden)


# --- experts --------------------------------------------------------------------------------------------------------------------------


def _routed(subject: Subject, **change: Any) -> Subject | None:
    among = patches.choices(subject)
    if not among:
        return None
    hits: list[int] = []
    patches.under(subject.model, lambda: Router(max(among), hits, **change))
    subject.outputs()
    return subject if hits else None


@mutation("router frozen", "routing")
def _frozen_router(subject: Subject) -> Subject | None:
    return _routed(subject, frozen=True)


@mutation("one expert more a token", "routing", "parameters")
def _more_experts(subject: Subject) -> Subject | None:
    return _routed(subject, more=1)


@mutation("one expert fewer a token", "routing", "parameters")
def _fewer_experts(subject: Subject) -> Subject | None:
    return _routed(subject, more=-1)


# --- cache and loss -------------------------------------------------------------------------------------------------------------------


def _caching(subject: Subject, change: Callable[[Any], None]) -> Subject | None:
    """Change the cache in place that a forward pass gives back."""
    from ptmkb.probe.caching import decoding
    from ptmkb.probe.measures import Unmeasurable
    from ptmkb.probe.numerics import field_of

    try:
        way, _ = decoding(subject)
    except Unmeasurable:
        return None

    def run(_: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        returned = forward(*args, **kwargs)
        cache = field_of(returned, way.cache)
        if cache is not None:
            change(cache)
        return returned

    patches.around(subject.model, run)
    return subject


@mutation("last key of the cache lost", "cache")
def _lost_key(subject: Subject) -> Subject | None:
    def lose(cache: Any) -> None:
        from ptmkb.probe.caching import _floats

        for _, tensor in _floats(cache):
            tensor[..., -1, :] = 0

    return _caching(subject, lose)


@mutation("cache cropped to 4 positions", "cache")
def _cropped(subject: Subject) -> Subject | None:
    def crop(cache: Any) -> None:
        cache.crop(4)

    try:
        changed = _caching(subject, crop)
        if changed is not None:
            from ptmkb.probe.caching import decoding

            decoding(changed)
    except Exception:  # a cache that cannot be cropped
        return None
    return changed


def _labelled(subject: Subject, change: Callable[[Tensor], Tensor]) -> Subject | None:
    """Labels by position that are changed as they go into the model."""
    names = {
        name
        for loss in subject.losses
        for name in loss.labels
        if isinstance(loss.inputs[name], Tensor)
        and loss.inputs[name].ndim == 2
        and not loss.inputs[name].is_floating_point()
    }
    if not names:
        return None

    def run(_: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(
            *args,
            **{
                name: change(value) if name in names and value is not None else value
                for name, value in kwargs.items()
            },
        )

    patches.around(subject.model, run)
    return subject


@mutation("labels one position off", "objective")
def _shifted(subject: Subject) -> Subject | None:
    return _labelled(subject, lambda labels: F.pad(labels[:, :-1], (1, 0), value=-100))


@mutation("loss 1 % too large", "objective")
def _scaled(subject: Subject) -> Subject | None:
    if not subject.losses:
        return None

    def run(_: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        from ptmkb.probe.numerics import field_of

        returned = forward(*args, **kwargs)
        for name in [
            n for n in (returned if hasattr(returned, "keys") else vars(returned)) if n.endswith("loss")
        ]:
            value = field_of(returned, name)
            if isinstance(value, Tensor):
                if hasattr(returned, "keys"):
                    returned[name] = value * 1.01
                else:
                    object.__setattr__(returned, name, value * 1.01)
        return returned

    patches.around(subject.model, run)
    return subject
