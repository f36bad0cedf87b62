"""How causes show in the course of a training, its optimizer and its precision."""

from __future__ import annotations

import math
import re

import numpy as np

from gradlab.diagnose.case import Case, Shows
from gradlab.diagnose.course import FAST, SLOW, motionless, updates
from gradlab.diagnose.final import LEAST, SHARE, final_loss
from gradlab.diagnose.history import EMPTY
from gradlab.diagnose.layers import heals
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.passage import SIDES, passage_of
from gradlab.diagnose.problem import upside_down
from gradlab.diagnose.scales import rest_of

DECAYED = 0.3
"""A share of its first norm below which a layer's weights have been taken away rather than trained."""

HEAVY_MOMENTUM = 0.95
"""Beyond it a step is more than twenty gradients."""

SHORT = 0.01
"""A share of what a step should change beyond which no curvature explains that it does not."""

ROUNDING = 1e-6
"""Losses that differ by less than this share of themselves are one."""

ENDED = re.compile(
    r"(?i)(log(2|10|1p)?|r?sqrt|div|reciprocal|pow|acos|asin|atanh|(linalg_?vector_?)?norm|std|var)(backward.*)?"
)
"""Operators, and their ways back, that have an end or a pole: what is not finite there is so whatever the steps are."""

LARGEST = 1e18
"""Of an output whose square single precision holds."""

CREEPING = 0.01
"""A certain fall over half a run by which a loss moves, though it comes nowhere: something tells its targets."""

LEAST_RECORDS = 3
"""Recorded steps at which weights are not the same by chance."""

OUTWEIGHS = 10.0
"""What else is in a loss, over the part that is to be learned, of a run that does not learn it."""

FAR_LOSS = 1e3
"""A first loss beyond which the scale of targets or weights, and no learning rate, is what is wrong."""


def decay(case: Case) -> Shows:
    """Weight decay, or what does the same, has taken the weights away."""
    depth = case.history.depth
    decay = float(case.history.spec.get("optim.weight_decay") or 0.0)
    late = case.verdict.evidence.get("step") != 0 or case.history.measured
    if depth is None or not late:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = depth.columns["weight_norm"][-1] / depth.columns["weight_norm"][0]
    ratios = ratios[np.isfinite(ratios)] if len(depth.step) > 1 else EMPTY
    if decay == 0:
        left = float(np.median(ratios)) if ratios.size else 1.0
        words = f"weights have come down to {figure(left)} of their norm without a decay: a penalty or a bound does it"
        return words if left < DECAYED else None
    # Where no earlier step was recorded, what is left of weights that nothing else moves.
    alone = math.exp(-decay * float(case.history.spec.get("optim.lr") or 0.0) * (len(case.history.loss) - 1))
    left = float(ratios.min(initial=1.0)) if len(depth.step) > 1 else alone
    return (
        f"weight decay {figure(decay)} has brought weights down to {left:.0%} of their norm" if left < DECAYED else None
    )


def half(case: Case) -> Shows:
    """The precision ends before the gradient does."""
    half = case.history.precision in ("float16", "bfloat16")
    return (
        f"{case.history.precision} ends at {figure(float(case.verdict.evidence.get('smallest_normal') or 0))}"
        if half
        else None
    )


def overflow(case: Case) -> Shows:
    """The scaled gradient leaves float16."""
    gradient = case.verdict.evidence.get("quantity") in ("gradient", None)
    sound = gradient and case.history.loss.size and math.isfinite(float(case.history.loss[0]))
    return (
        "the loss is finite in float16, and its gradient is not"
        if case.history.precision == "float16" and sound
        else None
    )


def climbed(case: Case) -> Shows:
    """A loss that is made larger."""
    return upside_down(case.history)


def heavy(case: Case) -> Shows:
    """One step adds up many gradients."""
    momentum = float(case.history.spec.get("optim.momentum") or 0.0)
    return (
        f"momentum {figure(momentum)} adds up {1 / (1 - momentum):.0f} gradients"
        if HEAVY_MOMENTUM <= momentum < 1
        else None
    )


