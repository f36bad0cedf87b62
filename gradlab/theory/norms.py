"""What normalization before the activation does to gradients at initialization: batch, layer and rms norm.

z_l, whose gradient is meant, is what enters the activation, so it has variance 1 (less where a norm's epsilon counts).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from gradlab.theory.activations import Floats, Phi
from gradlab.theory.quadrature import moments

EPS = 1e-5
"""What batch and layer norm add to a variance, as torch's."""

RMS_EPS = {
    "float64": 2.220446049250313e-16,
    **dict.fromkeys(
        ("float32", "tf32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16"), 1.1920928955078125e-07
    ),
}
"""What rms norm adds to a mean square, by precision, as torch's."""

LEAST_BATCH = 4
"""Below it the inverse variance of a batch has no mean, and batch norm's gradients no finite one."""

LINEAR = 1e-6
"""A variance at which every phi is linear, or has its two slopes, and no difference of means is lost in rounding."""

STEADY_BATCH = 6
"""From here on a chi^2 of B - 1 degrees of freedom has an inverse of finite variance: a mean is what is typical."""

_DRAWS = 8192
_ANGLES = 48
_RADII = 96


def layer_norm_chi(phi: Phi, sw2: float, sb2: float, eps: float) -> tuple[float, float]:
    """Of layer and rms norm over wide layers: chi, the factor of the squared gradient a layer, and the variance of z.

    With v = sw2 E phi^2 + sb2 before the norm, z has the variance q = v/(v + eps), and a gradient comes back through
    sw2 E phi'^2/(v + eps); without biases and eps that is E phi'^2/E phi^2, whatever sw2.
    """
    q = _settled(lambda q: sw2 * moments(phi, q).square + sb2, eps)
    v = sw2 * moments(phi, q).square + sb2
    return sw2 * moments(phi, q).slope_square / (v + eps), q


def batch_step(phi: Phi, q: float, batch: int | None) -> tuple[float, float]:
    """What one layer behind batch norm does at sw2 = 1 to the variance over the batch and to the squared gradient.

    ``q`` is the variance behind the norm. The first is Var phi, in a batch of B samples E phi(y_1)^2 - E phi(y_1)
    phi(y_2); the second, E phi'^2 (in B samples as in `batch_chi`), is divided by the variance before the norm.
    """
    at = moments(phi, q)
    if batch is None:
        return at.variance, at.slope_square
    # What a finite batch changes hardly depends on q: two digits of it spare an integral for every layer.
    near = max(float(f"{q:.2g}"), LINEAR)
    spread, back = _batch_moments(phi, near, batch)
    wide = moments(phi, near)
    return at.variance * spread / wide.variance, at.slope_square * back / wide.slope_square


def batch_norm_chi(phi: Phi, sw2: float, batch: int | None, eps: float = 0.0) -> tuple[float, float]:
    """Of batch norm over wide layers: chi and the variance of z. Biases cancel.

    In a large batch (None) chi = E phi'^2/Var phi >= 1 (Yang et al. 2019, arXiv:1902.08129). In one of B samples the z
    of a unit lie, uniformly, on the sphere of radius sqrt(B) orthogonal to 1, and chi is what `batch_chi` says. Raises
    ValueError for a batch of fewer than `LEAST_BATCH`: there is no finite mean.
    """
    if batch is not None and batch < LEAST_BATCH:
        raise ValueError(f"batch norm over {batch} samples: expected at least {LEAST_BATCH}")
    q = _settled(lambda q: sw2 * moments(phi, q).variance, eps)
    v = sw2 * moments(phi, q).variance
    large = sw2 * moments(phi, q).slope_square / (v + eps) if v + eps > 0 else 0.0
    if batch is None:
        return large, q
    # Of a phi that is all but linear only the scale changes below this variance, and it cancels.
    at = max(q, LINEAR)
    return large * batch_chi(phi, at, batch) * moments(phi, at).variance / moments(phi, at).slope_square, q


