"""Saxe's solution against gradient descent on a two-layer linear network."""

from __future__ import annotations

import numpy as np
import pytest

from gradlab.theory.saxe import mode_strength


def test_four_modes_are_learned_as_foretold() -> None:
    strengths, u0, lr, steps = np.array([4.0, 3.0, 2.0, 1.0]), 1e-3, 1e-3, 6000
    # Both layers start diagonal, with the strength u0 of each mode in their product.
    first, second = np.sqrt(u0) * np.eye(4), np.sqrt(u0) * np.eye(4)
    target, learned = np.diag(strengths), []
    for _ in range(steps + 1):
        learned.append(np.diag(second @ first).copy())
        error = target - second @ first
        first, second = first + lr * second.T @ error, second + lr * error @ first.T
    t = np.arange(steps + 1.0)
    for mode, s in enumerate(strengths):
        expected = mode_strength(t, float(s), u0, 1 / lr)
        assert np.abs(np.array(learned)[:, mode] - expected).max() < 0.01 * s


def test_the_ends_of_the_curve() -> None:
    u = mode_strength(np.array([0.0, 1e9]), 3.0, 0.01, 1.0)
    assert u == pytest.approx([0.01, 3.0])
