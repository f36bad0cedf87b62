"""Verdicts that the per-layer table gives: on the gradient along the layers, and on the units that it passes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gradlab.diagnose.history import Floats, History, Profile
from gradlab.diagnose.slope import Fit, fit, vanishing_ratio
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import Evidence, Verdict, crossing, figure

SMALLEST_NORMAL = {
    "float64": float(np.finfo(np.float64).smallest_normal),
    "float32": float(np.finfo(np.float32).smallest_normal),
    "bfloat16": 2.0**-126,
    "float16": float(np.finfo(np.float16).smallest_normal),
}
"""Below it a number of this precision loses digits, and some thousand times below it becomes zero."""

NEXT_LAYER = 1e6
"""How far above the smallest normal number the layer above an all-zero one may be: rates below 1e-6 are unheard of."""


def dead(history: History, limits: Limits) -> Verdict | None:
    """Units of the ReLU family that no sample of the batch wakes."""
    return _resting(history, limits, "dead", "units are at rest on every sample of the batch")


def saturated(history: History, limits: Limits) -> Verdict | None:
    """Entries where a smooth activation has next to no slope."""
    return _resting(history, limits, "saturated", "entries are on the flat parts of the activation")


def _resting(history: History, limits: Limits, name: str, what: str) -> Verdict | None:
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
                    f"{name}: {share[worst]:.0%} of layer {layer}'s {what}, at step {step}, and more than "
                    f"{limits[name]:.0%} (the threshold) in {int(above.sum())} of {known} hidden layers"
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
    ratio, limit = ends_ratio(profile.deltas, profile.axis), limits[f"{name}_ratio"]
    if ratio is None or math.isnan(ratio) or not (ratio < limit if name == "vanishing" else ratio > limit):
        return None
    found = fit(profile.deltas, profile.axis)
    if found is not None:
        # The error is of ln rate, which is what was fitted; with two points there is none, and the ratio decides.
        distance = math.log(found.rate) * (1 if name == "exploding" else -1)
        doubt = found.error / found.rate if math.isfinite(found.error) else 0.0
        if distance <= limits["errors"] * doubt:
            return None
    evidence: Evidence = {
        "axis": profile.axis,
        "ratio": ratio,
        "rate": None if found is None else found.rate,
        "error": None if found is None else found.error,
        "first": None if found is None else found.first,
        "last": None if found is None else found.last,
        "curvature": None if found is None else found.curvature,
        "near": None if found is None else found.near,
        "far": None if found is None else found.far,
    }
    near, far = ends(profile)
    sentence = f"{name}: δ of {near} is {figure(ratio)} of that of {far} (threshold {figure(limit)})"
    if found is not None:
        sentence += f"; {_told(found, profile, limits)}"
    crossed = [f"{name}_ratio", *(["errors"] if found is not None else [])]
    if found is not None and abs(found.curvature) > limits["curvature"]:
        crossed.append("curvature")
    return crossing(name, crossed, limits, evidence, sentence)


def _told(found: Fit, profile: Profile, limits: Limits) -> str:
    """The fitted rate in words, and where one rate does not describe the profile, both of its ends."""
    error = f" ± {figure(found.error, 1)}" if math.isfinite(found.error) else ""
    words = f"it changes by a factor of {figure(found.rate)}{error} a {profile.noun} on its way to the input"
    if abs(found.curvature) > limits["curvature"]:
        words += (
            f", but not at one rate: {figure(found.near)} near {profile.noun} {found.first}, {figure(found.far)} near "
            f"{found.last} (t = {found.curvature:.1f})"
        )
    return words


def ends_ratio(deltas: Floats, axis: str) -> float | None:
    """`vanishing_ratio`; where both ends are zero, against the output layer, which then alone has a gradient."""
    ratio = vanishing_ratio(deltas, axis)
    if ratio is not None and math.isnan(ratio) and deltas[-1] > 0 and len(deltas) > 2:
        return float(deltas[0] / deltas[-1])
    return ratio


def ends(profile: Profile) -> tuple[str, str]:
    """The two places whose δ the ratio compares, in words."""
    last = int(profile.layer[-1]) - (profile.axis == "depth")
    return f"{profile.noun} {int(profile.layer[0])}", f"{profile.noun} {last}"


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
                    f"underflow: in {int(tiny.sum())} of {len(tiny)} layers, up to layer {layer}, the gradient has "
                    f"come below {figure(smallest)}, the smallest normal number of {history.precision}, and up to "
                    f"{share:.0%} of its entries are exactly zero (threshold {limits['grad_zero']:.0%}), at step {step}"
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
        elif reached > NEXT_LAYER * smallest:
            below[place] = False
    return below
