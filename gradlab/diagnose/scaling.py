"""How what was measured goes with the width, or the depth, of a sweep: power laws with their errors, judged.

The coordinate check of Yang et al. 2022 (arXiv:2203.03466, appendix D.1) is read by eye elsewhere; here it is a fit.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gradlab.diagnose.numbers import figure

ALONG = ("model.width", "model.depth")
"""What laws are fitted along, where a sweep has `LEAST_LEVELS` of it."""

LEAST_LEVELS = 3
"""With two, a line has no error."""

FLAT = 0.1
"""An exponent within it counts as 0: what a coordinate check allows."""

SURE = 2.0
"""Standard errors by which an exponent must differ from 0 to be one."""

QUANTITY = "signal_change"

MOST_SETTINGS = 4
"""Of which laws are told; of more it is counted in how many the best learning rate stays."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Law:
    """y = a x^exponent by least squares of ln y on ln x; ``error`` is the exponent's standard error."""

    exponent: float
    error: float

    @property
    def flat(self) -> bool:
        """Whether y does not go with x, as far as can be told."""
        return abs(self.exponent) <= max(FLAT, SURE * self.error)

    def judged(self, name: str) -> str:
        """In words.

        >>> Law(0.483, 0.027).judged("width"), Law(-0.05, 0.02).judged("width"), Law(-0.9, 0.1).judged("lr")
        ('grows like width^0.48±0.03', 'flat (width^-0.05±0.02)', 'shrinks like lr^-0.90±0.10')
        """
        said = f"{name}^{self.exponent:.2f}±{self.error:.2f}"
        return f"flat ({said})" if self.flat else f"{'grows' if self.exponent > 0 else 'shrinks'} like {said}"


def power_law(x: Sequence[float], y: Sequence[float]) -> Law | None:
    """The law of pairs of positive finite numbers; None of fewer than `LEAST_LEVELS` distinct x.

    >>> power_law([1, 2, 4], [3, 12, 48])
    Law(exponent=2.0, error=0.0)
    """
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if 0 < a < math.inf and 0 < b < math.inf]
    if len({a for a, _ in pairs}) < LEAST_LEVELS:
        return None
    u, v = np.log(np.array(pairs, dtype=np.float64)).T
    u, v = u - u.mean(), v - v.mean()
    slope = float(u @ v / (u @ u))
    left = v - slope * u
    error = math.sqrt(float(left @ left) / (len(pairs) - 2) / float(u @ u))
    return Law(round(slope, 12), round(error, 12))


def sentences(rows: Sequence[Row], swept: Sequence[str], instruments: pa.Table) -> list[str]:
    """What a sweep over width or depth shows: laws of the change of signals, and of the best learning rate.

    ``rows`` are those of `runs`; the first needs the instrument `coordinates`.
    """
    said = []
    for key in ALONG:
        # A network of the user's own has neither.
        known = [row for row in rows if row[key] is not None] if key in swept else []
        if len({row[key] for row in known}) >= LEAST_LEVELS:
            others = [one for one in swept if one not in (key, "seed", "data.seed", "optim.lr")]
            groups = _grouped(known, others)
            for values, own in list(groups.items())[:MOST_SETTINGS]:
                name = ", ".join(f"{one}={value}" for one, value in zip(others, values, strict=True))
                said += _changes(own, key, name, swept, instruments)
                said += _best_rates(own, key, name, swept) if len(groups) <= MOST_SETTINGS else []
            if len(groups) > MOST_SETTINGS:
                said += _counted(groups.values(), key, swept)
    return said


