"""Conditions under which models run, and their copies: nothing is left of either behind them."""

import copy
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ptmkb.probe import subjects
from ptmkb.probe.copies import copied
from ptmkb.probe.numerics import TYPED, in_float64, seeded, without_dropout

X = torch.linspace(-1, 1, 24).reshape(1, 4, 6)


def _draws() -> tuple[float, float, float]:
    return float(np.random.rand()), random.random(), float(torch.rand(()))


def test_seeded_runs_draw_the_same_and_leave_the_generators_as_they_were() -> None:
    before = random.getstate(), np.random.get_state()[1:], torch.get_rng_state()
    with seeded():
        first = [_draws(), _draws()]
    with seeded():
        assert [_draws(), _draws()] == first
    assert random.getstate() == before[0]
    assert all(
        np.array_equal(now, then) for now, then in zip(np.random.get_state()[1:], before[1], strict=True)
    )
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_seeded_run_in_another_does_not_disturb_it() -> None:
    with seeded():
        plain = [_draws(), _draws()]
    with seeded():
        first = _draws()
        with seeded():
            assert _draws() == plain[0]
        assert [first, _draws()] == plain


def test_another_number_gives_other_draws() -> None:
    with seeded(1):
        one = _draws()
    with seeded(2):
        assert not set(one) & set(_draws())


