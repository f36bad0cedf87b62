"""How causes show that lie in the number format: what half precision rounds to zero, cannot hold, or cannot move."""

from __future__ import annotations

import numpy as np

from gradlab.diagnose.case import Case, Shows
from gradlab.diagnose.history import EMPTY, Floats, History
from gradlab.diagnose.layers import HALVES
from gradlab.diagnose.numbers import figure
from gradlab.spec.choices import OPTIMIZERS
from gradlab.spec.choices.formats import FORMATS

CONSTANT = 0.01
"""Clipped norms that differ by less from their median are those of a threshold."""

MOST_SKIPPED = 0.5
"""A share of the updates beyond which a dynamic loss scale does not look for its value any more."""

ROUND = 100.0
"""A threshold lies within so many times of 1, as every one that is written by hand."""


def sunk(case: Case) -> Shows:
    """A gradient that is zero below a layer in which it has come down to the format's smallest numbers."""
    last, depth, precision = case.verdict.evidence.get("zero_up_to"), case.history.depth, case.history.precision
    if precision not in HALVES or last is None or depth is None or case.verdict.evidence.get("axis") == "time":
        return None
    row = max(0, int(np.searchsorted(depth.step, int(case.verdict.evidence.get("step") or 0))))
    sizes = depth.column("signal_grad_norm", row)
    sizes = sizes[(depth.layer > int(last)) & (sizes > 0)]
    normal = FORMATS[precision].smallest_normal
    if not sizes.size or not sizes[0] < normal:
        return None
    return f"behind them δ has come down to {figure(float(sizes[0]))}, and {precision} ends at {figure(normal)}"


def eps_lost(case: Case) -> Shows:
    """An eps that is zero in the format of the weights: the first update divides by a square that is, too."""
    form, spec = _weights(case.history), case.history.spec
    eps, name = spec.get("optim.eps"), spec.get("optim.name")
    if form is None or eps is None or name not in OPTIMIZERS or "eps" not in OPTIMIZERS[str(name)].uses:
        return None
    trained = case.history.trained if case.history.measured else (case.history.diverged_at or 0) > 0
    after = case.verdict.evidence.get("quantity") in ("weights", "signal") and trained
    if not after or not float(eps) < FORMATS[form].smallest / 2:
        return None
    return f"eps {figure(float(eps))} is zero in {form}, and so is the square of a small gradient"


def too_large(case: Case) -> Shows:
    """A signal beyond float16: finite weights times finite signals that come to more than its largest number."""
    layer, depth = case.history.diverged_layer, case.history.depth
    if case.history.precision != "float16" or depth is None or layer is None:
        return None
    if case.verdict.evidence.get("quantity") != "signal" or case.history.diverged_at not in depth.step:
        return None
    row = int(np.flatnonzero(depth.step == case.history.diverged_at)[0])
    below, here = np.flatnonzero(depth.layer == layer - 1), np.flatnonzero(depth.layer == layer)
    if not below.size or not here.size:
        return None
    signal = float(depth.column("act_std", row)[below[0]])
    reach = signal * float(depth.column("weight_norm", row)[here[0]])
    largest = FORMATS["float16"].largest
    if not reach > largest:
        return None
    return (
        f"signals of {figure(signal)} times weights of norm {figure(reach / signal)} leave float16, which ends at "
        f"{largest:,.0f}"
    )


def rounded_away(case: Case) -> Shows:
    """Updates of weights in half precision that are less than the distance between two of its numbers."""
    form, depth, spec = _weights(case.history), case.history.depth, case.history.spec
    if form is None or depth is None or "optim.lr" not in spec or spec.get("train.rounding") == "stochastic":
        return None
    row = case.history.sound(depth)[-1]
    weights, gradients = depth.column("weight_norm", row), depth.column("weight_grad_norm", row)
    with np.errstate(divide="ignore", invalid="ignore"):
        # An adaptive optimizer moves every entry by its learning rate.
        entries = (depth.column("grad_norm", row) / depth.column("grad_rms", row)) ** 2
        ratios = float(spec["optim.lr"]) * (np.sqrt(entries) if case.history.adaptive else gradients) / weights
    known = ratios[np.isfinite(ratios)]
    apart = 2.0 ** -FORMATS[form].digits
    if not known.size or not np.median(known) < apart:
        return None
    return (
        f"an update is {figure(float(np.median(known)))} of the weights, and {form} has no number nearer than "
        f"{figure(apart)} of one: most of it is rounded away"
    )


def skipped(case: Case) -> Shows:
    """A loss scaler that leaves most updates out."""
    history = case.history
    left = (
        np.isnan(history.grad_norm_clipped[:-1]) & (history.loss_scale[:-1] > 1) if history.loss_scale.size else EMPTY
    )
    count = int(left.sum())
    if count < MOST_SKIPPED * max(1, left.size):
        return None
    return (
        f"{count} of {left.size} updates were skipped: the gradient times the loss scale, "
        f"{figure(float(history.loss_scale[0]))} at the start, is not finite"
    )


def scaled_when_clipped(case: Case) -> Shows:
    """Norms after clipping that are one number times a large loss scale: the threshold was meant for the gradient."""
    history = case.history
    scale, before, after = history.loss_scale, history.grad_norm, history.grad_norm_clipped
    if not scale.size:
        return None
    known = np.isfinite(scale) & np.isfinite(after) & (after > 0) & (scale > ROUND)
    if not known.any():
        return None
    scaled = after[known] * scale[known]
    threshold = float(np.median(scaled))
    alike = _spread(scaled) < CONSTANT and _spread(scaled) <= _spread(after[known]) + 1e-9
    tiny = float(np.median(after[known] / before[known])) < 1 / ROUND
    if not (alike and tiny and 1 / ROUND <= threshold <= ROUND):
        return None
    over = figure(float(np.median(scale[known])))
    return f"the norm after clipping is {figure(threshold)} over the loss scale, {over}: clipped before unscaling"


def _spread(values: Floats) -> float:
    """The median distance to the median, of that."""
    middle = np.median(values)
    return float(np.median(np.abs(values - middle)) / middle)


def _weights(history: History) -> str | None:
    """The format of the weights, where it is half; an old watched training tells that of its passes alone."""
    own = history.spec.get("train.precision") if "model.name" in history.spec else None
    precision = history.facts.get("weights", own)
    return str(precision) if precision in HALVES else None
