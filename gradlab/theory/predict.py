"""One run in, one prediction out: the rate of its gradient, its depth scales, the nearest critical point, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from gradlab.spec.run import RunSpec
from gradlab.theory import gates, words
from gradlab.theory.activations import Floats
from gradlab.theory.images import border
from gradlab.theory.mean_field import SMALL, correlations, nearest_critical, scale
from gradlab.theory.norms import LEAST_BATCH
from gradlab.theory.passage import PASSAGES, Passage, from_the_end
from gradlab.theory.quadrature import moments
from gradlab.theory.recurrent import largest_singular_value, steepest
from gradlab.theory.setting import Setting, setting

HEAD = 5
"""The first layer of a measured rate, where a network has 8 or more: before it is the input's transient."""

SAME = 0.05
"""A rate is one number where every step of its layers lies within 5 % of it, ..."""

SAME_FIT = 0.02
"""... and a line through all of them within 2 %."""

BEYOND_FLOATS = (ArithmeticError, ValueError)
"""What Python and numpy raise where a factor is beyond the largest number, or so small that it counts as 0: a run is
recorded whatever theory makes of it."""

TRAINABLE = 6
"""Networks train to about so many xi_c (Schoenholz et al. 2016, arXiv:1611.01232, figure 5)."""


@dataclass(frozen=True)
class Prediction:
    """What theory says of a run at its initial weights; None where it says nothing.

    ``rate``: the factor of ||delta|| a layer (time step) going backward, and ``chi1`` its square; ``fitted``: the
    least-squares rate of the foretold course over those layers that a measured rate is fitted over; ``single_rate``:
    whether one rate describes this run's layers at all. ``asymptotic``: whether both are those of deep layers; else (of
    residual branches that weigh less and less) they are means over this run's layers. ``q_star``: the variance that z
    settles at (0 and infinity where it never does). ``depth_scale``: xi_c, layers in which two inputs' correlation gets
    e times nearer to its limit; ``gradient_scale``: xi = 1/|ln chi1|; both infinite at criticality.
    ``trainable_depth``: 6 xi_c. ``critical_weight_var``: the sw2 nearest to this run's at which chi1 = 1 beside its
    sb2, where one is. ``growth``: the factor of the forward variance a layer. ``band``: the standard deviation, between
    draws of the weights at this width, of ln ||delta|| of the first layer over the last hidden one, of one sample.
    ``bound``: of a recurrent network without norms, gamma rho, above which no gradient grows a time step. ``note`` says
    it in one sentence, ``source`` whose theory it is. ``kept``: what a gated state keeps of itself a step along its own
    path, and ``time_scale`` the steps after which 1/e is left of it: not the rate, to which other paths add.
    """

    rate: float | None
    fitted: float | None
    chi1: float | None
    q_star: float | None
    depth_scale: float | None
    gradient_scale: float | None
    trainable_depth: float | None
    critical_weight_var: float | None
    growth: float | None
    single_rate: bool
    asymptotic: bool
    band: float | None
    bound: float | None
    note: str
    source: str
    kept: float | None = None
    time_scale: float | None = None


@dataclass(frozen=True)
class Profile:
    """The course of ||delta|| that is to be expected, relative to the last hidden layer (time step T).

    ``axis`` is depth or time, ``place`` (P,) layers 0..L-1 (of a linear chain 0..L) or time steps 1..T, ``anchor`` the
    index of the place that the others are compared with. ``log`` (P,) is half the logarithm of the ratio of E
    ||delta||^2; ``deviation`` (P,) the standard deviation of ln ||delta|| of one sample between draws of the weights,
    None where it is not known. A batch of different samples deviates less, and a typical draw lies less than
    deviation^2 below ``log``.
    """

    axis: str
    place: tuple[int, ...]
    anchor: int
    log: Floats
    deviation: Floats | None

    def log10_ratio(self, place: int) -> float:
        """The decimal logarithm of ||delta|| of a layer (time step) over that of the last hidden one."""
        return float(self.log[self.place.index(place)]) / math.log(10)


def predict(spec: RunSpec) -> Prediction:
    """The prediction of one run; milliseconds, kept for every run that theory cannot tell from it."""
    return predict_setting(setting(spec))


