"""Which input positions move which output positions, found by replacing one position at a time.

Everything runs in float64, in `eval` mode, from the same seed. What two runs of the same inputs differ by is
the noise floor; a difference above the threshold that stands on it is an influence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe.batches import joinable, joined, packed, reversed_samples, rows_each
from ptmkb.probe.measures import Unmeasurable
from ptmkb.probe.numerics import in_float64, seeded, tensors_in
from ptmkb.probe.subject import Inputs, Stream, Subject

NOISE_FACTOR = 100.0  # an influence is this many times what identical runs differ by, or more
RELATIVE_FLOOR = 1e-12  # and this much of the largest output: thousands of float64's roundings add up to less
WIDEST_FLOOR = (
    1e-9  # share of the largest output up to which the noise of a batch of many may lift the threshold
)
COPIES = 64  # batches, each with another position replaced, that are run as one

Outputs = dict[str, Tensor]
Moved = tuple[dict[str, Tensor], dict[str, float]]


@dataclass(frozen=True)
class Influence:
    """What one input stream does to one output.

    Attributes:
        matrix: (outputs, inputs), True where the input position moves the output position.
        threshold: Differences up to this are taken for noise.
        noise: The largest difference between runs of the same inputs.
        first_layer: The same matrix from the input to the output of the first layer of the output's stack,
            None where this has no layers or its positions cannot be matched with the input's.
        places: Where the stream's positions are in that layer's sequence; None where it has none of its own.
        leaks: Whether replacing the first sample's inputs changes the second sample's output; None where
            samples cannot be told apart.
        batch_order: Whether the outputs depend on the order of the samples by more than rounding (random
            draws, shared capacity).
    """

    matrix: list[list[bool]]
    threshold: float
    noise: float
    first_layer: list[list[bool]] | None
    places: list[int] | None
    leaks: bool | None
    batch_order: bool | None


def influences(
    subject: Subject, inputs: Inputs | None = None, *, only: Sequence[str] = (), draws: int = 1, seed: int = 0
) -> dict[tuple[str, str], Influence]:
    """Measure every pair of an input stream and an output.

    Args:
        subject: In float64 (`Subject.doubled`).
        inputs: Arguments of the forward pass, the subject's own where None.
        only: The input streams to replace, and the outputs to look at; all where empty.
        draws: How often each position is replaced in every sample; one value might by chance change nothing.
        seed: Of the replacements.

    Returns:
        By (input stream, output).

    Raises:
        Unmeasurable: Outputs are not finite, or their shape depends on the values of the inputs.
    """
    given = dict(subject.inputs if inputs is None else inputs)
    with in_float64(), seeded(), _tapped(subject.blocks) as taps:
        return _Experiment(subject, given, taps, only).run(draws, seed)


class _Experiment:
    def __init__(
        self, subject: Subject, inputs: dict[str, Any], taps: dict[str, Tensor], only: Sequence[str]
    ) -> None:
        self.subject, self.inputs, self.taps = subject, inputs, taps
        self.streams = {name: stream for name, stream in subject.streams.items() if not only or name in only}
        self.base, taps = self.forward(inputs)
        self.all = self.base | taps
        self.scale = {name: float(value.abs().max()) for name, value in self.all.items()}
        self.outputs = [name for name in self.base if not only or name in only or name not in subject.streams]
        self.batch = next(iter(self.base.values())).shape[0]
        for name in self.outputs:
            if not torch.isfinite(self.base[name]).all():
                raise Unmeasurable(f"the output `{name}` is not finite")

    def forward(self, inputs: Inputs) -> tuple[Outputs, Outputs]:
        self.taps.clear()
        with seeded():
            outputs = {name: _features(value) for name, value in self.subject.outputs(inputs).items()}
        taps = {
            name: _batch_first(value, len(next(iter(outputs.values())))) for name, value in self.taps.items()
        }
        return outputs, taps

    def run(self, draws: int, seed: int) -> dict[tuple[str, str], Influence]:
        noise, batch_order = self.noise_and_order()
        found = {}
        for stream in self.streams.values():
            generator = torch.Generator().manual_seed(seed)
            leaks = self.leaks(stream, noise, generator)
            at_once = None
            if not any(batch_order.values()) and leaks is not None and not any(leaks.values()):
                at_once = self.moved_at_once(stream, draws, noise, generator)
            moved, floor = at_once or self.moved(stream, draws, noise, generator)
            for name in self.outputs:
                first, places = self.first_layer(stream, name, moved)
                found[stream.name, name] = Influence(
                    matrix=moved[name].tolist(),
                    threshold=self.threshold(name, floor[name]),
                    noise=floor[name],
                    first_layer=first,
                    places=places,
                    leaks=None if leaks is None else leaks[name],
                    batch_order=batch_order.get(name),
                )
        return found

    def noise_and_order(self) -> tuple[dict[str, float], dict[str, bool]]:
        """By output or tap, what runs of the same inputs differ by; and whether the order of the samples matters, where that can be told."""
        order = self.batch_order_difference()
        if order.keys() == self.all.keys() and all(
            order[name] <= RELATIVE_FLOOR * self.scale[name] for name in order
        ):
            return order, dict.fromkeys(order, False)  # what is equal in another order is equal in the same
        noise = {name: float(difference.max()) for name, difference in self.differences(self.inputs).items()}
        matters = {name: order[name] > self.threshold(name, noise[name]) for name in order}
        return {
            name: max(noise[name], 0.0 if matters.get(name, True) else order[name]) for name in noise
        }, matters

    def threshold(self, name: str, noise: float) -> float:
        return max(NOISE_FACTOR * noise, RELATIVE_FLOOR * self.scale[name])

    def moved(self, stream: Stream, draws: int, noise: dict[str, float], generator: torch.Generator) -> Moved:
        """By output or tap, (outputs, positions): which positions of any sample a replaced one moves; and the noise."""
        moved = self.nothing_moved(stream)
        for _ in range(draws):
            for position in range(stream.positions):
                changed = stream.replaced(self.inputs, position, generator)
                for name, difference in self.differences(changed).items():
                    moved[name][:, position] |= difference > self.threshold(name, noise[name])
        return moved, noise

    def nothing_moved(self, stream: Stream) -> dict[str, Tensor]:
        return {
            name: torch.zeros(value.shape[1], stream.positions, dtype=torch.bool)
            for name, value in self.all.items()
        }

    def moved_at_once(
        self, stream: Stream, draws: int, noise: dict[str, float], generator: torch.Generator
    ) -> Moved | None:
        """The same as `moved`, many replacements in one batch; None where outputs depend on what else is in it.

        Unchanged copies at the start and the end of the batch show whether it does, and add to the noise what
        another place in a batch, and another size of it, changes.
        """
        if not joinable(self.inputs, self.batch):
            return None
        noise, moved = dict(noise), self.nothing_moved(stream)
        places = [position for _ in range(draws) for position in range(stream.positions)]
        try:
            for start in range(0, len(places), COPIES):
                if not self.move_together(stream, places[start : start + COPIES], moved, noise, generator):
                    return None
        except (RuntimeError, ValueError, IndexError):  # a model that takes two samples and no more
            return None
        return moved, noise

    def move_together(
        self,
        stream: Stream,
        at: Sequence[int],
        moved: dict[str, Tensor],
        noise: dict[str, float],
        generator: torch.Generator,
    ) -> bool:
        """Replace each of some positions in a copy of its own, and add to `moved` and `noise`; False where copies disturb each other."""
        changed = [stream.replaced(self.inputs, position, generator) for position in at]
        outputs, taps = self.forward(joined([self.inputs, *changed, self.inputs]))
        alone: Outputs = {}
        if packed(self.inputs, self.batch):  # rows of several samples might be told apart at a wrong place
            alone = {name: value for part in self.forward(changed[-1]) for name, value in part.items()}
        for name, value in (outputs | taps).items():
            if value.shape != ((len(at) + 2) * self.batch, *self.all[name].shape[1:]):
                return False
            copies = value.view(-1, *self.all[name].shape)
            difference = (copies - self.all[name]).abs().amax(dim=(1, 3))
            same = [difference[0], difference[-1], *([copies[-2] - alone[name]] if name in alone else [])]
            noise[name] = max(noise[name], *(float(other.abs().max()) for other in same))
            if NOISE_FACTOR * noise[name] > WIDEST_FLOOR * self.scale[name]:
                return False
            for position, moves in zip(at, difference[1:-1] > self.threshold(name, noise[name]), strict=True):
                moved[name][:, position] |= moves
        return True

    def differences(self, inputs: Inputs) -> dict[str, Tensor]:
        """By output or tap, (positions,): by how much any feature of any sample differs from the first run's."""
        outputs, taps = self.forward(inputs)
        found = {}
        for name, value in (outputs | taps).items():
            if name not in self.all or self.all[name].shape != value.shape:
                raise Unmeasurable(f"the shape of the output `{name}` depends on the values of the inputs")
            found[name] = (value - self.all[name]).abs().amax(dim=(0, 2))
        return found

    def batch_order_difference(self) -> dict[str, float]:
        """By output, how far the outputs of a batch in reverse order, put back in order, lie from the first run's."""
        if any(rows_each(value, self.batch) is None for _, value in tensors_in(self.inputs) if value.ndim):
            return {}
        outputs, taps = self.forward(reversed_samples(self.inputs, self.batch))
        return {
            name: float((value.flip(0) - self.all[name]).abs().max())
            for name, value in (outputs | taps).items()
            if value.shape == self.all[name].shape
        }

    def leaks(
        self, stream: Stream, noise: Mapping[str, float], generator: torch.Generator
    ) -> dict[str, bool] | None:
        """By output, whether new values at all positions of the first sample move the other samples' outputs."""
        changed: Inputs = self.inputs
        for position in range(stream.positions):
            changed = stream.replaced(changed, position, generator)
        mixed = dict(self.inputs)
        for name, value in changed.items():
            old = self.inputs.get(name)
            if not isinstance(value, Tensor) or not isinstance(old, Tensor) or value is old:
                continue
            rows = rows_each(value, self.batch)
            if value.shape != old.shape or rows is None or self.batch < 2:
                return None
            mixed[name] = torch.cat([value[:rows], old[rows:]])
        outputs, _ = self.forward(mixed)
        return {
            name: bool(
                ((outputs[name] - self.base[name])[1:].abs() > self.threshold(name, noise[name])).any()
            )
            for name in self.outputs
        }

    def first_layer(
        self, stream: Stream, name: str, moved: Mapping[str, Tensor]
    ) -> tuple[list[list[bool]] | None, list[int] | None]:
        """From the stream's positions to the first layer's output at the same positions; and which positions these are.

        Which of the layer's positions belong to the stream (there may be a class token, or another stream
        beside it) is measured
        too: those of the layer's input that exactly one replaced position moves.
        """
        into, out = moved.get(f"{name}:into"), moved.get(f"{name}:out")
        if name != stream.name or into is None or out is None or len(into) != len(out):
            return None, None
        if bool((into.sum(dim=0) == 1).all()) and bool((into.sum(dim=1) <= 1).all()):
            places = into.int().argmax(dim=0).tolist()
            return out[places].tolist(), places
        if len(out) == stream.positions:
            return out.tolist(), list(range(stream.positions))
        return None, None


