"""Mean field against the literature's numbers, against random networks, and against its own definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradlab.theory.activations import ACTIVATIONS, Phi
from gradlab.theory.mean_field import (
    chi,
    correlations,
    critical,
    fixed_variance,
    nearest_critical,
    rate,
    root,
    scale,
    settled,
    variance_after,
)
from gradlab.theory.quadrature import moments
from tests.theory.networks import log_gradients

RATES = {
    "sigmoid": (0.1414, 0.2361, 0.3178, 0.362),
    "tanh": (0.5774, 1.0, 1.0514, 1.0999),
    "relu": (0.4082, 0.7071, 1.0, 1.1785),
    "leaky_relu": (0.416, 0.721, 1.0198, 1.202),
}
"""sqrt(chi_1) without biases at sw2 = 1/3, 1, 2 and 25/9, leaky of slope 0.2."""

CRITICAL_TANH = ((0.001, 1.1892), (0.01, 1.4242), (0.05, 1.7610), (0.1, 1.9861), (0.5, 2.8432))


@pytest.mark.parametrize("name", RATES)
def test_the_rates_of_the_literature(name: str) -> None:
    phi = Phi(name, 0.2 if name == "leaky_relu" else 0.0)
    for sw2, expected in zip((1 / 3, 1.0, 2.0, 25 / 9), RATES[name], strict=True):
        assert rate(phi, sw2, 0.0) == pytest.approx(expected, abs=6e-4 if name == "leaky_relu" else 6e-5)


@pytest.mark.parametrize(("sw2", "expected"), [(1.0, 0.8712), (2.5, 1.0647), (4.0, 1.1586)])
def test_order_to_chaos(sw2: float, expected: float) -> None:
    assert rate(Phi("tanh"), sw2, 0.05) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(("sb2", "expected"), CRITICAL_TANH)
def test_the_critical_line_of_tanh(sb2: float, expected: float) -> None:
    (found,) = critical(Phi("tanh"), sb2)
    assert found == pytest.approx(expected, abs=6e-5)
    assert rate(Phi("tanh"), found, sb2) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "slope", "expected"),
    [
        ("relu", 0.0, 2.0),
        ("leaky_relu", 0.2, 2 / 1.04),
        ("linear", 0.0, 1.0),
        ("tanh", 0.0, 1.0),
        ("hardtanh", 0.0, 1.0),
    ],
)
def test_critical_points_without_biases(name: str, slope: float, expected: float) -> None:
    assert critical(Phi(name, slope), 0.0) == pytest.approx((expected,), rel=1e-9)


@pytest.mark.parametrize("name", ["gelu", "silu", "softplus"])
def test_a_fixed_point_that_nothing_leads_to_is_no_critical_point(name: str) -> None:
    """Just above it the variance runs away."""
    phi = Phi(name)
    assert critical(phi, 0.0) == ()
    assert nearest_critical(phi, 2.0, 0.0) is None
    assert fixed_variance(phi, 4.0, 0.0, 0.1) == math.inf


@pytest.mark.parametrize(
    ("name", "sb2", "sw2", "q"), [("gelu", 0.17292, 1.98305, 3.5616), ("silu", 0.55514, 1.98800, 14.32)]
)
def test_half_stable_criticality_of_the_literature(name: str, sb2: float, sw2: float, q: float) -> None:
    """Roberts, Yaida & Hanin 2021, arXiv:2106.10165, section 5.3.4: chi_1 = 1 and V' = 1 at one q."""
    phi = Phi(name)

    def stable(q: float) -> float:
        return 1 - moments(phi, q).square_growth / (q * moments(phi, q).slope_square)

    found = root(stable, q / 2, q * 2)
    assert found == pytest.approx(q, rel=2e-3)
    assert 1 / moments(phi, found).slope_square == pytest.approx(sw2, abs=2e-5)
    assert found - moments(phi, found).square / moments(phi, found).slope_square == pytest.approx(sb2, abs=2e-5)
    # With larger biases there is a critical point that attracts, with smaller ones none.
    assert critical(phi, sb2 * 0.98) == ()
    assert critical(phi, sb2 * 1.02)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(("sw2", "sb2"), [(0.4, 0.05), (1.1, 0.05), (1.1, 0.5), (3.0, 0.1)])
def test_a_fixed_variance_is_where_the_layers_settle(name: str, sw2: float, sb2: float) -> None:
    phi, q = Phi(name, 0.2), 1.3
    found = fixed_variance(phi, sw2, sb2, q)
    for _ in range(2000):
        q = min(variance_after(phi, q, sw2, sb2), 1e12)
    if math.isinf(found):
        assert q > 1e5
    else:
        assert q == pytest.approx(found, rel=1e-3)
        assert variance_after(phi, found, sw2, sb2) == pytest.approx(found, rel=1e-10)


