"""Recurrent networks: how far a gradient can get through time (Pascanu et al. 2013, arXiv:1211.5063)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from gradlab.theory.activations import Phi


@lru_cache(maxsize=256)
def steepest(phi: Phi) -> float:
    """The greatest slope gamma = max |phi'|: 1 of tanh, 1/4 of sigmoid. On a grid of 0.002."""
    z = np.linspace(-40, 40, 40001)
    return float(np.abs(phi.derivative(z)).max())


def largest_singular_value(sw2: float, *, orthogonal: bool) -> float:
    """Of a wide square matrix of variance sw2/n: 2 sqrt(sw2) (Marchenko & Pastur), of an orthogonal one sqrt(sw2)."""
    return math.sqrt(sw2) * (1 if orthogonal else 2)
