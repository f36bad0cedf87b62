"""Verdicts on the problem as it was posed: inputs, output, targets and loss that do not fit each other or unit scale.

They rest on what `gradlab.measure` saw of one batch, and are certain before any training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gradlab.diagnose.course import learning
from gradlab.diagnose.history import History
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import RISK, SICK, Evidence, Verdict, crossing

_LOGITS = "Goodfellow, Bengio & Courville 2016, Deep Learning, section 6.2.2: a loss undoes what its output unit does"

REGRESSION = ("mean_squared_error", "mean_absolute_error", "huber")

BOUNDED = 1.5
"""Targets beyond this are out of reach of an output that ends at 1, and not just at its edge."""

MOST_BELOW = 0.1
"""A share of the targets out of an output's reach that is more than noise about its edge."""

ROUNDING = 1e-6
"""Numbers that differ by less than this share of themselves are one."""

MARKS = (0.0, 1.0)
"""Numbers that all targets are on purpose: of a penalty, and of one side of a game."""

LOGITS_OF = "_with_logits"

ENDLESS = 1e3
"""How many times as far below zero as it began a loss has fallen that has no end."""

HALVES = frozenset({"float16", "bfloat16"})
"""Precisions in which a product of small numbers is soon zero."""

TINY = 1e-20
"""A gradient beyond which single precision keeps its products with signals."""

MOST_KEPT, LEAST_KEPT = 0.9, 3
"""The share of updates, of more than so many, behind which gradients that stay were not kept on purpose."""

LEAST_TARGETS = 16
"""In a batch of fewer all may be of one class by chance."""

Found = tuple[str, str, str]
"""A cause by its name, the grade that it has, and how it shows."""


def misspecified(history: History, limits: Limits) -> Verdict | None:
    """Output, loss and targets contradict each other."""
    asked = (_posed, _units, _logits, _sign, _counted, _labels, _layers, _norms, _frozen, _held)
    for name, grade, words in (found for ask in asked for found in ask(history)):
        evidence: Evidence = {"cause": name}
        return crossing("misspecified", (), limits, evidence, f"misspecified: {words}", _LOGITS, grade)
    return None


def _posed(history: History) -> Iterator[Found]:
    """Of gradlab's own networks: the activation of the output, and the loss that takes it."""
    output, loss = history.spec.get("model.output") or "none", history.spec.get("train.loss")
    if history.measured:
        return
    if loss == "cross_entropy" and output == "softmax":
        yield "softmax_twice", SICK, "softmax is applied twice: cross-entropy is given probabilities for logits"
    if loss == "cross_entropy" and output in ("sigmoid", "relu", "tanh"):
        yield "activation_on_logits", SICK, f"cross-entropy is given logits that have gone through {output}"
    if loss == "negative_log_likelihood" and output != "log_softmax":
        words = "the negative log-likelihood is given numbers that are no log-probabilities (model.output=log_softmax)"
        yield "log_probabilities", SICK, words
    if loss == "binary_cross_entropy" and output in ("relu", "tanh", "log_softmax"):
        yield "activation_on_logits", SICK, f"binary cross-entropy with logits is given what has gone through {output}"


def _units(history: History) -> Iterator[Found]:
    entropy, one = loss_of(history, "negative_log_likelihood"), history.facts.get("units") == 1
    if one and "softmax" in _into(history):
        yield "one_unit", SICK, "softmax over one unit is 1 whatever that unit says: the output cannot change"
    if one and entropy and entropy["classes"] == 1:
        yield "one_unit", SICK, "cross-entropy over one unit is 0 whatever that unit says: the loss cannot change"


