"""What a tracer has seen of a forward pass: products with weights, attentions, lookups, choices, layers, in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class Source:
    """Where a tensor comes from since the last product with a weight.

    Attributes:
        products: (index of the product with a weight, offset of the slice of its result), of all that flowed
            together.
        scores: Index of the product of queries and keys that this is.
        weights: Index of the attention whose softmax this is.
        context: Index of the attention whose result this is.
        gated: It is an elementwise product of two different projections.
        parameter: It is a weight, or nothing but weights went into it.
    """

    products: frozenset[tuple[int, int]] = frozenset()
    scores: int | None = None
    weights: int | None = None
    context: int | None = None
    gated: bool = False
    parameter: bool = False

    @property
    def calls(self) -> frozenset[int]:
        """The products with a weight, whichever slice."""
        return frozenset(call for call, _ in self.products)


@dataclass(frozen=True)
class Product:
    """A product with a weight: a linear map or a convolution.

    Attributes:
        weight: The weight as it went in.
        inputs: Features of what goes in.
        outputs: Features of what comes out.
        source: Where what goes in comes from.
        layer: Index into `Tracer.layers` of the layer it ran in, None outside of layers.
    """

    weight: Tensor
    inputs: int
    outputs: int
    source: Source
    layer: int | None


@dataclass(frozen=True)
class Attention:
    """One attention: queries with keys, softmax, with values."""

    heads: int
    key_heads: int
    head_size: int
    query: Source
    key: Source
    value: Source
    layer: int | None


@dataclass(frozen=True)
class Lookup:
    """Rows of a table picked by indices."""

    indices: Tensor
    table: Tensor


@dataclass(frozen=True)
class Choice:
    """The k largest of some, as a router picks experts."""

    among: int
    chosen: int
    layer: int | None


@dataclass
class LayerCall:
    """One run of one layer.

    Attributes:
        stacks: The stacks that it belongs to; several where streams meet in it.
        module: The layer.
        width: Features of what goes in.
    """

    stacks: tuple[str, ...]
    module: nn.Module
    width: int | None


@dataclass
class Trace:
    """What was seen, in the order in which it ran."""

    products: list[Product] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)
    lookups: list[Lookup] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    layers: list[LayerCall] = field(default_factory=list)

    def stacks(self) -> dict[str | None, list[int]]:
        """The runs of each stack's layers, in order, as indices into `layers`; None is the stack's name where there is only one."""
        names = dict.fromkeys(name for call in self.layers for name in call.stacks)
        found = {name: [at for at, call in enumerate(self.layers) if name in call.stacks] for name in names}
        one = len({tuple(calls) for calls in found.values()}) == 1
        return {None if one else name: calls for name, calls in found.items()}
