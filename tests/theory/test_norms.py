"""Norms against the literature's numbers and against sampled batches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradlab.theory.activations import ACTIVATIONS, Phi
from gradlab.theory.norms import batch_chi, batch_norm_chi, layer_norm_chi

WIDE = {"relu": (1.2112, 1.0), "tanh": (1.0853, 1.0853), "gelu": (1.148, 1.035), "sigmoid": (1.017, 0.391)}
"""Rates behind batch norm (large batches) and behind layer norm."""


@pytest.mark.parametrize("name", WIDE)
def test_the_rates_of_the_literature(name: str) -> None:
    batch, layer = WIDE[name]
    assert math.sqrt(batch_norm_chi(Phi(name), 2.0, None)[0]) == pytest.approx(batch, abs=6e-4)
    assert math.sqrt(layer_norm_chi(Phi(name), 2.0, 0.0, 0.0)[0]) == pytest.approx(layer, abs=6e-4)


@pytest.mark.parametrize("batch", [4, 5, 8, 64, 1000])
def test_linear_batch_norm(batch: int) -> None:
    """Yang et al. 2019."""
    assert batch_norm_chi(Phi("linear"), 1.0, batch)[0] == pytest.approx((batch - 2) / (batch - 3), rel=1e-10)


@pytest.mark.parametrize("batch", [5, 16])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_batch_norm_s_way_back_equals_monte_carlo(name: str, batch: int) -> None:
    """The way back itself, as an engine computes it, through sampled batches of exchangeable pre-activations."""
    phi, count = Phi(name, 0.2), 120_000
    rng = np.random.default_rng(batch)
    centred = rng.standard_normal((count, batch))
    centred -= centred.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    y = math.sqrt(batch) * centred / length
    value, slope = phi.value(y), phi.derivative(y)
    pairs = (value.sum(axis=1) ** 2 - (value**2).sum(axis=1)) / (batch * (batch - 1))
    spread = float(((value**2).mean(axis=1) - pairs).mean())
    # A gradient of covariance G = I - 11'/B, back through phi and through the norm of signals of variance `spread`.
    incoming = rng.standard_normal((count, batch))
    incoming -= incoming.mean(axis=1, keepdims=True)
    dy = slope * incoming
    dz = dy - dy.mean(axis=1, keepdims=True) - y * (dy * y).mean(axis=1, keepdims=True)
    # E 1/|Gz|^2 = 1/(spread (B - 3)) exactly; its heavy tail is no matter for sampling.
    squares = (dz**2).sum(axis=1) * batch / (spread * (batch - 3)) / (batch - 1)
    error = squares.std() / math.sqrt(count)
    # hardtanh's kinks lie across the nodes of the rule.
    slack = 0.01 if name == "hardtanh" else 0.002
    assert abs(squares.mean() - batch_chi(phi, 1.0, batch)) <= 4.5 * error + slack


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_large_batches_tend_to_the_wide_limit_from_above(name: str) -> None:
    phi = Phi(name, 0.2)
    wide = batch_norm_chi(phi, 1.0, None)[0]
    near, far = (batch_norm_chi(phi, 1.0, batch)[0] for batch in (2000, 20))
    assert wide >= 1 - 1e-12
    assert far > near > wide * (1 - 1e-3)
    assert near == pytest.approx(wide, rel=5e-3)


def test_a_batch_too_small_for_a_mean() -> None:
    with pytest.raises(ValueError, match="batch norm over 3 samples: expected at least 4"):
        batch_norm_chi(Phi("relu"), 2.0, 3)


def test_scale_means_nothing_behind_a_norm_unless_its_epsilon_counts() -> None:
    relu = Phi("relu")
    for eps in (0.0, 1e-5):
        assert batch_norm_chi(relu, 100.0, 64, eps)[0] == pytest.approx(batch_norm_chi(relu, 1.0, 64)[0], rel=1e-4)
    # With weights so small that the variance before the norm is a tenth of eps, the norm divides by little else.
    small = 1e-6 / 0.5
    factor, q = layer_norm_chi(relu, small, 0.0, 1e-5)
    v = small * 0.5 * q
    assert q == pytest.approx(v / (v + 1e-5), abs=1e-9)
    assert factor == pytest.approx(small * 0.5 / (v + 1e-5))


@pytest.mark.parametrize("sb2", [0.0, 0.3])
def test_layer_norm_with_biases(sb2: float) -> None:
    """Biases take a part of the variance that is divided by, and pass no gradient back."""
    factor, q = layer_norm_chi(Phi("relu"), 2.0, sb2, 0.0)
    assert q == pytest.approx(1.0)
    assert factor == pytest.approx(1.0 / (1.0 + sb2))