def _logits(history: History) -> Iterator[Found]:
    into, entropy = _into(history), loss_of(history, "negative_log_likelihood")
    if entropy and into[:2] == ["log_softmax", "softmax"]:
        yield "softmax_twice", SICK, "softmax is applied twice: cross-entropy is given probabilities for logits"
    if entropy and into[:2] == ["log_softmax", "log_softmax"]:
        yield "log_probabilities", RISK, "log_softmax is applied twice: cross-entropy takes logits and does it itself"
    if entropy and into[:1] == ["log_softmax"] and into[1:2] in (["sigmoid"], ["relu"], ["tanh"]):
        yield "activation_on_logits", SICK, f"cross-entropy is given logits that have gone through {into[1]}"
    if entropy and not entropy["normalised"]:
        other = ": log_softmax was taken over another dimension than the classes" if into[:1] == ["log_softmax"] else ""
        words = f"the negative log-likelihood is given numbers that are no log-probabilities{other}"
        yield "log_probabilities", SICK, words
    if composed(history).get("no_logs"):
        yield "log_probabilities", SICK, "a divergence is given numbers for log-probabilities that are none"
    if loss_of(history, "binary_cross_entropy_with_logits") and into:
        yield "activation_on_logits", SICK, f"binary cross-entropy with logits is given what has gone through {into[0]}"


def _sign(history: History) -> Iterator[Found]:
    if (words := upside_down(history)) is not None:
        yield "sign", SICK, words


def upside_down(history: History) -> str | None:
    """How it shows that a loss is climbed: it counts less than nothing, or it has fallen without an end.

    A loss that nobody knows may lie below zero; one that falls a thousand times as far below as it began is no loss.
    """
    losses = history.facts.get("losses", {})
    if history.spec.get("optim.maximize") and (
        not history.measured or any(f["weight"] > 0 for f in losses.values() if "weight" in f)
    ):
        return "the optimizer makes the loss larger (maximize)"
    for name, found in losses.items() if len(losses) == 1 else ():
        # What else is in the loss may outweigh it, as in a game of two networks.
        if found.get("weight", 0) < 0 and not seen_loss(history) > 0:
            counts = figure(found["weight"])
            return f"the {name.replace('_', ' ')} counts {counts} times in the loss: descent makes it larger"
    loss = history.loss[np.isfinite(history.loss)]
    if loss.size > 1 and float(loss[-1]) < -ENDLESS * max(1.0, abs(float(loss[0]))):
        return f"the loss has fallen from {figure(float(loss[0]))} to {figure(float(loss[-1]))}, and has no lower end"
    return None


def seen_loss(history: History) -> float:
    """The loss of the pass at which the facts were seen: the first of a training, or the last; nan where none was."""
    return float(history.loss[0 if history.facts.get("at_first") else -1]) if history.loss.size else math.nan


def _counted(history: History) -> Iterator[Found]:
    """Whether each output is compared with its own target, and these count at all."""
    names = (*REGRESSION, "binary_cross_entropy", "binary_cross_entropy_with_logits")
    if composed(history).get("crossed") or any(loss_of(history, name).get("broadcast") for name in names):
        yield "labels", SICK, "output and targets differ in shape, and each output is compared with every target"
    entropy, shape = loss_of(history, "negative_log_likelihood"), list(history.facts.get("viewed_from", ()))
    if entropy and len(shape) > 2 and _torn(shape, entropy["classes"], places=entropy.get("places", False)):
        words = f"the logits, {tuple(shape)}, are reshaped where their classes should be moved (transpose, permute)"
        yield "labels", SICK, f"{words}: numbers of one place count as classes of another"
    if composed(history).get("repeated"):
        yield "labels", RISK, "each output is compared with several targets: it can come to their mean alone"
    if loss_of(history, "negative_log_likelihood").get("weight") == 0 and len(history.facts["losses"]) == 1:
        yield "labels", RISK, "the labels count nothing: the cross-entropy with them is multiplied by zero"


def _torn(shape: Sequence[int], classes: int, *, places: bool) -> bool:
    """Whether a reshape to (samples, classes, ...), or to (all, classes), tears apart what belongs to one place."""
    last, second = shape[-1] == classes, shape[1] == classes
    between = math.prod(shape[1:-1] if places else shape[2:])
    return between > 1 and last != second and last == places


