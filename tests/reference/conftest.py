"""Measurements that the tests of the reference models share, as fixtures that hand out functions."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def _same_random_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture
def build() -> Callable[..., nn.Module]:
    """`build(Model, config=None)`: a tiny model in float64 and eval mode, its weights large enough to show effects."""

    def make(model_class: type[nn.Module], config: object = None) -> nn.Module:
        return model_class(config or model_class.config_class.tiny()).double().eval()

    return make


@pytest.fixture
def changed() -> Callable[..., set[int]]:
    """`changed(run, ids, position, vocab_size)`: at which positions of `run(ids)`, (B, T, D), one replaced input shows."""

    def measure(run: Callable[[Tensor], Tensor], ids: Tensor, position: int, vocab_size: int) -> set[int]:
        replaced = ids.clone()
        replaced[:, position] = (replaced[:, position] + 1) % vocab_size
        with torch.no_grad():
            before, again, after = run(ids), run(ids), run(replaced)
        assert torch.equal(before, again), "the noise floor is not zero"
        moved = (after - before).abs().amax(dim=(0, 2)) > 1e-12
        return set(moved.nonzero().flatten().tolist())

    return measure


@pytest.fixture
def parameters_at_full_size() -> Callable[..., int]:
    """`parameters_at_full_size(Model, config)`: counted on the meta device, so that nothing is allocated."""

    def count(model_class: type[nn.Module], config: object) -> int:
        with torch.device("meta"):
            model = model_class(config)
        return sum(parameter.numel() for parameter in model.parameters())

    return count
