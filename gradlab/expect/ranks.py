"""Ranks, and how far two orders of the same runs agree (Spearman 1904)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def ranks(values: Floats) -> Floats:
    """The rank (N,) of each value (N,) from 1, equals sharing the mean of theirs.

    >>> ranks(np.array([3.0, np.inf, 3.0, 1.0])).tolist()
    [2.5, 4.0, 2.5, 1.0]
    """
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    found: Floats = (last - (count - 1) / 2)[place]
    return found


def spearman(x: Floats, y: Floats) -> float:
    """The correlation of the ranks of ``x`` and ``y`` (N,), infinite ones among them; nan where either is constant.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 27.0]))
    1.0
    """
    if len(x) < 2:
        return float("nan")
    x, y = (of - of.mean() for of in (ranks(x), ranks(y)))
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else float("nan")


def worst_diverged(loss: Floats, state: npt.NDArray[np.str_]) -> Floats:
    """Final losses (R,), infinite where a run diverged: it is worse than all that finished."""
    return np.where(state == "diverged", np.inf, loss)
