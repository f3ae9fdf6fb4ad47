"""Conditions under which models run leave no trace, and are the same each time."""

from __future__ import annotations

import random

import numpy as np
import torch

from ptmkb.probe.numerics import seeded


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
