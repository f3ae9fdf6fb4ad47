"""What takes the place of a layer's hidden states keeps the form of what the layer gave."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from ptmkb.probe.pinning import exchanged

OLD, NEW, OTHER = torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)


class Given(NamedTuple):
    state: Tensor
    weights: Tensor | None


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OLD, NEW),
        ((OLD, OTHER), (NEW, OTHER)),
        ([OTHER, (None, OLD)], [OTHER, (None, NEW)]),
        (Given(OLD, None), Given(NEW, None)),
        ((Given(OTHER, OLD), 3), (Given(OTHER, NEW), 3)),
        ({"state": OLD, "weights": OTHER}, {"state": NEW, "weights": OTHER}),
    ],
)
def test_one_tensor_is_exchanged_and_nothing_else(output: Any, expected: Any) -> None:
    found = exchanged(output, OLD, NEW)
    assert type(found) is type(expected)
    assert repr(found) == repr(expected)


def test_an_output_of_transformers_is_reached_by_name_and_by_place() -> None:
    output = exchanged(BaseModelOutput(last_hidden_state=OLD), OLD, NEW)
    assert output.last_hidden_state is NEW
    assert output[0] is NEW
