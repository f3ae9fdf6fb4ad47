"""Changes to a live model that alter one property each, and the measures that must see it.

Each is applied by rule to any subject: it looks at what the model has (masks that run, tied parameters, norms, routers), never at which model it
is, nor at what a measure said. It gives the changed subject, or None where the model has nothing of the kind.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import model_patches as patches
from benchmarks.model_patches import Change, Router
from ptmkb.probe.stacks import CROSS
from ptmkb.probe.subject import Subject

Patch = Callable[[Subject], Subject | None]


@dataclass(frozen=True)
class Mutation:
    """One way to change a model.

    Attributes:
        name: What it is called.
        measures: Those that must give another value.
        patch: Changes a subject that is its own copy; None where there is nothing of the kind.
        silent: The changed model gives the same numbers on the same inputs (only its weights are held otherwise).
    """

    name: str
    measures: tuple[str, ...]
    patch: Patch
    silent: bool = False


MUTATIONS: dict[str, Mutation] = {}


def _mutation(name: str, *measures: str, silent: bool = False) -> Callable[[Patch], Patch]:
    def add(patch: Patch) -> Patch:
        MUTATIONS[name] = Mutation(name, measures, patch, silent)
        return patch

    return add


def _stacks(subject: Subject) -> dict[str, tuple[nn.Module, ...]]:
    return {name: blocks for name, blocks in subject.blocks.items() if blocks}


def _layers(subject: Subject) -> list[nn.Module]:
    return list({id(block): block for blocks in subject.blocks.values() for block in blocks}.values())


def _attending(subject: Subject, change: Change, last: bool = False) -> Subject | None:
    """The subject with every attention changed (in the last layer of each stack only), None where none is."""
    modules: list[nn.Module] = [subject.model]
    if last:
        stacks = {
            name: blocks for name, blocks in _stacks(subject).items() if len(set(blocks)) == len(blocks)
        }
        modules = list(dict.fromkeys(blocks[-1] for blocks in stacks.values()))
    hits = patches.attend(modules, change)
    subject.outputs()
    return subject if hits else None


# --- attention ------------------------------------------------------------------------------------------------------------------------


@_mutation("masks dropped", "flow")
def _no_masks(subject: Subject) -> Subject | None:
    return _attending(subject, Change(drop=True))


@_mutation("causal mask added", "flow")
def _causal(subject: Subject) -> Subject | None:
    return _attending(subject, Change(keep=patches.causal))


@_mutation("one position ahead seen", "flow")
def _peeking(subject: Subject) -> Subject | None:
    """A causal mask that is off by one."""
    dropped = _attending(subject, Change(drop=True))
    return dropped and _attending(dropped, Change(keep=patches.window(10_000, 1)))


@_mutation("window of 3", "flow", "layers")
def _window(subject: Subject) -> Subject | None:
    return _attending(subject, Change(keep=patches.window(2, 2)))


@_mutation("window of 3 in the last layers", "layers")
def _late_window(subject: Subject) -> Subject | None:
    return _attending(subject, Change(keep=patches.window(2, 2)), last=True)


@_mutation("each position alone", "flow", "layers")
def _alone(subject: Subject) -> Subject | None:
    return _attending(subject, Change(alone=True))


@_mutation("attention gives its values", "cost")
def _values(subject: Subject) -> Subject | None:
    """No scores at all. With two streams, what looks at the other's as many positions would change with the length."""
    return _attending(subject, Change(values=True)) if len(subject.streams) == 1 else None


@_mutation("each position alone in the last layers", "layers")
def _late_alone(subject: Subject) -> Subject | None:
    return _attending(subject, Change(alone=True), last=True)


