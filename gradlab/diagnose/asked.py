"""Which causes are asked after a verdict, and how each shows in the numbers of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradlab.diagnose.final import final_loss
from gradlab.diagnose.history import History
from gradlab.diagnose.layers import NEXT_LAYER, SMALLEST_NORMAL
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.passage import passage_of
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import Verdict


@dataclass(frozen=True)
class Case:
    """What a cause is looked for in: a verdict, the run that it is of, and the thresholds."""

    verdict: Verdict
    history: History
    limits: Limits


Shows = str | None
"""How a cause shows in words; None where the numbers do not bear it out."""

DECAYED = 0.3
"""A share of its first norm below which a layer's weights have been taken away rather than trained."""

ODD = 1e3
"""A norm of weights over the median of all layers' that no difference of size explains."""

SLOW, FAST = 1e-4, 0.1
"""Updates over weights, ||dW||/||W||: healthy ones are about a thousandth (Karpathy 2019)."""

HEAVY_MOMENTUM = 0.95
"""Beyond it a step is more than twenty gradients."""

NEAR_ONE = 0.9
"""A rate this near to 1 is what an init is right for: depth alone makes something of it."""

SHORT = 0.01
"""A share of what a step should change beyond which no curvature explains that it does not."""

FAR_LOSS = 1e3
"""A first loss beyond which the scale of targets or weights, and no learning rate, is what is wrong."""


def _not_finite(case: Case) -> Shows:
    count = case.history.facts.get("input_not_finite", 0)
    return f"{count} of the inputs' numbers are not finite" if count else None


def _broken(case: Case) -> Shows:
    place, depth = case.verdict.evidence.get("break"), case.history.depth
    return None if place is None or depth is None else f"δ breaks at {depth.place(int(place))} alone"


def _odd(case: Case) -> Shows:
    depth = case.history.depth
    if depth is None or not case.history.measured:
        return None
    norms = depth.column("weight_norm", 0)
    usual = float(np.nanmedian(norms)) if np.isfinite(norms).any() else math.nan
    worst = int(np.nanargmax(norms)) if usual > 0 else 0
    if not (usual > 0 and norms[worst] > ODD * usual):
        return None
    return f"the weights of {depth.place(int(depth.layer[worst]))} are {figure(norms[worst] / usual)} times the others'"


def _cut(case: Case) -> Shows:
    if case.verdict.evidence.get("silent") == "cut":
        return f"{case.verdict.evidence['layers']} layers are cut off from the loss"
    last, depth = case.verdict.evidence.get("zero_up_to"), case.history.depth
    if last is None or depth is None:
        return None
    if case.verdict.evidence.get("axis") == "time":
        return _severed(case, int(last))
    above = np.flatnonzero(depth.layer > int(last))[:1]
    asleep = depth.column("dead", 0)[above] > case.limits["dead"] if above.size else np.zeros(1, dtype=bool)
    started = np.nansum(depth.column("signal_grad_norm", 0)[above]) > 0
    return f"nothing comes back through {depth.place(int(last))}" if started and not asleep.any() else None


def _severed(case: Case, last: int) -> Shows:
    """Along time: at once, and not where a gradient has come down to the smallest numbers there are."""
    along = next(one for one in case.history.along if one.axis == "time")
    first = along.deltas[along.layer > last][:1]
    sudden = first.size and first[0] > NEXT_LAYER * SMALLEST_NORMAL[case.history.precision]
    return f"nothing comes back through {along.place(last)}" if sudden else None


def _idle(case: Case) -> Shows:
    if case.verdict.evidence.get("silent") != "idle":
        return None
    return f"what {case.verdict.evidence['layers']} layers put out is multiplied by zero"


def _dead(case: Case) -> Shows:
    depth = case.history.depth
    share = np.nan if depth is None else np.nanmax([0.0, *depth.column("dead", 0)])
    return f"up to {share:.0%} of a layer's units are at rest" if share > case.limits["dead"] else None


def _recurrent(case: Case) -> Shows:
    along = case.verdict.evidence.get("axis") == "time"
    return "one matrix acts at every time step" if along and not case.history.facts.get("gated") else None


def _gates(case: Case) -> Shows:
    return (
        "the gates are shut"
        if case.verdict.evidence.get("axis") == "time" and case.history.facts.get("gated")
        else None
    )


def _decay(case: Case) -> Shows:
    depth = case.history.depth
    decay = float(case.history.spec.get("optim.weight_decay") or 0.0)
    if depth is None or decay == 0:
        return None
    if len(depth.step) > 1:
        norms = depth.columns["weight_norm"]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = norms[-1] / norms[0]
        left = float(ratios[np.isfinite(ratios)].min(initial=1.0))
    else:
        # Where no earlier step was recorded, what is left of weights that nothing else moves.
        left = math.exp(-decay * float(case.history.spec.get("optim.lr") or 0.0) * (len(case.history.loss) - 1))
    return (
        f"weight decay {figure(decay)} has brought weights down to {left:.0%} of their norm" if left < DECAYED else None
    )


