"""What a verdict comes from, as far as the numbers tell: the cause, how it shows, and the thing to change.

A verdict says what is seen; several causes can lead to it. They are asked in order, the certain ones first, and the
first that the numbers bear out is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gradlab.diagnose.history import History
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.passage import passage_of
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import Cause, Verdict
from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Case:
    """What a cause is looked for in: a verdict, the run that it is of, and the thresholds."""

    verdict: Verdict
    history: History
    limits: Limits


Shows = str | None
"""How a cause shows in words; None where the numbers do not bear it out."""

CAUSES = table(
    Choice("input_not_finite", "mend the inputs: NaN or infinity goes through every layer", "IEEE 754-2019"),
    Choice("input_scale", "standardise the inputs (data.standardise, data.input_scale)", "LeCun et al. 1998, 4.3"),
    Choice("input_offset", "subtract the mean of the inputs", "LeCun et al. 1998, 4.3"),
    Choice("target_scale", "standardise the targets (data.target_scale)", "LeCun et al. 1998, 4.3"),
    Choice("labels", "make the targets what the loss and the output take", "Zhang et al. 2021, arXiv:2103.03155"),
    Choice("first_loss", "initialise the output layer smaller, so that the first loss is ln C", "Karpathy 2019"),
    Choice("softmax_twice", "give cross-entropy the logits: it takes the softmax itself", "torch.nn.CrossEntropyLoss"),
    Choice("log_probabilities", "logits into cross_entropy, log_softmax into nll_loss", "torch.nn.NLLLoss"),
    Choice("activation_on_logits", "take the activation off the output layer", "Goodfellow et al. 2016, 6.2.2"),
    Choice("one_unit", "one unit takes a sigmoid and binary cross-entropy", "Goodfellow et al. 2016, 6.2.2"),
    Choice("missing_activation", "put an activation between the layers", "Goodfellow et al. 2016, section 6.1"),
    Choice("equal_weights", "draw the weights: equal units get equal gradients", "Goodfellow et al. 2016, section 8.4"),
    Choice("rank", "add skip connections or a norm, or widen what everything passes", "Dong et al. 2021"),
    Choice("frozen", "let the frozen parameters train (requires_grad)", "torch.nn.Module.requires_grad_"),
    Choice("cut", "take the detach, or the no_grad, off the way back", "torch.Tensor.detach"),
    Choice("idle", "open the gate that is zero, or take the part out", "Shazeer et al. 2017, arXiv:1701.06538"),
    Choice("dead_units", "lower the learning rate, start biases at 0, or take leaky_relu", "Lu et al. 2019"),
    Choice("constant_output", "look at the biases and the output activation: the input does not reach it", "ours"),
    Choice("norm_of_one", "normalise over more than one number", "Ioffe & Szegedy 2015, arXiv:1502.03167"),
    Choice("broken_layer", "look at the weights of that layer: they are of another scale than the others", "ours"),
    Choice("init", "initialise by He (ReLU) or Xavier (tanh): model.init, model.gain", "He et al. 2015"),
    Choice("activation", "take an activation of slope 1 at 0 (tanh, relu, gelu)", "Glorot & Bengio 2010"),
    Choice("depth", "fewer layers, a residual stream or a norm", "Schoenholz et al. 2017, arXiv:1611.01232"),
    Choice("growth", "scale the branches by 1/sqrt(L), or add a norm", "Zhang et al. 2019, arXiv:1901.09321"),
    Choice("normalised_growth", "warm up: it explodes at the start alone", "Yang et al. 2019, arXiv:1902.08129"),
    Choice("recurrence", "orthogonal or identity recurrence, gates, clipping, or shorter sequences", "Pascanu 2013"),
    Choice("gates", "start the forget gate open (bias 1)", "Jozefowicz et al. 2015"),
    Choice("attention", "scale the logits by 1/sqrt(d), or normalise queries and keys", "Vaswani et al. 2017"),
    Choice("learning_rate_high", "lower the learning rate", "Cohen et al. 2021, arXiv:2103.00065"),
    Choice("learning_rate_low", "raise the learning rate", "Bengio 2012, arXiv:1206.5533, section 3.1.1"),
    Choice("momentum", "lower the momentum, or the learning rate by 1 - momentum", "Polyak 1964"),
    Choice("weight_decay", "lower the weight decay", "Loshchilov & Hutter 2019, arXiv:1711.05101"),
    Choice("clip", "raise the threshold towards the usual norm of the gradient", "Pascanu et al. 2013, 3.2"),
    Choice("underflow_half", "scale the loss, or train in bfloat16 or float32", "Micikevicius et al. 2018"),
    Choice("loss_scale", "lower the loss scale, or make it dynamic", "Micikevicius et al. 2018, arXiv:1710.03740"),
    Choice("eps", "lower eps of the optimizer below the gradients", "Kingma & Ba 2015, arXiv:1412.6980"),
)
"""Every cause: what to change, and after whom."""

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

FAR_LOSS = 1e3
"""A first loss beyond which the scale of targets or weights, and no learning rate, is what is wrong."""


def with_cause(verdict: Verdict, history: History, limits: Limits) -> Verdict:
    """The verdict with the first cause that the numbers bear out; as it is where none does."""
    given = verdict.evidence.get("cause")
    if isinstance(given, str):
        return replace(verdict, cause=_cause(given, verdict.sentence.split(": ", 1)[1]))
    for name, shows in _ASKED.get(verdict.name, ()):
        if (words := shows(Case(verdict, history, limits))) is not None:
            return replace(verdict, cause=_cause(name, words))
    return verdict


def _cause(name: str, words: str) -> Cause:
    return Cause(name, words, CAUSES[name].summary)


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
    above = np.flatnonzero(depth.layer > int(last))[:1]
    asleep = depth.column("dead", 0)[above] > case.limits["dead"] if above.size else np.zeros(1, dtype=bool)
    started = np.nansum(depth.column("signal_grad_norm", 0)[above]) > 0
    return f"nothing comes back through {depth.place(int(last))}" if started and not asleep.any() else None


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

_ASKED: dict[str, Asked] = {
    "diverged": (
        *(("input_not_finite", _not_finite), ("loss_scale", _overflow), ("input_scale", _input_far)),
        *(("target_scale", _target_far), ("init", _explodes), ("momentum", _heavy)),
        ("learning_rate_high", _too_high),
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
        *(("broken_layer", _broken), *_RATE, ("normalised_growth", _grown), ("growth", _residual)),
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
        *(("learning_rate_low", _slow), ("learning_rate_high", _fast)),
    ),
}
"""By verdict the causes that may be behind it, in the order in which they are asked."""
