"""The input gradient along a line of inputs: a smooth curve, a walk, or white noise (shattered gradients)."""

from __future__ import annotations

import torch

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Read, gathered, input_slopes, parts

LAGS = 20
"""The longest lag."""


def input_autocorrelation(cohort: Cohort, _: Advance) -> Read:
    """Gives ``input_gradient`` at the points 1..N of the grid, and ``autocorrelation`` at the lags 0..20.

    The gradient of a point is dy/dx there, with the statistics of a batch norm over the whole grid as constants. With g
    its deviation from its mean along the grid, the autocorrelation at lag k is sum_i g_i g_(i+k)/sum_i g_i^2 (Balduzzi
    et al. 2017, arXiv:1702.08591).
    """

    def read(_t: int) -> tuple[Curve, ...]:
        grid = cohort.task.inputs
        (slopes,) = gathered((input_slopes(cohort, part, grid).squeeze(2),) for part in parts(cohort, len(grid)))
        centred = slopes - slopes.mean(1, keepdim=True)
        products = [(centred[:, : len(grid) - lag] * centred[:, lag:]).sum(1) for lag in range(LAGS + 1)]
        return (
            Curve("input_gradient", tuple(range(1, len(grid) + 1)), slopes),
            Curve("autocorrelation", tuple(range(LAGS + 1)), torch.stack(products, dim=1) / products[0].unsqueeze(1)),
        )

    return read
