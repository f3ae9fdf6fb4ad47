"""Runs a decoder with and without its cache, and weighs what the cache holds: for `measures/cache.py`.

Which argument carries the cache is seen from what the forward pass returns and takes again (`past_key_values`,
`cache_params`, `mems`, `state`, …); nothing here knows a model by its name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptmkb.probe.measures import Unmeasurable
from ptmkb.probe.numerics import field_of, seeded
from ptmkb.probe.subject import Inputs, Subject
from ptmkb.probe.wanted import CONTENT

_TOKENS = ("decoder_input_ids", "decoder_input_values", "input_ids")
_SWITCHES = ("use_cache", "use_mems")
_WIDE_MASKS = ("attention_mask", "decoder_attention_mask")  # cover what is cached too
_RESULTS = ("logits", "last_hidden_state")

Sizes = dict[int, int]
"""Elements of the cache a sample, by layer."""


@dataclass(frozen=True)
class Decoding:
    """How a model is decoded step by step.

    Attributes:
        model: The model.
        inputs: Arguments of the forward pass without those that switch caches on or off.
        tokens: The argument that grows.
        cache: The argument, and the field of what is returned, that carries the cache.
        switches: What switches the cache on.
        shortest: How many positions a prompt has at least: up to the last that is a place for a picture or a sound.
    """

    model: nn.Module
    inputs: Inputs
    tokens: str
    cache: str
    switches: Inputs
    shortest: int = 1

    @property
    def length(self) -> int:
        """How many positions there are to decode."""
        return int(self.inputs[self.tokens].shape[1])

    def run(self, first: int, last: int, cache: Any = None) -> Any:
        """One forward pass of the positions from `first` up to (without) `last`, behind what is cached.

        Args:
            first: The first position.
            last: The position behind the last.
            cache: What is remembered of those before; None at the beginning.

        Returns:
            What the forward pass returns.
        """
        given = dict(self.inputs)
        aligned = self._aligned()
        for name in aligned:
            given[name] = given[name][:, slice(0 if name in _WIDE_MASKS else first, last)]
        if first and self.tokens == "input_ids" and self._sees():  # pictures and the like are remembered
            given = {
                name: value
                for name, value in given.items()
                if name in aligned or not isinstance(value, Tensor) or value.ndim < 2
            }
        if cache is not None:
            given[self.cache] = cache
        with torch.no_grad(), seeded():
            return self.model(**given, **self.switches)

    def _sees(self) -> bool:
        """Whether anything goes in beside the tokens that is the content of a picture or a sound."""
        return any(name in CONTENT and name != self.tokens for name in self.inputs)

    def _aligned(self) -> list[str]:
        """The arguments that have one entry a position."""
        side = "decoder_" if self.tokens.startswith("decoder") else ""
        return [
            name
            for name, value in self.inputs.items()
            if name.startswith(side)
            and isinstance(value, Tensor)
            and value.ndim > 1
            and (name == self.tokens or (value.shape[1] == self.length and not value.is_floating_point()))
        ]

    def stepped(self, prompt: int, cache: Any = None) -> tuple[list[Tensor], list[Sizes]]:
        """Decode: a prompt at once, then position by position.

        Args:
            prompt: How many positions the prompt has.
            cache: An empty cache of a kind of its own, the model's own kind where None.

        Returns:
            The result (batch, features) at each position from the prompt's last on; the cache's size after each.
        """
        results: list[Tensor] = []
        sizes: list[Sizes] = []
        held = cache
        for last in range(prompt, self.length + 1):
            returned = self.run(0 if last == prompt else last - 1, last, held)
            held = field_of(returned, self.cache)
            results.append(result(returned)[:, -1])
            sizes.append(elements(held, len(results[0])))
        return results, sizes


def decoding(subject: Subject) -> tuple[Decoding, Any]:
    """How the subject is decoded with a cache, and what one run of all positions with an empty one returns.

    Raises:
        Unmeasurable: It reads no tokens, or returns nothing that it takes again as a cache.
    """
    tokens = next((name for name in _TOKENS if name in subject.inputs), None)
    if tokens is None:
        raise Unmeasurable("it decodes no tokens")
    parameters = inspect.signature(subject.model.forward).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    switches = {
        name: True for name in _SWITCHES if name in parameters or (open_ended and name == "use_cache")
    }
    inputs = {name: value for name, value in subject.inputs.items() if name not in _SWITCHES}
    try:
        with torch.no_grad(), seeded():
            returned = subject.model(**inputs, **switches)
    except Exception as error:  # whatever it raises when asked for a cache that it does not keep
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise Unmeasurable(f"its forward pass fails when a cache is asked for: {reason}") from error
    made = (*_RESULTS, *(name for name in parameters if name.endswith("hidden_states")))  # of other inputs
    taken = [name for name in parameters if name not in inputs and name not in made]
    cache = next((name for name in taken if any(_floats(field_of(returned, name)))), None)
    if cache is None:
        raise Unmeasurable("it returns no cache that its forward pass takes again")
    held = [place for name, places in subject.places.items() if name != "text" for place in places]
    # A prompt goes on with a word: some models count positions wrongly behind one that ends in a picture.
    shortest = 2 + max(held) if held and not tokens.startswith("decoder") else 1
    shortest = max(shortest, _prefix(inputs))
    return Decoding(subject.model, inputs, tokens, cache, switches, shortest), returned


def _prefix(inputs: Inputs) -> int:
    """How long the prompt is, where the inputs say of each position whether it is in the prompt (0) or what is to be written (1)."""
    types = inputs.get("token_type_ids")
    if not isinstance(types, Tensor) or not types.any() or bool((types.diff() < 0).any()):
        return 0
    return int((types == 0).sum(dim=1).max())


def static_cache(way: Decoding) -> Any:
    """An empty cache of fixed size for this model; None where its library knows none for it."""
    if way.cache != "past_key_values" or not getattr(way.model, "_can_compile_fullgraph", False):
        return None
    from transformers import DynamicCache, EncoderDecoderCache, StaticCache

    config: Any = way.model.config
    cache = StaticCache(config=config, max_cache_len=way.length)
    return EncoderDecoderCache(cache, DynamicCache(config=config)) if config.is_encoder_decoder else cache


def result(returned: Any) -> Tensor:
    """The logits, or else the last hidden states: (batch, positions, features).

    Raises:
        Unmeasurable: There are neither.
    """
    for name in _RESULTS:
        value = field_of(returned, name)
        if isinstance(value, Tensor) and value.ndim == 3:
            return value
    raise Unmeasurable("it returns neither logits nor hidden states by position")


def elements(cache: Any, batch: int) -> Sizes:
    """How many numbers a cache holds for one sample, by layer (the first index on the way to a tensor)."""
    found: Sizes = {}
    for layer, tensor in _floats(cache):
        found[layer] = found.get(layer, 0) + tensor.numel() // batch
    return found


def _floats(
    value: Any, layer: int | None = None, seen: set[int] | None = None
) -> Iterator[tuple[int, Tensor]]:
    """The floating tensors inside, once each, with the first index on the way."""
    seen = set() if seen is None else seen
    if (
        id(value) in seen
        or value is None
        or isinstance(value, str | bytes | int | float | type | torch.dtype)
    ):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield layer or 0, value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _floats(item, layer, seen)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _floats(item, index if layer is None else layer, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        yield from _floats(vars(value), layer, seen)
