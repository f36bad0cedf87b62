"""Mean-field theory of wide networks at initialization: variances, gradients, correlations, criticality.

Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2016, arXiv:1611.01232. q is the variance of the pre-activations,
chi the growth of squared gradients; weights have the variance sw2/fan_in, biases sb2. All gradients are read backward:
a factor below 1 vanishes towards the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from gradlab.theory.activations import Phi
from gradlab.theory.quadrature import dual, moments

VARIANCES: tuple[float, ...] = tuple(2.0 ** (power / 2) for power in range(-60, 81))
"""Where fixed points are looked for, 1e-9 to 1e12: between two neighbours lies at most one."""

NEAR_ONE = 1e-9
"""A correlation this close to 1, and a chi, count as 1."""

SMALL = 1e-3
"""A variance near 0."""

ROUNDING = 1e-13
"""A relative change of the variance in one layer that is smaller has no sign: rounding gives it one."""

BEYOND = 1e100
"""A variance at which every phi is its two asymptotes."""


def variance_after(phi: Phi, q: float, sw2: float, sb2: float) -> float:
    """The next layer's variance: V(q) = sw2 E[phi(sqrt(q) z)^2] + sb2 (Poole et al.)."""
    return sw2 * moments(phi, q).square + sb2


def chi(phi: Phi, q: float, sw2: float) -> float:
    """The factor of the squared gradient from a layer to the one before it: sw2 E[phi'(sqrt(q) z)^2]."""
    return sw2 * moments(phi, q).slope_square


@lru_cache(maxsize=4096)
def fixed_variance(phi: Phi, sw2: float, sb2: float, start: float) -> float:
    """q*: where the variance of deep layers settles that begins at ``start``; 0 or infinity where it never does.

    V increases with q, so that the layers approach the nearest fixed point on the side to which the first one moves. A
    V(q) that only rounding tells from q is none: softplus with He's weights grows for ever, ever more slowly.
    """
    if phi.homogeneous:
        growth = sw2 * moments(phi, 1.0).square
        if abs(growth - 1) < NEAR_ONE:
            return math.inf if sb2 else start
        return sb2 / (1 - growth) if growth < 1 else math.inf
    excess, start = _excess(phi, sw2, sb2), max(start, VARIANCES[0])
    rises = excess(start) > 0
    if abs(excess(start)) < ROUNDING:
        return start
    beyond = [q for q in VARIANCES if q > start] if rises else [q for q in reversed(VARIANCES) if q < start]
    last = start
    for q in beyond:
        if abs(here := excess(q)) < ROUNDING:
            continue
        if (here > 0) != rises:
            return root(excess, last, q)
        last = q
    return math.inf if rises else 0.0


def repels_above(phi: Phi, q: float, sw2: float, sb2: float) -> bool:
    """Whether a fixed point above ``q``, the one that layers settle at, repels: V crosses the diagonal upward there."""
    excess, below = _excess(phi, sw2, sb2), False
    for one in VARIANCES:
        if one > q and abs(here := excess(one)) > NEAR_ONE:
            if below and here > 0:
                return True
            below = here < 0
    return False


def _excess(phi: Phi, sw2: float, sb2: float) -> Callable[[float], float]:
    return lambda q: variance_after(phi, q, sw2, sb2) / q - 1


