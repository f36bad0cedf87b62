"""The coverage of the stated interval of a rate: counted right, and honest on a few kinds of networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.coverage import KINDS, LEAST, MOST, counted, coverage, lines

torch.set_num_threads(1)


def test_coverage_is_the_share_of_intervals_that_hold_the_mean() -> None:
    logs = np.random.default_rng(5).normal(0.3, 0.1, 20_000)
    right = counted("right", logs, np.full(len(logs), 0.1))
    assert right.held == pytest.approx(0.9545, abs=0.005)
    assert right.honest
    assert right.spread == pytest.approx(0.1, rel=0.02)
    assert not counted("too small", logs, np.full(len(logs), 0.07)).honest
    assert not counted("too large", logs, np.full(len(logs), 0.2)).honest


def test_who_states_no_error_cannot_be_wrong() -> None:
    silent = counted("silent", np.zeros(10), np.full(10, math.nan))
    assert (silent.stating, silent.honest) == (0, True)
    assert "| none |" in lines([silent])[-1]


@pytest.mark.parametrize("kind", ["ReLU, He, 6 layers", "ReLU, He, 12 layers", "residual ReLU, β = 1, 24 layers"])
def test_what_is_stated_holds_on_seeds_that_were_not_chosen(kind: str) -> None:
    found = coverage(kind, KINDS[kind], range(7000, 7100))
    assert found.honest, found
    assert (LEAST, MOST) == (0.92, 0.98)
    assert math.isnan(found.held) == kind.startswith("residual")