def _activation(case: Case) -> Shows:
    name = case.history.spec.get("model.activation")
    if name is None:
        seen = {kind: positions for kind, (positions, _) in case.history.activations.items()}
        name = max(seen, key=lambda kind: seen[kind], default=None)
    return f"the slope of {name} is at most a quarter" if name == "sigmoid" else None


def _grown(case: Case) -> Shows:
    from_norm = case.history.spec.get("model.norm", "none") != "none" or _followed(case.history)
    return "a norm follows the layers, and each passes more back than it got" if from_norm else None


def _followed(history: History) -> bool:
    depth = history.depth
    return depth is not None and float(np.nanmean([0.0, *depth.column("normalised", 0)])) > 0.5


def _deep(case: Case) -> Shows:
    rate = case.verdict.evidence.get("rate")
    if rate is None or not NEAR_ONE < float(rate) < 1 / NEAR_ONE:
        return None
    return f"at {figure(float(rate))} a layer it is the number of layers that does it"


def _residual(case: Case) -> Shows:
    streams = case.history.spec.get("model.name") == "residual_mlp" or bool(case.history.facts.get("branches"))
    return "every residual branch adds to the stream" if streams else None


def _drawn(case: Case) -> Shows:
    rate = case.verdict.evidence.get("rate")
    if rate is None:
        return "the weights, as they were drawn, are of the wrong scale"
    side = "small" if float(rate) < 1 else "large"
    return f"the weights are too {side}: each layer passes {figure(float(rate))} of what it gets"


def _half(case: Case) -> Shows:
    half = case.history.precision in ("float16", "bfloat16")
    return (
        f"{case.history.precision} ends at {figure(float(case.verdict.evidence.get('smallest_normal') or 0))}"
        if half
        else None
    )


def _overflow(case: Case) -> Shows:
    sound = case.history.loss.size and math.isfinite(float(case.history.loss[0]))
    return (
        "the loss is finite in float16, and its gradient is not"
        if case.history.precision == "float16" and sound
        else None
    )


def _relu_output(case: Case) -> Shows:
    into = list(case.history.facts.get("into_loss", ()))
    return "the output goes through relu, and is below zero on every sample" if "relu" in into[:2] else None


def _one_unit(case: Case) -> Shows:
    one = case.history.facts.get("units") == 1 and "softmax" in case.history.facts.get("into_loss", ())
    return "softmax over one unit is 1" if one else None


def _input_far(case: Case) -> Shows:
    scale = case.history.spec.get("data.input_scale", case.history.facts.get("input_std", 1.0))
    far = not (float(scale) * case.limits["scale"] > 1 and float(scale) < case.limits["scale"])
    return f"the inputs have a scale of {figure(float(scale))}" if far else None


def _target_far(case: Case) -> Shows:
    squared = case.history.facts.get("losses", {}).get("mean_squared_error", {})
    scale = case.history.spec.get(
        "data.target_scale", math.hypot(squared.get("target_mean", 0), squared.get("target_std", 1))
    )
    return f"the targets have a scale of {figure(float(scale))}" if float(scale) > case.limits["scale"] else None


def _heavy(case: Case) -> Shows:
    momentum = float(case.history.spec.get("optim.momentum") or 0.0)
    return (
        f"momentum {figure(momentum)} adds up {1 / (1 - momentum):.0f} gradients"
        if HEAVY_MOMENTUM <= momentum < 1
        else None
    )


def _explodes(case: Case) -> Shows:
    depth = case.history.depth
    found = passage_of(case.history, depth, case.limits) if depth is not None else None
    over = found is not None and found.beyond("exploding", case.limits["exploding_ratio"])
    far = case.history.loss.size > 0 and float(case.history.loss[0]) > FAR_LOSS
    if found is not None and over:
        return f"{found.told} before the first step"
    return f"the loss is {figure(float(case.history.loss[0]))} before the first step" if far else None


def _endless(case: Case) -> Shows:
    kinds = list(case.history.facts.get("unbounded", ()))
    return f"the slope of {kinds[0]} has no bound" if kinds else None


def _overflows(case: Case) -> Shows:
    loss = case.history.loss
    began = loss.size > 0 and not math.isfinite(float(loss[0]))
    return "the signal or its gradient overflows before the first step" if began or not case.history.trained else None


def _too_high(case: Case) -> Shows:
    return "the profile at the start is level, and the steps are too long" if case.history.trained else None


def _updates(history: History) -> float:
    """The median over layers of the last updates over weights: recorded, or by the optimizer and its learning rate."""
    depth = history.depth
    if depth is None:
        return math.nan
    ratios = depth.columns.get("update_ratio", np.empty(0)).ravel()
    if not np.isfinite(ratios).any() and "optim.lr" in history.spec:
        weights, gradients = depth.column("weight_norm", -1), depth.column("weight_grad_norm", -1)
        sizes = (depth.column("grad_norm", -1) / depth.column("grad_rms", -1)) ** 2
        # An adaptive optimizer moves every entry by its learning rate.
        moved = np.sqrt(sizes) if history.adaptive else gradients
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = float(history.spec["optim.lr"]) * moved / weights
    known = ratios[np.isfinite(ratios)]
    return float(np.median(known)) if known.size else math.nan


