"""From columns to numbers about a run: the rate at which the signal gradient changes, and how much of it is left.

Torch-free: everything here is computed from the tables alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEAD = 5
"""Layers before this one are left out of the fit where the network is deep enough: the input's transient."""


def rate(deltas: NDArray[np.float64], axis: str) -> float | None:
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
    layers = np.arange(1, len(deltas) + 1)
    if axis == "depth":
        first = HEAD if len(deltas) >= HEAD + 3 else 1
        chosen = (layers >= first) & (layers < len(deltas))
        layers, deltas = layers[chosen], deltas[chosen]
    if len(deltas) < 2 or not np.all(np.isfinite(deltas) & (deltas > 0)):
        return None
    centred = layers - layers.mean()
    slope = float(centred @ np.log(deltas) / (centred @ centred))
    return float(np.exp(-slope))


def vanishing_ratio(deltas: NDArray[np.float64], axis: str) -> float | None:
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