def _settled(before: Callable[[float], float], eps: float) -> float:
    """The fixed point of q = v/(v + eps), v = ``before``(q)."""
    q = 1.0
    for _ in range(200):
        v = before(q)
        last, q = q, v / (v + eps) if v > 0 else 0.0
        if abs(q - last) < 1e-12:
            break
    return q


def batch_chi(phi: Phi, q: float, batch: int) -> float:
    """Batch norm's chi in batches of B samples, for wide layers, z of the variance ``q``.

    At the fixed point the pre-activations have the covariance s G + t 11', G = I - 11'/B, with s = sw2 (E phi(y_1)^2 -
    E phi(y_1) phi(y_2)), and the gradients one of the form g G. With y = sqrt(B) Gz/|Gz|, D = diag phi'(y) and v of
    covariance sw2 g G, the way back gives sqrt(B)/|Gz| (G - yy'/B) D v. Length and direction of Gz are independent, and
    E B/|Gz|^2 = B/(s (B - 3)), so that

        chi = B/((B - 1)(B - 3)) tr E[(G - yy'/B) D G D] / (E phi(y_1)^2 - E phi(y_1) phi(y_2)).

    For a linear phi that is (B - 2)/(B - 3), for a large batch E phi'^2/Var phi (Yang et al. 2019, arXiv:1902.08129).
    """
    spread, back = _batch_moments(phi, q, batch)
    return q * back / spread


@lru_cache(maxsize=4096)
def _batch_moments(phi: Phi, q: float, batch: int) -> tuple[float, float]:
    """E phi(y_1)^2 - E phi(y_1) phi(y_2), and B/((B - 1)(B - 3)) tr E[(G - yy'/B) D G D], of z of variance ``q``."""
    B = batch
    y1, y2, weight = _pair_rule(batch)
    root_q = math.sqrt(q)
    h1, h2 = phi.value(root_q * y1), phi.value(root_q * y2)
    d1, d2 = phi.derivative(root_q * y1), phi.derivative(root_q * y2)
    spread = float(weight @ (h1 * h1 - h1 * h2))
    one, two = float(weight @ d1**2), float(weight @ (d1 * d2))
    one_y, two_y = float(weight @ (y1 * d1) ** 2), float(weight @ (y1 * d1 * y2 * d2))
    # tr GDGD and y'DGDy/B, sums over samples written as B single ones and B(B - 1) pairs.
    through = (B - 1) ** 2 / B * one + (B - 1) / B * two
    lost = (B - 1) / B * (one_y - two_y)
    return spread, B / ((B - 1) * (B - 3)) * (through - lost)


@lru_cache(maxsize=1024)
def typical_batch_log(phi: Phi, q: float, batch: int, width: int) -> float:
    """E ln of what a layer of ``width`` units does to |delta|^2 in a batch of B, less the ln of its mean, `batch_chi`.

    A unit's share is a/c, a = |(G - yy'/B) D v|^2 and c of chi^2 with B - 1 degrees of freedom, which for B = 4 and 5
    has no finite variance: a layer in a thousand makes up the mean, and the others have less. With L the Laplace
    transform of one unit's share, of mean 1, that of the mean of n units is L(t/n)^n, and E ln S is the integral of
    (exp(-t) - L(t/n)^n)/t. The transform over c is a Bessel function, that over a a mean of `_DRAWS` draws, the same
    every time: good for two digits of the rate's distance from its mean, and for three of the rate.
    """
    draw = np.random.default_rng(0)
    y, v = draw.standard_normal((2, _DRAWS, batch))
    y -= y.mean(1, keepdims=True)
    y *= math.sqrt(batch) / np.linalg.norm(y, axis=1, keepdims=True)
    back = phi.derivative(math.sqrt(q) * y) * (v - v.mean(1, keepdims=True))
    back -= back.mean(1, keepdims=True)
    a = (back**2).sum(1) - (y * back).sum(1) ** 2 / batch
    awake = a[a > 1e-12 * a.mean()]
    t = np.arange(-20.0, 5.0, 0.25)
    known, logs = _inverse_chi_square(batch - 1)
    # E 1/c = 1/(B - 3), so that the shares' mean is 1.
    at = t[:, None] + np.log(awake * (batch - 3) / a.mean() / width)
    lost = -np.expm1(-np.exp(np.interp(at, known, logs))).sum(1) / _DRAWS
    return float(0.25 * (np.exp(-np.exp(t)) - np.exp(width * np.log1p(-lost))).sum())