def profile(spec: RunSpec) -> Profile | None:
    """The expected course of the gradient over this run's layers; None where theory has none, or there is one place."""
    return profile_of(setting(spec))


@lru_cache(maxsize=65536)
def predict_setting(seen: Setting) -> Prediction:
    """`predict` of all runs that look like this to theory; nothing where its numbers leave float64."""
    try:
        with np.errstate(over="raise", invalid="raise"):
            return _predicted(seen)
    except BEYOND_FLOATS:
        return nothing(words.BEYOND_FLOATS)


def _predicted(seen: Setting) -> Prediction:
    if seen.gate is not None:
        return _of_a_gate(seen.gate, seen.steps)
    why = words.out_of_reach(seen, known=seen.architecture in PASSAGES, least_batch=LEAST_BATCH)
    if why is not None:
        return nothing(why)
    passage = _passage(seen)
    plain = seen.architecture == "mlp" and seen.norm == "none" and seen.keep == 1
    critical = nearest_critical(seen.phi, seen.sw2, seen.sb2) if plain else _critical_of_images(seen)
    if passage.lost is not None:
        return replace(nothing(words.lost(seen, critical, passage.lost)), critical_weight_var=critical)
    inner = _inner(seen, passage.log_chi)
    chi1 = passage.chi if passage.chi is not None else _mean_factor(inner)
    if chi1 is None:
        return nothing(words.TOO_SHALLOW)
    single = _is_single(inner[HEAD - 1 :] if seen.steps > HEAD + 2 else inner, inner, chi1)
    xi_c = None if passage.map is None else _depth_scale(seen, passage, *passage.map)
    reached = _profile(seen, passage)
    growth = _mean_factor(_inner(seen, passage.log_growth)) if passage.q in (None, math.inf, 0.0) else 1.0
    band = None
    if reached is not None and reached.deviation is not None:
        band = float(reached.deviation[reached.place.index(1)])
    asymptotic = passage.chi is not None
    said = words.Findings(math.sqrt(chi1), single, asymptotic, critical, passage.q, _extremes(inner))
    return Prediction(
        rate=math.sqrt(chi1),
        fitted=_fitted(inner),
        chi1=chi1,
        q_star=passage.q,
        depth_scale=xi_c,
        gradient_scale=scale(chi1) if single and asymptotic else None,
        trainable_depth=None if xi_c is None else TRAINABLE * xi_c,
        critical_weight_var=critical,
        growth=growth,
        single_rate=single,
        asymptotic=asymptotic,
        band=band,
        bound=_bound(seen) if seen.steps and seen.norm == "none" else None,
        note=words.note(seen, said),
        source=words.source(seen),
    )


def _critical_of_images(seen: Setting) -> float | None:
    """Of convolutions whose activation knows no scale: the dense layers' over what a border leaves."""
    if seen.architecture != "cnn" or seen.keep < 1 or seen.norm != "none" or not seen.phi.homogeneous:
        return None
    dense = nearest_critical(seen.phi, seen.sw2, seen.sb2)
    return dense if dense is None or seen.centre else dense / border(seen.pixels)


def _of_a_gate(gate: gates.Gate, steps: int) -> Prediction:
    said = replace(nothing(gates.note(gate, steps)), source=gates.SOURCE)
    if gate.chrono:
        return said
    return replace(said, kept=gates.kept(gate.bias), time_scale=gates.time_scale(gate.bias))


def nothing(why: str) -> Prediction:
    """No prediction, and why there is none."""
    return Prediction(None, None, None, None, None, None, None, None, None, False, False, None, None, why, "")


@lru_cache(maxsize=4096)
def _passage(seen: Setting) -> Passage:
    return PASSAGES[seen.architecture](seen)


@lru_cache(maxsize=4096)
def profile_of(seen: Setting) -> Profile | None:
    """`profile` of all runs that look like this to theory."""
    if words.out_of_reach(seen, known=seen.architecture in PASSAGES, least_batch=LEAST_BATCH) is not None:
        return None
    try:
        with np.errstate(over="raise", invalid="raise"):
            passage = _passage(seen)
            return _profile(seen, passage) if passage.lost is None else None
    except BEYOND_FLOATS:
        return None


