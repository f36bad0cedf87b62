"""How causes show in the layers, and in what was seen of a batch, an output and a loss."""

from __future__ import annotations

import math

import numpy as np

from gradlab.diagnose.case import Case, Shows
from gradlab.diagnose.history import History, Profile
from gradlab.diagnose.layers import HALVES, NEXT_LAYER, SMALLEST_NORMAL
from gradlab.diagnose.numbers import figure

ODD = 1e3
"""A norm of weights over the median of all layers' that no difference of size explains."""

NEAR_ONE = 0.9
"""A rate this near to 1 is what an init is right for: depth alone makes something of it."""

MOST_DROPPED = 0.9
"""Beyond it dropout may be what is wrong: networks learn with up to 0.8 (Srivastava et al. 2014, figure 9)."""

SHUT = 0.01
"""What a gate lets pass that is shut."""

ROUNDING = 1e-6
"""A difference that float32 may make of equal numbers, as a share of their size."""


def not_finite(case: Case) -> Shows:
    """NaN or infinity in the batch."""
    if (first := case.history.facts.get("first_break", {})).get("place") == "inputs":
        return str(first["what"])
    count = case.history.facts.get("input_not_finite", 0)
    return f"{count} of the inputs' numbers are not finite" if count else None


def broken(case: Case) -> Shows:
    """δ changes at one layer alone."""
    place, depth = case.verdict.evidence.get("break"), case.history.depth
    return None if place is None or depth is None else f"δ breaks at {depth.place(int(place))} alone"


def odd(case: Case) -> Shows:
    """One layer of weights out of scale."""
    depth = case.history.depth
    if depth is None or not case.history.measured:
        return None
    norms = depth.column("weight_norm", 0)
    usual = float(np.nanmedian(norms)) if np.isfinite(norms).any() else math.nan
    worst = int(np.nanargmax(norms)) if usual > 0 else 0
    if not (usual > 0 and norms[worst] > ODD * usual):
        return None
    return f"the weights of {depth.place(int(depth.layer[worst]))} are {figure(norms[worst] / usual)} times the others'"


def cut(case: Case) -> Shows:
    """An exact zero below something that has a gradient."""
    if case.verdict.evidence.get("silent") == "cut":
        count = case.verdict.evidence["layers"]
        return "a layer is cut off from the loss" if count == 1 else f"{count} layers are cut off from the loss"
    last, depth = case.verdict.evidence.get("zero_up_to"), case.history.depth
    if last is None or depth is None:
        return None
    if case.verdict.evidence.get("axis") == "time":
        return severed(case, int(last))
    row = _row(case, depth)
    above = np.flatnonzero(depth.layer > int(last))[:1]
    # Units at rest pass nothing back to what feeds them, nor does what is flat.
    near = np.flatnonzero(depth.layer >= int(last))[:2]
    rest = any((depth.column(name, row)[near] > case.limits[name]).any() for name in ("dead", "saturated"))
    started = np.nansum(depth.column("signal_grad_norm", row)[above]) > 0
    return f"nothing comes back through {depth.place(int(last))}" if started and not rest else None


def _row(case: Case, profile: Profile) -> int:
    """Where the step of the verdict stands in a profile; the first recorded one where it tells of none."""
    return max(0, int(np.searchsorted(profile.step, int(case.verdict.evidence.get("step") or 0))))


def severed(case: Case, last: int) -> Shows:
    """Along time: at once, and not where a gradient has come down to the smallest numbers there are."""
    along, depth = next(one for one in case.history.along if one.axis == "time"), case.history.depth
    if depth is not None and np.nanmax([0, *depth.column("saturated", _row(case, depth))]) > case.limits["saturated"]:
        return None
    first = along.column("signal_grad_norm", _row(case, along))[along.layer > last][:1]
    sudden = first.size and first[0] > NEXT_LAYER * SMALLEST_NORMAL[case.history.precision]
    return f"nothing comes back through {along.place(last)}" if sudden else None


def drawn_from(case: Case) -> Shows:
    """A draw on the way back: it has a slope of zero for what it is drawn from."""
    kinds = list(case.history.facts.get("draws", ()))
    if not kinds:
        return None
    return (
        f"what torch.{kinds[0]} draws lets nothing back to what it is drawn from: write it as a function of a draw "
        "that has no parameters (mean + deviation * randn)"
    )


def idle(case: Case) -> Shows:
    """A part that zero is multiplied with."""
    if case.verdict.evidence.get("silent") != "idle":
        return None
    return f"what {case.verdict.evidence['layers']} layers put out is multiplied by zero"


