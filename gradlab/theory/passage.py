"""The way back through a network of finite depth, place by place: layers, or time steps of a recurrent network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradlab.theory.activations import Floats
from gradlab.theory.images import blocks, convolutions
from gradlab.theory.mean_field import BEYOND, NEAR_ONE, chi, fixed_variance, repels_above, settled, variance_after
from gradlab.theory.norms import (
    LINEAR,
    STEADY_BATCH,
    batch_norm_chi,
    batch_step,
    layer_norm_chi,
    typical_batch_log,
)
from gradlab.theory.products import log_spread, log_variances
from gradlab.theory.quadrature import moments
from gradlab.theory.setting import Setting

AMPLIFIED = 2.0
"""From here on variances a few per cent apart, of draws or of samples, run away from each other (gelu, silu with He's):
the gradient is then that of the signal of one draw, of which the mean field says nothing."""

REPELLED = "draws and samples run away from each other, near a variance that repels, so theory gives no rate"

LOOKED_AT = 30
"""Layers that a variance is followed for, in a shallower network too: where it settles is part of what is said."""

FAR = 0.9
"""A chi below it, where its limit is 1, is one that the layers of a network do not get over (softplus with He's)."""

NARROW = 0.25
"""Above it a layer's relative variance of |delta|^2, kappa/n, is no longer that of its logarithm (ReLU: 20 units)."""

LARGEST = 1e200
"""A variance beyond it is kept there, so that nothing overflows; every chi has long settled."""


@dataclass(frozen=True)
class Passage:
    """What theory says of E|delta|^2 on its way back.

    ``chi`` is the factor from one deep place to the one before it, None where only a finite depth has one; ``q`` the
    variance that z settles at, None where it is not one number. ``log_chi`` (P,): the logarithm of the factor from
    place ``first`` + i + 1 to ``first`` + i. ``spread`` (P + 1,): the variance between draws of the weights at this
    width of ln |delta|^2 at each place over the last; None where it is not known. ``log_growth`` (P,): as ``log_chi``
    of the forward variance, from place ``first`` + i to the next. ``beyond``: how many places lie behind the last
    hidden one. ``lost``: why the mean field does not describe draws of this network, None where it does. ``map``: the
    sw2 and sb2 for which `mean_field` has this chi, q and correlations; None where it has not. ``stride``: layers from
    one place to the next, but for the input, which is one before the first.
    """

    chi: float | None
    q: float | None
    first: int
    log_chi: Floats
    spread: Floats | None
    log_growth: Floats
    beyond: int = 0
    map: tuple[float, float] | None = None
    lost: str | None = None
    stride: int = 1


def mlp(seen: Setting) -> Passage:
    """z_l = norm(W_l phi(z_{l-1}) + b_l): layers 1..L-1, and the input."""
    if seen.norm == "none":
        return _plain(seen)
    if seen.behind:
        return _behind(seen)
    return _batch(seen) if seen.norm == "batch" else _layer(seen)


def _plain(seen: Setting) -> Passage:
    start = seen.sw2_first * seen.q0 + seen.sb2
    qs = trajectory(lambda q: variance_after(seen.phi, q, seen.sw2, seen.sb2), start, seen.depth - 1)
    q = fixed_variance(seen.phi, seen.sw2, seen.sb2, start)
    steps = [chi(seen.phi, settled(at), seen.sw2) for at in qs[:-1]]
    kappas = [log_spread(seen.phi, settled(at), orthogonal=seen.orthogonal) for at in qs[:-1]]
    hidden = seen.depth - 1
    spread = None
    if hidden and seen.keep == 1 and max(kappas, default=0.0) <= NARROW * seen.width:
        within = log_variances(seen.phi, [settled(q) for q in qs], seen.sb2, orthogonal=seen.orthogonal) / seen.width
        spread = np.append(within[0] + _into_input(seen), within)
    return Passage(
        chi(seen.phi, settled(q), seen.sw2),
        q,
        0,
        _logs([seen.sw2_first, *steps])[:hidden],
        spread,
        _ratios([seen.q0, *qs])[:hidden],
        map=(seen.keep * seen.sw2, seen.sb2),
        lost=_lost(seen, start, q, steps),
    )


def _lost(seen: Setting, start: float, q: float, steps: list[float]) -> str | None:
    """Why draws of a plain network are not near their mean field, or None where they are."""
    if seen.phi.homogeneous:
        return None
    after = trajectory(lambda q: variance_after(seen.phi, q, seen.sw2, seen.sb2), start, max(seen.depth - 1, LOOKED_AT))
    if _amplification(seen, after) >= AMPLIFIED:
        return REPELLED
    return _unsettled(seen, q, steps)


def _unsettled(seen: Setting, q: float, steps: list[float]) -> str | None:
    limit = seen.sw2 * moments(seen.phi, BEYOND).slope_square
    if math.isinf(q) and abs(limit - 1) < NEAR_ONE and min(steps, default=1.0) < FAR:
        return "the variance never settles and forgets nothing, so that each draw has a course of its own, and no rate"
    return None


def _lost_in_time(seen: Setting, drive: float, q: float, steps: list[float]) -> str | None:
    """As `_lost`, of a recurrent network: one matrix at all steps carries its draw over a variance that repels.

    A deep network's next layer is drawn anew and leads back; here a fixed point above ``q`` is enough.
    """
    if seen.phi.homogeneous:
        return None
    return REPELLED if repels_above(seen.phi, q, seen.sw2, drive) else _unsettled(seen, q, steps)


def _amplification(seen: Setting, qs: list[float]) -> float:
    """The most that a small relative error of a layer's variance grows in later layers: products of dlnV/dlnq."""
    most, product = 1.0, 1.0
    for q in qs[:-1]:
        at = moments(seen.phi, settled(q))
        product = max(1.0, product * seen.sw2 * at.square_growth / (seen.sw2 * at.square + seen.sb2))
        most = max(most, product)
    return most


def _batch(seen: Setting) -> Passage:
    factor, q = batch_norm_chi(seen.phi, seen.sw2, seen.batch, seen.eps)
    if seen.batch is not None and seen.batch < STEADY_BATCH:
        factor *= math.exp(typical_batch_log(seen.phi, max(q, LINEAR), seen.batch, seen.width))
    return _normed(seen, factor, q, seen.sw2_first / (seen.sw2_first * seen.q0 + seen.eps), None)


def _layer(seen: Setting) -> Passage:
    factor, q = layer_norm_chi(seen.phi, seen.sw2, seen.sb2, seen.eps)
    # What the norm divides by is the same for every input, so that two of them meet the map of variances that small.
    divisor = seen.sw2 * moments(seen.phi, q).square + seen.sb2 + seen.eps
    into_input = seen.sw2_first / (seen.sw2_first * seen.q0 + seen.sb2 + seen.eps)
    return _normed(seen, factor, q, into_input, (seen.keep * seen.sw2 / divisor, seen.sb2 / divisor))


def _behind(seen: Setting) -> Passage:
    """z_l = W_l n(phi(z_{l-1})) + b_l of wide layers, n a norm over each sample's units: its units have variance 1.

    A gradient comes back through sw2 E phi'^2 over what the norm divides by, Var phi, of rms norm E phi^2.
    """

    def divisor(q: float) -> float:
        at = moments(seen.phi, settled(q))
        return (at.square if seen.norm == "rms" else at.variance) + seen.eps

    def after(q: float) -> float:
        return seen.sw2 * (1 - seen.eps / divisor(q)) + seen.sb2

    start = seen.sw2_first * seen.q0 + seen.sb2
    qs = trajectory(after, start, max(seen.depth - 1, LOOKED_AT))
    steps = [seen.sw2 * moments(seen.phi, settled(q)).slope_square / divisor(q) for q in qs]
    hidden = seen.depth - 1
    logs, growth = _logs([seen.sw2_first, *steps]), _ratios([seen.q0, *qs])
    return Passage(steps[-1], qs[-1], 0, logs[:hidden], None, growth[:hidden])


def _normed(seen: Setting, factor: float, q: float, into_input: float, alike: tuple[float, float] | None) -> Passage:
    """Every layer begins anew with the same variance, so that all steps but that into the input are alike."""
    steps = _logs([into_input, *[factor] * (seen.depth - 2)])[: seen.depth - 1]
    return Passage(factor, q, 0, steps, None, np.zeros(len(steps)), map=alike)


def residual_mlp(seen: Setting) -> Passage:
    """z_l = z_{l-1} + beta (W_l phi(norm(z_{l-1})) + b_l): the stream of layers 1..L-1, and the input.

    Branches are independent of the stream, so that variances add: the stream's by beta^2 (sw2 E phi^2 + sb2) (of batch
    norm Var phi, centred over the batch), the gradient's square by beta^2 sw2 E phi'^2 over the variance that a norm
    divides by; both as `batch_step` has them in small batches. (Hanin & Rolnick 2018, arXiv:1803.01719; Zhang et al.
    2019, Fixup, arXiv:1901.09321; with batch norm Balduzzi et al. 2017, arXiv:1702.08591.)
    """
    square = seen.branch * seen.branch
    normed = seen.norm != "none"
    biases = 0.0 if seen.norm == "batch" else seen.sb2

    def branch(q: float) -> tuple[float, float]:
        if seen.norm == "batch":
            return batch_step(seen.phi, q, seen.batch)
        at = moments(seen.phi, q)
        return at.square, at.slope_square

    def inside(v: float) -> float:
        return v / (v + seen.eps) if normed else v

    def after(v: float) -> float:
        return v + square * (seen.sw2 * branch(inside(v))[0] + biases)

    def back(v: float) -> float:
        factor = seen.sw2 * branch(settled(inside(v)))[1]
        return square * (factor / (v + seen.eps) if normed else factor)

    stream = trajectory(after, seen.sw2_first * seen.q0 + biases, seen.depth - 1)
    gains = [back(v) for v in stream[:-1]]
    kappas = [log_spread(seen.phi, settled(v), orthogonal=seen.orthogonal) for v in stream[:-1]]
    varying = _varying(seen, stream[:-1], gains, kappas)
    told = not normed and seen.keep == 1 and max(varying, default=0.0) <= NARROW
    # Only without a norm, and with a phi that knows no scale, do all branches weigh the same.
    alike = seen.phi.homogeneous and not normed
    return Passage(
        1 + square * chi(seen.phi, 1.0, seen.sw2) if alike else None,
        None,
        0,
        _logs([seen.sw2_first, *(1 + gain for gain in gains)]),
        from_the_end(np.array([_into_input(seen), *varying])) if told else None,
        _ratios([seen.q0, *stream]),
    )


def _varying(seen: Setting, stream: list[float], gains: list[float], kappas: list[float]) -> list[float]:
    """The variance of ln |delta|^2 that each branch adds, from the input's end on (Hanin & Rolnick 2018, section 3).

    |u + beta D W'u|^2 = 1 + 2 beta u'DW'u + beta^2 |DW'u|^2, whose first two varying terms are uncorrelated: (4 g s +
    kappa g^2)/(1 + g)^2/n of a gain g. Where the stream carries z from layer to layer a unit stays on the side of the
    kink that it is on: with r_lm the relative covariance of d^2 at layers l and m, u lies where d is large, s_l = 1 +
    sum_m r_lm g_m/prod_(l<k<=m) (1 + g_k) over the m behind l, and the sums of d^2 vary together, 2 r_lm g_l g_m/
    ((1 + g_l)(1 + g_m))/n a pair, counted where the nearer to the input is. Of two slopes 1 and a, r = (1 - a^2)^2/(1 +
    a^2)^2 2/pi asin(c), c^2 the ratio of the stream's variances; of other phi r is left out, and the band too narrow.
    """
    total = []
    for at, (gain, kappa) in enumerate(zip(gains, kappas, strict=True)):
        overlap, together, passed = 1.0, 0.0, 1.0
        for behind in range(at + 1, len(gains) if seen.phi.homogeneous else 0):
            other = gains[behind]
            passed *= 1 + other
            alike = 2 / math.pi * math.asin(math.sqrt(stream[at] / stream[behind])) if stream[behind] > 0 else 0.0
            alike *= moments(seen.phi, 1.0).slope_fourth / moments(seen.phi, 1.0).slope_square ** 2 - 1
            overlap += alike * other / passed
            together += 2 * alike * gain * other / (1 + gain) / (1 + other)
        total.append(((4 * gain * overlap + gain**2 * kappa) / (1 + gain) ** 2 + together) / seen.width)
    return total


def linear_chain(seen: Setting) -> Passage:
    """L matrices a*I: a^2 a layer exactly, from layer L to the input."""
    logs = _logs([seen.sw2] * seen.depth)
    return Passage(seen.sw2, None, 0, logs, np.zeros(seen.depth + 1), logs, beyond=1)


def rnn(seen: Setting) -> Passage:
    """z_t = norm(W x_t + U h_{t-1} + b): the top layer's time steps 1..T (Chen et al. 2018, arXiv:1806.05394).

    Inputs act as further biases, fresh at every step. U is the same at every step, which the limit of wide layers does
    not see; at finite width the draws differ more than those of a deep network, by how much is not known here.
    """
    drive = seen.sw2_first * seen.q0 + seen.sb2
    for _ in range(seen.depth - 1):
        below = settled(fixed_variance(seen.phi, seen.sw2, drive, drive))
        drive = seen.sw2 * moments(seen.phi, 1.0 if seen.norm != "none" else below).square + seen.sb2
    steps = max(1, seen.steps)
    if seen.norm != "none":
        factor, q = layer_norm_chi(seen.phi, seen.sw2, drive, seen.eps)
        return Passage(factor, q, 1, _logs([factor] * (steps - 1)), None, np.zeros(steps - 1))
    qs = trajectory(lambda q: variance_after(seen.phi, q, seen.sw2, drive), drive, steps)
    q = fixed_variance(seen.phi, seen.sw2, drive, drive)
    factors = [chi(seen.phi, settled(at), seen.sw2) for at in qs[:-1]]
    lost = _lost_in_time(seen, drive, q, factors)
    return Passage(chi(seen.phi, settled(q), seen.sw2), q, 1, _logs(factors), None, _ratios(qs), lost=lost)


def cnn(seen: Setting) -> Passage:
    """z_l = norm(W_l * phi(z_{l-1}) + b_l): layers 1..L-1, and the input; see `images`."""
    course = convolutions(seen)
    # Where the pixels' variances run away, the dense network's do.
    lost = _plain(seen).lost if seen.norm == "none" else None
    return Passage(course.limit, None, 0, _logs(course.back), None, _logs(course.growth), lost=lost)


def resnet(seen: Setting) -> Passage:
    """The stream behind the read-in and every block, and the input; see `images`."""
    course = blocks(seen)
    return Passage(course.limit, None, 0, _logs(course.back), None, _logs(course.growth), stride=2)


PASSAGES: dict[str, Callable[[Setting], Passage]] = {
    "mlp": mlp,
    "residual_mlp": residual_mlp,
    "linear_chain": linear_chain,
    "rnn": rnn,
    "cnn": cnn,
    "resnet": resnet,
}
"""By architecture; one that is not here has no theory."""


def trajectory(after: Callable[[float], float], start: float, places: int) -> list[float]:
    """``start`` and what ``after`` makes of it, ``places`` (at least 1) numbers in all."""
    values = [min(start, LARGEST)]
    for _ in range(places - 1):
        last = values[-1]
        values.append(min(after(last), LARGEST))
        if values[-1] == last:
            values += [last] * (places - len(values))
            break
    return values


def from_the_end(steps: Floats) -> Floats:
    """(P + 1,): the sum of the steps from each place to the last."""
    return np.append(np.cumsum(steps[::-1])[::-1], 0.0)


def _into_input(seen: Setting) -> float:
    """The variance of ln |delta_0|^2 over |delta_1|^2."""
    return 0.0 if seen.orthogonal else 2 / seen.inputs


def _logs(factors: list[float]) -> Floats:
    with np.errstate(divide="ignore"):
        logs: Floats = np.log(np.array(factors, dtype=float))
    return logs


def _ratios(values: list[float]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: Floats = np.diff(np.log(np.array(values, dtype=float)))
    return logs
