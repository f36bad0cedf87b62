"""Verdicts that the course of the training gives: its loss, its clipping, and how it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradlab.diagnose.broken import broken
from gradlab.diagnose.final import LEAST, SHARE, final_loss
from gradlab.diagnose.history import EMPTY, Floats, History, Profile
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import Evidence, Verdict, crossing
from gradlab.spec.choices import CLIPS


def diverged(history: History, limits: Limits) -> Verdict | None:
    """The run's state, and what went first: a step takes weights, signals, loss and gradients in this order."""
    t, layer, loss = history.diverged_at, history.diverged_layer, history.loss
    if history.state != "diverged" or t is None:
        return None
    first = _first_broken(history, t)
    place = "" if layer is None or first == "loss" else f" of {_depth(history)[0].place(layer)}"
    evidence: Evidence = {
        "step": t,
        "layer": layer,
        "quantity": first,
        "loss_first": float(loss[0]) if loss.size else None,
        "loss_before": float(loss[t - 1]) if 0 < t <= loss.size else None,
    }
    words = "are the first that are" if first == "weights" else "is the first that is"
    sentence = f"diverged at step {t}: the {first}{place} {words} not finite"
    if 0 < t <= loss.size:
        then = "" if t == 1 else f", {figure(loss[t - 1])} at step {t - 1}"
        sentence += f"; the loss was {figure(loss[0])} at step 0{then}"
    return crossing("diverged", (), limits, evidence, sentence, "the first step at which a number is not finite")


def _first_broken(history: History, t: int) -> str:
    """What went first at step ``t``: the way there has weights make signals, these the loss, and that the gradient."""
    loss = float(history.loss[t]) if t < history.loss.size else None
    found = {}
    for profile in _depth(history):
        if t in profile.step:
            row = int(np.flatnonzero(profile.step == t)[0])
            found = {name: bool(places.any()) for name, places in broken(profile, row).items()}
    for name in ("weights", "signal"):
        if found.get(name):
            return name
    # Where the loss is not known, only the gradient can have been seen to break.
    return "gradient" if loss is None or math.isfinite(loss) else "loss"


def _depth(history: History) -> list[Profile]:
    return [profile for profile in history.along if profile.axis == "depth"]


SLOW, FAST = 1e-4, 0.1
"""Updates over weights, ||dW||/||W||: healthy ones are about a thousandth (Karpathy 2019)."""

SHORTENS = tuple(name for name, entry in CLIPS.items() if name == "none" or entry.always)
"""Ways of clipping in which doing so nearly always says nothing."""


