"""What is wrong with many runs: which shows an illness most clearly, where those that have it gather, since when."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from gradlab.diagnose.history import History, Profile
from gradlab.diagnose.rules import judge
from gradlab.diagnose.tables import histories
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import Verdict

STANDS_OUT = 1.5
"""A value of a key is named where its runs are ill so much more often than all."""

BEFORE_IT_BROKE = {"state": "finished", "diverged_at": None, "diverged_layer": None}
"""What a run that diverged was until then."""

Group = tuple[str, str, int, int]
"""The runs with one value of a key: the key, the value, how many there are, and how many of them are ill."""


def clearest(
    take: Callable[[Sequence[int]], Mapping[str, pa.Table]],
    names: Sequence[tuple[str, ...]],
    name: str,
    limits: Limits,
    most: int,
) -> tuple[int, Verdict, History] | None:
    """The place of the run that shows the verdict ``name`` most clearly, its verdict, and what was judged.

    It is one of those that have the fewest other verdicts; ``names`` are each run's, ``take`` gives the tables of the
    runs at some places, ``most`` the runs judged again. None where no run has it by these rules, though a table of
    another version says so.
    """
    places = _purest(names, name, most)
    some = take(places)
    known = [
        (_clearness(verdict), -place, verdict, history)
        for place, history in zip(places, histories(some["runs"], some["steps"], some["layers"]), strict=True)
        for verdict in judge(history, limits)
        if verdict.name == name
    ]
    if not known:
        return None
    _, place, verdict, history = max(known, key=lambda entry: entry[:2])
    return -place, verdict, history


def _purest(names: Sequence[tuple[str, ...]], name: str, most: int) -> list[int]:
    """The runs with a verdict that have the fewest others; of very many evenly spread ones."""
    having = [place for place, run in enumerate(names) if name in run]
    fewest = min(len(names[place]) for place in having)
    pure = [place for place in having if len(names[place]) == fewest]
    return pure[:: -(-len(pure) // most)]


def _clearness(verdict: Verdict) -> float:
    """How clearly a run shows its verdict: how far its evidence lies beyond the threshold, more is clearer."""
    told = {name: float(value) for name, value in verdict.evidence.items() if isinstance(value, (int, float))}
    match verdict.name:
        case "exploding" | "vanishing":
            ratio = told.get("ratio", 1.0)
            return abs(math.log(ratio)) if ratio > 0 else math.inf
        case "diverged":
            # At step 0 nothing has happened yet that could be shown.
            return -told["step"] if told["step"] > 0 else -math.inf
        case "overclipped":
            return -told["scale"]
        case "oscillating":
            return max(told["climb"], told["turns"])
        case "stalled":
            return -abs(told["fall"])
        case _:
            return told.get("share", 0.0)


def gathered(every: int, ill: int, groups: Sequence[Group]) -> str:
    """How many of ``every`` run are ``ill``, and the group that tells them from the well best, where one stands out.

    >>> gathered(8, 5, [("norm", "none", 4, 4), ("norm", "batch", 4, 1), ("lr", "0.1", 4, 2)])
    '5 of 8 runs, among them all 4 with norm=none'
    """
    words = f"{ill} of {every} runs"
    key, value, size, sick = max(groups, key=lambda group: group[3] / (ill + group[2]), default=("", "", 0, 0))
    # One run is told with all that it is.
    if ill == 1 or not sick or sick * every < STANDS_OUT * ill * size:
        return words
    who = f"{sick} of the {size}" if sick < size else f"all {size}" if size > 1 else "the one"
    return f"{words}, {'among them ' if sick < ill else ''}{who} with {key}={value}"


def since(history: History, name: str, limits: Limits) -> int | None:
    """The first recorded step from which on the run has had the verdict ``name``; None of one that it has not.

    At each step a run is judged as one that ended there: by its records and losses so far.
    """
    if name == "diverged":
        return history.diverged_at
    found = None
    for step in sorted({int(step) for profile in history.along for step in profile.step}, reverse=True):
        if all(verdict.name != name for verdict in judge(_until(history, step), limits)):
            break
        found = step
    return found


def _until(history: History, step: int) -> History:
    curves = {name: values[: step + 1] for name, values in vars(history).items() if isinstance(values, np.ndarray)}
    ended = {} if history.diverged_at is None or step >= history.diverged_at else BEFORE_IT_BROKE
    along = tuple(_records(profile, step) for profile in history.along if profile.step[0] <= step)
    changed: dict[str, Any] = {**curves, **ended, "along": along}
    return replace(history, **changed)


def _records(profile: Profile, step: int) -> Profile:
    kept = profile.step <= step
    return replace(
        profile,
        step=profile.step[kept],
        columns={name: values[kept] for name, values in profile.columns.items()},
        trunk=None if profile.trunk is None else _records(profile.trunk, step),
    )
