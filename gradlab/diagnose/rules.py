"""The verdicts of a run, in order, and the column that holds their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gradlab.diagnose.course import diverged, loss_told, oscillating, overclipped, stalled, unlearned
from gradlab.diagnose.final import final_loss
from gradlab.diagnose.history import History
from gradlab.diagnose.layers import dead, exploding, saturated, underflow, vanishing
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.passage import Passage, passage, rate_figure
from gradlab.diagnose.thresholds import DEFAULTS, Limits
from gradlab.diagnose.verdict import Verdict

Rule = Callable[[History, Limits], Verdict | None]

_RULES: dict[str, Rule] = {
    "diverged": diverged,
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

_GRADIENT = frozenset({"diverged", "dead", "saturated", "exploding", "vanishing", "underflow"})
_EXPLAINED_BY = {"oscillating": frozenset({"diverged"}), "stalled": _GRADIENT | {"oscillating"}}
"""Verdicts that are not given beside others, which explain them."""


def judge(history: History, limits: Limits = DEFAULTS) -> tuple[Verdict, ...]:
    """The verdicts of a run: `healthy` alone, or what is wrong in the order of `ORDER`; none of a run that crashed."""
    if history.state == "failed":
        return ()
    found: list[Verdict] = []
    for name, rule in _RULES.items():
        if not _EXPLAINED_BY.get(name, frozenset()) & {verdict.name for verdict in found}:
            verdict = rule(history, limits)
            if verdict is not None:
                found.append(verdict)
    return tuple(found) or (_healthy(history, limits),)


def joined(verdicts: Sequence[Verdict]) -> str:
    """Their names as the column `runs.verdict` holds them: ``vanishing+underflow``."""
    return "+".join(verdict.name for verdict in verdicts)


def names(column: str | None) -> tuple[str, ...]:
    """The names that `joined` joined.

    >>> names("vanishing+underflow"), names(None)
    (('vanishing', 'underflow'), ())
    """
    return tuple(column.split("+")) if column else ()


def _healthy(history: History, limits: Limits) -> Verdict:
    evidence: dict[str, float | int | str | None] = {}
    told, doubts = [], []
    for profile in history.along:
        found = passage(profile)
        if found is not None:
            evidence |= {
                f"{profile.axis}_ratio": found.ratio,
                f"{profile.axis}_rate": found.fit.rate if found.fit else None,
            }
            doubts += (doubt := _doubt(found, limits))
            if len(found.layers) > 2 and not doubt:
                told.append(found.told)
    if history.loss.size > 1:
        evidence |= {"loss_first": float(history.loss[0]), "loss_final": final_loss(history.loss)}
        told.append(loss_told(history, limits))
    yet, opening = unlearned(history, limits), doubts or ["no threshold is crossed"]
    name = "healthy, has not learned yet" if yet else "healthy"
    return Verdict("healthy", evidence, {}, "", f"{name}: {'; '.join([*opening, *told])}{yet}")


def _doubt(found: Passage, limits: Limits) -> list[str]:
    """Why a ratio beyond its threshold is no verdict: the fitted rate does not say the same beyond doubt."""
    return [
        f"{found.told}, beyond the threshold {figure(limits[f'{name}_ratio'])} of {name}, but the fitted rate, "
        f"{rate_figure(found.fit)} a {found.profile.noun}, is not {side} 1 by {figure(limits['errors'])} of its errors"
        for name, side in (("exploding", "above"), ("vanishing", "below"))
        if found.fit is not None and found.beyond(name, limits)
    ]
