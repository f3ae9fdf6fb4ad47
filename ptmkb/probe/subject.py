"""What a measure looks at: a live model, a batch that suits it, and which positions of which tensors belong together.

A `Subject` knows nothing of claims and nothing of catalogues. It says which streams of positions go into the model (words, patches,
frames, regions), how to replace one position by another valid value, and how to read what comes out position by position.
Everything that a measure says is then found out by running it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ptmkb.probe.memory import shared

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class Stream:
    """One sequence of positions that goes into a model.

    Attributes:
        name: `text`, `image`, `audio`, `region`, …; `encoder` and `decoder` for the two inputs of an encoder-decoder.
        positions: How many positions it has.
        replaced: Gives inputs equal to the given ones but for one position of every sample, which holds another valid value
            drawn from the generator: `replaced(inputs, position, generator)`.
    """

    name: str
    positions: int
    replaced: Callable[[Inputs, int, torch.Generator], Inputs]


@dataclass(frozen=True)
class Mode:
    """One way to run the model, where it has several (UniLM's three masks; XLNet with a permutation mask).

    Attributes:
        name: The `part` that claims about it name.
        inputs: What is added to the inputs.
        streams: Which streams' flow it is about; all where empty.
    """

    name: str
    inputs: Inputs
    streams: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loss:
    """A batch with labels, for one of the model's objectives.

    Attributes:
        part: The objective's name where the model has several (`masked-lm`, `matching`), else None.
        inputs: All arguments of the forward pass, labels included.
        labels: The names of the arguments that are labels.
    """

    part: str | None
    inputs: Inputs
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """A model under measurement.

    Attributes:
        name: The model's id (and variant), for messages.
        model: The module, in `eval` mode; float32; on the CPU, or on `meta` for a variant at full size.
        inputs: Arguments of a forward pass without labels; a batch of 2.
        streams: What goes in, by name; the insertion order is the order in which matrices are shown.
        read: From what the forward pass returned, the output of every stream, each (batch, positions, features): the last
            hidden states, aligned with the stream's positions (class tokens and the like taken off).
        modes: Further ways to run it.
        losses: Batches with labels, empty where the model has no loss.
        no_loss: Why there are none, then.
        blocks: The repeated layers of each stack, by stream name, in the order in which they run.
        places: Where each stream's positions are in the one sequence that they share, where a text holds places for the others'.
        scale: `tiny`, or the name of the variant whose full size this is.
    """

    name: str
    model: nn.Module
    inputs: Inputs
    streams: Mapping[str, Stream]
    read: Callable[[Any], Mapping[str, Tensor]]
    modes: tuple[Mode, ...] = ()
    losses: tuple[Loss, ...] = ()
    no_loss: str = "the model computes no loss"
    blocks: Mapping[str, tuple[nn.Module, ...]] = field(default_factory=dict)
    places: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scale: str = "tiny"

    def outputs(self, inputs: Inputs | None = None) -> Mapping[str, Tensor]:
        """Run the model once without gradients and read every stream's output.

        Args:
            inputs: Arguments of the forward pass, `self.inputs` where None.

        Returns:
            By stream name, (batch, positions, features).
        """
        import torch

        with torch.no_grad():
            return self.read(self.model(**dict(self.inputs if inputs is None else inputs)))

    @shared
    def doubled(self) -> Subject:
        """The same subject in float64, model and inputs, on a copy: what `flow` needs to tell influence from rounding."""
        from ptmkb.probe.copies import copied
        from ptmkb.probe.numerics import run_experts, widen_memories, widened

        wide: dict[int, Any] = {}  # batches that share a tensor go on sharing it

        def double(inputs: Inputs) -> Inputs:
            return {name: widened(value, wide) for name, value in inputs.items()}

        model, blocks = copied(self.model, (self.model, dict(self.blocks)))
        run_experts(model, "eager")  # the fused kernels do not know float64
        widen_memories(model)
        return replace(
            self,
            model=model.double(),
            inputs=double(self.inputs),
            modes=tuple(replace(mode, inputs=double(mode.inputs)) for mode in self.modes),
            losses=tuple(replace(loss, inputs=double(loss.inputs)) for loss in self.losses),
            blocks=blocks,
        )
