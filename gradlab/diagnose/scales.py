"""Verdicts on scale: inputs, targets, parts of the loss and layers that are far from what the others are."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradlab.diagnose.course import unlearned
from gradlab.diagnose.history import Floats, History
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.problem import LOGITS_OF, REGRESSION, composed, loss_of, seen_loss
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import RISK, Evidence, Verdict, crossing

_SCALE = "LeCun et al. 1998, Efficient BackProp, section 4.3: inputs of mean 0 and variance 1"

LEAST_LAYERS, MOST_OUTLIERS = 5, 2
"""Among fewer layers none stands apart, and more than these are not one."""

REACH = 2
"""Layers on either side with which one is compared."""

EXTINCT = 104.0
"""Nats by which logits differ where single precision makes zero of the smaller one's probability."""

FAR_LOSS = 1e3
"""How many times one, and its targets' mean square, a squared error is where the output's scale is wrong; of a loss
that nobody knows, how much of it falls on each number of the output."""

Scale = tuple[str, float, str, str]
"""A cause by its name, the number that is far from 1, the threshold that it crosses, if any, and how it shows."""


def ill_scaled(history: History, limits: Limits) -> Verdict | None:
    """Inputs, targets or the first loss are far from the unit scale that inits and learning rates are made for."""
    for name, value, key, words in _scales(history, limits):
        evidence: Evidence = {"cause": name, "value": value}
        return crossing("ill_scaled", (key,) if key else (), limits, evidence, f"ill_scaled: {words}", _SCALE, RISK)
    return None


def _scales(history: History, limits: Limits) -> Iterator[Scale]:
    facts = history.facts
    depth, scale = history.depth, limits["scale"]
    if (found := _outlier(history, limits)) is not None and depth is not None:
        place, times = depth.place(found[0]), figure(found[1])
        yield "broken_layer", found[1], "outlier", f"‖∇W‖/‖W‖ of {place} is {times} times that of the layers around it"
    std, mean = facts.get("input_std", math.nan), facts.get("input_mean", math.nan)
    first = depth.column("normalised", 0)[0] if depth is not None and len(depth.layer) else math.nan
    if math.isfinite(std) and not first > 0:
        if std > 0 and abs(mean) > scale * std:
            words = f"the inputs have mean {figure(mean)} and standard deviation {figure(std)}"
            yield "input_offset", mean, "scale", words
        elif not (max(std, abs(mean)) * scale > 1 and max(std, abs(mean)) < scale):
            words = f"the inputs have standard deviation {figure(std)}"
            yield "input_scale", std, "scale", words
    if 0 < (usual := facts.get("input_usual", 0.0)) * scale**2 < 1 and not first > 0:
        words = f"half of the inputs' numbers are below {figure(usual)}, and some {figure(std / usual)} times as large"
        yield "input_scale", usual, "scale", words
    squared = next((told for name in REGRESSION if (told := loss_of(history, name))), None)
    if squared and (size := math.hypot(squared["target_mean"], squared["target_std"])) > scale:
        words = f"the targets have a root mean square of {figure(size)}"
        yield "target_scale", size, "scale", f"{words}, and the loss at step 0 is {figure(_loss(history))}"
    yield from _parts(history, limits)
    if (rest := rest_of(history)) is not None and rest[0] > limits["penalty"] * rest[1]:
        words = (
            f"the loss is {figure(rest[0] + rest[2])}, of which the {rest[3]} is {figure(rest[2])}: the rest decides"
        )
        yield "penalty", rest[0], "penalty", words
    if 0 < (kept := 1 - facts.get("dropped", 0.0)) * scale < 1:
        words = f"dropout takes {1 - kept:.3g} of the numbers and multiplies the others by {figure(1 / kept)}"
        yield "dropout", 1 / kept, "scale", words
    yield from _first(history, limits)


def _parts(history: History, limits: Limits) -> Iterator[Scale]:
    """What a loss that was written by hand is put together of."""
    part, total = composed(history).get("part", 0.0), seen_loss(history)
    rest = max(total - part, history.guess or 0.0)
    if composed(history).get("joined") and part > limits["penalty"] * rest:
        words = f"the loss is {figure(total)}, of which {figure(part)} is one part times a large factor: that decides"
        yield "penalty", part, "penalty", words
    if (size := composed(history).get("target", 0.0)) > limits["scale"]:
        yield (
            "target_scale",
            size,
            "scale",
            f"what the outputs are compared with has a root mean square of {figure(size)}",
        )
    if (shares := composed(history).get("shares", 0.0)) > limits["scale"]:
        yield "target_scale", shares, "scale", f"the targets of a sample add up to {figure(shares)}, and shares to 1"


