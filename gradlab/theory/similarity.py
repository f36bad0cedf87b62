"""How alike two inputs are at every layer of a plain network, and what that makes of its tangent kernel.

Legend: c is the correlation of z of two inputs in one layer, L layers, n units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradlab.theory.activations import Floats, Phi
from gradlab.theory.mean_field import root, settled, variance_after
from gradlab.theory.quadrature import dual, moments
from gradlab.theory.setting import Setting


def passed_on(phi: Phi, q: float, c: Floats) -> tuple[Floats, Floats]:
    """E phi(u) phi(v)/E phi^2 and E phi'(u) phi'(v)/E phi'^2 of u, v of variance ``q`` and correlations ``c`` (P,).

    Of two slopes 1 and a in closed form (Cho & Saul 2009; Li et al. 2022, arXiv:2206.02768): with s = (1 - a)^2/(pi (1
    + a^2)) they are c + s (sqrt(1 - c^2) - c acos c) and 1 - s acos c. Of other phi the power series of `dual`, whose
    rest belongs to its far end.
    """
    c = np.clip(c, -1.0, 1.0)
    if phi.homogeneous:
        slope = float(phi.derivative(np.array(-1.0)))
        bent = (1 - slope) ** 2 / (math.pi * (1 + slope * slope))
        return c + bent * (np.sqrt(1 - c * c) - c * np.arccos(c)), 1 - bent * np.arccos(c)
    q = settled(q)
    at, squares = moments(phi, q), dual(phi, q).copy()
    squares[-1] += max(0.0, at.square - float(squares.sum()))
    powers = c[:, None] ** np.arange(len(squares))
    derivatives = squares[1:] * np.arange(1.0, len(squares))
    derivatives[-1] += max(0.0, q * at.slope_square - float(derivatives.sum()))
    return powers @ squares / at.square, powers[:, :-1] @ derivatives / (q * at.slope_square)


@dataclass(frozen=True)
class Course:
    """Of P pairs of inputs, at layers 1..L-1.

    ``z`` and ``h`` (L-1, P) are the correlation of the signals and the cosine of the activations, ``slopes`` (L-1, P)
    are E phi' phi' over E phi'^2, ``q`` (L-1,) the variances.
    """

    z: Floats
    h: Floats
    slopes: Floats
    q: Floats


def course(seen: Setting, cosines: Floats) -> Course | None:
    """What becomes of the ``cosines`` (P,) of inputs of one length; None of any but a plain `mlp` without a norm.

    Where the weights of ReLU are He's, 1 - c falls as 9 pi^2/(2 l^2): both inputs become one, whatever they were.
    """
    if seen.architecture != "mlp" or seen.norm != "none" or seen.depth < 2:
        return None
    q = seen.sw2_first * seen.q0 + seen.sb2
    c = (seen.sw2_first * seen.q0 * cosines + seen.sb2) / q
    zs, hs, slopes, qs = [], [], [], []
    for _ in range(seen.depth - 1):
        h, slope = passed_on(seen.phi, q, c)
        zs.append(c)
        hs.append(h)
        slopes.append(slope)
        qs.append(q)
        after = variance_after(seen.phi, settled(q), seen.sw2, seen.sb2)
        c = (seen.keep * seen.sw2 * moments(seen.phi, settled(q)).square * h + seen.sb2) / after
        q = after
    return Course(np.array(zs), np.array(hs), np.array(slopes), np.array(qs))


def tangent(seen: Setting, cosines: Floats) -> tuple[Floats, Floats] | None:
    """The tangent kernel JJ' of one output, wide layers: what each adds to that of an input with itself, and of two.

    (L,) each: (h.h' + 1) (delta.delta'), of the weights and of the biases' 1, the latter a mean over pairs of inputs of
    these ``cosines`` (P,). In the limit of many layers at criticality the sums have the ratio 1/4 for ReLU and 1/3 for
    a smooth phi (Hayou et al. 2019, arXiv:1905.13654): layer l has kept (l/L)^3, of a smooth phi (l/L)^2, of what is
    common to two gradients.
    """
    found = course(seen, cosines)
    if found is None or seen.keep < 1:
        return None
    at = [moments(seen.phi, settled(q)) for q in found.q]
    sizes = np.array([seen.inputs * seen.q0, *(seen.width * one.square for one in at)])
    chis = np.array([seen.sw2 * one.slope_square for one in at])
    # From layer l to the output through those of layers l..L-1; that of the output itself is 1.
    own = np.append(np.cumprod(chis[::-1])[::-1], 1.0)
    kept = np.vstack([np.cumprod(found.slopes[::-1], axis=0)[::-1], np.ones_like(cosines)])
    alike = sizes[:, None] * np.vstack([cosines, found.h]) + 1
    return (sizes + 1) * own, own * (alike * kept).mean(axis=1)


def shaped_slope(depth: int, kept: float = 0.9) -> float:
    """The slope below zero of a leaky ReLU that is shaped to the depth (Zhang et al. 2022, arXiv:2203.08120).

    With it two orthogonal inputs have the correlation ``kept`` after ``depth`` layers, of weights that keep variances.
    """

    def beyond(slope: float) -> float:
        c = np.zeros(1)
        for _ in range(depth):
            c, _ = passed_on(Phi("leaky_relu", slope), 1.0, c)
        return float(c[0]) - kept

    return root(beyond, 1e-6, 1.0)