class Attending(nn.Module):
    """Self-attention by PyTorch's module, which computes it in one of two ways."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.MultiheadAttention(6, 2, dropout=0.5, batch_first=True)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=self.weights)[0]  # type: ignore[no-any-return]


class Calling(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


F = nn.functional


@pytest.mark.parametrize(
    "model",
    [
        nn.Dropout(0.5),
        nn.Dropout1d(0.5),
        nn.AlphaDropout(0.5),
        Attending(weights=True),
        Attending(weights=False),
        Calling(lambda x: F.dropout(input=x, p=0.5)),
        Calling(lambda x: torch.dropout(x, 0.5, True)),
        Calling(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)),
        Calling(lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(4, 4, dtype=torch.bool), 0.5, False)),
        Calling(lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.zeros(4, 4), dropout_p=0.5)),
    ],
)  # fmt: skip
def test_no_dropout_of_any_kind(model: nn.Module) -> None:
    model.train()
    with without_dropout(model):
        once, again = model(X), model(X)
    assert torch.equal(once, again)
    if not isinstance(model, Calling):
        assert torch.allclose(once, copy.deepcopy(model).eval()(X), atol=1e-6)
    torch.manual_seed(1)
    assert not torch.equal(model(X), model(X)), "what was exchanged is back"


def test_attention_keeps_its_other_arguments() -> None:
    plain = F.scaled_dot_product_attention
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    with without_dropout(nn.Identity()):
        given: list[Any] = [
            F.scaled_dot_product_attention(X, X, X, mask),
            F.scaled_dot_product_attention(X, X, X, attn_mask=mask),
            F.scaled_dot_product_attention(X, X, X, None, 0.5, True),
            F.scaled_dot_product_attention(X, X, X, is_causal=True),
        ]
        scaled = F.scaled_dot_product_attention(X, X, X, scale=3.0)
    assert F.scaled_dot_product_attention is plain
    assert all(torch.allclose(one, plain(X, X, X, attn_mask=mask)) for one in given)
    assert torch.equal(scaled, plain(X, X, X, scale=3.0))


def test_layerdrop_is_off_and_comes_back() -> None:
    model = subjects.subject_of_type("wav2vec2").model
    model.config.layerdrop = 0.7  # type: ignore[union-attr]
    with without_dropout(model):
        assert model.config.layerdrop == 0.0  # type: ignore[union-attr]
    assert model.config.layerdrop == 0.7  # type: ignore[union-attr]


@pytest.mark.parametrize("model_type", ["bert", "detr", "mamba"])
def test_copies_are_deep(model_type: str) -> None:
    model = subjects.subject_of_type(model_type).model
    state = {name: value.clone() for name, value in model.state_dict().items()}
    twin, (again, layers) = copied(model, model), copied(model, (model, list(model.children())))
    assert type(twin) is type(model)
    assert all(one is other for one, other in zip(layers, again.children(), strict=True))
    for ours, theirs in zip(twin.modules(), model.modules(), strict=True):
        assert ours is not theirs
        assert vars(ours).keys() == vars(theirs).keys()
        for name, value in vars(ours).items():
            if isinstance(value, dict | set | list):
                assert type(value) is type(vars(theirs)[name])
                assert value is not vars(theirs)[name], name
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    twin.train().register_forward_hook(lambda *_: None)
    assert not model.training
    assert not model._forward_hooks
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())


W = X.double()
NARROW = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    "cast",
    [
        lambda dtype: W.to(dtype),
        lambda dtype: W.to(dtype=dtype),
        lambda dtype: W.to("cpu", dtype),
        lambda dtype: W.type(dtype),
        lambda dtype: W.float() + W.half() + W.bfloat16(),
        lambda dtype: nn.Parameter(W).float(),
        lambda dtype: W.softmax(-1, dtype),
        lambda dtype: W.sum(-1, dtype=dtype),
        lambda dtype: F.softmax(W, dim=-1, dtype=dtype),
        lambda dtype: F.log_softmax(W, -1, dtype=dtype),
        lambda dtype: torch.cumsum(W, 0, dtype=dtype),
        lambda dtype: torch.zeros(3, dtype=dtype),
        lambda dtype: torch.arange(3, dtype=dtype),
        lambda dtype: torch.full_like(W, 1, dtype=dtype),
        lambda dtype: torch.tensor([1.0], dtype=dtype),
        lambda dtype: W.new_ones(2, dtype=dtype),
        lambda dtype: torch.linalg.vector_norm(W, dtype=dtype),
        lambda dtype: nn.Linear(2, 2).double().to(dtype).weight,
        lambda dtype: torch.zeros(3),
        lambda dtype: torch.tensor(0.5),
    ],
)
def test_nothing_becomes_narrower(cast: Callable[[torch.dtype], Tensor], dtype: torch.dtype) -> None:
    with in_float64():
        assert cast(dtype).dtype is torch.float64
        assert W.to(torch.int32).dtype is torch.int32
        assert torch.ones(2, dtype=torch.bool).dtype is torch.bool


def test_all_functions_that_are_told_a_type_are_widened() -> None:
    """As PyTorch's own documentation has them; those left out keep bits, or make no numbers that a model would compute with."""
    left = {"view", "to_dense", "from_file", "randperm", "tril_indices", "triu_indices"}
    for holder, names in TYPED.items():
        for name in dir(holder):
            function = getattr(holder, name, None)
            if name.startswith("_") or not callable(function) or isinstance(function, type):
                continue
            text = function.__doc__ or ""
            called = re.search(rf"{name}\(([^)]*)\)", text)
            told = (called and re.search(r"\bdtype\b", called[1])) or "dtype (:class" in text
            if told and name not in left and not name.startswith(("sparse_", "quantize_")):
                assert name in names.split(), f"{holder.__name__}.{name}"


def test_functions_come_back_and_keep_their_names() -> None:
    before = {(holder, name): vars(holder).get(name) for holder in TYPED for name in TYPED[holder].split()}
    seen: list[str] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with pytest.raises(KeyError), in_float64():  # noqa: PT012
        with in_float64(), Watch():
            assert F.softmax(W, dim=-1, dtype=torch.float32).dtype is torch.float64
        assert W.float().dtype is torch.float64, "the outer one is open still"
        raise KeyError
    assert "softmax" in seen
    assert before == {
        (holder, name): vars(holder).get(name) for holder in TYPED for name in TYPED[holder].split()
    }
    assert W.float().dtype is torch.float32
    assert torch.zeros(2).dtype is torch.float32
    assert not {"float", "half", "bfloat16"} & vars(Tensor).keys()
