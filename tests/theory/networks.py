"""Random networks in plain numpy, as oracles of what theory says of their averages."""

from __future__ import annotations

import math

import numpy as np

from gradlab.theory.activations import Floats, Phi


def log_gradients(
    phi: Phi, sw2: float, sb2: float, *, depth: int, width: int, draws: int, seed: int = 0, q0: float = 1.0
) -> Floats:
    """One sample's ln ||delta_l||^2 (draws, depth) at layers 1..depth, relative to the last; square Gaussian layers."""
    rng = np.random.default_rng(seed)
    out = np.empty((draws, depth))
    for draw in range(draws):
        h = rng.standard_normal(width) * math.sqrt(q0)
        weights, slopes = [], []
        for _ in range(depth):
            weights.append(rng.standard_normal((width, width)) * math.sqrt(sw2 / width))
            z = weights[-1] @ h + math.sqrt(sb2) * rng.standard_normal(width)
            slopes.append(phi.derivative(z))
            h = phi.value(z)
        delta = rng.standard_normal(width) * slopes[-1]
        out[draw, -1] = math.log(delta @ delta)
        for layer in range(depth - 2, -1, -1):
            delta = (weights[layer + 1].T @ delta) * slopes[layer]
            out[draw, layer] = math.log(delta @ delta)
    return out - out[:, -1:]