@_mutation("layers back to front", "flow")
def _flipped(subject: Subject) -> Subject | None:
    """Every layer sees its sequence from the end: what looked back looks ahead. Where the first position sees the last already, nothing turns."""
    if any(patches.sees(subject, name, 0, stream.positions - 1) for name, stream in subject.streams.items()):
        return None
    for layer in _layers(subject):
        patches.on_input(layer, lambda _, hidden: hidden.flip(1))
        patches.on_output(layer, lambda _, taken, given: given.flip(1))
    subject.outputs()
    return subject


@_mutation("quadratic mixing added", "cost")
def _quadratic(subject: Subject) -> Subject | None:
    """Products of all positions with all behind every layer, where there are none yet."""
    if _attending(patches.copied(subject), Change(keep=patches.window(10_000, 10_000))):
        return None
    for layer in _layers(subject):
        patches.on_output(layer, lambda _, taken, given: given + _mixed(given))
    return subject if _layers(subject) else None


def _mixed(hidden: Tensor) -> Tensor:
    return (hidden @ hidden.transpose(1, 2)).softmax(-1) @ hidden


# --- streams --------------------------------------------------------------------------------------------------------------------------


@_mutation("cross-attention blocked", "flow", "streams")
def _blind(subject: Subject) -> Subject | None:
    return _attending(subject, Change(blind=True)) if len(subject.streams) > 1 else None


@_mutation("joint sequence cut in two", "flow", "streams")
def _cut(subject: Subject) -> Subject | None:
    """The text's positions and the others no longer see each other."""
    if len(subject.streams) < 2 or len(_stacks(subject)) != 1:
        return None
    first = next(iter(subject.streams.values())).positions
    return _attending(subject, Change(keep=patches.apart(first)))


@_mutation("one stream reads the other", "flow", "streams")
def _leak(subject: Subject) -> Subject | None:
    """The mean of what one stack's first layer gives scales what the other's gives, where each has its own."""
    stacks = _stacks(subject)
    if len(stacks) != 2 or CROSS in stacks or "decoder" in stacks or len(subject.streams) != 2:
        return None
    ran: list[str] = []
    hooks = [
        blocks[0].register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, blocks in stacks.items()
    ]
    subject.outputs()
    for hook in hooks:
        hook.remove()
    if len(set(ran)) < 2:
        return None
    first, second = dict.fromkeys(ran)
    held: list[Tensor] = []

    def hold(_: nn.Module, taken: Tensor, given: Tensor) -> Tensor:
        held[:] = [given.mean(dim=(1, 2), keepdim=True)]
        return given

    patches.on_output(stacks[first][0], hold)
    patches.on_output(stacks[second][0], lambda _, taken, given: given * (1 + held[0]))
    return subject


# --- weights --------------------------------------------------------------------------------------------------------------------------


@_mutation("embeddings untied", "sharing", silent=True)
def _untied(subject: Subject) -> Subject | None:
    changed = False
    for holders in patches.owners(subject.model).values():
        if any(isinstance(module, nn.Embedding) for module, _ in holders):
            for module, name in holders:
                if patches.linear(module):
                    setattr(module, name, nn.Parameter(getattr(module, name).detach().clone()))
                    changed = True
    return subject if changed else None


@_mutation("embeddings tied", "sharing")
def _tied(subject: Subject) -> Subject | None:
    """The widest output layer takes the largest table for its weights."""
    inside = {id(module) for layer in _layers(subject) for module in layer.modules()}
    if any(
        len(held) > 1 and any(isinstance(m, nn.Embedding) for m, _ in held)
        for held in patches.owners(subject.model).values()
    ):
        return None
    found = [module for module in subject.model.modules() if isinstance(module, nn.Embedding)]
    table = max(found, key=lambda module: module.num_embeddings, default=None)
    ids = next((v for name, v in subject.inputs.items() if name.endswith("input_ids")), None)
    if (
        table is None or ids is None or table.num_embeddings == table.embedding_dim
    ):  # a square fits other maps too
        return None
    for module in subject.model.modules():
        if (
            isinstance(module, nn.Linear)
            and id(module) not in inside
            and module.weight.shape == table.weight.shape
        ):
            module.weight = table.weight
            return subject
    return None


