"""Products of random matrices: chains, their logarithms at finite width, and the spectrum of a network's Jacobian."""

from __future__ import annotations

import math

from gradlab.theory.activations import Phi
from gradlab.theory.quadrature import moments


def chain_growth(a: float, layers: int) -> float:
    """|a|^L: the factor of a gradient through L matrices a*I (Saxe et al. 2013, arXiv:1312.6120)."""
    return abs(a) ** layers


def product_log_norm(g: float, layers: int, width: int) -> tuple[float, float]:
    """Mean and standard deviation of ln |v| of a unit vector after L matrices of N(0, g^2/N) entries.

    |Wv|^2 is g^2 chi^2_N/N, whose logarithm has mean -1/N and variance 2/N to first order: L ln g - L/2N and
    sqrt(L/2N). (Cohen & Newman 1984, The stability of large random matrices and their products.)
    """
    return layers * math.log(g) - layers / (2 * width), math.sqrt(layers / (2 * width))


def log_spread(phi: Phi, q: float, *, orthogonal: bool = False) -> float:
    """kappa: the variance of ln |delta|^2 is kappa times the sum of 1/n over the layers passed.

    Through one layer of width n, |D W' delta|^2 is sum_i d_i^2 v_i^2 with d = phi'(z) and v normal, whose relative
    variance is (3 E d^4/(E d^2)^2 - 1)/n; v has a fixed length where W is orthogonal, and 2/n is missing. ReLU: 5
    (Hanin 2018, arXiv:1801.03744; Hanin & Nica 2018, arXiv:1812.05994); linear: 2, as in `product_log_norm`.
    """
    at = moments(phi, q)
    ratio = at.slope_fourth / at.slope_square**2
    return 3 * ratio - (3 if orthogonal else 1)


def gradient_log_moments(beta: float, kappa: float = 5.0) -> tuple[float, float]:
    """Mean and variance of ln |g|^2 where E |g|^2 is 1 and beta = sum 1/n_l: -kappa beta/2 and kappa beta.

    With ReLU's kappa of 5: -2.5 beta and 5 beta (Hanin & Nica 2018, arXiv:1812.05994).
    """
    return -kappa * beta / 2, kappa * beta


def jacobian_spread(phi: Phi, q: float, layers: int, *, orthogonal: bool = False) -> float:
    """Variance over squared mean of the spectrum of JJ', J the Jacobian of L wide layers of variance q.

    L (mu_2/mu_1^2 - 1 - s_1), mu_k = E phi'^(2k), s_1 = -1 for Gaussian matrices and 0 for orthogonal ones (Pennington
    et al. 2017, arXiv:1711.04735).
    """
    at = moments(phi, q)
    return layers * (at.slope_fourth / at.slope_square**2 - 1 + (0 if orthogonal else 1))
