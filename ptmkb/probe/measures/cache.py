"""Decoding with a cache: whether it gives what decoding without gives, and how the cache grows.

Method. The cache is what a forward pass returns and takes again.
- `equal`: in float64, the logits (or last hidden states) of one run over all positions are compared with those
  of decoding position by position behind a prompt of one position, behind a prompt of all but the last four, and,
  where the library keeps caches of fixed size for the model, with such a cache. Where the model takes no prompt of
  one position, as one that must hold a picture, one of half of them and more takes the place of both. They are equal if no number differs by more than 1e-11
  of the largest. Where one does, the noise is measured, which is what the same run differs by when repeated and
  when each sample runs alone, and numbers may differ by 100 times as much. Noise beyond 1e-3 of the largest number is
  none of rounding: such a model draws what it says by lot, and nothing is said about `equal`.
- `growth`: the numbers that the cache holds are counted after every position, layer by layer: `linear` (each
  position adds as much as the one before), `bounded` (it stops growing: a window), `constant` (a state), and
  `mixed` where layers differ. What an encoder-decoder remembers of its encoder counts to its layer.
- `bytes_per_token`, for a variant at full size on `meta`: by how much the cache of a dozen positions
  exceeds that of two, by position, two bytes a number (bfloat16); the detail has the bytes that
  are there whatever the length.

Parts. None: the model as a whole.

Assumptions. The positions are more than the window of a tiny model, or `bounded` is taken for `linear`.

What it cannot tell. Whether sampling uses the cache; caches that are compressed, offloaded or shared between
requests; how a cache grows that is full behind the shortest prompt (a picture) that the model takes. At full size,
how long a window is: `bytes_per_token` is that of a context shorter than it. A model whose positions all see each
other gives `equal: false` if it remembers at all.

Source. Vaswani et al. 2017 (arXiv 1706.03762): predictions depend only on known outputs, so what
was computed for them holds; Dai et al. 2019 (arXiv 1901.02860) reuse hidden states of the segment
before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ptmkb.probe.measures import Reading, Unmeasurable

if TYPE_CHECKING:
    from torch import Tensor

    from ptmkb.probe.caching import Decoding, Sizes
    from ptmkb.probe.subject import Subject

SCALES: tuple[str, ...] = ("tiny", "variant")

GROWTHS = ("linear", "bounded", "constant", "mixed")
NOISE_FACTOR = 100.0  # a difference is this many times what equal runs differ by, or more
RELATIVE_FLOOR = 1e-11  # and this much of the largest number: other shapes round otherwise in a few places
LOT = 1e-3  # noise beyond this much of the largest number is none of rounding
# Positions that are decoded behind a long prompt: more than it takes to roll a tiny model's window on.
LAST = 4
BYTES = 2  # of a number in bfloat16
SHORT = 2  # positions whose cache is compared with that of all, at full size


def parse(value: Any) -> dict[str, bool | int | str]:
    """A claim in normal form.

    Raises:
        ValueError: It is not a mapping with any of `equal`, `growth`, `bytes_per_token`.
    """
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"a cache is a mapping with any of equal, growth, bytes_per_token; not {value!r}")
    for name, given in value.items():
        if name == "equal":
            if type(given) is not bool:
                raise ValueError(f"`equal` is true or false; not {given!r}")
        elif name == "growth":
            if given not in GROWTHS:
                raise ValueError(f"`growth` is one of {', '.join(GROWTHS)}; not {given!r}")
        elif name == "bytes_per_token":
            if type(given) is not int or given < 0:
                raise ValueError(f"`bytes_per_token` is a whole number of bytes; not {given!r}")
        else:
            raise ValueError(f"`{name}` says nothing of a cache, which has equal, growth, bytes_per_token")
    return dict(value)


def measure(subject: Subject) -> dict[str | None, Reading]:
    """What the cache gives and holds.

    Raises:
        Unmeasurable: The model keeps no cache, or it does not run on `meta`.
    """
    from ptmkb.probe.caching import decoding

    if subject.scale != "tiny":
        return {None: _weighed(subject)}
    from ptmkb.probe.numerics import in_float64

    doubled = subject.doubled()
    with in_float64():
        return {None: _decoded(*decoding(doubled))}


def agrees(claimed: dict[str, Any], measured: dict[str, Any]) -> bool:
    """Whether everything claimed is measured so."""
    return all(name in measured and measured[name] == given for name, given in claimed.items())


def _decoded(way: Decoding, returned: Any) -> Reading:
    """What decoding gives beside what one run of all positions returned."""
    import torch

    from ptmkb.probe.caching import result, static_cache

    whole = result(returned)
    if whole.shape[1] < way.length:
        raise Unmeasurable("what comes out has no place for each token")
    if not torch.isfinite(whole).all():
        raise Unmeasurable("its logits are not finite")
    prompt, results, sizes = _stepped(way)
    from_start = prompt == 1
    decoded = {"from_one" if from_start else "from_half": results}
    if from_start:
        prompt = max(1, way.length - LAST)
        decoded["from_most"] = way.stepped(prompt)[0]
    detail: dict[str, Any] = {}
    try:
        if (fixed := static_cache(way)) is not None:
            decoded["static"] = way.stepped(prompt, fixed)[0]
    except Exception as error:  # whatever a library's cache does with a model that it does not fit
        detail["static"] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    value: dict[str, Any] = {}
    differences, threshold = _differences(whole, decoded), RELATIVE_FLOOR * float(whole.abs().max())
    if not max(differences.values()) <= threshold:
        whole, noise = _noise(way)
        differences, detail["noise"] = _differences(whole, decoded), float(f"{noise:.1e}")
        threshold = (
            max(threshold, NOISE_FACTOR * noise) if noise <= LOT * float(whole.abs().max()) else math.inf
        )
    if threshold < math.inf:
        value["equal"] = max(differences.values()) <= threshold
        detail["threshold"] = float(f"{threshold:.1e}")
    layers = {layer: [at.get(layer, 0) for at in sizes] for layer in sizes[-1]}
    kinds = {layer: growth(series) for layer, series in layers.items()}
    if from_start or "constant" not in kinds.values():  # behind a long prompt a window may be full already
        value["growth"] = kinds[min(kinds)] if len(set(kinds.values())) == 1 else "mixed"
    if not value:
        raise Unmeasurable(
            "what it returns is drawn by lot, and how its cache grows is not seen behind its prompt"
        )
    detail["differences"] = {name: float(f"{difference:.1e}") for name, difference in differences.items()}
    detail |= {"layers": list(kinds.values()), "elements": [sum(at.values()) for at in sizes]}
    return Reading(value, detail)


def _stepped(way: Decoding) -> tuple[int, list[Tensor], list[Sizes]]:
    """Decode behind the shortest prompt that can be: one position, all that are held for a picture or a sound, or else half and more."""
    for prompt in dict.fromkeys((way.shortest, *range(max(way.shortest, way.length // 2), way.length - 2))):
        with suppress(ValueError, RuntimeError, IndexError):
            return prompt, *way.stepped(prompt)
    raise Unmeasurable("it cannot be decoded step by step")


def growth(series: Sequence[int]) -> str:
    """How the sizes of one layer's cache grow from position to position."""
    steps = [after - before for before, after in pairwise(series)]
    if not any(steps):
        return "constant"
    if steps[-1] > 0 and len(set(steps)) == 1:
        return "linear"
    still = next(index for index, step in enumerate(steps) if step <= 0) if min(steps) <= 0 else len(steps)
    return "bounded" if still < len(steps) and not any(steps[still:]) else "mixed"


