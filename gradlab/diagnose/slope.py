"""How the signal gradient changes from layer to layer: the fitted rate, its standard error, whether one rate is enough.

In a network of independent random layers ln ‖δ_l‖ is a sum of independent increments, one a layer (Hanin & Nica 2018,
arXiv:1812.05994): a random walk, not a line with independent errors about it. So the standard error here is that of the
least-squares slope of a random walk, and the test for curvature is one for a trend in the increments. Where layers
share something (one matrix at all time steps, a residual stream, a batch's statistics) one profile does not know how
far draws lie apart: `passage` takes the error away there. `benchmarks/coverage.py` measures what is left of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HEAD = 5
"""Layers before this one are left out of the fit where the network is deep enough: the input's transient."""

LIMIT_FREEDOM = 18
"""The degrees of freedom at which the threshold `curvature` is a Student's t: those of a network of 26 layers."""

ROUNDING = 1e-9
"""Increments that differ by less are equal: float32 rounds their logarithms to about 1e-7 of one, over many entries."""


TREND = 2.0
"""The normal deviate whose two sides hold 95.4 %: that of the stated interval, and of a trend that is none."""


SHARED = 0.01
"""The correlation of any two increments of one draw: 0.006 to 0.017 in ReLU networks (50 layers of 32 to 128, seeds
2000 to 2299), where <z, delta> is the same in every layer; nearly none where an activation saturates."""


@dataclass(frozen=True)
class Fit:
    """Least squares of ln ‖δ_l‖ on l, over layers ``first``..``last``.

    ``rate`` is the factor a layer going backward. ``scatter`` is the standard error that it had if the increments were
    independent, by how far they scatter (nan with two points). ``error`` is the same, by how far they scatter about
    their trend, widened by `SHARED` and by Student's t so that two of them on either side hold 95.4 %; nan with
    fewer than five points, where a trend would not be seen, and where the increments have one (5 %): the rate is
    then that of no layer. ``curvature``
    is Student's t, with points - 3 degrees of freedom, of a trend in the increments of ln ‖δ‖ along the layers (nan
    with fewer than five points); ``near`` and ``far`` are the local rates at the input's and the output's end of that
    trend. ``level`` is the fitted ln ‖δ‖ at the middle of the layers.
    """

    rate: float
    scatter: float
    error: float
    first: int
    last: int
    curvature: float
    near: float
    far: float
    level: float

    @property
    def points(self) -> int:
        """How many layers were fitted."""
        return self.last - self.first + 1

    def bends(self, limit: float) -> bool:
        """Whether ``curvature`` is less probable than ``limit`` at `LIMIT_FREEDOM` degrees of freedom; not if nan."""
        return _normal(abs(self.curvature), self.points - 3) > _normal(limit, LIMIT_FREEDOM)

    def line(self, layers: Ints | Floats) -> Floats:
        """The fitted ‖δ‖ at ``layers``."""
        middle = (self.first + self.last) / 2
        return np.asarray(np.exp(self.level - math.log(self.rate) * (layers - middle)), dtype=float)


def fitted(deltas: Floats, axis: str) -> tuple[Ints, Floats]:
    """The layers that a fit uses and their norms: along depth layers 5..L-1 (1..L-1 where L < 8), along time all."""
    layers = np.arange(1, len(deltas) + 1)
    if axis == "depth":
        first = HEAD if len(deltas) >= HEAD + 3 else 1
        layers, deltas = layers[first - 1 : -1], deltas[first - 1 : -1]
    return layers, deltas