@pytest.mark.parametrize(
    ("name", "sw2", "start", "expected"),
    [("softplus", 2.0, 1.0, math.inf), ("hardtanh", 1.0, 0.7, 0.0), ("hardtanh", 1.0, 1e-4, 1e-4)],
)
def test_rounding_makes_no_fixed_point(name: str, sw2: float, start: float, expected: float) -> None:
    """softplus^2 exceeds relu^2, so V(q) > q everywhere; hardtanh^2 is below z^2, by nothing where q is small."""
    assert fixed_variance(Phi(name), sw2, 0.0, start) == expected


@pytest.mark.parametrize("name", ["relu", "elu", "selu", "gelu", "silu", "softplus"])
def test_without_end_every_activation_is_its_two_asymptotes(name: str) -> None:
    slopes = {"selu": 1.0507009873554805}
    assert chi(Phi(name), settled(math.inf), 1.0) == pytest.approx(slopes.get(name, 1.0) ** 2 / 2, rel=1e-12)


def test_fixed_variances_of_a_scale_free_activation() -> None:
    relu = Phi("relu")
    assert fixed_variance(relu, 2.0, 0.0, 0.7) == 0.7
    assert fixed_variance(relu, 1.0, 0.1, 0.7) == pytest.approx(0.2)
    assert fixed_variance(relu, 1.0, 0.0, 0.7) == 0.0
    assert fixed_variance(relu, 2.0, 0.1, 0.7) == math.inf
    assert fixed_variance(Phi("tanh"), 1.0, 0.0, 0.7) == 0.0


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(("sw2", "sb2"), [(0.7, 0.2), (2.5, 0.05)])
def test_gradients_of_random_networks_change_by_chi(name: str, sw2: float, sb2: float) -> None:
    """Layer by layer, whatever the variance does; the mean of ||delta||^2 over draws, which theory is exact about."""
    phi, depth, width = Phi(name, 0.2), 8, 150
    logs = log_gradients(phi, sw2, sb2, depth=depth, width=width, draws=60)
    q, expected = sw2 + sb2, []
    for _ in range(depth - 1):
        expected.append(math.log(chi(phi, q, sw2)))
        q = variance_after(phi, q, sw2, sb2)
    course = np.cumsum(expected[::-1])[::-1]
    ratios = np.exp(logs[:, :-1])
    error = ratios.std(axis=0) / math.sqrt(len(ratios)) / ratios.mean(axis=0)
    # A width of 150 leaves a bias of some per cent in the last of the layers.
    assert np.all(np.abs(np.log(ratios.mean(axis=0)) - course) <= 4 * error + 0.05)


@pytest.mark.parametrize(("sw2", "sb2"), [(2.5, 0.05), (4.0, 0.05), (2.0, 0.0), (1.9, 0.05)])
def test_the_fixed_correlation_is_where_the_map_leads(sw2: float, sb2: float) -> None:
    """Iterated on a two-dimensional Gauss-Hermite grid, which shares nothing with the power series."""
    phi = Phi("tanh")
    q = fixed_variance(phi, sw2, sb2, 1.0)
    found = correlations(phi, q, sw2, sb2)
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    weight = weight / weight.sum()
    u = math.sqrt(q) * z[:, None]
    c = 0.5
    for _ in range(400):
        v = math.sqrt(q) * (c * z[:, None] + math.sqrt(1 - c * c) * z)
        c = (sw2 * float(weight @ (phi.value(u) * phi.value(v)) @ weight) + sb2) / q
    slope = sw2 * float(weight @ (phi.derivative(u) * phi.derivative(v)) @ weight)
    assert found.fixed == pytest.approx(c, abs=1e-5)
    assert found.depth == pytest.approx(-1 / math.log(slope), rel=1e-4)


def test_correlations_below_criticality_go_to_one() -> None:
    q = fixed_variance(Phi("tanh"), 1.0, 0.05, 1.0)
    found = correlations(Phi("tanh"), q, 1.0, 0.05)
    assert found.fixed == 1.0
    assert found.depth == pytest.approx(-1 / math.log(chi(Phi("tanh"), q, 1.0)))


def test_scales() -> None:
    assert scale(math.exp(-0.5)) == pytest.approx(2.0)
    assert scale(math.exp(0.25)) == pytest.approx(4.0)
    assert scale(1.0) == math.inf
    assert scale(0.0) == 0.0


@pytest.mark.parametrize("sb2", [0.003, 0.03, 0.3])
def test_chi_grows_through_one_at_the_critical_weight(sb2: float) -> None:
    for name in ("tanh", "hardtanh", "sigmoid"):
        (point,) = critical(Phi(name), sb2)
        assert rate(Phi(name), 0.9 * point, sb2) < 1 < rate(Phi(name), 1.1 * point, sb2)
        assert moments(Phi(name), fixed_variance(Phi(name), point, sb2, 1.0)).slope_square == pytest.approx(1 / point)
