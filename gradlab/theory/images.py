"""The way back through convolutions: the mean field of dense layers with fan-in 9 C, pixel by pixel.

Of wide layers the entries of z are normal, as in dense ones, and a pixel's variance is the mean of those that its
filter meets (Xiao et al. 2018, arXiv:1806.05393, section 2). That paper closes the image to a ring; here a border of
zeros surrounds it, from which nothing comes: with S the mean over the nine taps, zero outside,

    q_{l+1} = sw2 S E phi(q_l)^2 + sb2,    d_l = E phi'(q_l)^2 sw2 S d_{l+1},

q and d = E delta^2 maps of the pixels. Of a homogeneous phi both shrink in deep layers by the largest eigenvalue of S,
(1 + 2 cos(pi/(H + 1))) (1 + 2 cos(pi/(W + 1)))/9: 0.921 of 8x8, 0.993 of 28x28, 1 of a filter of its middle tap alone.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from gradlab.theory.activations import Floats
from gradlab.theory.mean_field import settled
from gradlab.theory.quadrature import moments
from gradlab.theory.setting import Setting

LARGEST = 1e200
"""A variance beyond it is kept there, so that nothing overflows."""

DEEP = 60
"""Layers after which the map of a wide network's pixels has settled, or never does."""

STEADY = 1e-6
"""A factor a layer that changes by less from one to the next has settled."""


@dataclass(frozen=True)
class Course:
    """Factors a place: of E delta^2 going back (P,), of the forward variance (P,), and the limit of the first."""

    back: list[float]
    growth: list[float]
    limit: float | None


@dataclass(frozen=True)
class Met:
    """What an activation meets, a number a pixel: E phi^2, E phi, E phi'^2, and what a norm has divided z^2 by."""

    square: Floats
    mean: Floats
    slope: Floats
    divisor: Floats


def border(pixels: tuple[int, int]) -> float:
    """The largest eigenvalue of S: what zeros around an image leave of its variance, a layer, in deep ones.

    >>> round(border((8, 8)), 3)
    0.921
    """
    height, width = pixels
    return (1 + 2 * math.cos(math.pi / (height + 1))) * (1 + 2 * math.cos(math.pi / (width + 1))) / 9


def smoothed(seen: Setting, pixels: Floats) -> Floats:
    """S: the mean over a filter's taps, (H, W) -> (H, W), zeros around; of a filter of its middle tap the same map."""
    if seen.centre:
        return pixels
    framed = np.pad(pixels, 1)
    rows = framed[:-2] + framed[1:-1] + framed[2:]
    found: Floats = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
    return found


def met(seen: Setting, v: Floats, mean: Floats | float) -> Met:
    """Of z with the variances ``v`` (H, W), whose part that all samples share has ``mean``: only batch norm sees it.

    Layer and rms norm divide each pixel by its own spread, batch norm all by that of the whole image.
    """
    divisor = np.ones_like(v)
    if seen.norm == "batch":
        v = v - mean
        divisor = np.full_like(v, v.mean() + seen.eps)
    elif seen.norm != "none":
        divisor = v + seen.eps
    q = np.minimum(v / divisor, LARGEST)
    # Pixels that lie alike in the image share a variance.
    values, where = np.unique(np.round(q, 12), return_inverse=True)
    at = [moments(seen.phi, settled(float(value))) for value in values]

    def spread(numbers: list[float]) -> Floats:
        found: Floats = np.array(numbers)[where].reshape(q.shape)
        return found

    return Met(
        spread([one.square for one in at]),
        spread([one.mean for one in at]),
        spread([one.slope_square for one in at]),
        divisor,
    )


def convolutions(seen: Setting) -> Course:
    """Layers 1..L-1 and the input, of `cnn`."""
    hidden = seen.depth - 1
    layers: list[Met] = []
    v, mean = (
        seen.sw2_first * smoothed(seen, np.full(seen.pixels, seen.q0)) + seen.sb2,
        np.zeros(seen.pixels) + seen.sb2,
    )
    variances = [seen.q0]
    for _ in range(max(hidden, DEEP)):
        layers.append(met(seen, v, mean))
        variances.append(float(v.mean()))
        last = layers[-1]
        v = seen.sw2 * smoothed(seen, last.square) + seen.sb2
        mean = seen.sw2 * smoothed(seen, last.mean**2) + seen.sb2
    back, deep = _way_back(seen, layers[:hidden]), _way_back(seen, layers)
    middle = len(deep) // 2
    steady = abs(deep[middle] - deep[middle - 1]) < STEADY * deep[middle]
    growth = [after / before if before else 0.0 for before, after in itertools.pairwise(variances[: hidden + 1])]
    return Course(back, growth, deep[middle] if steady else None)


def _way_back(seen: Setting, layers: list[Met]) -> list[float]:
    """The factor of the sum of d over all pixels from each layer to the one before it, the input first.

    Behind the last layer the mean over all pixels hands every one of them the same.
    """
    if not layers:
        return []
    d, behind, factors = layers[-1].slope, layers[-1].divisor, []
    for layer in reversed(layers[:-1]):
        before = layer.slope * seen.sw2 * smoothed(seen, d / behind)
        factors.append(_over(before, d))
        d, behind = before, layer.divisor
    return [_over(seen.sw2_first * smoothed(seen, d / behind), d), *reversed(factors)]


def _over(before: Floats, after: Floats) -> float:
    total = float(after.sum())
    return float(before.sum()) / total if total else 0.0


def blocks(seen: Setting) -> Course:
    """The stream of `resnet` behind the read-in and each block, and the input; blocks activate before they convolve.

    A branch is independent of the stream: its variance is added, and its way back, through both convolutions.
    """
    square = seen.branch * seen.branch
    v, passed, variances = seen.sw2_first * smoothed(seen, np.full(seen.pixels, seen.q0)) + seen.sb2, [], [seen.q0]
    variances.append(float(v.mean()))
    for _ in range(seen.depth - 2):
        outer = met(seen, v, 0.0)
        inner = met(seen, seen.sw2 * smoothed(seen, outer.square) + seen.sb2, 0.0)
        passed.append((outer, inner))
        v = v + square * (seen.sw2 * smoothed(seen, inner.square) + seen.sb2)
        variances.append(float(v.mean()))
    # Before the read-out stand a norm and an activation.
    last = met(seen, v, 0.0)
    d, factors = last.slope / last.divisor, []
    for outer, inner in reversed(passed):
        within = inner.slope / inner.divisor * seen.sw2 * smoothed(seen, d)
        before = d + square * outer.slope / outer.divisor * seen.sw2 * smoothed(seen, within)
        factors.append(_over(before, d))
        d = before
    factors.append(_over(seen.sw2_first * smoothed(seen, d), d))
    growth = [after / before if before else 0.0 for before, after in itertools.pairwise(variances)]
    return Course(factors[::-1], growth, None)