@lru_cache(maxsize=4)
def _inverse_chi_square(freedom: int) -> tuple[Floats, Floats]:
    """Points ln s (P,), and there the ln of -ln E exp(-s/c), c of chi^2 with k degrees of freedom.

    With x = sqrt(2 s) the mean is 2/Gamma(k/2) (x/2)^(k/2) K_(k/2)(x).
    """
    known = np.arange(-18.0, 12.0, 0.05)
    # K_nu(x) is the integral of exp(-x cosh u) cosh(nu u), by the trapezoid rule exact to rounding.
    u, x = np.arange(0.0, 16.0, 0.05), np.sqrt(2 * np.exp(known))[:, None]
    weight = np.where(u == 0, 0.025, 0.05)
    nu = freedom / 2
    bessel = np.exp(np.maximum(x * (1 - np.cosh(u)), -700)) * np.cosh(nu * u) @ weight
    logs = math.log(2 / math.gamma(nu)) + nu * np.log(x[:, 0] / 2) + np.log(bessel) - x[:, 0]
    # Far below it is the mean alone, s/(k - 2).
    lowest = np.array([-60.0])
    return np.append(lowest, known), np.append(lowest - math.log(freedom - 2), np.log(-logs))


@lru_cache(maxsize=64)
def _pair_rule(batch: int) -> tuple[Floats, Floats, Floats]:
    """Nodes and weights of two entries (y_1, y_2) of a uniform point of the sphere of radius sqrt(B) orthogonal to 1.

    y_1 = sqrt(B - 1) a, y_2 = sqrt(B - 1) (rho a + sqrt(1 - rho^2) b) with rho = -1/(B - 1), where (a, b) are two
    coordinates of a uniform point of the unit sphere of R^(B-1): of any angle, and of the radius r with P(r > x) =
    (1 - x^2)^((B-3)/2). Angles are split where an entry is 0.
    """
    rho = -1 / (batch - 1)
    # y_1 = 0 at +-pi/2; y_2 = 0 where tan(angle) = -rho/sqrt(1 - rho^2).
    zero = math.asin(-rho)
    edges = np.array(sorted([-math.pi / 2, zero, math.pi / 2, math.pi + zero, 3 * math.pi / 2]))
    node, share = np.polynomial.legendre.leggauss(_ANGLES)
    half, middle = np.diff(edges)[:, None] / 2, (edges[:-1] + edges[1:])[:, None] / 2
    angle, of_angle = (middle + half * node).ravel(), (half * share).ravel() / (2 * math.pi)
    # (1 - r^2)^((B-3)/2) = exp(-t^2/2) turns the radius into one that every batch shares, of density t exp(-t^2/2).
    node, share = np.polynomial.legendre.leggauss(_RADII)
    t = 4.5 * (node + 1)
    radius, of_radius = np.sqrt(-np.expm1(-t * t / (batch - 3))), 4.5 * share * t * np.exp(-t * t / 2)
    a, b = np.outer(radius, np.cos(angle)).ravel(), np.outer(radius, np.sin(angle)).ravel()
    size = math.sqrt(batch - 1)
    return size * a, size * (rho * a + math.sqrt(1 - rho * rho) * b), np.outer(of_radius, of_angle).ravel()