def _labels(history: History) -> Iterator[Found]:
    into, entropy = _into(history), loss_of(history, "negative_log_likelihood")
    alone = list(history.facts.get("alone", ()))
    if len(set(alone)) > 1 and entropy and entropy["entries"] >= LEAST_TARGETS:
        words = f"{len(alone)} recorded batches are of one class each, and these are {len(set(alone))} classes"
        yield "order", SICK, f"{words}: the samples come sorted"
    for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        if outside := loss_of(history, name).get("outside", 0):
            yield "labels", SICK, f"{outside} targets of a binary cross-entropy lie outside of 0 to 1"
    squared = next((found for name in REGRESSION if (found := loss_of(history, name))), {})
    size = abs(squared.get("target_mean", 0.0))
    entries = squared.get("entries", 0)
    if entries >= LEAST_TARGETS and size not in MARKS and squared["target_std"] <= ROUNDING * size:
        yield "labels", RISK, f"all {entries} targets of the batch are {figure(squared['target_mean'])}"
    bounded = into[:1] in (["sigmoid"], ["softmax"], ["tanh"])
    if squared and bounded and squared["target_largest"] > BOUNDED:
        largest = figure(squared["target_largest"])
        yield "labels", SICK, f"the targets go up to {largest}, and the output, through {into[0]}, only to 1"
    if squared and into[:1] in (["relu"], ["sigmoid"], ["softmax"]) and squared.get("below", 0) > MOST_BELOW:
        words = f"{squared['below']:.0%} of the targets are below zero, and the output, through {into[0]}, never"
        yield "activation_on_logits", SICK, words
    for given in (
        squared if bounded else {},
        *(loss_of(history, f"binary_cross_entropy{end}") for end in ("", LOGITS_OF)),
    ):
        # A few small numbers, each many times: labels, and they were scaled.
        if given and given["entries"] >= LEAST_TARGETS and 2 * (given.get("distinct") or math.inf) <= given["entries"]:
            yield "labels", RISK, f"the targets reach from 0 to {figure(given['target_largest'])}, and the output to 1"
    if entropy and entropy["entries"] >= LEAST_TARGETS and entropy["present"] == 1:
        yield "labels", RISK, f"all {entropy['entries']} targets of the batch are of one class"


def _layers(history: History) -> Iterator[Found]:
    depth = history.depth
    if depth is not None and history.facts.get("linear") and len(depth.layer) > 2:
        yield "missing_activation", SICK, f"{len(depth.layer)} layers without an activation between them are one"


def _norms(history: History) -> Iterator[Found]:
    least = history.facts.get("least_normed")
    if least == 1:
        yield "norm_of_one", SICK, "a norm is taken over a single number, which is its own mean: nothing is left of it"
    if least == 2:
        yield "norm_of_one", RISK, "a norm is taken over two numbers: it makes 1 and -1 of them, whatever they are"


def _frozen(history: History) -> Iterator[Found]:
    frozen = list(history.facts.get("frozen_as_drawn", ()))
    if len(frozen) > 1:
        words = f"the first {len(frozen)} layers are frozen as they were drawn, and never learned: {frozen[0]} to"
        yield "frozen", RISK, f"{words} {frozen[-1]}"


