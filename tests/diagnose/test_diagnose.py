"""Rate and vanishing ratio on columns of known shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from gradlab.diagnose import rate, vanishing_ratio


def powers(factor: float, layers: int) -> NDArray[np.float64]:
    """Norms that change by ``factor`` a layer going backward: 1 at layer L."""
    return np.array([factor ** (layers - layer) for layer in range(1, layers + 1)])


@pytest.mark.parametrize("factor", [0.236, 0.707, 1.0, 1.5])
@pytest.mark.parametrize("layers", [3, 7, 8, 50])
def test_the_rate_of_a_power_is_its_factor(factor: float, layers: int) -> None:
    for axis in ("depth", "time"):
        assert rate(powers(factor, layers), axis) == pytest.approx(factor, rel=1e-9)


def test_the_fit_along_depth_leaves_out_the_output_and_the_first_four_of_eight() -> None:
    # Of the three points of eight layers the middle one, 6, cannot tilt the line.
    for layers, ignored in ((7, [7]), (8, [1, 2, 3, 4, 6, 8]), (21, [1, 2, 3, 4, 21])):
        for layer in range(1, layers + 1):
            deltas = powers(0.5, layers)
            deltas[layer - 1] *= 1000
            found = rate(deltas, "depth")
            assert found is not None
            assert math.isclose(found, 0.5, rel_tol=1e-9) == (layer in ignored), (layers, layer)


def test_the_fit_along_time_uses_every_step() -> None:
    for step in range(12):
        deltas = powers(0.5, 12)
        deltas[step] *= 1000
        assert rate(deltas, "time") != pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
def test_one_point_has_no_rate(layers: int) -> None:
    assert rate(powers(0.5, layers), "depth") is None
    assert (rate(powers(0.5, layers), "time") is None) == (layers == 1)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_zero_or_an_infinity_in_the_fit_leaves_no_rate(value: float) -> None:
    deltas = powers(0.5, 10)
    deltas[6] = value
    assert rate(deltas, "depth") is None
    deltas = powers(0.5, 10)
    deltas[[0, 9]] = value
    assert rate(deltas, "depth") == pytest.approx(0.5)


def test_norms_of_any_size_have_a_rate() -> None:
    assert rate(powers(0.01, 100), "depth") == pytest.approx(0.01, rel=1e-9)
    assert rate(powers(100.0, 100), "depth") == pytest.approx(100.0, rel=1e-9)


def test_the_vanishing_ratio_is_layer_1_over_the_last_hidden_one_or_the_first_step_over_the_last() -> None:
    assert vanishing_ratio(np.array([2.0, 9.0, 8.0, 5.0]), "depth") == 0.25
    assert vanishing_ratio(np.array([2.0, 9.0, 8.0, 5.0]), "time") == 0.4
    assert vanishing_ratio(np.array([3.0, 5.0]), "depth") == 1.0
    assert vanishing_ratio(np.array([3.0]), "depth") is None
    assert vanishing_ratio(np.array([3.0]), "time") == 1.0


def test_the_vanishing_ratio_of_zeros() -> None:
    assert vanishing_ratio(np.array([0.0, 5.0, 1.0]), "depth") == 0.0
    assert vanishing_ratio(np.array([5.0, 0.0, 1.0]), "depth") == math.inf
    undefined = vanishing_ratio(np.array([0.0, 0.0, 1.0]), "depth")
    assert undefined is not None
    assert math.isnan(undefined)