@contextmanager
def _tapped(blocks: Mapping[str, Sequence[nn.Module]]) -> Iterator[dict[str, Tensor]]:
    """While open, what goes into and comes out of the first layer of each stack is put into the mapping yielded."""
    taps: dict[str, Tensor] = {}

    def into(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        hidden = next(hidden_states_in((args, kwargs)), None)
        if hidden is not None:
            taps.setdefault(f"{name}:into", hidden.detach())

    def out(name: str, output: Any) -> None:
        found = list(hidden_states_in(output))
        same = [value for value in found if value.shape == found[0].shape]
        if same:
            taps.setdefault(
                f"{name}:out", same[-1].detach()
            )  # XLNet's layers return the content stream, then the query stream

    hooks = []
    for name, stack in blocks.items():
        if stack:
            hooks.append(
                stack[0].register_forward_pre_hook(
                    lambda _, args, kwargs, name=name: into(name, args, kwargs), with_kwargs=True
                )
            )
            hooks.append(stack[0].register_forward_hook(lambda _, args, output, name=name: out(name, output)))
    try:
        yield taps
    finally:
        for hook in hooks:
            hook.remove()


def hidden_states_in(value: Any) -> Iterator[Tensor]:
    """The tensors (batch, positions, features), or positions first, of what goes into or out of a layer."""
    for _, tensor in tensors_in(value):
        if tensor.is_floating_point() and tensor.ndim == 3:
            yield tensor


def _features(value: Tensor) -> Tensor:
    if value.ndim < 2:
        raise Unmeasurable(f"an output of shape {tuple(value.shape)} has no positions")
    return value.unsqueeze(-1) if value.ndim == 2 else value.flatten(2)


def _batch_first(value: Tensor, batch: int) -> Tensor:
    return value if value.shape[0] == batch else value.transpose(0, 1)