def _differences(whole: Tensor, decoded: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
    """By how much what was decoded differs from what one run of all positions gave; infinite where it is no number."""
    import torch

    found = {}
    for name, results in decoded.items():
        last = torch.stack(list(results), dim=1)
        difference = float((whole[:, -last.shape[1] :] - last).abs().max())
        found[name] = math.inf if math.isnan(difference) else difference
    return found


def _noise(way: Decoding) -> tuple[Tensor, float]:
    """One run of all positions, and by how much equal ones differ from it: the same again, and each sample alone."""
    from dataclasses import replace

    import torch

    from ptmkb.probe.caching import result

    whole = result(way.run(0, way.length))
    noise = float((result(way.run(0, way.length)) - whole).abs().max())
    batch = len(whole)
    tensors = [value for value in way.inputs.values() if isinstance(value, torch.Tensor)]
    if all(value.ndim and len(value) == batch for value in tensors):
        for sample in range(batch):
            alone = {
                name: value[sample : sample + 1] if isinstance(value, torch.Tensor) else value
                for name, value in way.inputs.items()
            }
            single = result(replace(way, inputs=alone).run(0, way.length))
            noise = max(noise, float((single - whole[sample : sample + 1]).abs().max()))
    return whole, noise


def _weighed(subject: Subject) -> Reading:
    """Bytes of the cache at full size."""
    from ptmkb.probe.caching import decoding, elements
    from ptmkb.probe.numerics import field_of, run_experts

    run_experts(subject.model, "batched_mm")  # sizes that do not depend on the routing
    try:
        way, returned = decoding(subject)
        batch = len(way.inputs[way.tokens])
        long = elements(field_of(returned, way.cache), batch)
        short = elements(field_of(way.run(0, SHORT), way.cache), batch)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Unmeasurable(f"it is not decoded on `meta`: {reason}") from error
    added = (sum(long.values()) - sum(short.values())) // (way.length - SHORT)
    fixed = sum(short.values()) - SHORT * added
    growing = sum(long[layer] > short[layer] for layer in long)
    return Reading(
        {"bytes_per_token": BYTES * added},
        {"fixed_bytes": BYTES * fixed, "layers": len(long), "growing": growing},
    )