def weight_gradients(spec: RunSpec) -> Floats | None:
    """Ln of the gradient's norm of each weight matrix, layers 1..L-1 (L-1,), over that of layer L-1, of one sample.

    It is ||delta_l|| ||h_(l-1)||, and E ||h_(l-1)||^2 = n_(l-1) (q_l - sb2)/sw2: where signals shrink on their way to
    the output, the matrices there hear less than their delta says (Glorot & Bengio 2010, section 4.2.1). None of any
    but a plain `mlp` without a norm, and where `profile` has none.
    """
    seen, course = setting(spec), profile(spec)
    if course is None or seen.architecture != "mlp" or seen.norm != "none":
        return None
    layers = np.arange(1, seen.depth)
    q = seen.q0 * np.exp(np.cumsum(_passage(seen).log_growth))
    squares = (q - seen.sb2) / np.where(layers == 1, seen.sw2_first, seen.sw2)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = course.log[1:] + 0.5 * np.log(np.where(layers == 1, seen.inputs, seen.width) * squares)
    found: Floats = logs - logs[-1]
    return found if np.all(np.isfinite(found)) else None


def _profile(seen: Setting, passage: Passage) -> Profile | None:
    steps = len(passage.log_chi)
    anchor = steps - passage.beyond
    if anchor < 1 or not np.all(np.isfinite(passage.log_chi)):
        return None
    log = 0.5 * from_the_end(passage.log_chi)
    deviation = None if passage.spread is None else 0.5 * np.sqrt(passage.spread)
    place = tuple(range(passage.first, passage.first + steps + 1))
    if passage.stride > 1:
        place = (0, *range(1, passage.stride * steps, passage.stride))
    return Profile("time" if seen.steps else "depth", place, anchor, log - log[anchor], deviation)


def _is_single(steady: Floats, steps: Floats, chi1: float) -> bool:
    """Whether sqrt(chi1) says what happens in all ``steps``, and in each of the ``steady`` ones, past the transient."""
    if not len(steps) or not np.all(np.isfinite(steps)) or chi1 == 0:
        return False
    slope, limit = _slope(steps), 0.5 * math.log(chi1)
    alike = np.all(np.abs(0.5 * steady - limit) <= math.log1p(SAME))
    return bool(alike and abs(slope - limit) <= math.log1p(SAME_FIT))


def _slope(steps: Floats) -> float:
    """Least squares of ln ||delta|| on the layer, over the places that the ``steps`` (P,) lie between; P > 0."""
    return -float(np.polyfit(np.arange(len(steps) + 1.0), 0.5 * from_the_end(steps), 1)[0])


def _fitted(steps: Floats) -> float | None:
    """The rate of the foretold course, as that of a measured one; None where there is none to fit."""
    return math.exp(_slope(steps)) if len(steps) and np.all(np.isfinite(steps)) else None


def _inner(seen: Setting, steps: Floats) -> Floats:
    """The steps between the places that a measured rate is fitted over: layers 5..L-1 (1..L-1 where L < 8), or 1..T."""
    if seen.steps:
        return steps
    first = HEAD if seen.depth >= HEAD + 3 else 1
    return steps[first : seen.depth - 1]


def _mean_factor(logs: Floats) -> float | None:
    return float(np.exp(logs.mean())) if len(logs) and np.all(np.isfinite(logs)) else None


def _extremes(logs: Floats) -> tuple[float, float] | None:
    """The rates of the first and the last of the steps."""
    return (math.exp(0.5 * logs[0]), math.exp(0.5 * logs[-1])) if len(logs) else None


def _bound(seen: Setting) -> float:
    return steepest(seen.phi) * largest_singular_value(seen.sw2, orthogonal=seen.orthogonal)


def _depth_scale(seen: Setting, passage: Passage, sw2: float, sb2: float) -> float | None:
    """xi_c; None where the variance grows without end, so that correlations have no fixed map."""
    phi, q, chi1 = seen.phi, passage.q or 0.0, passage.chi or 0.0
    if 0 < q < math.inf:
        return correlations(phi, q, sw2, sb2).depth
    if seen.keep < 1 and (phi.homogeneous or q == 0):
        # Signals without end, or of none, keep the map of their ratios: that of the variance that a layer would keep.
        near = 1.0 if phi.homogeneous else SMALL
        return correlations(phi, near, seen.keep * near / moments(phi, near).square, 0.0).depth
    return scale(chi1) if chi1 <= 1 and q == 0 else None
