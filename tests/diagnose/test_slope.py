"""The fit of the rate: its standard error and its test for curvature, held against simulated random walks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradlab.diagnose import DEFAULTS, Fit, fit, rate
from gradlab.diagnose.passage import rate_figure


def walks(count: int, layers: int, drift: float, spread: float) -> np.ndarray:
    """Profiles ‖δ_l‖ (count, layers) whose logarithm has independent normal increments."""
    steps = np.random.default_rng(7).normal(drift, spread, (count, layers))
    return np.asarray(np.exp(steps.cumsum(1)))


def test_the_fit_is_the_rate() -> None:
    profile = walks(1, 30, 0.3, 0.1)[0]
    for axis in ("depth", "time"):
        found = fit(profile, axis)
        assert found is not None
        assert found.rate == pytest.approx(rate(profile, axis), rel=1e-12)


@pytest.mark.parametrize("layers", [10, 40])
def test_the_scatter_is_the_standard_error_of_the_slope_of_a_random_walk(layers: int) -> None:
    found = [fit(profile, "time") for profile in walks(4000, layers, 0.1, 0.2)]
    slopes = np.array([math.log(one.rate) for one in found if one])
    told = np.array([(one.scatter / one.rate) ** 2 for one in found if one])
    assert len(slopes) == 4000
    # The variance told is unbiased; the sample variance of 4,000 slopes is known to 2.2 %.
    assert told.mean() == pytest.approx(slopes.var(), rel=0.08)


@pytest.mark.parametrize("layers", [5, 8, 20])
def test_two_errors_hold_the_slope_of_a_random_walk_in_95_of_100_draws_however_few_the_layers(layers: int) -> None:
    found = [one for profile in walks(4000, layers, 0.1, 0.2) if (one := fit(profile, "time"))]
    stated = [one for one in found if math.isfinite(one.error)]
    held = [abs(math.log(one.rate) + 0.1) <= 2 * one.error / one.rate for one in stated]
    # One straight profile in twenty seems to bend, and states no error. 4,000 draws know the share to 0.3 %.
    assert len(stated) == pytest.approx(0.954 * 4000, rel=0.02)
    # Four increments, of which one is the trend's, are a little too careful: 97.8 %.
    assert 0.945 < np.mean(held) < (0.98 if layers == 5 else 0.975)


def test_a_trend_too_weak_to_be_seen_does_not_widen_the_error() -> None:
    """About half of such profiles show no trend, and theirs are the intervals that are stated."""
    trend = np.cumsum(np.linspace(-0.09, 0.09, 20))
    found = [one for profile in walks(4000, 20, 0.1, 0.1) if (one := fit(profile * np.exp(trend), "time"))]
    stated = np.array([[math.log(one.rate), one.error / one.rate] for one in found if math.isfinite(one.error)])
    middle = np.mean([math.log(one.rate) for one in found])
    assert 0.3 < len(stated) / len(found) < 0.7
    assert 0.945 < np.mean(np.abs(stated[:, 0] - middle) <= 2 * stated[:, 1]) < 0.98


def test_where_a_trend_is_seen_or_could_not_be_there_is_no_error() -> None:
    bent = fit(np.exp(0.02 * np.arange(20.0) ** 2), "time")
    few = fit(np.array([1.0, 2.0, 5.0, 9.0]), "time")
    assert bent is not None
    assert few is not None
    assert math.isnan(bent.error)
    assert math.isnan(few.error)
    assert few.scatter > 0


def test_a_random_walk_has_no_curvature() -> None:
    t = np.array([found.curvature for profile in walks(4000, 24, 0.1, 0.2) if (found := fit(profile, "time"))])
    # Student's t with 24 - 3 degrees of freedom: 2.080 is exceeded by 5 %, 3.819 by 0.1 %.
    assert (np.abs(t) > 2.080).mean() == pytest.approx(0.05, abs=0.012)
    assert (np.abs(t) > 3.819).mean() < 0.004


@pytest.mark.parametrize("layers", [5, 8, 24, 100])
def test_few_layers_bend_no_more_often_than_many(layers: int) -> None:
    limit = DEFAULTS["curvature"]
    found = [one for profile in walks(4000, layers, 0.1, 0.2) if (one := fit(profile, "time"))]
    # Student's t of 4 at 18 degrees of freedom is exceeded by 0.085 %; at 2, by 5.7 %.
    assert np.mean([one.bends(limit) for one in found]) < 0.003
    assert np.mean([one.bends(2.101) for one in found]) == pytest.approx(0.05, abs=0.015)


def test_algebraic_decay_is_no_single_rate() -> None:
    # A wide tanh network at its critical point: ln ‖δ_l‖ grows by about 1/(2l) (q_l ~ 1/(2l)).
    layers = np.arange(1, 101)
    noise = np.random.default_rng(3).normal(0, 0.003, 100).cumsum()
    found = fit(np.exp(0.5 * np.log(layers) + noise), "depth")
    assert found is not None
    assert abs(found.curvature) > 10
    assert found.near < 0.97 < 0.99 < found.far < 1.01


def test_a_power_is_exact_and_straight() -> None:
    found = fit(0.5 ** np.arange(20.0), "depth")
    assert found is not None
    assert found.rate == pytest.approx(2.0)
    assert (found.scatter, found.error, found.curvature) == (0.0, 0.0, 0.0)
    assert (found.first, found.last, found.points) == (5, 19, 15)
    assert found.line(np.array([5.0, 19.0])) == pytest.approx([0.5**4, 0.5**18])


def test_few_points_have_no_error_and_no_curvature() -> None:
    two = fit(np.array([1.0, 2.0, 5.0]), "depth")
    assert two is not None
    assert two.rate == pytest.approx(0.5)
    assert math.isnan(two.scatter)
    assert math.isnan(two.error)
    assert math.isnan(two.curvature)
    assert fit(np.array([1.0, 2.0]), "depth") is None
    assert fit(np.array([1.0, 0.0, 4.0]), "time") is None


def test_what_the_layers_of_a_draw_share_is_in_the_error() -> None:
    """Increments of which any two correlate by 0.01: of 400 the mean varies five times as far as that of others."""
    rng = np.random.default_rng(9)
    steps = 0.2 * (math.sqrt(0.99) * rng.standard_normal((1000, 400)) + 0.1 * rng.standard_normal((1000, 1)))
    found = [one for profile in np.exp(steps.cumsum(1)) if (one := fit(profile, "time"))]
    held = [abs(math.log(one.rate)) <= 2 * one.error / one.rate for one in found if math.isfinite(one.error)]
    assert 0.93 < np.mean(held) < 0.975


def test_a_rate_and_its_error_end_at_the_same_digit() -> None:
    def told(rate: float, error: float) -> str:
        return rate_figure(Fit(rate, error, error, 1, 9, 0.0, rate, rate, 0.0))

    assert [told(822.4, 203.3), told(0.8381, 0.1021), told(0.2376, 0.0071)] == [
        "822 ± 203",
        "0.838 ± 0.102",
        "0.238 ± 0.007",
    ]
    assert [told(1.012, 0.00031), told(0.313, math.nan), told(0.0, 0.1)] == ["1.01 ± 0.0003", "0.313", "0"]
