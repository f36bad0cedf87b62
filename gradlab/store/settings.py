"""Runs that differ in their seeds alone, together: what a ranking compares is a setting, not one lucky seed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradlab.spec.keys import in_order

REPLICATES = ("seed", "data.seed")
"""Keys whose values mean nothing by themselves: runs are pooled over them."""

Row = Mapping[str, Any]
"""A row of the `runs` table."""


@dataclass(frozen=True)
class Setting:
    """One setting: ``places`` of its runs in the table, and their ``rows``, in the table's order."""

    places: tuple[int, ...]
    rows: tuple[Row, ...]

    def known(self, column: str) -> list[float]:
        """The finite values of a column, over the runs that have one."""
        return [float(row[column]) for row in self.rows if row[column] is not None and math.isfinite(row[column])]

    def mean(self, column: str) -> float | None:
        """Their mean; None where there is none."""
        known = self.known(column)
        return statistics.fmean(known) if known else None

    def deviation(self, column: str) -> float | None:
        """Their standard deviation between seeds; None of fewer than two."""
        known = self.known(column)
        return statistics.stdev(known) if len(known) > 1 else None

    def count(self, state: str) -> int:
        """How many of its runs ended in this state."""
        return sum(row["state"] == state for row in self.rows)

    @property
    def state(self) -> str:
        """The state of all its runs, or how many have which: ``4 finished, 1 diverged``."""
        found = Counter(str(row["state"]) for row in self.rows)
        if len(found) == 1:
            return next(iter(found))
        return ", ".join(f"{found[state]} {state}" for state in ("finished", "diverged", "failed") if found[state])

    @property
    def verdict(self) -> str | None:
        """The verdict of all its runs, or the most frequent one with its count: ``healthy 4/5``."""
        found = Counter(row["verdict"] for row in self.rows if row["verdict"])
        if not found:
            return None
        name, times = found.most_common(1)[0]
        return str(name) if times == len(self.rows) else f"{name} {times}/{len(self.rows)}"

    @property
    def middle(self) -> Row:
        """The run to look at: of those with a final loss the one in the middle, else the first."""
        ended = sorted((row for row in self.rows if row["loss_final"] is not None), key=lambda row: row["loss_final"])
        return ended[(len(ended) - 1) // 2] if ended else self.rows[0]


def settings(rows: Sequence[Row]) -> list[Setting]:
    """The settings of ``rows``, in the order in which each first occurs.

    >>> some = [{"seed": seed, "model.depth": depth} for depth in (3, 5) for seed in (0, 1)]
    >>> [setting.places for setting in settings(some)]
    [(0, 1), (2, 3)]
    """
    keys = [key for key in in_order(rows[0] if rows else ()) if key not in REPLICATES]
    found: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(rows):
        found.setdefault(tuple(row[key] for key in keys), []).append(place)
    return [Setting(tuple(places), tuple(rows[place] for place in places)) for places in found.values()]


def by_final_loss(some: Sequence[Setting]) -> list[Setting]:
    """Those of which a run has a final loss, by its mean over seeds; what diverges for some seed stands behind."""
    known = [(one.count("diverged") > 0, mean, one) for one in some if (mean := one.mean("loss_final")) is not None]
    return [one for *_, one in sorted(known, key=lambda entry: entry[:2])]


def by_level_gradient(some: Sequence[Setting]) -> list[Setting]:
    """Those that finished with a vanishing ratio above 0, the one nearest to 1 first: all there is without training."""
    known = []
    for one in some:
        ratios = [abs(math.log(ratio)) for ratio in one.known("vanishing_ratio") if ratio > 0]
        if ratios and one.count("finished"):
            known.append((statistics.fmean(ratios), one))
    return [one for _, one in sorted(known, key=lambda entry: entry[0])]
