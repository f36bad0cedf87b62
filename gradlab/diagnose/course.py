"""Verdicts that the course of the training gives: its loss, its clipping, and how it ended."""

from __future__ import annotations

import math

import numpy as np

from gradlab.diagnose.history import History
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import Evidence, Verdict, crossing, figure


def diverged(history: History, limits: Limits) -> Verdict | None:
    """The run's state, and what went first: a step takes weights, signals, loss and gradients in this order."""
    t, layer = history.diverged_at, history.diverged_layer
    if history.state != "diverged" or t is None:
        return None
    first = _first_broken(history, t)
    where = "" if layer is None else f" of layer {layer}"
    place = where if first in ("weights", "signal", "gradient") else ""
    evidence: Evidence = {"step": t, "layer": layer, "quantity": first, "loss_first": float(history.loss[0])}
    sentence = f"diverged at step {t}: the {first}{place} is the first that is not finite".replace("weights is", "are")
    if first == "weights":
        sentence = f"diverged at step {t}: the weights{place} are the first that are not finite"
    return crossing("diverged", (), limits, evidence, sentence, "the first step at which a number is not finite")


def _first_broken(history: History, t: int) -> str:
    for profile in history.along:
        here = np.flatnonzero(profile.step == t)
        if profile.axis == "depth" and here.size:
            row = int(here[0])
            for quantity, column in (("weights", "weight_norm"), ("signal", "act_std")):
                if not np.isfinite(profile.columns[column][row]).all():
                    return quantity
    return "gradient" if t < history.loss.size and math.isfinite(history.loss[t]) else "loss"


def overclipped(history: History, limits: Limits) -> Verdict | None:
    """Clipping that decides the length of almost every step; `normalize` does so by design."""
    updated = np.isfinite(history.clipped)
    if history.clip_mode in ("none", "normalize") or updated.sum() < limits["least_steps"]:
        return None
    share = float(history.clipped[updated].mean())
    before, after = history.grad_norm[updated], history.grad_norm_clipped[updated]
    known = np.isfinite(before) & (before > 0)
    if share <= limits["clipped"] or not known.any():
        return None
    scale = float(np.median(after[known] / before[known]))
    if not scale < limits["clip_scale"]:
        return None
    evidence: Evidence = {"share": share, "scale": scale, "updates": int(updated.sum()), "mode": history.clip_mode}
    sentence = (
        f"overclipped: {share:.0%} of {int(updated.sum())} updates are clipped (threshold {limits['clipped']:.0%}), in "
        f"the median to {figure(scale)} of the gradient's norm (threshold {figure(limits['clip_scale'])})"
    )
    return crossing("overclipped", ("clipped", "clip_scale"), limits, evidence, sentence)


def oscillating(history: History, limits: Limits) -> Verdict | None:
    """The loss climbs and does not come back, or alternates from step to step: the learning rate is too high."""
    loss, first = history.loss, _first_loss(history, limits)
    if first is None:
        return None
    late = loss[len(loss) // 2 :]
    level = float(np.median(late))
    if not level > limits["unlearned"] * first:
        return None
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(loss, 5), axis=1)
    climb = float(smooth.max()) / first
    # The first loss is one draw of a batch; the median change of ln loss is 0.954 standard deviations of such a draw.
    noise = float(np.median(np.abs(np.diff(np.log(late[late > 0]))))) / 0.954 if (late > 0).sum() > 1 else 0.0
    certain = math.exp(-limits["errors"] * noise)
    changes = np.diff(late)
    swing = float(np.median(np.abs(changes))) / level
    turns = float((changes[1:] * changes[:-1] < 0).mean())
    evidence: Evidence = {
        "climb": climb,
        "noise": noise,
        "step": int(smooth.argmax()) + 2,
        "swing": swing,
        "turns": turns,
        "level": level,
        "loss_first": first,
    }
    stays = f"its median over the second half is {figure(level)}, and was {figure(first)} at step 0"
    if climb * certain > limits["climb"]:
        sentence = (
            f"oscillating: the learning rate is too high: the loss climbs to {figure(climb)} times its first value "
            f"(threshold {figure(limits['climb'] / certain)}, beyond the noise of a batch) at step {evidence['step']}; "
            f"{stays}"
        )
        return crossing("oscillating", ("climb", "errors", "unlearned"), limits, evidence, sentence)
    if swing > limits["swing"] and turns > limits["turns"]:
        sentence = (
            f"oscillating: the learning rate is too high: the loss turns at {turns:.0%} of the steps of the second "
            f"half (threshold {limits['turns']:.0%}) by {swing:.0%} of itself (threshold {limits['swing']:.0%}); "
            f"{stays}"
        )
        return crossing("oscillating", ("swing", "turns", "unlearned"), limits, evidence, sentence)
    return None


def stalled(history: History, limits: Limits) -> Verdict | None:
    """Nothing is wrong with the gradient, and the loss does not move."""
    loss, first = history.loss, _first_loss(history, limits)
    if first is None:
        return None
    late = loss[len(loss) // 2 :]
    level = float(np.median(late))
    place = np.arange(len(late)) - (len(late) - 1) / 2
    squares = float(place @ place)
    slope = float(place @ late) / squares
    left = late - late.mean() - slope * place
    reach = (len(late) - 1) / level
    fall, error = -slope * reach, math.sqrt(float(left @ left) / (len(late) - 2) / squares) * reach
    if not (fall + limits["errors"] * error < limits["stalled"] and level > limits["unlearned"] * first):
        return None
    evidence: Evidence = {"fall": fall, "error": error, "level": level, "loss_first": first, "steps": len(loss) - 1}
    sentence = (
        f"stalled: the gradient is fine, but over the second half of {len(loss) - 1} steps the loss "
        f"{'falls' if fall >= 0 else 'rises'} by {abs(fall):.1%} ± {error:.1%} of its median {figure(level)} (a fall "
        f"of {limits['stalled']:.0%} is the threshold); it was {figure(first)} at step 0"
    )
    return crossing("stalled", ("stalled", "errors", "unlearned"), limits, evidence, sentence)


def _first_loss(history: History, limits: Limits) -> float | None:
    """The loss at step 0, where there are enough finite losses above zero to judge their course."""
    loss = history.loss
    enough = len(loss) > max(limits["least_steps"], 4) and bool(np.isfinite(loss).all()) and loss[0] > 0
    return float(loss[0]) if enough and float(np.median(loss[len(loss) // 2 :])) > 0 else None
