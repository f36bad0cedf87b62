"""Saxe's exact dynamics of deep linear networks (Saxe, McClelland & Ganguli 2013, arXiv:1312.6120)."""

from __future__ import annotations

import numpy as np

from gradlab.theory.activations import Floats


def mode_strength(t: Floats, s: float, u0: float, tau: float) -> Floats:
    """u(t) (as t): the strength of one mode of a two-layer linear network that learns a singular value ``s`` > 0.

    u = s e^(2st/tau)/(e^(2st/tau) - 1 + s/u0), from ``u0`` > 0 at t = 0; ``tau`` is the inverse learning
    rate where t counts steps.
    """
    # Divided by the exponential, so that a late t gives s rather than inf/inf.
    decay = np.exp(-2 * s * np.asarray(t, dtype=float) / tau)
    return s / (1 + (s / u0 - 1) * decay)
