"""Random networks in plain numpy, as oracles of what theory says of their averages."""

from __future__ import annotations

import math

import numpy as np

from gradlab.theory.activations import Floats, Phi


def log_gradients(
    phi: Phi,
    sw2: float,
    sb2: float,
    *,
    depth: int,
    width: int,
    draws: int,
    seed: int = 0,
    q0: float = 1.0,
    orthogonal: bool = False,
) -> Floats:
    """One sample's ln ||delta_l||^2 (draws, depth) at layers 1..depth, relative to the last; square layers.

    The sample's mean square is ``q0``; matrices are Gaussian, or orthogonal ones times sqrt(sw2).
    """
    rng = np.random.default_rng(seed)
    out = np.empty((draws, depth))
    for draw in range(draws):
        h = rng.standard_normal(width)
        h *= math.sqrt(q0 * width) / np.linalg.norm(h)
        weights, slopes = [], []
        for _ in range(depth):
            matrix = rng.standard_normal((width, width))
            drawn = np.linalg.qr(matrix)[0] if orthogonal else matrix / math.sqrt(width)
            weights.append(drawn * math.sqrt(sw2))
            z = weights[-1] @ h + math.sqrt(sb2) * rng.standard_normal(width)
            slopes.append(phi.derivative(z))
            h = phi.value(z)
        delta = rng.standard_normal(width) * slopes[-1]
        out[draw, -1] = math.log(delta @ delta)
        for layer in range(depth - 2, -1, -1):
            delta = (weights[layer + 1].T @ delta) * slopes[layer]
            out[draw, layer] = math.log(delta @ delta)
    return out - out[:, -1:]


def wide_log_gradients(phi: Phi, sw2: float, sb2: float, *, depth: int, width: int, draws: int, seed: int) -> Floats:
    """As `log_gradients`, without a matrix: of W only Wh = g and W'delta are asked for.

    Given the first the second is fresh but for its part along h, which is g.delta/|h|.
    """
    rng = np.random.default_rng(seed)

    def normal(variance: float | Floats) -> Floats:
        return rng.standard_normal((draws, width)) * np.sqrt(variance)

    z = normal(sw2) + normal(sb2)
    slopes, passed = [phi.derivative(z)], []
    for _ in range(depth - 1):
        h = phi.value(z)
        square = (h * h).sum(1, keepdims=True)
        passed.append((h, g := normal(sw2 / width * square), square))
        z = g + normal(sb2)
        slopes.append(phi.derivative(z))
    delta = normal(1.0) * slopes[-1]
    out = [np.log((delta * delta).sum(1))]
    for (h, g, square), slope in zip(reversed(passed), reversed(slopes[:-1]), strict=True):
        back = normal(sw2 / width * (delta * delta).sum(1, keepdims=True))
        back += h * ((g * delta).sum(1, keepdims=True) - (h * back).sum(1, keepdims=True)) / square
        delta = slope * back
        out.append(np.log((delta * delta).sum(1)))
    found: Floats = np.stack(out[::-1], axis=1)
    return found - found[:, -1:]