def _grouped(rows: Iterable[Row], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def _changes(rows: list[Row], key: str, name: str, swept: Sequence[str], instruments: pa.Table) -> list[str]:
    """How far signals have moved: of the first layer (along the width alone), the last hidden one, and the output."""
    at = ""
    if "optim.lr" in swept and (best := _best(_at_least(rows, key))) is not None:
        rows = [row for row in rows if row["optim.lr"] == best]
        at = f", at optim.lr={figure(best)} (the best at {key}={_least(rows, key)})"
    changed = _changed(rows, instruments)
    if not changed:
        return []
    short = key.partition(".")[2]
    laws = []
    for place, words in ((0, "in the first layer"), (-2, "in the last hidden one"), (-1, "at the output")):
        known = [(row[key], changed[row["run_id"]]) for row in rows if len(changed.get(row["run_id"], ())) > 1]
        law = power_law([x for x, _ in known], [y[place] for _, y in known])
        if law is not None and (place or key == "model.width"):
            laws.append(f"{law.judged(short)} {words}")
    if not laws:
        return []
    subject = f"{name}: with the {short}" if name else f"With the {short}"
    return [f"{subject}{at}, the change of signals by training: {'; '.join(laws)}."]


def _changed(rows: Sequence[Row], instruments: pa.Table) -> dict[str, list[float]]:
    """By run the change of each layer's signal at its last recorded step."""
    wanted = pa.array([row["run_id"] for row in rows], pa.string())
    own = instruments.filter(
        pc.and_(pc.equal(instruments["quantity"], QUANTITY), pc.is_in(instruments["run_id"], wanted))
    )
    found: dict[str, dict[int, dict[int, float]]] = {}
    for row in own.select(["run_id", "step", "index", "value"]).to_pylist():
        found.setdefault(row["run_id"], {}).setdefault(row["step"], {})[row["index"]] = row["value"]
    return {run: [value for _, value in sorted(steps[max(steps)].items())] for run, steps in found.items()}


def _best_rates(rows: Sequence[Row], key: str, name: str, swept: Sequence[str]) -> list[str]:
    """Whether the learning rate of the lowest final loss moves."""
    if "optim.lr" not in swept:
        return []
    known = _best_by_level(rows, key)
    if len(known) < LEAST_LEVELS:
        return []
    short, subject = key.partition(".")[2], f"{name}: the" if name else "The"
    if len(set(known.values())) == 1:
        return [f"{subject} best optim.lr is {figure(next(iter(known.values())))} at every {short}."]
    law = power_law(list(known), list(known.values()))
    told = ", ".join(f"{figure(rate)} at {level}" for level, rate in known.items())
    return [f"{subject} best optim.lr {law.judged(short) if law else 'moves'}: {told}."]


def _counted(groups: Iterable[Sequence[Row]], key: str, swept: Sequence[str]) -> list[str]:
    """In how many of many settings the best learning rate stays."""
    if "optim.lr" not in swept:
        return []
    found = [set(known.values()) for own in groups if len(known := _best_by_level(own, key)) >= LEAST_LEVELS]
    still = sum(len(rates) == 1 for rates in found)
    words = f"the same at every {key.partition('.')[2]} in {still} of {len(found)} settings of the other keys"
    return [f"The best optim.lr is {words}."] if found else []


def _best_by_level(rows: Iterable[Row], key: str) -> dict[float, float]:
    best = {level: _best(own) for (level,), own in sorted(_grouped(rows, [key]).items())}
    return {level: rate for level, rate in best.items() if rate is not None}


def _best(rows: Iterable[Row]) -> float | None:
    """The learning rate of the lowest mean final loss, of those at which no run diverged."""
    means = {}
    for (rate,), own in _grouped(rows, ["optim.lr"]).items():
        losses = [row["loss_final"] for row in own if row["state"] == "finished"]
        if len(losses) == len(own) and all(loss is not None and math.isfinite(loss) for loss in losses):
            means[rate] = statistics.fmean(losses)
    return min(means, key=lambda rate: means[rate], default=None)


def _at_least(rows: Iterable[Row], key: str) -> list[Row]:
    every = list(rows)
    return [row for row in every if row[key] == _least(every, key)]


def _least(rows: Iterable[Row], key: str) -> Any:
    return min(row[key] for row in rows)