def fit(deltas: Floats, axis: str) -> Fit | None:
    """The rate with its error and the test for curvature; None where `rate` is None.

    Args:
        deltas: (L,) norms at layers 1..L with ``axis`` "depth", (T,) at time steps 1..T with "time".
        axis: along which the norms stand.

    The slope is sum_k W_k d_k over the increments d_k, W_k the sum of the weights of the layers after k, so its
    variance is that of an increment times sum W_k².

    >>> exact = fit(np.array([1.0, 2.0, 4.0, 8.0, 16.0]), "time")
    >>> exact.rate, exact.error, exact.curvature
    (0.5, 0.0, 0.0)
    """
    layers, deltas = fitted(deltas, axis)
    if len(deltas) < 2 or not np.all(np.isfinite(deltas) & (deltas > 0)):
        return None
    logs = np.log(deltas)
    centred = layers - layers.mean()
    weights = centred / (centred @ centred)
    slope = float(weights @ logs)
    steps = np.diff(logs)
    carried = -np.cumsum(weights)[:-1]
    scatter, error, curvature, near, far = math.nan, math.nan, math.nan, math.exp(-slope), math.exp(-slope)
    if len(steps) >= 2:
        spread = float(steps.std(ddof=1))
        scatter = spread * math.sqrt(float(carried @ carried)) if spread > ROUNDING else 0.0
    if len(steps) >= 4:
        curvature, tilt, loose = _trend(steps)
        if _normal(abs(curvature), len(steps) - 2) <= TREND:
            # A trend too weak to be seen is no noise: what lies about it is.
            # Of sum_k W_k d_k, whose weights add up to 1, increments with one correlation vary by that much more.
            shared = SHARED / float(carried @ carried) + 1 - SHARED
            alone = loose * math.sqrt(float(carried @ carried)) if loose > ROUNDING else 0.0
            error = alone * math.sqrt(shared) * _student(TREND, len(steps) - 2) / TREND
        reach = tilt * (len(steps) - 1) / 2
        near, far = math.exp(-(float(steps.mean()) - reach)), math.exp(-(float(steps.mean()) + reach))
    found = math.exp(-slope)
    ends = int(layers[0]), int(layers[-1])
    return Fit(found, found * scatter, found * error, *ends, curvature, near, far, float(logs.mean()))


def _trend(steps: Floats) -> tuple[float, float, float]:
    """Student's t of a linear trend in ``steps`` (n,), the trend, and the standard deviation about it.

    t is 0 where the steps are equal but for rounding.
    """
    place = np.arange(len(steps)) - (len(steps) - 1) / 2
    squares = float(place @ place)
    tilt = float(place @ steps) / squares
    left = steps - steps.mean() - tilt * place
    if float(np.ptp(steps)) <= ROUNDING:
        return 0.0, 0.0, 0.0
    loose = math.sqrt(float(left @ left) / (len(steps) - 2))
    return (tilt / loose * math.sqrt(squares) if loose > 0 else math.copysign(math.inf, tilt)), tilt, loose


def _normal(t: float, freedom: int) -> float:
    """The normal deviate that is as improbable as Student's ``t``, nearly (Wallace 1959); nan where t is.

    One in a thousand straight profiles has a t beyond these, at 5, 18 and very many degrees of freedom:

    >>> f"{_normal(6.869, 5):.2f} {_normal(3.922, 18):.2f} {_normal(3.291, 10**6):.2f}"
    '3.27 3.29 3.29'
    """
    shrunk = (8 * freedom + 1) / (8 * freedom + 3)
    return shrunk * math.sqrt(freedom * math.log1p(t * t / freedom)) if math.isfinite(t) else t


def _student(deviate: float, freedom: int) -> float:
    """Student's t that is as improbable as a normal ``deviate``: the inverse of `_normal`.

    Two sides of 95.4 % at 3, 17 and very many degrees of freedom (tables: 3.307, 2.158, 2.000):

    >>> f"{_student(2.0, 3):.2f} {_student(2.0, 17):.2f} {_student(2.0, 10**6):.2f}"
    '3.35 2.16 2.00'
    """
    shrunk = (8 * freedom + 1) / (8 * freedom + 3)
    return math.sqrt(freedom * math.expm1((deviate / shrunk) ** 2 / freedom))


def rate(deltas: Floats, axis: str) -> float | None:
    """The factor by which the norm of the signal gradient changes per layer going backward.

    Least squares of ln ||delta_l|| on l, then exp(-slope): below 1 vanishing towards the input, above 1 exploding.

    Args:
        deltas: (L,) norms at layers 1..L with ``axis`` "depth", (T,) at time steps 1..T with "time".
        axis: along depth the fit uses layers 5..L-1 (1..L-1 where L < 8), along time all steps.

    Returns:
        None with fewer than two points, or a point that is zero or not finite.

    >>> f"{rate(np.array([1.0, 2.0, 4.0, 8.0]), 'time'):.3f}"
    '0.500'
    """
    layers, deltas = fitted(deltas, axis)
    if len(deltas) < 2 or not np.all(np.isfinite(deltas) & (deltas > 0)):
        return None
    centred = layers - layers.mean()
    slope = float(centred @ np.log(deltas) / (centred @ centred))
    return float(np.exp(-slope))


def vanishing_ratio(deltas: Floats, axis: str) -> float | None:
    """The norm of the signal gradient at layer 1 over that at layer L-1 (time step 1 over T).

    Args and shapes as in `rate`. None where there is no such layer; nan for 0/0 and inf for x/0.

    >>> vanishing_ratio(np.array([1.0, 2.0, 4.0, 8.0]), "depth")
    0.25
    """
    compared = deltas[:-1] if axis == "depth" else deltas
    if len(compared) < 1:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(compared[0] / compared[-1])