@_mutation("a layer used twice", "sharing")
def _shared(subject: Subject) -> Subject | None:
    for name, blocks in _stacks(subject).items():
        found = patches.container(subject.model, blocks)
        if (
            found is None
            or len(blocks) < 2
            or blocks[0] is blocks[1]
            or type(blocks[0]) is not type(blocks[1])
        ):
            continue
        if [p.shape for p in blocks[0].parameters()] != [p.shape for p in blocks[1].parameters()]:
            continue
        members, at = found
        members[at[1]] = blocks[0]
        return replace(subject, blocks={**subject.blocks, name: (blocks[0], blocks[0], *blocks[2:])})
    return None


@_mutation("encoder's and decoder's tables parted", "sharing", silent=True)
def _parted(subject: Subject) -> Subject | None:
    if "decoder_input_ids" not in subject.inputs or "input_ids" not in subject.inputs:
        return None
    for holders in patches.owners(subject.model).values():
        tables = [(module, name) for module, name in holders if isinstance(module, nn.Embedding)]
        spots = [place for module, _ in tables for place in patches.places(subject.model, module)]
        for holder, name, path in spots:
            if "decoder." in path and len(spots) > 1:
                setattr(holder, name, copy.deepcopy(getattr(holder, name)))
                return subject
    return None


@_mutation("a bias lost", "parameters")
def _biasless(subject: Subject) -> Subject | None:
    for module in subject.model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias = None
            return subject
    return None


@_mutation("one more row in a table", "parameters")
def _row(subject: Subject) -> Subject | None:
    alone = {
        id(module) for held in patches.owners(subject.model).values() if len(held) == 1 for module, _ in held
    }
    for module in subject.model.modules():
        if isinstance(module, nn.Embedding) and id(module) in alone:
            module.weight = nn.Parameter(torch.cat([module.weight, module.weight[:1]]).detach())
            module.num_embeddings += 1
            return subject
    return None


@_mutation("a parameter detached", "learns")
def _detached(subject: Subject) -> Subject | None:
    """One that the loss reaches: no gradient goes there any more."""
    for name, module in reversed(list(subject.model.named_modules())):
        held = module._parameters.get("weight")
        if patches.linear(module) is None or held is None or not _reached(subject, f"{name}.weight"):
            continue
        weight = property(lambda self: self._parameters["weight"].detach())
        module.__class__ = type(type(module).__name__, (type(module),), {"weight": weight})
        return subject
    return None


def _reached(subject: Subject, name: str) -> bool:
    from ptmkb.probe.measures.learns import total_loss
    from ptmkb.probe.numerics import seeded

    if not subject.losses:
        return False
    parameter = dict(subject.model.named_parameters(remove_duplicate=False))[name]
    if len(patches.owners(subject.model)[id(parameter)]) > 1 or not parameter.requires_grad:
        return False
    with torch.enable_grad(), seeded():
        loss = total_loss(subject.model, subject)
    (gradient,) = torch.autograd.grad(loss, [parameter], allow_unused=True)
    return gradient is not None and bool(gradient.any())


@_mutation("gradients stopped behind a layer", "learns")
def _stopped(subject: Subject) -> Subject | None:
    stacks = _stacks(subject)
    if not subject.losses or not stacks:
        return None
    # The last stack to run: what stops there stops for all that came before.
    blocks = stacks.get("decoder") or list(stacks.values())[-1]
    patches.on_output(blocks[-1], lambda _, taken, given: given.detach())
    return subject


# --- layers and sizes -----------------------------------------------------------------------------------------------------------------


@_mutation("a layer does nothing", "layers")
def _identity(subject: Subject) -> Subject | None:
    for blocks in _stacks(subject).values():
        if len(blocks) > 1 and blocks[-1] is not blocks[0]:
            patches.on_output(blocks[-1], lambda _, taken, given: taken)
            return subject
    return None