def explodes(case: Case) -> Shows:
    """The gradient, or the loss, was out of scale before the first step."""
    depth = case.history.depth
    found = passage_of(case.history, depth, case.limits) if depth is not None else None
    over = found is not None and found.beyond("exploding", case.limits["exploding_ratio"])
    far = case.history.loss.size > 0 and float(case.history.loss[0]) > FAR_LOSS
    if found is not None and over:
        return f"{found.told} before the first step"
    return f"the loss is {figure(float(case.history.loss[0]))} before the first step" if far else None


def unlevel(case: Case) -> Shows:
    """Of what training brought about: the gradient exploded or vanished on its way before the first step."""
    if not case.history.from_start or not int(case.verdict.evidence.get("step") or 0):
        return None
    axis = case.verdict.evidence.get("axis", "depth")
    for profile in (one for one in case.history.along if one.axis == axis):
        found = passage_of(case.history, profile, case.limits)
        if found is None or heals(found.profile, found):
            continue
        if any(found.beyond(name, case.limits[f"{name}_ratio"]) for name in SIDES):
            return f"{found.told} before the first step"
    return None


def arose(case: Case) -> Shows:
    """The gradient was level along this axis, and steps that are long enough changed that."""
    history = case.history
    brought = history.from_start and history.trained and not motionless(history) and unlevel(case) is None
    return later(case) if brought else None


def rootless(case: Case) -> Shows:
    """Every signal is finite, and the loss, or its gradient, is no number: what it is made of has no end there."""
    depth, loss, facts = case.history.depth, case.history.loss, case.history.facts
    if ENDED.fullmatch((first := facts.get("first_break", {})).get("operator") or ""):
        return str(first["what"])
    if depth is None or not loss.size:
        return None
    signals, gradients = depth.column("act_std", -1), depth.column("signal_grad_norm", -1)
    if case.history.spec.get("model.squash_eps") == 0 and case.history.diverged_at == 0:
        return "a capsule of zeros is divided by its length, with nothing added under the root (model.squash_eps=0)"
    if case.verdict.evidence.get("quantity") == "signal" and not case.history.trained:
        before = signals[depth.layer < (case.history.diverged_layer or 0)]
        sudden = before.size > 0 and (before < math.sqrt(LARGEST)).all()
        place = depth.place(int(case.history.diverged_layer or 0))
        return f"every signal before {place} is finite and small, and what it is given is no number" if sudden else None
    if not math.isfinite(float(loss[-1])):
        targets = sum(found.get("target_not_finite", 0) for found in facts.get("losses", {}).values())
        sound = np.isfinite(signals).all() and not targets and abs(facts.get("output_largest", math.inf)) < LARGEST
        began = sound and facts.get("output_not_finite") == 0 and not case.history.trained
        return "what the network puts out is finite, and the loss of it is not" if began else None
    nan = np.isfinite(signals).all() and np.isnan(gradients).any() and not np.isinf(gradients).any()
    return "the loss is a number, and its gradient is none" if nan else None


def overflows(case: Case) -> Shows:
    """Numbers that are not finite at the weights as they were drawn."""
    loss = case.history.loss
    began = loss.size > 0 and not math.isfinite(float(loss[0]))
    return "the signal or its gradient overflows before the first step" if began or not case.history.trained else None


def too_high(case: Case) -> Shows:
    """What was level at the start is lost."""
    return "the profile at the start is level, and the steps are too long" if case.history.trained else None


def slow(case: Case) -> Shows:
    """Updates too small to move the weights."""
    moved, lr = updates(case.history), case.history.lr[np.isfinite(case.history.lr)]
    if not moved < SLOW:
        return None
    words = f"an update changes the weights by {figure(moved)} of their norm"
    if lr.size and float(np.median(lr)) < SHORT * float(lr.max()):
        words += (
            f": the schedule has brought the learning rate from {figure(float(lr.max()))} to {figure(float(lr[-1]))}"
        )
    return words


def fast(case: Case) -> Shows:
    """Updates as large as the weights themselves."""
    moved = updates(case.history)
    return f"an update changes the weights by {figure(moved)} of their norm" if moved > FAST else None


def shortened(case: Case) -> Shows:
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


def unmoved(case: Case) -> Shows:
    """Not even rounding changes the loss."""
    return "the loss is the same to the last digit at every step" if np.ptp(case.history.loss) == 0 else None


