"""What is measured does not hang on how many threads add up the numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ptmkb.catalogue import load_catalogue
from ptmkb.probe.measures import load_measure
from ptmkb.probe.subjects import subject_for

CATALOGUE = load_catalogue()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("model_id", ["bert", "mistral", "clip"])
@pytest.mark.parametrize("measure", ["flow", "norm"])
def test_one_thread_and_two_measure_the_same(model_id: str, measure: str) -> None:
    values = []
    for count in (1, 2):
        torch.set_num_threads(count)
        assert torch.get_num_threads() == count
        readings = load_measure(measure).measure(subject_for(CATALOGUE.models[model_id]))
        # The noise is what differs; what is concluded from it must not.
        values.append(
            {part: (reading.value, reading.detail.get("matrix")) for part, reading in readings.items()}
        )
    assert values[0] == values[1]
    assert values[0]