@_mutation("a layer taken out", "shape", "layers", "structure")
def _shorter(subject: Subject) -> Subject | None:
    for name, blocks in _stacks(subject).items():
        found = patches.container(subject.model, blocks)
        if (
            found is None
            or len(blocks) < 2
            or len(set(blocks)) < len(blocks)
            or found[1][-1] != len(found[0]) - 1
        ):
            continue
        del found[0][found[1][-1]]
        return replace(subject, blocks={**subject.blocks, name: blocks[:-1]})
    return None


@_mutation("key-value heads halved", "shape", "layers", "parameters")
def _half_heads(subject: Subject) -> Subject | None:
    """Half of the projections of keys and values, each head used twice."""
    changed = False
    for layer in _layers(subject):
        for attention in layer.modules():
            pairs = [
                (name, module)
                for name, module in attention.named_children()
                if name in ("k_proj", "v_proj", "key", "value", "k", "v", "k_lin", "v_lin")
                and isinstance(module, nn.Linear)
            ]
            size = next(
                (
                    n
                    for key in ("head_dim", "attention_head_size", "key_value_proj_dim")
                    if (n := getattr(attention, key, None))
                ),
                None,
            )
            if len(pairs) != 2 or not isinstance(size, int) or pairs[0][1].out_features % (2 * size):
                continue
            for name, module in pairs:
                setattr(attention, name, _Halved(module, size))
            changed = True
    return subject if changed else None


class _Halved(nn.Module):
    """A projection to half of the heads, which it gives twice."""

    def __init__(self, whole: nn.Linear, size: int) -> None:
        super().__init__()
        half = whole.out_features // 2
        self.weight = nn.Parameter(whole.weight[:half].detach().clone())
        self.bias = None if whole.bias is None else nn.Parameter(whole.bias[:half].detach().clone())
        self.size = size

    def forward(self, hidden: Tensor) -> Tensor:
        halves = F.linear(hidden, self.weight, self.bias)
        return halves.unflatten(-1, (-1, self.size)).repeat_interleave(2, dim=-2).flatten(-2)


@_mutation("gates of the feed-forward broken", "shape")
def _ungated(subject: Subject) -> Subject | None:
    """The projection that would be multiplied with the other's activation gives ones."""
    changed = False
    for layer in _layers(subject):
        for module in layer.modules():
            for names in (("gate_proj", "up_proj", "down_proj"), ("wi_0", "wi_1", "wo"), ("w1", "w3", "w2")):
                if all(isinstance(getattr(module, name, None), nn.Linear) for name in names):
                    setattr(module, names[1], _Ones(getattr(module, names[1]).out_features))
                    changed = True
    return subject if changed else None


