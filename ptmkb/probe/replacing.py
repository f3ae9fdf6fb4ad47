"""Gives one position of a stream another valid value: another word, another region, another piece of a picture, a sound or a series.

A picture, a sound or a series has no positions of its own: it is cut into as many pieces as the model makes positions of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ptmkb.probe import samples
from ptmkb.probe.inputs import configurations, frame_length, ordinary_words
from ptmkb.probe.subject import Inputs

_CUT = ("patch", "wave", "frame", "step")
"""Kinds of which the model decides how many positions there are."""
_GRID = 4
"""Rows and columns of pieces of a picture that comes out nowhere and has no patches."""

Replacer = Callable[[Inputs, int, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Region:
    """One argument as a stream of positions.

    Attributes:
        argument: Its name.
        kind: What a position of it is (`streams.Source`).
        positions: How many there are.
        places: Where they are in the argument, if not from its beginning on.
    """

    argument: str
    kind: str
    positions: int
    places: tuple[int, ...] | None = None


def own_positions(kind: str, model: nn.Module, value: Tensor, positions: int | None) -> int:
    """How many positions a stream has, tokens that the model adds not counted.

    Args:
        kind: What a position of it is.
        model: The model.
        value: The argument.
        positions: How many come out; None where none does.
    """
    if kind not in _CUT:
        return int(value.shape[-1] if kind == "column" else value.shape[1])
    cells = _cells(model, value, positions) if kind == "patch" else None
    if positions is None:
        return cells or _GRID * _GRID
    if kind == "step" and value.shape[1] % positions:
        return int(value.shape[1])  # each output looks at several steps
    return cells if cells is not None and cells <= positions else positions


def replacer(region: Region, model: nn.Module, inputs: Inputs) -> Replacer:
    """Puts another valid value at one position of an argument: `replace(inputs, position, generator)` gives the argument changed."""
    name, value = region.argument, inputs[region.argument]
    if region.kind in ("token", "characters"):
        words = torch.tensor(ordinary_words(model))

        def token(given: Inputs, position: int, generator: torch.Generator) -> dict[str, Tensor]:
            at = region.places[position] if region.places is not None else position
            old: Tensor = given[name].clone()
            shape = old[:, at].shape
            # A step of 1 to len - 1 through the list of words never ends where it began.
            step = torch.randint(1, len(words), shape, generator=generator)
            here = (words[:, None] == old[:, at].reshape(1, -1)).int().argmax(0).reshape(shape)
            old[:, at] = words[(here + step) % len(words)]
            return {name: old}

        return token

    def value_of(given: Inputs, position: int, generator: torch.Generator) -> dict[str, Tensor]:
        changed: Tensor = given[name].clone(memory_format=torch.contiguous_format)
        target = _piece(region, model, changed, position)
        new = torch.rand(target.shape, generator=generator, dtype=torch.float64)
        if region.kind == "box":
            target.copy_(new.sort(dim=-1).values.to(target.dtype))
        else:
            scale = float(value.std()) or 1.0
            target.copy_((2 * new - 1).mul(1.7 * scale).to(target.dtype))
        return {name: changed}

    return value_of


def _piece(region: Region, model: nn.Module, tensor: Tensor, position: int) -> Tensor:
    """The part of an argument, as a view, that belongs to a position."""
    if region.kind in ("vector", "box"):
        return tensor[:, position]
    if region.kind == "column":
        return tensor[..., position]
    if region.kind == "step":
        return _share(tensor, 1, position, region.positions)
    if region.kind == "wave":
        strides = next(
            (s for c in configurations(model.config) if (s := getattr(c, "conv_stride", None))), None
        )
        step = frame_length(tensor.shape[-1], region.positions, strides)
        return tensor[..., position * step : (position + 1) * step]
    if region.kind == "frame":
        return _share(tensor, 1 if tensor.shape[-1] == _bins(model) else 2, position, region.positions)
    return _patch(model, tensor, position, region.positions)


def _share(tensor: Tensor, axis: int, position: int, positions: int) -> Tensor:
    """One of as many even shares of an axis as there are positions; neighbours share where there are too few."""
    size = tensor.shape[axis]
    start = position * size // positions
    return tensor.narrow(axis, start, max(1, (position + 1) * size // positions - start))


def _patch(model: nn.Module, tensor: Tensor, position: int, positions: int) -> Tensor:
    """A piece of a picture or video."""
    if tensor.shape[0] > samples.BATCH:  # the patches of both samples in one row
        return _share(tensor.view(samples.BATCH, -1, *tensor.shape[1:]), 1, position, positions)
    if tensor.dim() < 4:  # patches in a row
        return _share(tensor, 1, position, positions)
    if _is_strip(tensor):
        return _share(
            tensor.reshape(*tensor.shape[:-1], samples.BATCH, -1), tensor.dim(), position, positions
        )
    pictures = (
        tensor.flatten(1, -4) if tensor.dim() > 4 else tensor.unsqueeze(1)
    )  # (batch, pictures, channels, height, width)
    together = _together(model, pictures)
    pictures = pictures.view(len(tensor), -1, together, *pictures.shape[2:])
    cells = max(1, positions // pictures.shape[1])
    picture = min(position // cells, pictures.shape[1] - 1)
    grid = _grid(model, tensor)
    rows, columns = grid if grid is not None and grid[0] * grid[1] == cells else _evenly(cells)
    height, width = tensor.shape[-2] / rows, tensor.shape[-1] / columns
    row, column = divmod(position % cells, columns)
    top, left = int(row * height), int(column * width)
    return pictures[
        :,
        picture,
        ...,
        top : max(top + 1, int((row + 1) * height)),
        left : max(left + 1, int((column + 1) * width)),
    ]


def _is_strip(tensor: Tensor) -> bool:
    """Whether the patches of both samples stand side by side in one picture: (1, channels, height of a patch, width of all)."""
    return tensor.dim() == 4 and tensor.shape[0] < samples.BATCH


def _evenly(cells: int) -> tuple[int, int]:
    """Rows and columns of a grid, as near to a square as may be."""
    rows = next(rows for rows in range(int(cells**0.5), 0, -1) if cells % rows == 0)
    return rows, cells // rows


def _together(model: nn.Module, pictures: Tensor) -> int:
    """How many pictures of a video make one layer of patches."""
    if pictures.shape[1] == 1:
        return 1
    found = (getattr(config, "tubelet_size", None) for config in configurations(model.config))
    tubelet = next((size if isinstance(size, int) else size[0] for size in found if size is not None), 1)
    return tubelet if pictures.shape[1] % tubelet == 0 else 1


def _grid(model: nn.Module, pixels: Tensor) -> tuple[int, int] | None:
    for config in configurations(model.config):
        patch = getattr(config, "patch_size", None)
        if isinstance(patch, int) or (isinstance(patch, list | tuple) and len(patch) == 2):
            height, width = (patch, patch) if isinstance(patch, int) else patch
            return pixels.shape[-2] // height, pixels.shape[-1] // width
    return None


def _cells(model: nn.Module, value: Tensor, positions: int | None) -> int | None:
    """How many patches an argument has, of all its pictures if as many come out; None where it cannot be said."""
    if value.shape[0] > samples.BATCH:
        return value.shape[0] // samples.BATCH
    if value.dim() < 4:
        return int(value.shape[1])
    grid = _grid(model, value)
    if grid is None:
        return None
    if _is_strip(value):
        return grid[0] * grid[1] // samples.BATCH
    cells = grid[0] * grid[1]
    pictures = value.flatten(1, -4) if value.dim() > 4 else value.unsqueeze(1)
    layers = pictures.shape[1] // _together(model, pictures)
    return cells * layers if positions is not None and cells * layers <= positions else cells


def _bins(model: nn.Module) -> int | None:
    return next(
        (
            b
            for c in configurations(model.config)
            for n in ("num_mel_bins", "feature_size")
            if (b := getattr(c, n, None))
        ),
        None,
    )
