"""Products of random matrices: how much their logarithms vary at finite width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradlab.theory.activations import Floats, Phi
from gradlab.theory.quadrature import moments, swings


def log_spread(phi: Phi, q: float, *, orthogonal: bool = False) -> float:
    """kappa: the variance of ln |delta|^2 is kappa times the sum of 1/n over the layers passed.

    Through one layer of width n, |D W' delta|^2 is sum_i d_i^2 v_i^2 with d = phi'(z) and v normal, whose relative
    variance is (3 E d^4/(E d^2)^2 - 1)/n; v has a fixed length where W is orthogonal, and 2/n is missing. ReLU: 5
    (Hanin 2018, arXiv:1801.03744; Hanin & Nica 2018, arXiv:1812.05994); linear: 2 (Cohen & Newman
    1984, The stability of large random matrices and their products).
    """
    at = moments(phi, q)
    ratio = at.slope_fourth / at.slope_square**2
    return 3 * ratio - (3 if orthogonal else 1)


def log_variances(phi: Phi, qs: Sequence[float], sb2: float, *, orthogonal: bool = False) -> Floats:
    """N times the variance of ln |delta_l|^2 - ln |delta_L|^2 at layers 1..L of width n and variances ``qs``: (L,).

    `log_spread` takes the mean field's variance of z; that of a draw is another. The mean of phi^2 over the units of a
    layer misses by eta, of relative variance f/n. The next layer's variance has it as r eta, r = 1 - sb2/q, and hands
    it on by a = r d ln E phi^2/d ln q; E phi'^2 of every layer that it comes to answers by g = d ln E phi'^2/d ln q. So
    eta counts r H in all, where H = g + a H' of the layers from the next one on. A layer adds kappa + 2 c r H + f (r
    H)^2, c the covariance of eta with the mean of phi'^2; what has been handed on to l adds its variance times H_l^2.
    A homogeneous phi has g = 0: kappa alone. Orthogonal matrices fix |z|, but for biases, and what is owed to it goes.
    """
    r = [max(0.0, 1 - sb2 / q) if sb2 else 1.0 for q in qs]
    at = [swings(phi, q) for q in qs]
    fixed = [2 * share * share if orthogonal else 0.0 for share in r]
    f = [one.square - given * one.square_growth**2 for one, given in zip(at, fixed, strict=True)]
    arrived = [0.0]
    for here, after in enumerate(r[1:]):
        arrived.append((after * at[here].square_growth) ** 2 * arrived[here] + after * after * f[here])
    found, total, answer = [0.0], 0.0, 0.0
    for here in reversed(range(len(qs) - 1)):
        one, given, counts = at[here], fixed[here], r[here + 1] * answer
        kappa = log_spread(phi, qs[here], orthogonal=orthogonal) - given * one.slope_growth**2
        c = one.together - given * one.square_growth * one.slope_growth
        total += kappa + 2 * c * counts + f[here] * counts**2
        answer = one.slope_growth + one.square_growth * counts
        found.append(total + arrived[here] * answer**2)
    return np.array(found[::-1])