def dead(case: Case) -> Shows:
    """Units at rest."""
    depth = case.history.depth
    share = np.nan if depth is None else np.nanmax([0.0, *depth.column("dead", _row(case, depth))])
    return f"up to {share:.0%} of a layer's units are at rest" if share > case.limits["dead"] else None


def recurrent(case: Case) -> Shows:
    """Along time, without gates."""
    along = case.verdict.evidence.get("axis") == "time"
    return "one matrix acts at every time step" if along and not case.history.gated else None


def gates(case: Case) -> Shows:
    """Along time, with gates."""
    rate = case.verdict.evidence.get("rate")
    if case.verdict.evidence.get("axis") != "time" or not case.history.gated:
        return None
    return "the gates are shut" if rate is None else f"the gates pass {figure(float(rate))} of δ at each time step"


def activation(case: Case) -> Shows:
    """An activation whose slope is small everywhere."""
    name = case.history.spec.get("model.activation")
    if name in (None, "own"):
        seen = {kind: positions for kind, (positions, _) in case.history.activations.items()}
        name = max(seen, key=lambda kind: seen[kind], default=None)
    return f"the slope of {name} is at most a quarter" if name == "sigmoid" else None


def grown(case: Case) -> Shows:
    """A norm behind the layers, which lets δ grow."""
    from_norm = case.history.spec.get("model.norm", "none") != "none" or followed(case.history)
    return "a norm follows the layers, and each passes more back than it got" if from_norm else None


def followed(history: History) -> bool:
    """Whether a norm follows more than half of the layers."""
    depth = history.depth
    return depth is not None and float(np.nanmean([0.0, *depth.column("normalised", 0)])) > 0.5


def deep(case: Case) -> Shows:
    """A rate near 1, and many layers."""
    rate = case.verdict.evidence.get("rate")
    if rate is None or not NEAR_ONE < float(rate) < 1 / NEAR_ONE:
        return None
    return f"at {figure(float(rate))} a layer it is the number of layers that does it"


def residual(case: Case) -> Shows:
    """Branches that add up."""
    known, spec = ("residual_mlp", "resnet", "transformer"), case.history.spec
    streams = (spec.get("model.name") in known and spec.get("model.skip") is not False) or bool(
        case.history.facts.get("branches")
    )
    return "every residual branch adds to the stream" if streams else None


def drawn(case: Case) -> Shows:
    """Weights of the wrong scale."""
    rate = case.verdict.evidence.get("rate")
    if rate is None:
        return "the weights, as they were drawn, are of the wrong scale"
    side = "small" if float(rate) < 1 else "large"
    return f"the weights are too {side}: each layer passes {figure(float(rate))} of what it gets"


def relu_output(case: Case) -> Shows:
    """An output below zero that goes through a ReLU."""
    into = list(case.history.facts.get("into_loss", ()))
    return "the output goes through relu, and is below zero on every sample" if "relu" in into[:2] else None


def one_unit(case: Case) -> Shows:
    """A softmax over one number."""
    one = case.history.facts.get("units") == 1 and "softmax" in case.history.facts.get("into_loss", ())
    return "softmax over one unit is 1" if one else None


def input_far(case: Case) -> Shows:
    """Inputs out of scale."""
    scale = case.history.spec.get("data.input_scale", case.history.facts.get("input_std", 1.0))
    far = not (float(scale) * case.limits["scale"] > 1 and float(scale) < case.limits["scale"])
    return f"the inputs have a scale of {figure(float(scale))}" if far else None


def target_far(case: Case) -> Shows:
    """Targets out of scale."""
    squared = case.history.facts.get("losses", {}).get("mean_squared_error", {})
    scale = case.history.spec.get(
        "data.target_scale", math.hypot(squared.get("target_mean", 0), squared.get("target_std", 1))
    )
    return f"the targets have a scale of {figure(float(scale))}" if float(scale) > case.limits["scale"] else None


def endless(case: Case) -> Shows:
    """An activation whose slope has no bound."""
    kinds = list(case.history.facts.get("unbounded", ()))
    return f"the slope of {kinds[0]} has no bound" if kinds else None


def dropped(case: Case) -> Shows:
    """Dropout that leaves next to nothing."""
    share = float(case.history.facts.get("dropped", 0.0))
    return f"dropout takes {share:.3g} of the numbers, anew at every step" if share > MOST_DROPPED else None


