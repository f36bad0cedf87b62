"""Verdicts that the per-layer table gives: on the gradient along the layers, and on the units that it passes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gradlab.diagnose.course import learning, motionless
from gradlab.diagnose.history import Floats, History, Profile
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.passage import Passage, passage_of, rate_figure
from gradlab.diagnose.slope import Fit
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import Evidence, Verdict, crossing
from gradlab.spec.choices.formats import FORMATS

SMALLEST_NORMAL = {
    name: FORMATS[name].smallest_normal for name in ("float64", "float32", "tf32", "bfloat16", "float16")
}
"""Below it a number of this precision loses digits, and some thousand times below it becomes zero."""

SMALLEST_NORM = math.sqrt(SMALLEST_NORMAL["float64"])
"""Norms are sums of squares in float64: of a float64 network they are zero some decades before its numbers are."""

HALVES = frozenset({"float16", "bfloat16"})
"""Precisions in which a gradient that is zero everywhere has been lost on the way."""

ROUNDED = 2.0**-23
"""A share of a sum that single precision leaves out."""

LARGE = 200
"""Units of a layer of which so many are not at rest by chance."""

NEXT_LAYER = 1e6
"""How far above the smallest normal number the layer above an all-zero one may be: rates below 1e-6 are unheard of."""


def dead(history: History, limits: Limits) -> Verdict | None:
    """Units of the ReLU family that no sample of the batch wakes."""
    return _resting(history, limits, "dead", "units", "at rest on the whole batch")


def saturated(history: History, limits: Limits) -> Verdict | None:
    """Entries where a smooth activation, or the softmax of attention, has next to no slope."""
    found = _resting(history, limits, "saturated", "entries", "on the flat parts of the activation")
    return found or _peaked(history, limits) or _certain(history, limits)


def _certain(history: History, limits: Limits) -> Verdict | None:
    """A softmax between layers all of whose weight is on one place: its slope there is exactly zero."""
    share = float(history.facts.get("certain", 0.0))
    if not share > limits["saturated"]:
        return None
    sentence = (
        f"saturated: in {share:.0%} of the samples (threshold {limits['saturated']:.0%}) a softmax between layers "
        "gives one place a probability of exactly 1: no gradient comes through"
    )
    return crossing("saturated", ("saturated",), limits, {"share": share}, sentence)


def _peaked(history: History, limits: Limits) -> Verdict | None:
    """Attention that looks at one place: its softmax is flat there."""
    depth = history.depth
    entropies = np.empty(0) if depth is None else depth.column("attention_entropy", 0)
    if depth is None or np.isnan(entropies).all() or not np.nanmedian(entropies) < limits["attention"]:
        return None
    worst = int(np.nanargmin(entropies))
    layer = int(depth.layer[worst])
    evidence: Evidence = {
        "step": int(depth.step[0]),
        "layer": layer,
        "entropy": float(entropies[worst]),
        "share": 1 - float(entropies[worst]),
        "layers": int((entropies < limits["attention"]).sum()),
        "of": int(np.isfinite(entropies).sum()),
    }
    sentence = (
        f"saturated: the entropy of attention at {depth.place(layer)} is {figure(entropies[worst])} of an even spread, "
        f"and below {figure(limits['attention'])} (the threshold) in {evidence['layers']} of {evidence['of']} layers"
    )
    return crossing("saturated", ("attention",), limits, evidence, sentence)


def _resting(history: History, limits: Limits, name: str, noun: str, state: str) -> Verdict | None:
    """Where a share of a layer is above its limit, at the first recorded step or the last."""
    for profile in history.along:
        for row in history.sound(profile) if profile.axis == "depth" else ():
            share = profile.columns[name][row]
            above = share > limits[name]
            if name == "dead":
                above &= ~_chance(share, profile.column("units", row), limits)
            if above.any():
                worst = int(np.where(above, share, -1.0).argmax())
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


def _chance(share: Floats, units: Floats, limits: Limits) -> NDArray[np.bool_]:
    """Which layers are so small that as many units may be at rest by chance.

    A sample drawn at random wakes half of the units of a layer without biases, and samples that are alike wake the same
    half. That one of all layers has so many at rest must be as improbable as what `errors` asks of a rate.
    """
    known = np.isfinite(share) & np.isfinite(units)
    found = np.zeros(len(share), dtype=bool)
    for place in np.flatnonzero(known & (share > limits["dead"]) & (units < LARGE)):
        of, at_rest = int(units[place]), round(float(share[place] * units[place]))
        tail = sum(math.comb(of, count) for count in range(at_rest, of + 1)) / 2**of
        found[place] = known.sum() * tail > math.erfc(limits["errors"] / math.sqrt(2))
    return found


def exploding(history: History, limits: Limits) -> Verdict | None:
    """δ that grows on its way to the input; along depth or time, whichever is worse."""
    found = [one for profile in history.along for one in _changed(history, profile, "exploding", limits)]
    return max(found, key=lambda one: float(one.evidence["ratio"] or 0), default=None)


def vanishing(history: History, limits: Limits) -> Verdict | None:
    """δ that is lost on its way to the input, or never comes to a part of the network; whichever is worse."""
    found = [one for profile in history.along for one in _changed(history, profile, "vanishing", limits)]
    return min(found, key=lambda one: float(one.evidence["ratio"] or 0), default=cut(history, limits))


def no_gradient(history: History, limits: Limits) -> Verdict | None:
    """Every δ and every gradient is exactly zero: nothing comes back from the loss at all."""
    depth = history.depth
    if depth is None:
        return None
    deltas, norms = depth.column("signal_grad_norm", 0), depth.column("weight_grad_norm", 0)
    if np.isnan(norms).all() or np.nansum(norms) != 0 or np.nansum(deltas) != 0 or history.precision in HALVES:
        return None
    evidence: Evidence = {"layers": int(np.isfinite(norms).sum()), "step": int(depth.step[0])}
    sentence = (
        f"no_gradient: the gradient of the loss is exactly zero in all {evidence['layers']} layers: no step changes "
        "anything"
    )
    return crossing(
        "no_gradient", (), limits, evidence, sentence, "a zero gradient is a stationary point of any descent"
    )


def cut(history: History, limits: Limits) -> Verdict | None:
    """A part of the network that feeds the loss and gets no gradient: cut off, or multiplied by zero (idle)."""
    depth = history.depth
    if depth is None or (history.measured and history.state == "diverged"):
        return None
    # A branch whose gate starts at zero is silent for one step, on purpose; one below dead units is called dead.
    started = (
        np.nansum(depth.column("starts_at_zero", 0)) > 0 or np.nanmax([0, *depth.column("dead", 0)]) > limits["dead"]
    )
    kinds = [("cut", depth.column("cut", 0) > 0, "they are cut off")]
    kinds += [] if started else [("idle", depth.column("idle", 0) > 0, "they are multiplied by zero")]
    for cause, silent, words in kinds:
        if not (places := np.flatnonzero(silent)).size:
            continue
        first, last = (int(depth.layer[place]) for place in (places[0], places[-1]))
        evidence: Evidence = {
            "axis": "depth",
            "ratio": 0.0,
            "silent": cause,
            "layers": len(places),
            "first": first,
            "last": last,
        }
        which = depth.place(first) if first == last else f"{depth.place(first)} to {depth.place(last)}"
        sentence = (
            f"vanishing: δ is exactly zero in {len(places)} of {len(depth.layer)} layers, {which}, though what they "
            f"put out goes on into the loss: {words}"
        )
        return crossing("vanishing", (), limits, evidence, sentence, "an exact zero is no small number")
    return None


def limit_of(name: str, history: History, profile: Profile, limits: Limits, row: int = 0) -> float:
    """The ratio beyond which a profile is a verdict.

    Of a run that did not learn it is the threshold. In the first steps, where no step is long enough to be one, and
    while a run is learning, it is a risk alone, and what the optimizer or a norm makes good is none: an adaptive one
    (or one that is not known) divides by the gradient's size, and weights that a norm follows shrink their own relative
    gradient as they grow (Arora, Li & Lyu 2018, arXiv:1812.03981). Through many layers it makes nothing good: steps of
    the right size in all of them do not fit each other. What a run that is learning has made of its profile by a later
    ``row`` must be as far beyond as what an optimizer makes good.
    """
    limit = limits[f"{name}_ratio"]
    slack, learns = 1.0, learning(history, limits)
    early = len(history.loss) <= limits["least_steps"] or motionless(history) or learns
    few = profile.axis == "time" or len((profile.trunk or profile).layer) <= limits["adaptive_layers"]
    if name == "vanishing" and early and history.adaptive and few:
        slack = limits["adaptive"]
    # Every branch of a transformer meets the stream behind a norm, however long it trains: what stands out there is
    # the embedding, which is small beside what the branches add to it.
    streams = history.spec.get("model.name") == "transformer"
    if name == "exploding" and (early or streams) and normalised(history):
        slack = min(slack, limits["normalised"])
    if learns and row:
        slack = min(slack, limits["adaptive"])
    if name == "exploding" and profile.reads:
        # What every step adds reaches the first one from all of them.
        slack /= len(profile.layer)
    if name == "vanishing":
        return limit * slack
    return limit / slack if slack > 0 else math.inf


def normalised(history: History) -> bool:
    """Whether a norm follows most layers of the trunk, so that the scale of their weights does not matter."""
    if "model.norm" in history.spec:
        return bool(history.spec["model.norm"] != "none")
    depth = history.depth
    column = (depth.trunk or depth).column("normalised", 0)[:-1] if depth is not None else np.empty(0)
    return column.size > 0 and bool(np.nansum(column) > column.size / 2)


def _changed(history: History, profile: Profile, name: str, limits: Limits) -> list[Verdict]:
    """Along one axis: δ changes too much over all layers, and at a rate that differs from 1 beyond doubt, or breaks.

    A run that learned nothing is judged at its last recorded step too: what began well may have been undone.
    """
    rows = history.sound(profile)[: None if history.trained else 1]
    return [found for row in rows if (found := changed_at(history, profile, name, limits, row)) is not None]


def changed_at(history: History, profile: Profile, name: str, limits: Limits, row: int = 0) -> Verdict | None:
    """The verdict ``name`` on a profile at one of its recorded steps."""
    found, limit = passage_of(history, profile, limits, row), limit_of(name, history, profile, limits, row)
    if found is None:
        return None
    breaks = found.broken is not None and (found.broken.factor < 1) == (name == "vanishing")
    if not breaks and (not found.beyond(name, limit) or found.doubtful(name, limits)):
        return None
    fitted = found.fit
    if name == "vanishing" and (profile.reads or heals(profile.trunk or profile, found, row) or found.grown >= limit):
        return None
    # A cell that forgets within some steps is what the usual initializations are.
    forgets = profile.axis == "time" and history.measured and name == "vanishing"
    if forgets and fitted is not None and not _lost_for_good(history, found, limits):
        doubt = fitted.scatter if math.isfinite(fitted.scatter) else 0.0
        if fitted.rate + limits["errors"] * doubt > limits["time_rate"]:
            return None
    evidence: Evidence = {
        "axis": profile.axis,
        "step": int(profile.step[row]),
        "ratio": found.ratio,
        "rate": None if fitted is None else fitted.rate,
        "error": None if fitted is None or math.isnan(fitted.error) else fitted.error,
        "first": None if fitted is None else found.layer(fitted.first),
        "last": None if fitted is None else found.layer(fitted.last),
        "curvature": None if fitted is None else fitted.curvature,
        "near": None if fitted is None else fitted.near,
        "far": None if fitted is None else fitted.far,
        "zero_up_to": found.zero_up_to,
        "break": None if found.broken is None else found.broken.layer,
    }
    at = "" if row == 0 else f" at step {int(profile.step[row])}"
    sentence = f"{name}: {found.told}{at} (threshold {figure(limit)})"
    crossed = [f"{name}_ratio"]
    if fitted is not None:
        sentence += f"; {_rate_told(found, fitted, limits)}"
        crossed += ["errors", *(["curvature"] if fitted.bends(limits["curvature"]) else [])]
    crossed += ["break_factor", "break_errors"] if found.broken is not None else []
    return crossing(name, crossed, limits, evidence, sentence)


def _lost_for_good(history: History, found: Passage, limits: Limits) -> bool:
    """Whether a run that is told its answer at the end has learned nothing, and what the first step adds is rounded."""
    taught = len(history.loss) > limits["least_steps"] and not motionless(history) and not learning(history, limits)
    return taught and found.ratio < ROUNDED


def heals(profile: Profile, found: Passage, row: int = 0) -> bool:
    """Whether δ is zero below a layer that starts at zero on purpose and has a gradient: one step makes it go on."""
    if found.zero_up_to is None:
        return False
    above = np.flatnonzero(profile.layer == found.zero_up_to)[0] + 1
    starts = profile.column("starts_at_zero", row)
    return above < len(starts) and bool(starts[above] > 0)


def _rate_told(found: Passage, fitted: Fit, limits: Limits) -> str:
    """The fitted rate in words, and where one rate does not describe the profile, both of its ends."""
    noun = found.profile.noun
    words = f"it changes by a factor of {rate_figure(fitted)} a {found.profile.pace} on its way to the input"
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
            if history.precision in HALVES and np.nansum(norms) == 0:
                tiny = norms == 0
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