def constant(case: Case) -> Shows:
    """Batches differ, and their losses have ceased to."""
    loss = case.history.loss
    late = loss[-max(LEAST, len(loss) // SHARE) :]
    same = np.ptp(late) <= ROUNDING * abs(float(late[-1])) < np.ptp(loss)
    return (
        "the loss has become the same whatever the batch: the input does not reach the output any more"
        if same
        else None
    )


def guessing(case: Case) -> Shows:
    """The loss of one answer to every input, in spite of steps that are long enough."""
    guess, final = case.history.guess, final_loss(case.history.loss)
    # The targets of gradlab's own data fit their inputs.
    if guess is None or not case.history.measured:
        return None
    # Steps are long enough where all of them together could have changed the weights.
    if updates(case.history) * len(case.history.loss) < FAST or not abs(final / guess - 1) < 2 * case.limits["stalled"]:
        return None
    return "the steps are long enough, and the loss stays at that of one answer to every input: none tells its target"


def put_back(case: Case) -> Shows:
    """Steps that move the weights, after which they are what they were."""
    depth, moved = case.history.depth, updates(case.history)
    if depth is None or len(depth.step) < LEAST_RECORDS or not moved > SLOW:
        return None
    norms = depth.columns["weight_norm"]
    same = np.isfinite(norms).all() and (np.ptp(norms, axis=0) <= ROUNDING * norms[0]).all()
    return (
        f"an update changes the weights by {figure(moved)} of their norm, and at all {len(norms)} recorded steps their "
        "norms are the same: something puts them back"
        if same
        else None
    )


def outweighed(case: Case) -> Shows:
    """What else is in the loss than the one that is known."""
    rest = rest_of(case.history)
    if rest is None or rest[0] < OUTWEIGHS * rest[1]:
        return None
    return f"the loss was {figure(rest[0] + rest[2])}, of which the {rest[3]} was {figure(rest[2])}: the rest decides"


def creeping(case: Case) -> Shows:
    """A fall that is certain, and too slow."""
    loss, errors = case.history.loss, case.limits["errors"]
    evidence = case.verdict.evidence
    fall, whole = (float(evidence.get(name) or 0.0) for name in ("fall", "whole_fall"))
    doubt, whole_doubt = (errors * float(evidence.get(name) or 0.0) for name in ("error", "whole_error"))
    certain = loss.size > 0 and fall - doubt > CREEPING and whole > whole_doubt
    return "the loss falls, and too slowly: the steps are too short, or too few" if certain else None


def swallowed(case: Case) -> Shows:
    """The optimizer's eps is larger than the gradient."""
    eps, norms, depth = float(case.history.spec.get("optim.eps") or 0.0), case.history.grad_norm, case.history.depth
    if not norms.size and depth is not None:
        norms = depth.column("grad_norm", -1)
    norms = norms[np.isfinite(norms)]
    if not case.history.adaptive or not norms.size or not np.median(norms) < eps:
        return None
    return f"the whole gradient, {figure(float(np.median(norms)))}, is smaller than eps, {figure(eps)}"


def unheld(case: Case) -> Shows:
    """Parameters that no optimizer holds."""
    names = case.history.facts.get("unheld", ())
    return f"{len(names)} parameters are held by no optimizer, {names[0]} the first of them" if names else None


def still(case: Case) -> Shows:
    """Parameters that take no gradient."""
    frozen = case.history.facts.get("frozen", ())
    return f"{len(frozen)} parameters are frozen, {frozen[0]} the first of them" if frozen else None


def clipped(_: Case) -> Shows:
    """Said of overclipped itself."""
    return "the threshold, and not the gradient, decides how far a step goes"


def later(case: Case) -> Shows:
    """Not so at the start, as far as that is known."""
    late = case.history.trained and int(case.verdict.evidence.get("step") or 0) > 0
    if not case.history.from_start:
        # The start was not measured: that the steps are too long must show in themselves.
        late = case.history.trained and updates(case.history) > FAST
        return "the steps are too long, and may have brought it about" if late else None
    return "it was not so at the start: long steps have brought it about" if late else None


def always(case: Case) -> Shows:
    """What is left where nothing later brought it about."""
    return "it was so before any training" if not (case.history.measured and case.history.trained) else "it is so now"


def swings(_: Case) -> Shows:
    """What is left of a loss that goes up and down."""
    return "the loss goes up and down, and nothing but the length of the steps is seen to make it"
