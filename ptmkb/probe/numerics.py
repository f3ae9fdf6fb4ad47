"""Conditions under which a model is run: seeded, wholly in float64, without dropout; each leaves no trace."""

from __future__ import annotations

import copy
import dataclasses
import functools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
import torch._decomp.decompositions_for_jvp  # compiled when a loss first wants it, which fails in the modes below
from numpy.random import mtrand
from torch import nn

_WIDER = dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float64)
# What many calls of functions take beside their tensors; looking into each would take most of the time.
_PLAIN = (int, float, str, type(None), torch.dtype, torch.device)
_OF_TENSORS = "sum mean prod cumsum cumprod nansum nanmean softmax log_softmax"
_MADE = "zeros ones full empty rand randn randint"
TYPED: dict[Any, str] = {
    torch.Tensor: f"to type norm cumsum_ cumprod_ new_tensor new_zeros new_ones new_full new_empty new_empty_strided {_OF_TENSORS}",
    torch: (
        f"{_OF_TENSORS} {_MADE} {' '.join(f'{name}_like' for name in _MADE.split())} norm normal tensor as_tensor asarray scalar_tensor "
        "arange range linspace logspace eye empty_strided empty_permuted frombuffer "
        "bartlett_window blackman_window hamming_window hann_window kaiser_window"
    ),
    nn.functional: "softmax log_softmax softmin",
    torch.linalg: "norm vector_norm matrix_norm",
    torch.special: "softmax log_softmax",
    torch.fft: "fftfreq rfftfreq",
}
"""What makes numbers of a type that it is told: the names by where they are."""
_DROPOUTS = (
    (torch, "dropout"),
    *(
        (nn.functional, f"{kind}dropout{axes}")
        for kind, axes in (
            ("", ""),
            ("", "1d"),
            ("", "2d"),
            ("", "3d"),
            ("alpha_", ""),
            ("feature_alpha_", ""),
        )
    ),
)


# NumPy takes longer to copy a generator's state than to seed another one in its place, and to make one longer than either.
_GENERATORS: list[np.random.MT19937] = []


def seed(number: int = 0) -> None:
    """Seed the generators of torch (on the CPU), NumPy and Python.

    `torch.manual_seed` asks every other kind of device too, which takes longer than many a tiny model.
    """
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


@contextmanager
def seeded(number: int = 0) -> Iterator[None]:
    """Seed the generators of torch (on the CPU), NumPy and Python, and put them back afterwards."""
    of_python, of_numpy, of_torch = random.getstate(), mtrand.get_bit_generator(), torch.get_rng_state()
    own = _GENERATORS.pop() if _GENERATORS else np.random.MT19937()
    mtrand.set_bit_generator(own)
    seed(number)
    try:
        yield
    finally:
        torch.set_rng_state(of_torch)
        random.setstate(of_python)
        mtrand.set_bit_generator(of_numpy)
        _GENERATORS.append(own)