def root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where ``f`` changes its sign between two positive numbers; false position in the logarithm (Illinois' rule)."""
    a, b = math.log(low), math.log(high)
    at_a, at_b = f(low), f(high)
    middle = b
    for _ in range(200):
        middle = b - at_b * (b - a) / (at_b - at_a) if at_b != at_a else (a + b) / 2
        value = f(math.exp(middle))
        if value == 0 or abs(b - a) < 1e-13 or abs(value) < 1e-14:
            break
        if (value > 0) != (at_b > 0):
            a, at_a = b, at_b
        else:
            at_a /= 2
        b, at_b = middle, value
    return math.exp(middle)


def rate(phi: Phi, sw2: float, sb2: float, start: float = 1.0) -> float:
    """sqrt(chi_1), the factor of the gradient's norm from a deep layer to the one before it."""
    return math.sqrt(chi(phi, settled(fixed_variance(phi, sw2, sb2, start)), sw2))


def settled(q: float) -> float:
    """A variance that moments can be taken at: infinity becomes `BEYOND`."""
    return min(q, BEYOND)


def scale(factor: float) -> float:
    """Layers in which a quantity that is multiplied by ``factor`` a layer changes by e: 1/|ln factor|."""
    if factor <= 0:
        return 0.0
    return math.inf if abs(factor - 1) < NEAR_ONE else 1 / abs(math.log(factor))


@dataclass(frozen=True)
class Correlations:
    """``fixed``: c*, which the correlation of two inputs tends to; ``depth``: xi_c, layers to get e times nearer to it.

    The latter is infinite where it gets there algebraically.
    """

    fixed: float
    depth: float


@lru_cache(maxsize=4096)
def correlations(phi: Phi, q: float, sw2: float, sb2: float) -> Correlations:
    """c* and xi_c at the variance ``q``, a fixed point of ``sw2`` and ``sb2`` (Schoenholz et al.).

    Where chi_1 <= 1, c* = 1 and xi_c = -1/ln chi_1. Above, the map c -> (sw2 sum a_k^2 c^k + sb2)/q is a convex power
    series that meets the diagonal once below 1, and Newton's method from 0 rises to that point. With dropout ``q`` is a
    fixed point of sw2 over the share that is kept: the map gives less than 1 at c = 1, and c* is below 1 at every sw2.
    """
    ordered = chi(phi, q, sw2)
    alike = min(1.0, variance_after(phi, q, sw2, sb2) / q)
    if ordered <= 1 + NEAR_ONE and alike > 1 - NEAR_ONE:
        return Correlations(1.0, scale(ordered))
    squares = dual(phi, q)
    # What the series leaves out belongs to its far end: at c = 1 the map must give exactly 1, or what dropout leaves.
    coefficients: list[float] = (sw2 / q * squares).tolist()
    coefficients[0] += sb2 / q
    coefficients[-1] += max(0.0, alike - sum(coefficients))
    c = 0.0
    for _ in range(100):
        value, slope = _power_series(coefficients, c)
        step = (value - c) / (1 - slope) if slope < 1 else 1 - c
        if c + step >= 1 - NEAR_ONE:
            return Correlations(1.0, math.inf)
        c += step
        if step < 1e-13:
            break
    return Correlations(c, scale(_power_series(coefficients, c)[1]))


def _power_series(coefficients: list[float], c: float) -> tuple[float, float]:
    value, slope = 0.0, 0.0
    for coefficient in reversed(coefficients):
        slope = slope * c + value
        value = value * c + coefficient
    return value, slope


@lru_cache(maxsize=4096)
def critical(phi: Phi, sb2: float) -> tuple[float, ...]:
    """Every sw2 at which chi_1 = 1 beside ``sb2``, ascending; empty where there is none.

    chi_1 = 1 at the variance q where sw2 = 1/E phi'^2, and q is a fixed point where sb2 = q - sw2 E phi^2: one unknown,
    q. A fixed point that V leaves (softplus, gelu) is none that a network gets to.
    """
    if phi.homogeneous:
        return (1 / moments(phi, 1.0).slope_square,)

    def bias(q: float) -> float:
        return q - moments(phi, q).square / moments(phi, q).slope_square - sb2

    found = []
    at_zero = 1 / moments(phi, 0.0).slope_square
    if sb2 == 0 and moments(phi, 0.0).square < 1e-20 and _excess(phi, at_zero, 0.0)(SMALL) < NEAR_ONE:
        found.append(at_zero)
    # Below the rounding of its two terms `bias` has no sign (a hardtanh near 0 is linear: bias is 0 all along).
    grid = [(q, bias(q)) for q in VARIANCES if abs(bias(q)) > NEAR_ONE * q]
    for (low, at_low), (high, at_high) in pairwise(grid):
        if (at_low > 0) != (at_high > 0):
            q = root(bias, low, high)
            if _attracts(phi, q):
                found.append(1 / moments(phi, q).slope_square)
    return tuple(sorted(found))


def _attracts(phi: Phi, q: float) -> bool:
    """Whether V at chi_1 = 1 leads back to ``q``: V'(q) <= 1, where sw2 = 1/E phi'^2."""
    at = moments(phi, q)
    return at.square_growth <= q * at.slope_square


def nearest_critical(phi: Phi, sw2: float, sb2: float) -> float | None:
    """Of `critical` the sw2 whose ratio to ``sw2`` is nearest to 1."""
    return min(critical(phi, sb2), key=lambda one: abs(math.log(one / sw2)) if sw2 > 0 else one, default=None)
