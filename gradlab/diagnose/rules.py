"""The verdicts of a run, in order, and the column that holds their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gradlab.diagnose.causes import with_cause
from gradlab.diagnose.course import (
    diverged,
    learned,
    loss_told,
    motionless,
    oscillating,
    overclipped,
    stalled,
    unlearned,
)
from gradlab.diagnose.final import final_loss
from gradlab.diagnose.history import History, Profile
from gradlab.diagnose.layers import changed_at, dead, exploding, heals, no_gradient, saturated, underflow, vanishing
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.passage import passage_of, rate_figure
from gradlab.diagnose.problem import collapsed, misspecified
from gradlab.diagnose.scales import ill_scaled
from gradlab.diagnose.thresholds import DEFAULTS, Limits
from gradlab.diagnose.verdict import RISK, SICK, SOUND, Verdict

Rule = Callable[[History, Limits], Verdict | None]

_RULES: dict[str, Rule] = {
    "diverged": diverged,
    "no_gradient": no_gradient,
    "misspecified": misspecified,
    "ill_scaled": ill_scaled,
    "collapsed": collapsed,
    "dead": dead,
    "saturated": saturated,
    "exploding": exploding,
    "vanishing": vanishing,
    "underflow": underflow,
    "overclipped": overclipped,
    "oscillating": oscillating,
    "stalled": stalled,
}
ORDER = (*_RULES, "healthy")
"""Every verdict: the end of a run, then causes before what follows from them, then what only the loss shows."""

_PROFILE = frozenset({"dead", "saturated", "exploding", "vanishing", "underflow"})
"""What the layers show: a risk before any training, a fact of a run that did not learn."""

_COURSE = frozenset({"diverged", "oscillating", "stalled"})
"""What has happened to the loss: no risk, whatever the run has learned."""

_OF_ONE_PLAYER = frozenset({"oscillating", "stalled"})
"""What a loss shows that others do not make larger meanwhile, as those do that play against it."""

_GRADIENT = _PROFILE | {"diverged", "no_gradient"}
_EXPLAINED_BY = {
    "no_gradient": frozenset({"diverged"}),
    "vanishing": frozenset({"no_gradient"}),
    "collapsed": frozenset({"no_gradient", "misspecified"}),
    "oscillating": frozenset({"diverged"}),
    "stalled": _GRADIENT | {"oscillating"},
}
"""Verdicts that are not given beside others, which explain them."""


def judge(history: History, limits: Limits = DEFAULTS) -> tuple[Verdict, ...]:
    """The verdicts of a run: `healthy` alone, or what is wrong in the order of `ORDER`.

    There is none of a run that crashed, or of a training of which no loss and no layer was seen.

    A profile is a risk, a course is a fact: of a run that has learned nothing that its layers show is wrong with it.
    """
    if history.state == "failed":
        return ()
    found: list[Verdict] = []
    for name, rule in _RULES.items():
        if name in _OF_ONE_PLAYER and history.facts.get("plays") and not motionless(history):
            continue
        explained = _EXPLAINED_BY.get(name, frozenset()) & {verdict.name for verdict in found}
        # No gradient explains a loss that does not move where no step is long enough to move it.
        if not explained or (name == "stalled" and explained <= _PROFILE and motionless(history)):
            verdict = rule(history, limits)
            if verdict is not None:
                found.append(with_cause(_graded(verdict, history), history, limits))
    if found and learned(history, limits):
        course = [verdict for verdict in found if verdict.name in _COURSE or _standing(verdict)]
        if not course:
            return (_healthy(history, limits, found),)
        found = course
    # A constant output is what follows where the gradient is lost, or units are at rest.
    if len(found) > 1:
        found = [verdict for verdict in found if verdict.name != "collapsed" or verdict.grade != RISK]
    # A first loss that is out of scale is what follows where all that comes before it explodes.
    if any(verdict.name == "exploding" for verdict in found):
        found = [verdict for verdict in found if verdict.name != "ill_scaled" or verdict.threshold]
    if not found:
        unseen = history.loss.size and np.isnan(history.loss).all() and not history.along
        return () if unseen else (_healthy(history, limits),)
    doubts = _doubts(history, limits)
    return (*found[:-1], replace(found[-1], sentence="; beside it, ".join([found[-1].sentence, *doubts])))


def _standing(verdict: Verdict) -> bool:
    """Whether a contradiction stays one however well the rest learns.

    A sign, parameters that nothing holds or no loss reaches, gradients that are never set to zero, and samples in an
    order by which the last batches alone are learned.
    """
    return verdict.grade == SICK and verdict.evidence.get("cause") in (
        "sign",
        "no_update",
        "accumulated",
        "order",
        "cut",
    )


def _graded(verdict: Verdict, history: History) -> Verdict:
    """A profile before any training shows risks, but for an exact zero and a break, which are certain."""
    certain = (history.trained and not motionless(history)) or verdict.name not in _PROFILE
    certain |= verdict.evidence.get("break") is not None or verdict.evidence.get("ratio") == 0
    return verdict if certain else replace(verdict, grade=RISK)


def joined(verdicts: Sequence[Verdict]) -> str:
    """Their names as the column `runs.verdict` holds them: ``vanishing+underflow``."""
    return "+".join(verdict.name for verdict in verdicts)


def names(column: str | None) -> tuple[str, ...]:
    """The names that `joined` joined.

    >>> names("vanishing+underflow"), names(None)
    (('vanishing', 'underflow'), ())
    """
    return tuple(column.split("+")) if column else ()


def _healthy(history: History, limits: Limits, risks: Sequence[Verdict] = ()) -> Verdict:
    """Nothing crosses a threshold, or the run has learned in spite of its ``risks``; says what was not judged."""
    evidence: dict[str, float | int | str | None] = {}
    told, doubts, plays = [], _doubts(history, limits), history.facts.get("plays")
    for profile in history.along:
        found = passage_of(history, profile, limits)
        if found is not None:
            evidence |= {
                f"{profile.axis}_ratio": found.ratio,
                f"{profile.axis}_rate": found.fit.rate if found.fit else None,
            }
            if len(found.layers) > 2 and not _doubt(history, profile, limits):
                told.append(found.told)
    if history.loss.size > 1:
        evidence |= {"loss_first": float(history.loss[0]), "loss_final": final_loss(history.loss)}
        told.append(loss_told(history, limits) + ("; it is one side of a game, and need not fall" if plays else ""))
    told += [f"it has learned all the same, so this is no fact: {verdict.sentence}" for verdict in risks]
    told += _unseen(history)
    yet, opening = "" if plays else unlearned(history, limits), doubts or ["no threshold is crossed"]
    name = "healthy, has not learned yet" if yet else "healthy"
    sentence = f"{name}: {'; '.join([*opening, *told])}{yet}"
    return Verdict("healthy", evidence, {}, "", sentence, grade=RISK if risks or doubts else SOUND)


def _unseen(history: History) -> list[str]:
    """What of a measured network was not judged: activations without a known slope, layers that nothing reaches."""
    missing = [
        f"{positions - judged} of {positions} {name}"
        for name, (positions, judged) in history.activations.items()
        if judged < positions
    ]
    told = [f"not judged for dead and saturated units: {', '.join(missing)}"] if missing else []
    if count := history.facts.get("remade"):
        told.append(
            f"its optimizer was made anew {count} times in {len(history.loss)} steps: what it keeps between steps "
            "(momentum, mean squares) was lost each time"
        )
    for key, what in (("unreached", "no gradient reaches"), ("frozen", "frozen:")):
        if names := list(history.facts.get(key, ())):
            told.append(f"{what} {names[0]}" + (f" and {len(names) - 1} more parameters" if len(names) > 1 else ""))
    return told


_EXCUSES = {
    "depth": "that an adaptive optimizer, a norm or a warmup makes good",
    "time": "where what came long ago matters",
}
"""Why a ratio beyond its threshold is no verdict before any training."""


def _doubts(history: History, limits: Limits) -> list[str]:
    return [doubt for profile in history.along for doubt in _doubt(history, profile, limits)]


def _doubt(history: History, profile: Profile, limits: Limits) -> list[str]:
    """Why a ratio beyond its threshold is no verdict: one draw may have brought it about, or training makes it good."""
    found = passage_of(history, profile, limits)
    if found is None:
        return []
    told = []
    for name, side in (("exploding", "above"), ("vanishing", "below")):
        limit = limits[f"{name}_ratio"]
        if not found.beyond(name, limit):
            continue
        words = f"{found.told}, beyond the threshold {figure(limit)} of {name}"
        if name == "vanishing" and found.grown >= limit:
            told.append(f"{words}, below branches whose learned gains start small on purpose, and grow")
        elif found.fit is not None and found.doubtful(name, limits):
            told.append(
                f"{words}, but the fitted rate, {rate_figure(found.fit)} a {found.profile.pace}, is not {side} 1 by "
                f"{figure(limits['errors'])} of its errors"
            )
        elif heals(found.profile, found):
            told.append(f"{words}, below a layer that starts at zero: one step makes the gradient go on")
        elif changed_at(history, profile, name, limits) is None:
            told.append(f"{words}: a risk, {_EXCUSES[profile.axis]}")
    return told