def _widening(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is asked for float64 where it would be asked for less."""

    @functools.wraps(function)  # who watches what is called goes by the name
    def wider(*args: Any, **kwargs: Any) -> Any:
        for value in args:
            if type(value) is torch.dtype:
                args = tuple(
                    _WIDER.get(value, value) if type(value) is torch.dtype else value for value in args
                )
                break
        for name, value in kwargs.items():
            if type(value) is torch.dtype:
                kwargs[name] = _WIDER.get(value, value)
        return function(*args, **kwargs)

    return wider


def _put(stack: ExitStack, holder: Any, name: str, value: Any) -> None:
    """Exchange an attribute until the stack is left."""
    if name in vars(holder):
        stack.callback(setattr, holder, name, vars(holder)[name])
    else:  # a class has it from another
        stack.callback(delattr, holder, name)
    setattr(holder, name, value)


_open = 0  # how many `in_float64` are


@contextmanager
def in_float64() -> Iterator[None]:
    """Casts to narrower floats become casts to float64.

    Many models compute a norm or a softmax in float32 whatever the type of their weights; an influence below
    its resolution would be rounded to nothing there. PyTorch's own functions are exchanged for the time being: a mode that looks at each
    function that is called takes a third of the time of a tiny model's forward pass.
    """
    global _open
    default = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, default)
        torch.set_default_dtype(torch.float64)
        if not _open:
            for name in ("float", "half", "bfloat16"):
                _put(stack, torch.Tensor, name, torch.Tensor.double)
            for holder, names in TYPED.items():
                for name in names.split():
                    _put(stack, holder, name, _widening(getattr(holder, name)))
        _open += 1
        try:
            yield
        finally:
            _open -= 1


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Dropout of every kind does nothing, in training mode too; of layers as well (`layerdrop`).

    PyTorch's own functions are exchanged for the time being, for every model that runs: a mode that looks at each function that is called takes a
    fifth of the time of a training step.
    """
    attention = nn.functional.scaled_dot_product_attention

    def attend(
        query: Any, key: Any, value: Any, mask: Any = None, dropout_p: float = 0.0, *args: Any, **kwargs: Any
    ) -> Any:
        mask = kwargs.pop("attn_mask", mask)
        return attention(query, key, value, mask, 0.0, *args, **kwargs)

    def untouched(*args: Any, **kwargs: Any) -> Any:
        return args[0] if args else kwargs["input"]

    with ExitStack() as stack:
        holders = [
            *model.modules(),
            *{id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values(),
        ]
        for holder in holders:
            for name, value in list(vars(holder).items()) if hasattr(holder, "__dict__") else ():
                if name.endswith("layerdrop") and isinstance(value, float) and value:
                    _put(stack, holder, name, 0.0)
        for place, name in _DROPOUTS:
            _put(stack, place, name, untouched)
        _put(stack, nn.functional, "scaled_dot_product_attention", attend)
        yield


def run_experts(model: nn.Module, implementation: str) -> None:
    """Choose how the experts of a `transformers` mixture run.

    Args:
        model: Changed in place.
        implementation: `eager` loops over the experts and knows every float type; `batched_mm` has no sizes
            that depend on the routing, so that it runs on `meta`.
    """
    for module in model.modules():
        if hasattr(getattr(module, "config", None), "_experts_implementation_internal"):
            module.config._experts_implementation_internal = implementation  # type: ignore[union-attr]


def widened(value: Any, done: dict[int, Any]) -> Any:
    """A value with every floating tensor in it in float64: in mappings and lists, and in the fields of plain objects.

    Args:
        value: Left as it is; what changes is copied.
        done: What has been widened, with what it became, by identity: what is shared stays so. Filled here.
    """
    if id(value) in done:
        return done[id(value)][1]
    wide = value
    if isinstance(value, torch.Tensor):
        wide = value.double() if value.is_floating_point() else value
        done[id(value)] = value, wide  # the value is held, so that no other gets its identity
    elif isinstance(value, dict):
        done[id(value)] = value, (wide := copy.copy(value))
        wide.update({name: widened(item, done) for name, item in value.items()})
    elif type(value) in (list, tuple):
        wide = type(value)(widened(item, done) for item in value)
    elif is_plain_object(value):
        done[id(value)] = value, (wide := copy.copy(value))
        vars(wide).update({name: widened(item, done) for name, item in vars(value).items()})
    return wide


def widen_memories(model: nn.Module) -> None:
    """Widen, in place, what modules remember of earlier runs (a codebook, a cache of embeddings): it is neither parameter nor buffer."""
    done: dict[int, Any] = {}
    for module in model.modules():
        vars(module).update(
            {
                name: widened(value, done)
                for name, value in vars(module).items()
                if isinstance(value, torch.Tensor)
                or (is_plain_object(value) and type(value).__module__ == type(module).__module__)
            }
        )


def is_plain_object(value: Any) -> bool:
    """Whether this is an object of somebody's own class with fields, no tensor, mapping, module, class or function."""
    return hasattr(value, "__dict__") and not isinstance(
        value, torch.Tensor | Mapping | nn.Module | type | FunctionType | MethodType
    )


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in what a forward pass returned or takes, with the names of their places (`decoder_hidden_states.0`)."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (tuple, list)):
        items = enumerate(value)
    elif isinstance(value, Mapping):
        items = value.items()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    for key, item in items:
        if not isinstance(item, _PLAIN):
            yield from tensors_in(item, f"{name}.{key}" if name else str(key))


def field_of(output: Any, name: str) -> Any:
    """One field of what a forward pass returned, whatever it is (mapping, dataclass); None where there is none."""
    if isinstance(output, Mapping):
        return output.get(name)
    return getattr(output, name, None)