def _first(history: History, limits: Limits) -> Iterator[Scale]:
    """The loss at step 0, beside that of a guess."""
    entropy, facts = loss_of(history, "negative_log_likelihood"), history.facts
    if entropy and (lead := entropy.get("lead", 0.0)) > EXTINCT:
        words = f"the likeliest class is {figure(lead)} nats before the next: all other probabilities are exactly zero"
        yield "first_loss", lead, "", words
    if entropy and (loss := entropy.get("value", _loss(history))) - limits["errors"] * entropy.get(
        "error", 0.0
    ) > limits["first_loss"] * (1 + math.log(max(2, entropy["classes"]))):
        guess = figure(math.log(entropy["classes"]))
        yield "first_loss", loss, "first_loss", f"the loss at step 0 is {figure(loss)}, and ln C of a guess is {guess}"
    for binary in (loss_of(history, f"binary_cross_entropy{end}") for end in ("", LOGITS_OF)):
        if binary.get("value", 0.0) > limits["first_loss"] * (1 + math.log(2)):
            words = f"the binary cross-entropy at step 0 is {figure(binary['value'])}, and that of a guess 0.693"
            yield "first_loss", binary["value"], "first_loss", words
    squared = loss_of(history, "mean_squared_error")
    size = squared.get("target_mean", 0.0) ** 2 + squared.get("target_std", 0.0) ** 2
    # A head that is drawn too wide for small targets is soon smaller, unless the run still stands above a guess.
    least = 0.0 if history.trained and unlearned(history, limits) else 1.0
    if FAR_LOSS * max(least, size) < squared.get("value", 0.0) < math.inf:
        words = (
            f"the squared error at step 0 is {figure(squared['value'])}, and the targets' mean square {figure(size)}"
        )
        yield "first_loss", squared["value"], "", words
    each = _loss(history) / max(1, facts.get("output_entries", math.inf))
    if not facts.get("losses") and FAR_LOSS < each < math.inf:
        words = f"the loss at step 0 is {figure(_loss(history))}, {figure(each)} for each number that is put out"
        yield "first_loss", each, "", words


def rest_of(history: History) -> tuple[float, float, float, str] | None:
    """What is left of the loss without the one that is known, what a guess has of that one, itself, and its name.

    The loss of a guess stands for a smaller one: a penalty is what is left where a network has learned.
    """
    losses = history.facts.get("losses", {})
    for name, found in losses.items() if len(losses) == 1 else ():
        known, total = found.get("value", math.nan) * found.get("weight", math.nan), seen_loss(history)
        if known > 0 and total > known and history.guess is not None:
            return total - known, max(known, history.guess), known, name.replace("_", " ")
    return None


def _outlier(history: History, limits: Limits) -> tuple[int, float] | None:
    """The layer whose relative gradient is far from that of its neighbours, and how many times it is theirs.

    One broken layer may take its neighbour with it; where more stand apart it is a habit of the network (the scales of
    its branches) and no fault of one layer.
    """
    depth = history.depth
    if depth is None or not history.measured:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(depth.column("weight_grad_norm", 0) / depth.column("weight_norm", 0))
    known = np.isfinite(logs) & ~(depth.column("starts_at_zero", 0) > 0)
    # Like with like: the layers of branches may all be scaled down, and those of the trunk are not.
    on_trunk = depth.column("trunk_grad_norm", 0) == depth.column("signal_grad_norm", 0)
    off = np.zeros(len(logs))
    for kind in (known & on_trunk, known & ~on_trunk):
        places = np.flatnonzero(kind) if kind.sum() >= LEAST_LAYERS else np.empty(0, dtype=int)
        for at, place in enumerate(places):
            off[place] = _apart(logs[places], at)
    beyond = np.abs(off) > math.log(max(1.0, limits["outlier"]))
    # Weights that are c times as large have a relative gradient c² times as small, beside the others; and heads are
    # drawn small on purpose.
    beyond[-1] &= not 0 < off[-1] < 2 * math.log(max(1.0, limits["break_factor"]))
    if not 1 <= beyond.sum() <= MOST_OUTLIERS:
        return None
    worst = int(np.abs(off).argmax())
    return int(depth.layer[worst]), math.exp(float(off[worst]))


def _apart(logs: Floats, at: int) -> float:
    """How far a layer is from its neighbours on both sides; 0 where it is so on one alone.

    From one end to the other the gradients may change by more than any fault, and there are layers of two kinds
    (embeddings, and then attention): none that is like its neighbours on one side is broken. One broken layer may take
    the next one with it, so of a side the farthest counts.
    """
    sides = (logs[max(0, at - REACH) : at], logs[at + 1 : at + 1 + REACH])
    farthest = [float(max(logs[at] - side, key=abs)) for side in sides if side.size]
    alike = len(farthest) < len(sides) or farthest[0] * farthest[1] > 0
    if len(farthest) < len(sides):
        farthest = [float(min(logs[at] - side, key=abs)) for side in sides if side.size]
    return min(farthest, key=abs) if alike else 0.0


def _loss(history: History) -> float:
    return float(history.loss[0]) if history.loss.size else math.nan
