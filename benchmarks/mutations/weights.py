"""What weights there are: tied, shared, trained, and of which sizes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.mutations import patches
from benchmarks.mutations.registry import layers, mutation, stacks_of
from ptmkb.probe.subject import Subject

# --- weights --------------------------------------------------------------------------------------------------------------------------


@mutation("embeddings untied", "sharing", silent=True)
def _untied(subject: Subject) -> Subject | None:
    changed = False
    for holders in patches.owners(subject.model).values():
        if any(isinstance(module, nn.Embedding) for module, _ in holders):
            for module, name in holders:
                if patches.linear(module):
                    setattr(module, name, nn.Parameter(getattr(module, name).detach().clone()))
                    changed = True
    return subject if changed else None


@mutation("embeddings tied", "sharing")
def _tied(subject: Subject) -> Subject | None:
    """The widest output layer takes the largest table for its weights."""
    inside = {id(module) for layer in layers(subject) for module in layer.modules()}
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


@mutation("a layer used twice", "sharing")
def _shared(subject: Subject) -> Subject | None:
    for name, blocks in stacks_of(subject).items():
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


@mutation("encoder's and decoder's tables parted", "sharing", silent=True)
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


@mutation("a bias lost", "parameters")
def _biasless(subject: Subject) -> Subject | None:
    for module in subject.model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias = None
            return subject
    return None


@mutation("one more row in a table", "parameters")
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


@mutation("a parameter detached", "learns")
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


@mutation("gradients stopped behind a layer", "learns")
def _stopped(subject: Subject) -> Subject | None:
    stacks = stacks_of(subject)
    if not subject.losses or not stacks:
        return None
    # The last stack to run: what stops there stops for all that came before.
    blocks = stacks.get("decoder") or list(stacks.values())[-1]
    patches.on_output(blocks[-1], lambda _, taken, given: given.detach())
    return subject


# --- layers and sizes -----------------------------------------------------------------------------------------------------------------


@mutation("a layer does nothing", "layers")
def _identity(subject: Subject) -> Subject | None:
    for blocks in stacks_of(subject).values():
        if len(blocks) > 1 and blocks[-1] is not blocks[0]:
            patches.on_output(blocks[-1], lambda _, taken, given: taken)
            return subject
    return None


@mutation("a layer taken out", "shape", "layers", "structure")
def _shorter(subject: Subject) -> Subject | None:
    for name, blocks in stacks_of(subject).items():
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


@mutation("key-value heads halved", "shape", "layers", "parameters")
def _half_heads(subject: Subject) -> Subject | None:
    """Half of the projections of keys and values, each head used twice."""
    changed = False
    for layer in layers(subject):
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


@mutation("gates of the feed-forward broken", "shape")
def _ungated(subject: Subject) -> Subject | None:
    """The projection that would be multiplied with the other's activation gives ones."""
    changed = False
    for layer in layers(subject):
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


@mutation("feed-forward one narrower", "shape", "parameters")
def _narrower(subject: Subject) -> Subject | None:
    """The widest inner value of every layer loses a feature."""
    changed = False
    for layer in layers(subject):
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