def unmasked(case: Case) -> Shows:
    """Attention that may look at nothing."""
    return "a row of attention is masked everywhere" if case.history.facts.get("all_masked") else None


def weightless(case: Case) -> Shows:
    """Weights of zero, as they were drawn."""
    depth = case.history.depth
    norms = np.empty(0) if depth is None or case.history.measured else depth.column("weight_norm", 0)
    return "every weight began at zero" if np.isfinite(norms).any() and np.nansum(norms) == 0 else None


def faint(case: Case) -> Shows:
    """Of units at rest: the signal has come below the smallest numbers of half a precision."""
    depth, precision = case.history.depth, case.history.precision
    if depth is None or precision not in HALVES:
        return None
    signal = depth.column("act_std", _row(case, depth))[depth.layer == case.verdict.evidence.get("layer")]
    smallest = SMALLEST_NORMAL[precision]
    return (
        f"the signal has come below {figure(smallest)}, where {precision} ends" if (signal < smallest).any() else None
    )


def skipless(case: Case) -> Shows:
    """Blocks of attention without skips."""
    none, depth = case.history.spec.get("model.skip") is False, case.history.depth
    if depth is not None and case.history.measured and not case.history.facts.get("branches"):
        none |= int(np.isfinite(depth.column("attention_entropy", 0)).sum()) > len(depth.layer) / 2
    return "the blocks have no skips: attention makes all places one" if none else None


def same_output(case: Case) -> Shows:
    """Where a part is silent, all is, or δ is lost at once: nothing of the input reaches the output."""
    facts, rate = case.history.facts, case.verdict.evidence.get("rate")
    sudden = rate is not None and float(rate) * case.limits["break_factor"] < 1
    if not (sudden or case.verdict.name == "no_gradient" or case.verdict.evidence.get("silent") == "idle"):
        return None
    size = math.hypot(facts.get("output_mean", math.nan), facts.get("output_std", math.nan))
    same = facts.get("output_between", math.nan) <= ROUNDING * size
    return "the output is the same for every sample" if same else None


def crowded(case: Case) -> Shows:
    """Attention that looks at one place."""
    return "attention looks at one place" if "entropy" in case.verdict.evidence else None


def targetless(case: Case) -> Shows:
    """A loss without a target, or of targets that are no numbers, or that nothing can tell."""
    losses, composed = case.history.facts.get("losses", {}), case.history.facts.get("composed", {})
    entropy = losses.get("negative_log_likelihood", {})
    if entropy.get("entries") and entropy.get("present") == 0:
        return f"all {entropy['entries']} targets are the class that the loss ignores"
    if (first := case.history.facts.get("first_break", {})).get("place") == "targets":
        return str(first["what"])
    if count := sum(found.get("target_not_finite", 0) for found in losses.values()):
        return f"{count} of the targets are not finite"
    if count := composed.get("too_long", 0):
        return f"{count} of the targets are longer than the signal that is to tell them"
    return None


def apart(case: Case) -> Shows:
    """A loss that is made of numbers, and of no parameter."""
    none = case.history.facts.get("reached") is False
    return (
        "the loss has a gradient, and no parameter is on its way back: it was made anew from numbers" if none else None
    )


def nothing_counts(case: Case) -> Shows:
    """A loss that is exactly zero."""
    loss = case.history.loss
    return "the loss is exactly 0: of the targets none counts" if loss.size and float(loss[-1]) == 0 else None


def shut(case: Case) -> Shows:
    """Entries on the flat part of a sigmoid that are all next to zero: what they are multiplied with is not passed."""
    depth, layer = case.history.depth, case.verdict.evidence.get("layer")
    if depth is None or not case.history.measured or "sigmoid" not in case.history.activations:
        return None
    row = _row(case, depth)
    size = np.hypot(depth.column("act_mean", row), depth.column("act_std", row))[depth.layer == layer]
    return (
        f"what comes out of {depth.place(int(layer or 0))} is {figure(float(size[0]))} and less"
        if (size < SHUT).any()
        else None
    )


def lifeless(case: Case) -> Shows:
    """Below an exact zero: a layer that puts out zeros alone."""
    last, depth = case.verdict.evidence.get("zero_up_to"), case.history.depth
    if last is None or depth is None or case.verdict.evidence.get("axis") == "time":
        return None
    row = _row(case, depth)
    size = np.hypot(depth.column("act_mean", row), depth.column("act_std", row))[depth.layer == int(last)]
    resting = dead(case) is not None
    return f"{depth.place(int(last))} puts out zeros alone" if (size == 0).any() and not resting else None