def _held(history: History) -> Iterator[Found]:
    """Parameters that no step can change: the optimizer does not have them, or the module itself has not."""
    held, own = history.spec.get("optim.held", history.facts.get("held")), history.facts.get("trainable", 0)
    # What has learned before may be left as it is on purpose; what is as it was drawn never learns.
    grade = SICK if history.facts.get("never_moved") or history.facts.get("replaced") else RISK
    if history.facts.get("kept_gradients", 0.0) > MOST_KEPT and len(history.loss) > LEAST_KEPT:
        yield "accumulated", SICK, "each step adds up the gradients of all steps before: they are never set to zero"
    if held is not None and held < own:
        unheld = list(history.facts.get("unheld", ()))
        some = f", and not {'' if len(unheld) == 1 else 'those of '}{_some(unheld)}" if unheld else ""
        gone = ", but parameters that the network no longer has" if history.facts.get("replaced") else ""
        yield "no_update", grade, f"the optimizer holds {held} of the {own} numbers that could learn{some}{gone}"
    if resting := list(history.facts.get("resting", ())):
        yield "no_update", grade, f"no step moves {_some(resting)}: their learning rate is 0"
    if feeding := history.facts.get("feeders"):
        words = f"the inputs come from another module, {feeding['count']} of whose parameters no optimizer holds"
        yield "no_update", grade, words
    depth = history.depth
    if history.measured and depth is not None and history.precision not in HALVES:
        none = (depth.column("grad_norm", 0) == 0) & (depth.column("signal_grad_norm", 0) > TINY)
        # A layer that is given zeros, and puts out zeros, has no gradient either.
        none &= np.hypot(depth.column("act_mean", 0), depth.column("act_std", 0)) > 0
        if none.any():
            place = depth.place(int(depth.layer[int(none.argmax())]))
            words = f"no gradient comes to the parameters of {place}, and one to what it puts out: a hook takes it"
            yield "no_update", RISK, words
    if (severed := list(history.facts.get("severed", ()))) and history.facts.get("never_reached"):
        words = f"no gradient ever comes to {_some(severed)}: what they make is used behind a detach, and they stay"
        yield "cut", SICK, f"{words} as they were drawn"
    foreign = history.facts.get("strangers")
    if foreign and (held is None or held < own + foreign["numbers"]):
        words = f"the output rests on {foreign['count']} parameters that are none of the module's own: of layers in a"
        yield "no_update", SICK, f"{words} plain list, or made anew at each call"


def _some(names: Sequence[str]) -> str:
    """The first and the last of several names, and how many there are."""
    return names[0] if len(names) == 1 else f"the {len(names)} parameters from {names[0]} to {names[-1]}"


def _into(history: History) -> list[str]:
    """The activations through which the output came into the loss, the last first."""
    return list(history.facts.get("into_loss", ()))


def composed(history: History) -> Mapping[str, Any]:
    """How the loss is put together, where it was written by hand."""
    found: Mapping[str, Any] = history.facts.get("composed", {})
    return found


def loss_of(history: History, name: str) -> Mapping[str, Any]:
    """What was seen of a loss by its name; nothing where it is not that."""
    found: Mapping[str, Any] = history.facts.get("losses", {}).get(name, {})
    return found


