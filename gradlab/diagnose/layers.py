"""Verdicts that the per-layer table gives: on the gradient along the layers, and on the units that it passes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gradlab.diagnose.history import Floats, History, Profile
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.passage import Passage, passage, rate_figure
from gradlab.diagnose.slope import Fit
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import Evidence, Verdict, crossing

SMALLEST_NORMAL = {
    "float64": float(np.finfo(np.float64).smallest_normal),
    "float32": float(np.finfo(np.float32).smallest_normal),
    "bfloat16": 2.0**-126,
    "float16": float(np.finfo(np.float16).smallest_normal),
}
"""Below it a number of this precision loses digits, and some thousand times below it becomes zero."""

SMALLEST_NORM = math.sqrt(SMALLEST_NORMAL["float64"])
"""Norms are sums of squares in float64: of a float64 network they are zero some decades before its numbers are."""

NEXT_LAYER = 1e6
"""How far above the smallest normal number the layer above an all-zero one may be: rates below 1e-6 are unheard of."""


def dead(history: History, limits: Limits) -> Verdict | None:
    """Units of the ReLU family that no sample of the batch wakes."""
    return _resting(history, limits, "dead", "units", "at rest on the whole batch")


def saturated(history: History, limits: Limits) -> Verdict | None:
    """Entries where a smooth activation has next to no slope."""
    return _resting(history, limits, "saturated", "entries", "on the flat parts of the activation")


def _resting(history: History, limits: Limits, name: str, noun: str, state: str) -> Verdict | None:
    """Where a share of a layer is above its limit, at the first recorded step or the last."""
    for profile in history.along:
        for row in history.sound(profile) if profile.axis == "depth" else ():
            share = profile.columns[name][row]
            above = share > limits[name]
            if above.any():
                worst = int(np.nanargmax(share))
                step, layer = int(profile.step[row]), int(profile.layer[worst])
                known = int(np.isfinite(share).sum())
                evidence: Evidence = {
                    "step": step,
                    "layer": layer,
                    "share": float(share[worst]),
                    "layers": int(above.sum()),
                    "of": known,
                }
                sentence = (
                    f"{name}: {share[worst]:.0%} of the {noun} of {profile.place(layer)} are {state}, at step {step}, "
                    f"and more than {limits[name]:.0%} (the threshold) in {int(above.sum())} of {known} hidden layers"
                )
                return crossing(name, (name,), limits, evidence, sentence)
    return None


def exploding(history: History, limits: Limits) -> Verdict | None:
    """δ that grows on its way to the input; along depth or time, whichever is worse."""
    found = [_changed(profile, "exploding", limits) for profile in history.along]
    return max((one for one in found if one), key=lambda one: float(one.evidence["ratio"] or 0), default=None)


def vanishing(history: History, limits: Limits) -> Verdict | None:
    """δ that is lost on its way to the input; along depth or time, whichever is worse."""
    found = [_changed(profile, "vanishing", limits) for profile in history.along]
    return min((one for one in found if one), key=lambda one: float(one.evidence["ratio"] or 0), default=None)


def _changed(profile: Profile, name: str, limits: Limits) -> Verdict | None:
    """Along one axis: δ changes too much over all layers, and at a rate that differs from 1 beyond doubt."""
    found, limit = passage(profile), limits[f"{name}_ratio"]
    if found is None or not found.beyond(name, limits) or found.doubtful(name, limits):
        return None
    fitted = found.fit
    evidence: Evidence = {
        "axis": profile.axis,
        "ratio": found.ratio,
        "rate": None if fitted is None else fitted.rate,
        "error": None if fitted is None or math.isnan(fitted.error) else fitted.error,
        "first": None if fitted is None else found.layer(fitted.first),
        "last": None if fitted is None else found.layer(fitted.last),
        "curvature": None if fitted is None else fitted.curvature,
        "near": None if fitted is None else fitted.near,
        "far": None if fitted is None else fitted.far,
        "zero_up_to": found.zero_up_to,
    }
    sentence = f"{name}: {found.told} (threshold {figure(limit)})"
    crossed = [f"{name}_ratio"]
    if fitted is not None:
        sentence += f"; {_rate_told(found, fitted, limits)}"
        crossed += ["errors", *(["curvature"] if fitted.bends(limits["curvature"]) else [])]
    return crossing(name, crossed, limits, evidence, sentence)


def _rate_told(found: Passage, fitted: Fit, limits: Limits) -> str:
    """The fitted rate in words, and where one rate does not describe the profile, both of its ends."""
    noun = found.profile.noun
    words = f"it changes by a factor of {rate_figure(fitted)} a {noun} on its way to the input"
    if fitted.bends(limits["curvature"]):
        words += (
            f", but not at one rate: {figure(fitted.near)} near {noun} {found.layer(fitted.first)}, "
            f"{figure(fitted.far)} near {found.layer(fitted.last)} (t = {fitted.curvature:.1f})"
        )
    return words


def underflow(history: History, limits: Limits) -> Verdict | None:
    """Exact zeros in a gradient that has come down to the smallest numbers, not in one that stops at a dead layer."""
    smallest = SMALLEST_NORMAL[history.precision]
    for profile in history.along:
        for row in history.sound(profile) if profile.axis == "depth" else ():
            norms, zeros = profile.columns["weight_grad_norm"][row], profile.columns["grad_zero"][row]
            tiny = _underflown(norms, smallest) & (zeros > limits["grad_zero"])
            if tiny.any():
                step, layer = int(profile.step[row]), int(profile.layer[np.flatnonzero(tiny)[-1]])
                share = float(np.nanmax(zeros[tiny]))
                evidence: Evidence = {
                    "step": step,
                    "layer": layer,
                    "layers": int(tiny.sum()),
                    "share": share,
                    "precision": history.precision,
                    "smallest_normal": smallest,
                }
                sentence = (
                    f"underflow: in {int(tiny.sum())} of {len(tiny)} layers, up to {profile.place(layer)}, the "
                    f"gradient has come below {figure(smallest)}, the smallest normal number of {history.precision}, "
                    f"and up to {share:.0%} of its entries are exactly zero (threshold {limits['grad_zero']:.0%}), at "
                    f"step {step}"
                )
                return crossing("underflow", ("grad_zero",), limits, evidence, sentence)
    return None


def _underflown(norms: Floats, smallest: float) -> NDArray[np.bool_]:
    """(L,): which layers' norms lie below the smallest normal number, or are zero with such a norm above them."""
    below = norms < smallest
    reached = np.inf
    for place in range(len(norms) - 1, -1, -1):
        if norms[place] > 0:
            reached = norms[place]
        elif reached > NEXT_LAYER * max(smallest, SMALLEST_NORM):
            below[place] = False
    return below
