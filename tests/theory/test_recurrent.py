"""Bounds through time, against random recurrent networks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradlab.theory.activations import Phi
from gradlab.theory.recurrent import largest_singular_value, steepest


def test_the_numbers_of_the_literature() -> None:
    assert steepest(Phi("tanh")) == pytest.approx(1.0)
    assert steepest(Phi("sigmoid")) == pytest.approx(0.25)
    assert steepest(Phi("leaky_relu", 3.0)) == 3.0


@pytest.mark.parametrize(("name", "rho"), [("tanh", 0.9), ("tanh", 1.2), ("sigmoid", 3.0), ("linear", 0.9)])
def test_no_jacobian_exceeds_the_bound(name: str, rho: float) -> None:
    rng, width, steps = np.random.default_rng(2), 32, 30
    phi = Phi(name)
    matrix = rho * np.linalg.qr(rng.standard_normal((width, width)))[0]
    h, jacobian = 0.1 * rng.standard_normal(width), np.eye(width)
    for _ in range(steps):
        z = matrix @ h
        h, jacobian = phi.value(z), phi.derivative(z)[:, None] * matrix @ jacobian
    norm, bound = np.linalg.norm(jacobian, 2), (steepest(phi) * rho) ** steps
    assert norm <= bound * (1 + 1e-9)
    if name == "linear":
        assert norm == pytest.approx(bound)


def test_the_largest_singular_value() -> None:
    draw = np.random.default_rng(4).standard_normal((600, 600)) * math.sqrt(1.5 / 600)
    assert np.linalg.norm(draw, 2) == pytest.approx(largest_singular_value(1.5, orthogonal=False), rel=0.03)
    assert largest_singular_value(0.81, orthogonal=True) == pytest.approx(0.9)