def collapsed(history: History, limits: Limits) -> Verdict | None:
    """Every sample, or every unit, is the same: the output does not depend on the input, or the units are copies."""
    depth, facts = history.depth, history.facts
    equal = depth.column("equal_weights", 0) if depth is not None else np.empty(0)
    if depth is not None and np.nansum(depth.column("starts_at_zero", 0)) > 0:
        # What is zero beside what starts at zero and moves is zero for one step.
        equal = np.where(depth.column("weight_norm", 0) == 0, 0.0, equal)
    if depth is not None and np.nansum(equal[:-1]) > 0:
        place = int(np.flatnonzero(equal > 0)[0])
        sentence = f"collapsed: all weights of {depth.place(int(depth.layer[place]))} are equal: its units stay copies"
        copies: Evidence = {"cause": "equal_weights", "layer": int(depth.layer[place])}
        source = (
            "Goodfellow, Bengio & Courville 2016, section 8.4: initial weights must break the symmetry of the units"
        )
        return crossing("collapsed", (), limits, copies, sentence, source)
    narrow = facts.get("narrow")
    if narrow is not None and loss_of(history, "negative_log_likelihood").get("classes", 0) > 2:
        classes = history.facts["losses"]["negative_log_likelihood"]["classes"]
        words = f"collapsed: everything passes through {narrow}, one number a sample, and there are {classes} classes"
        return crossing("collapsed", (), limits, {"cause": "rank", "numbers": 1}, words, "Dong et al. 2021", grade=RISK)
    if (same := _one_answer(history, limits)) is not None:
        return same
    if history.guess is not None and learning(history, limits):
        # No constant output comes below the loss of a guess.
        return None
    size = math.hypot(facts.get("output_mean", math.nan), facts.get("output_std", math.nan))
    between = facts.get("output_between", math.nan)
    # What a branch that starts at zero, or small, will tell of the input is not in the output yet.
    starts = depth is not None and (
        np.nansum(depth.column("starts_at_zero", 0)) > 0 or np.isfinite(depth.column("gain", 0)).any()
    )
    if size > 0 and not starts and between < limits["collapsed"] * size:
        sentence = (
            f"collapsed: between the samples of the batch the output differs by {figure(between / size)} of its size "
            f"(threshold {figure(limits['collapsed'])}): it does not depend on the input"
        )
        alike = facts["output_std"] < limits["collapsed"] * size
        found: Evidence = {"cause": "constant_output" if alike else "rank", "share": between / size}
        return crossing("collapsed", ("collapsed",), limits, found, sentence, grade=RISK)
    return _alike(history, limits)


def _one_answer(history: History, limits: Limits) -> Verdict | None:
    """The loss of samples held out tells that outputs follow the inputs; of the answers no more are right than by one.

    One output leads whatever the input is, as the length of a capsule that has come to its end, where its slope is
    nearly zero: the others learn beside it, and the loss falls.
    """
    known = history.answers
    if known is None or history.guess is None or not known.loss <= limits["learning"] * history.guess:
        return None
    chance = 1 / known.classes
    most = chance + limits["errors"] * math.sqrt(chance * (1 - chance) / known.samples)
    if not known.right <= most:
        return None
    sentence = (
        f"collapsed: of {known.samples} samples held out {known.right:.1%} are right, no more than one answer to all "
        f"would have ({chance:.1%}, with {figure(limits['errors'])} standard errors {most:.1%}), though the loss, "
        f"{figure(known.loss)}, is below that of a guess, {figure(history.guess)}: one output leads for every input"
    )
    evidence: Evidence = {"cause": "one_answer", "accuracy": known.right, "loss": known.loss}
    source = "Sabour et al. 2017, equations 1 and 4: a capsule of length 1 costs its margin, and its slope is near zero"
    return crossing("collapsed", ("errors", "learning"), limits, evidence, sentence, source)


def _alike(history: History, limits: Limits) -> Verdict | None:
    """The same by the table: the layers before the output have made one of samples that the first could tell apart.

    Of samples of one size whose mean cosine is c, the standard deviation between them is sqrt(1 - c) of it. A single
    unit has a cosine of 1 or -1, whatever the samples are.
    """
    depth = history.depth
    if depth is None or len(depth.layer) < 3 or history.spec.get("model.width") == 1:
        return None
    apart = np.sqrt(np.maximum(0.0, 1 - depth.column("act_correlation", 0)))
    if not apart[-2] < limits["collapsed"] <= apart[0]:
        return None
    layer = depth.place(int(depth.layer[-2]))
    sentence = (
        f"collapsed: between the samples of the batch {layer} differs by {figure(apart[-2])} of its size (threshold "
        f"{figure(limits['collapsed'])}), {depth.place(int(depth.layer[0]))} by {figure(apart[0])}: the output does "
        "not depend on the input"
    )
    found: Evidence = {"cause": "rank", "share": float(apart[-2]), "layer": int(depth.layer[-2])}
    return crossing("collapsed", ("collapsed",), limits, found, sentence, grade=RISK)