def overclipped(history: History, limits: Limits) -> Verdict | None:
    """Clipping that decides the length of almost every step; some modes do so by design."""
    updated = np.isfinite(history.clipped)
    if history.clip_mode in SHORTENS or updated.sum() < limits["least_steps"]:
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
    # The second half, or its end where that is worse: a loss may be lost late.
    level = max(float(np.median(late)), float(np.median(loss[-max(LEAST, len(loss) // SHARE) :])))
    if not level > _enough(history, limits) * _begun(history, first):
        return None
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(loss, 5), axis=1)
    climb = float(smooth.max()) / first
    best = int(smooth.argmin())
    relapse = level / float(smooth[best]) if smooth[best] > 0 else math.inf
    # The first loss is one draw of a batch; the median change of ln loss is 0.954 standard deviations of such a draw.
    noise = float(np.median(np.abs(np.diff(np.log(late[late > 0]))))) / 0.954 if (late > 0).sum() > 1 else 0.0
    certain = math.exp(-limits["errors"] * noise)
    changes = np.diff(late)
    swing = float(np.median(np.abs(changes))) / level
    turns = float((changes[1:] * changes[:-1] < 0).mean())
    evidence: Evidence = {
        "climb": climb,
        "relapse": relapse,
        "noise": noise,
        "step": int(smooth.argmax()) + 2,
        "swing": swing,
        "turns": turns,
        "level": level,
        "loss_first": first,
    }
    middle = figure(float(np.median(late)))
    stays = f"its median over the second half is {middle}, and was {figure(first)} at step 0"
    asked = limits["climb"] / certain if certain > 0 else math.inf
    beyond = f"(threshold {figure(asked)}, beyond the noise of a batch)"
    # What climbs and comes back below half of where it began does not stay up, however far from a guess.
    if climb > asked and level > limits["unlearned"] * first:
        sentence = (
            f"oscillating: the learning rate is too high: the loss climbs to {figure(climb)} times its first value "
            f"{beyond} at step {evidence['step']}; {stays}"
        )
        return crossing("oscillating", ("climb", "errors", "unlearned"), limits, evidence, sentence)
    if relapse > asked and best + 2 < len(loss) // 2 + len(loss) // 4:
        sentence = (
            f"oscillating: the learning rate is too high: the loss had come down to {figure(float(smooth[best]))} at "
            f"step {best + 2}, and climbs to {figure(relapse)} times that {beyond}; {stays}"
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
    """Nothing is wrong with the gradient, and the loss does not move.

    It falls too little over the second half; that this is no chance may be known from the whole run, too, whose slope
    is the larger one where a loss levels off, and has about a third of the error. Where the loss of a guess is known,
    and half a run stands above it, it need not be certain that nothing falls: only that nothing is known to, or that at
    this pace as many steps again do not come to a guess.
    """
    loss, first = history.loss, _first_loss(history, limits)
    if first is None:
        return _constant(loss, limits)
    found = _falls(loss)
    known = min(fall + limits["errors"] * error for fall, error in (found.late, found.whole))
    still = max(found.late[0], known) < limits["stalled"] and found.level > _enough(history, limits) * _begun(
        history, first
    )
    half = float(loss[len(loss) // 2 :].mean())
    above = min(half, final_loss(loss)) - (1 - limits["stalled"]) * (history.guess or math.inf)
    late, doubt = found.late[0], limits["errors"] * found.late[1]
    slow = above > 2 * found.level * max(0.0, late + doubt)
    guessing = above > 0 and (late - doubt < limits["stalled"] or slow)
    if not (still or guessing):
        return None
    evidence: Evidence = {
        "fall": found.late[0],
        "error": found.late[1],
        "whole_fall": found.whole[0],
        "whole_error": found.whole[1],
        "level": found.level,
        "loss_first": first,
        "steps": len(loss) - 1,
    }
    sentence = (
        f"stalled: the gradient is fine, but over the second half of {len(loss) - 1} steps the loss {found.told} (a "
        f"fall of {limits['stalled']:.0%} is the threshold); it was {figure(first)} at step 0"
    )
    if history.guess is not None and guessing:
        sentence += f", and one answer to every input has {figure(history.guess)}"
        sentence += ", which it does not come to in as many steps again" if slow and late > doubt else ""
    return crossing("stalled", ("stalled", "errors", "unlearned"), limits, evidence, sentence)


def _constant(loss: Floats, limits: Limits) -> Verdict | None:
    """Of a loss that is not above zero no share can be told; but that it is one number all the time is no fall."""
    if len(loss) <= limits["least_steps"] or not np.isfinite(loss).all() or np.ptp(loss) > 0:
        return None
    evidence: Evidence = {"fall": 0.0, "error": 0.0, "loss_first": float(loss[0]), "steps": len(loss) - 1}
    sentence = f"stalled: the loss is exactly {figure(loss[0])} at each of {len(loss) - 1} steps"
    return crossing("stalled", ("least_steps",), limits, evidence, sentence)


def learned(history: History, limits: Limits) -> bool:
    """Whether the final loss is far below where it began, and below what one answer to every input has.

    A profile is a risk, a course is a fact: what such a run was at risk of has not come about.
    """
    return _below(history, _enough(history, limits))


def _enough(history: History, limits: Limits) -> float:
    """The share of a guess's loss below which a run has learned.

    Where the input does not tell the answer no loss comes near zero, and what is learning has learned.
    """
    return limits["learning" if history.open_ended else "unlearned"]


def learning(history: History, limits: Limits) -> bool:
    """Whether the final loss is certainly below that of a guess: the run may not have learned, but goes there."""
    return _below(history, limits["learning"])


def _below(history: History, share: float) -> bool:
    """Whether the final loss is at most this share of where learning begins."""
    loss = history.loss
    if history.state != "finished" or len(loss) <= LEAST or not math.isfinite(final := final_loss(loss)):
        return False
    return final <= share * _begun(history, float(loss[0]))


def _begun(history: History, first: float) -> float:
    """Where learning begins: the loss at step 0, or that of a guess where a bad beginning lies above it."""
    return first if history.guess is None else min(first, history.guess)


def loss_told(history: History, limits: Limits) -> str:
    """What a healthy run's loss did, and whether that is known at all."""
    loss, first = history.loss, _first_loss(history, limits)
    words = f"the loss went from {figure(loss[0])} to {figure(final_loss(loss))}"
    if 1 < len(loss) <= limits["least_steps"]:
        return f"{words}, in too few steps to judge its course ({len(loss) - 1} of {limits['least_steps']:g})"
    if first is not None:
        found = _falls(loss)
        if (
            found.level > _enough(history, limits) * _begun(history, first)
            and found.late[0] < limits["errors"] * found.late[1]
        ):
            return f"{words}, too noisy to tell whether it falls: over the second half it {found.told}"
    return words


def unlearned(history: History, limits: Limits) -> str:
    """Of a trained run whose final loss is no better than a guess what that is, in words; else nothing.

    A guess is one answer to every input; where its loss is not known, the loss at step 0 stands for it. Better is what
    lies below it by more than the share that `diagnose.stalled` calls movement.
    """
    loss = history.loss
    if len(loss) < 2 or not math.isfinite(final := final_loss(loss)):
        return ""
    guess = history.guess if history.guess is not None else float(loss[0])
    if final <= (1 - limits["stalled"]) * guess:
        return ""
    what = "that of one answer to every input" if history.guess is not None else "the loss at step 0"
    return f"; the final loss is not {limits['stalled']:.0%} below {what} ({figure(guess)})"


@dataclass(frozen=True)
class Falls:
    """By which share of ``level``, the median of its second half, a loss falls in half the run, and the standard error.

    ``late`` is by a line through the second half, ``whole`` by one through all of it.
    """

    late: tuple[float, float]
    whole: tuple[float, float]
    level: float

    @property
    def told(self) -> str:
        """In words, after what falls."""
        (late, error), (whole, whole_error) = self.late, self.whole
        return (
            f"{'falls' if late >= 0 else 'rises'} by {abs(late):.1%} ± {error:.1%} of its median {figure(self.level)}, "
            f"by the slope of the whole run {round(whole, 3) + 0.0:.1%} ± {whole_error:.1%}"
        )


def _falls(loss: Floats) -> Falls:
    late = loss[len(loss) // 2 :]
    level = float(np.median(late))
    reach = (len(late) - 1) / level
    return Falls(_fall(late, reach), _fall(loss, reach), level)


def _fall(loss: Floats, reach: float) -> tuple[float, float]:
    """How far the least-squares line through ``loss`` (n,) falls in ``reach`` steps, and the standard error of that."""
    place = np.arange(len(loss)) - (len(loss) - 1) / 2
    squares = float(place @ place)
    slope = float(place @ loss) / squares
    left = loss - loss.mean() - slope * place
    return -slope * reach, math.sqrt(float(left @ left) / (len(loss) - 2) / squares) * reach


def _first_loss(history: History, limits: Limits) -> float | None:
    """The loss at step 0, where there are enough finite losses above zero to judge their course."""
    loss = history.loss
    enough = len(loss) > max(limits["least_steps"], 4) and bool(np.isfinite(loss).all()) and loss[0] > 0
    return float(loss[0]) if enough and float(np.median(loss[len(loss) // 2 :])) > 0 else None


def updates(history: History) -> float:
    """The median over layers of the last updates over weights."""
    known = _updates(history)
    return float(np.median(known)) if known.size else math.nan


def motionless(history: History) -> bool:
    """Whether no layer's update is large enough to move its weights, whatever comes to it of the gradient."""
    known = _updates(history)
    return known.size > 0 and float(known.max()) < SLOW


def _updates(history: History) -> Floats:
    """Updates over weights that are known: recorded, or by the optimizer and its learning rate."""
    depth = history.depth
    if depth is None:
        return EMPTY
    ratios = depth.columns.get("update_ratio", np.empty(0)).ravel()
    if not np.isfinite(ratios).any() and "optim.lr" in history.spec:
        weights, gradients = depth.column("weight_norm", -1), depth.column("weight_grad_norm", -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # An adaptive optimizer moves every entry by its learning rate.
            entries = (depth.column("grad_norm", -1) / depth.column("grad_rms", -1)) ** 2
            moved = np.sqrt(entries) if history.adaptive else gradients
            ratios = float(history.spec["optim.lr"]) * moved / weights
    found: Floats = ratios[np.isfinite(ratios)]
    return found