class _Ones(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.new_ones(*hidden.shape[:-1], self.width)


@_mutation("feed-forward one narrower", "shape", "parameters")
def _narrower(subject: Subject) -> Subject | None:
    """The widest inner value of every layer loses a feature."""
    changed = False
    for layer in _layers(subject):
        maps = [module for module in layer.modules() if patches.linear(module)]
        sizes = [size for module in maps if (size := patches.linear(module))]
        widths = {given for _, given in sizes} & {taken for taken, _ in sizes}
        widest = max(widths, default=0)
        if not widest or any({taken, given} == {widest} for taken, given in sizes):
            continue
        if widest <= min(taken for taken, _ in sizes):
            continue
        for module, (taken, given) in zip(maps, sizes, strict=True):
            if widest in (taken, given):
                _cut_map(module, 0 if given == widest else 1)
                changed = True
    return subject if changed else None


def _cut_map(module: nn.Module, axis: int) -> None:
    """Take the last feature off a linear map; axis 0 is that of what it gives."""
    held: Any = module
    transposed = not isinstance(module, nn.Linear)
    held.weight = nn.Parameter(
        held.weight.narrow(
            1 - axis if transposed else axis, 0, held.weight.shape[1 - axis if transposed else axis] - 1
        ).detach()
    )
    if axis == 0 and held.bias is not None:
        held.bias = nn.Parameter(held.bias[:-1].detach())
    for name in ("out_features", "nf") if axis == 0 else ("in_features", "nx"):
        if hasattr(module, name):
            setattr(module, name, getattr(module, name) - 1)


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


@_mutation("first norm of each layer removed", "norm")
def _normless(subject: Subject) -> Subject | None:
    changed = False
    for layer in _layers(subject):
        for norm in _norms(layer)[:1]:
            patches.around(norm, lambda module, forward, args, kwargs: args[0])
            changed = True
    return subject if changed else None


@_mutation("LayerNorm replaced by RMSNorm", "norm")
def _to_rms(subject: Subject) -> Subject | None:
    return _renormed(subject, _centres, lambda hidden, shape: F.rms_norm(hidden, shape))


@_mutation("RMSNorm replaced by LayerNorm", "norm")
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
    for layer in _layers(subject):
        for module in filter(wanted, _norms(layer)):
            patches.around(
                module, lambda self, forward, args, kwargs: norm(args[0], args[0].shape[-1:]) * self.weight
            )
            changed = True
    return subject if changed else None


@_mutation("norm moved from before a layer to behind it", "norm")
def _moved(subject: Subject) -> Subject | None:
    changed = False
    for layer in _layers(subject):
        taken: list[int] = []
        given: list[int] = []
        norms = _norms(layer)
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, args, kwargs: taken.extend(id(v) for v in (*args, *kwargs.values())),
                with_kwargs=True,
            )
        ]
        hooks += [
            norm.register_forward_pre_hook(lambda _, args: given.append(id(args[0]) if args else 0))
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


@_mutation("queries and keys normalised", "norm")
def _query_norm(subject: Subject) -> Subject | None:
    if any(
        re.search(r"(^|[._])(q|k)_?(norm|ln|layernorm)", name) for name, _ in subject.model.named_modules()
    ):
        return None
    return _attending(subject, Change(normalise=True))


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


@_mutation("position table zeroed", "position")
def _no_table(subject: Subject) -> Subject | None:
    return _written(subject, lambda table: table.zero_())


@_mutation("trained positions frozen", "position", silent=True)
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


@_mutation("relative positions zeroed", "position")
def _no_relative(subject: Subject) -> Subject | None:
    found = [value for name, value in patches.tables(subject.model, *_RELATIVE) if value.ndim > 1]
    with torch.no_grad():
        for table in found:
            table.zero_()
    return subject if found else None


@_mutation("rotary positions off", "position")
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


@_mutation("sinusoids added", "position")
def _sinusoids(subject: Subject) -> Subject | None:
    """Where no table of positions is known of."""
    stacks = _stacks(subject)
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


@_mutation("router frozen", "routing")
def _frozen_router(subject: Subject) -> Subject | None:
    return _routed(subject, frozen=True)


@_mutation("one expert more a token", "routing", "parameters")
def _more_experts(subject: Subject) -> Subject | None:
    return _routed(subject, more=1)


@_mutation("one expert fewer a token", "routing", "parameters")
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


@_mutation("last key of the cache lost", "cache")
def _lost_key(subject: Subject) -> Subject | None:
    def lose(cache: Any) -> None:
        from ptmkb.probe.caching import _floats

        for _, tensor in _floats(cache):
            tensor[..., -1, :] = 0

    return _caching(subject, lose)


@_mutation("cache cropped to 4 positions", "cache")
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


@_mutation("labels one position off", "objective")
def _shifted(subject: Subject) -> Subject | None:
    return _labelled(subject, lambda labels: F.pad(labels[:, :-1], (1, 0), value=-100))


@_mutation("loss 1 % too large", "objective")
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