def _slow(case: Case) -> Shows:
    moved = _updates(case.history)
    return f"an update changes the weights by {figure(moved)} of their norm" if moved < SLOW else None


def _fast(case: Case) -> Shows:
    moved = _updates(case.history)
    return f"an update changes the weights by {figure(moved)} of their norm" if moved > FAST else None


def _shortened(case: Case) -> Shows:
    """A step of plain descent lowers the loss by the learning rate times the gradient squared: it does not."""
    depth, loss = case.history.depth, case.history.loss
    if depth is None or case.history.adaptive or "optim.lr" not in case.history.spec:
        return None
    squares = float(np.nansum(depth.column("grad_norm", -1) ** 2))
    reach = 1 - float(case.history.spec.get("optim.momentum") or 0.0)
    expected = float(case.history.spec["optim.lr"]) * squares / max(reach, 1 - HEAVY_MOMENTUM)
    changed = float(np.median(np.abs(np.diff(loss))))
    if not changed < SHORT * expected:
        return None
    return (
        f"at this learning rate and gradient a step lowers the loss by {figure(expected)}, and it changes by "
        f"{figure(changed)}: something shortens the gradient before the step"
    )


def _unmoved(case: Case) -> Shows:
    return "the loss is the same to the last digit at every step" if np.ptp(case.history.loss) == 0 else None


def _guessing(case: Case) -> Shows:
    guess, final = case.history.guess, final_loss(case.history.loss)
    if guess is None or not abs(final / guess - 1) < 2 * case.limits["stalled"]:
        return None
    return "the steps are long enough, and the loss stays at that of one answer to every input: none tells its target"


def _swallowed(case: Case) -> Shows:
    eps, norms, depth = float(case.history.spec.get("optim.eps") or 0.0), case.history.grad_norm, case.history.depth
    if not norms.size and depth is not None:
        norms = depth.column("grad_norm", -1)
    norms = norms[np.isfinite(norms)]
    if not case.history.adaptive or not norms.size or not np.median(norms) < eps:
        return None
    return f"the whole gradient, {figure(float(np.median(norms)))}, is smaller than eps, {figure(eps)}"


def _still(case: Case) -> Shows:
    frozen = case.history.facts.get("frozen", ())
    return f"{len(frozen)} parameters are frozen, {frozen[0]} the first of them" if frozen else None


def _clipped(_: Case) -> Shows:
    return "the threshold, and not the gradient, decides how far a step goes"


def _crowded(case: Case) -> Shows:
    return "attention looks at one place" if "entropy" in case.verdict.evidence else None


def _later(case: Case) -> Shows:
    late = case.history.trained and int(case.verdict.evidence.get("step") or 0) > 0
    return "it was not so at the start: long steps have brought it about" if late else None


def _always(_: Case) -> Shows:
    return "it was so before any training"


Asked = tuple[tuple[str, Callable[[Case], Shows]], ...]

_RATE: Asked = (("recurrence", _recurrent), ("gates", _gates))

ASKED: dict[str, Asked] = {
    "diverged": (
        *(("input_not_finite", _not_finite), ("loss_scale", _overflow), ("input_scale", _input_far)),
        *(("target_scale", _target_far), ("activation", _endless), ("init", _explodes), ("momentum", _heavy)),
        *(("learning_rate_high", _too_high), ("init", _overflows)),
    ),
    "no_gradient": (("one_unit", _one_unit), ("activation_on_logits", _relu_output), ("dead_units", _dead)),
    "dead": (
        *(("learning_rate_high", _later), ("input_scale", _input_far)),
        ("dead_units", _always),
    ),
    "saturated": (
        *(("attention", _crowded), ("broken_layer", _odd), ("learning_rate_high", _later), ("input_scale", _input_far)),
        ("init", _always),
    ),
    "exploding": (
        *(("broken_layer", _broken), *_RATE, ("activation", _endless)),
        *(("normalised_growth", _grown), ("growth", _residual)),
        *(("depth", _deep), ("init", _drawn)),
    ),
    "vanishing": (
        *(
            ("broken_layer", _broken),
            ("broken_layer", _odd),
            ("weight_decay", _decay),
            ("idle", _idle),
            ("cut", _cut),
            ("dead_units", _dead),
            *_RATE,
        ),
        *(("activation", _activation), ("depth", _deep), ("init", _drawn)),
    ),
    "underflow": (
        *(("underflow_half", _half), ("activation", _activation), ("depth", _deep)),
        ("init", _drawn),
    ),
    "overclipped": (("clip", _clipped),),
    "oscillating": (("momentum", _heavy), ("learning_rate_high", _always)),
    "stalled": (
        *(
            ("weight_decay", _decay),
            ("frozen", _still),
            ("eps", _swallowed),
            ("input_scale", _input_far),
            ("target_scale", _target_far),
        ),
        *(("learning_rate_low", _slow), ("no_update", _unmoved), ("clip", _shortened)),
        *(("learning_rate_high", _fast), ("labels", _guessing)),
    ),
}
"""By verdict the causes that may be behind it, in the order in which they are asked."""
