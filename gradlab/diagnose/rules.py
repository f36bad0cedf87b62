"""The verdicts of a run, in order, and the column that holds their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gradlab.diagnose.course import diverged, oscillating, overclipped, stalled
from gradlab.diagnose.history import History
from gradlab.diagnose.layers import dead, ends, ends_ratio, exploding, saturated, underflow, vanishing
from gradlab.diagnose.slope import fit
from gradlab.diagnose.thresholds import DEFAULTS, Limits
from gradlab.diagnose.verdict import Verdict, figure

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
    return tuple(found) or (_healthy(history),)


def joined(verdicts: Sequence[Verdict]) -> str:
    """Their names as the column `runs.verdict` holds them: ``vanishing+underflow``."""
    return "+".join(verdict.name for verdict in verdicts)


def names(column: str | None) -> tuple[str, ...]:
    """The names that `joined` joined.

    >>> names("vanishing+underflow"), names(None)
    (('vanishing', 'underflow'), ())
    """
    return tuple(column.split("+")) if column else ()


def _healthy(history: History) -> Verdict:
    evidence: dict[str, float | int | str | None] = {}
    told = []
    for profile in history.along:
        ratio, found = ends_ratio(profile.deltas, profile.axis), fit(profile.deltas, profile.axis)
        evidence |= {f"{profile.axis}_ratio": ratio, f"{profile.axis}_rate": found.rate if found else None}
        if ratio is not None and len(profile.layer) > 2:
            told.append(f"δ of {ends(profile)[0]} is {figure(ratio)} of that of {ends(profile)[1]}")
    if history.loss.size > 1:
        evidence |= {"loss_first": float(history.loss[0]), "loss_last": float(history.loss[-1])}
        told.append(f"the loss went from {figure(history.loss[0])} to {figure(history.loss[-1])}")
    sentence = "healthy: no threshold is crossed" + (f"; {', '.join(told)}" if told else "")
    return Verdict("healthy", evidence, {}, "", sentence)
