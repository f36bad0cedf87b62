"""Expectations against closed forms, Gauss-Hermite quadrature and Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradlab.theory.activations import ACTIVATIONS, Phi
from gradlab.theory.quadrature import dual, moments, normal_rule

SMOOTH = ("sigmoid", "tanh", "gelu", "silu", "softplus")


@pytest.mark.parametrize("breaks", [(), (-0.3, 0.3), (1.5,)])
def test_the_rule_integrates_the_normal_distribution(breaks: tuple[float, ...]) -> None:
    z, weight = normal_rule(breaks)
    for power, moment in ((0, 1), (1, 0), (2, 1), (4, 3), (6, 15), (8, 105)):
        assert weight @ z**power == pytest.approx(moment, rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("slope", [0.0, 0.2, -0.5])
@pytest.mark.parametrize("q", [1e-6, 0.3, 1.0, 50.0])
def test_moments_of_leaky_relu_are_closed_forms(slope: float, q: float) -> None:
    at = moments(Phi("leaky_relu", slope), q)
    assert at.mean == pytest.approx((1 - slope) * math.sqrt(q / (2 * math.pi)), rel=1e-12)
    assert at.square == pytest.approx(q * (1 + slope**2) / 2, rel=1e-12)
    assert at.slope_square == pytest.approx((1 + slope**2) / 2, rel=1e-12)
    assert at.slope_fourth == pytest.approx((1 + slope**4) / 2, rel=1e-12)
    assert at.square_growth == pytest.approx(at.square, rel=1e-12)


@pytest.mark.parametrize("q", [0.01, 1.0, 30.0])
def test_moments_of_hardtanh_are_closed_forms(q: float) -> None:
    edge = 1 / math.sqrt(q)
    inside = math.erf(edge / math.sqrt(2))
    density = math.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi)
    at = moments(Phi("hardtanh"), q)
    assert at.slope_square == pytest.approx(inside, rel=1e-11)
    assert at.square == pytest.approx(q * (inside - 2 * edge * density) + 1 - inside, rel=1e-11)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("q", [0.01, 0.5, 1.0])
def test_smooth_moments_equal_gauss_hermite(name: str, q: float) -> None:
    z, weight = np.polynomial.hermite_e.hermegauss(200)
    weight = weight / weight.sum()
    phi, u = Phi(name), math.sqrt(q) * z
    at = moments(phi, q)
    assert at.square == pytest.approx(weight @ phi.value(u) ** 2, rel=1e-11)
    assert at.slope_square == pytest.approx(weight @ phi.derivative(u) ** 2, rel=1e-11)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("q", [0.2, 2.0, 100.0])
def test_moments_equal_monte_carlo(name: str, q: float) -> None:
    phi = Phi(name, 0.2)
    u = math.sqrt(q) * np.random.default_rng(5).standard_normal(400_000)
    value, slope = phi.value(u), phi.derivative(u)
    at = moments(phi, q)
    for expected, samples in (
        (at.mean, value),
        (at.square, value**2),
        (at.slope_square, slope**2),
        (at.slope_fourth, slope**4),
        (at.square_growth, u * value * slope),
    ):
        error = samples.std() / math.sqrt(len(samples))
        assert abs(samples.mean() - expected) <= 4.5 * error + 1e-12


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_growth_of_the_square_is_its_derivative(name: str) -> None:
    phi, q, step = Phi(name, 0.2), 1.3, 1e-4
    rise = moments(phi, q * (1 + step)).square - moments(phi, q * (1 - step)).square
    assert moments(phi, q).square_growth == pytest.approx(rise / (2 * step), rel=1e-6)


@pytest.mark.parametrize("c", [0.0, 0.3, 0.9])
def test_the_dual_of_relu_is_the_arc_cosine_kernel(c: float) -> None:
    """Cho & Saul 2009: E relu(u) relu(v) = q/(2 pi) (sqrt(1 - c^2) + c (pi - arccos c))."""
    squares = dual(Phi("relu"), 2.0)
    kernel = 2.0 / (2 * math.pi) * (math.sqrt(1 - c * c) + c * (math.pi - math.acos(c)))
    assert squares @ c ** np.arange(len(squares)) == pytest.approx(kernel, rel=1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("c", [0.2, 0.8])
def test_the_dual_equals_monte_carlo(name: str, c: float) -> None:
    phi, q = Phi(name, 0.2), 1.7
    z = np.random.default_rng(11).standard_normal((2, 400_000))
    u, v = math.sqrt(q) * z[0], math.sqrt(q) * (c * z[0] + math.sqrt(1 - c * c) * z[1])
    squares = dual(phi, q)
    order = np.arange(len(squares))
    for expected, samples in (
        (squares @ c**order, phi.value(u) * phi.value(v)),
        (squares[1:] * order[1:] @ c ** order[:-1] / q, phi.derivative(u) * phi.derivative(v)),
    ):
        error = samples.std() / math.sqrt(samples.size)
        assert abs(samples.mean() - expected) <= 4.5 * error + 1e-9
