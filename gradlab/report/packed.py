"""Numbers small enough to travel inside the page: 16 bits each, as signed logarithms, every run on a scale of its own.

A code of 16 bits has the sign in its highest bit. Of the rest, `NULL`, `ZERO`, `NAN` and `INF` mean themselves, and
`FIRST` to `LAST` the magnitudes from the least to the largest of the run, in equal steps of their logarithm. The
relative error is at most half a step: 0.15 % where a run spans 40 decades, 0.02 % where it spans five. Codes are
written as differences from one recorded step to the next, low bytes apart from high ones, because that compresses.

Legend for shapes: R runs, N rows of a table, P places (layers, or 1), K recorded steps; a run's cells are (P, K).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradlab.report.tables import Floats, Ints

NULL, ZERO, NAN, INF, FIRST, LAST = 0, 1, 2, 3, 4, 0x7FFF
SIGN = 0x8000

Codes = npt.NDArray[np.uint16]
Scales = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shapes:
    """Where each run's cells lie: its recorded steps and its places, out of a few that many runs share.

    ``step`` and ``place`` (R,) point into ``steps`` and ``places``; -1 where a run has no rows. ``cell`` (N,) is where
    each row goes among all cells, -1 where its step is left out; ``start`` (R + 1,) where each run's cells begin.
    """

    steps: list[list[int]]
    places: list[list[int]]
    step: Ints
    place: Ints
    cell: Ints
    start: Ints


def shapes(run: Ints, step: Ints, place: Ints, runs: int, most: int | None = None) -> Shapes:
    """The cells of rows (N,) of ``runs`` runs; of more than ``most`` recorded steps of a run as many, evenly spread."""
    order = np.argsort(run, kind="stable")
    bounds = np.searchsorted(run[order], np.arange(runs + 1))
    known_steps: dict[tuple[int, ...], int] = {}
    known_places: dict[tuple[int, ...], int] = {}
    steps, places = np.full(runs, -1), np.full(runs, -1)
    cell, start = np.full(len(run), -1), np.zeros(runs + 1, dtype=np.int64)
    for which in range(runs):
        rows = order[bounds[which] : bounds[which + 1]]
        start[which + 1] = start[which]
        if not len(rows):
            continue
        kept, own = evenly(np.unique(step[rows]), most), np.unique(place[rows])
        steps[which] = known_steps.setdefault(tuple(kept.tolist()), len(known_steps))
        places[which] = known_places.setdefault(tuple(own.tolist()), len(known_places))
        column = np.searchsorted(kept, step[rows]).clip(max=len(kept) - 1)
        here = kept[column] == step[rows]
        cell[rows[here]] = start[which] + np.searchsorted(own, place[rows[here]]) * len(kept) + column[here]
        start[which + 1] += len(kept) * len(own)
    return Shapes([list(one) for one in known_steps], [list(one) for one in known_places], steps, places, cell, start)


def evenly(values: Ints, most: int | None) -> Ints:
    """At most ``most`` (2 at least) of ascending ``values``, evenly spread, the first and the last among them."""
    if most is None or len(values) <= most:
        return values
    chosen: Ints = values[np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]
    return chosen


def packed(values: Floats, known: npt.NDArray[np.bool_], found: Shapes) -> tuple[bytes, Scales]:
    """The codes of ``values`` (N,), and the logarithm of the least and largest magnitude of each run, (R, 2).

    ``known`` (N,) is false where a value is null. A run with no known value has no codes, and a scale of NaN.
    """
    runs = len(found.step)
    kept = (found.cell >= 0) & known
    cells = np.full(found.start[-1], np.nan)
    here = np.zeros(len(cells), dtype=bool)
    cells[found.cell[kept]], here[found.cell[kept]] = values[kept], True
    magnitude = np.abs(cells)
    plain = here & np.isfinite(cells) & (magnitude > 0)
    logs = np.log10(np.where(plain, magnitude, 1.0))
    owner = np.repeat(np.arange(runs), np.diff(found.start))
    low, high = np.full(runs, np.inf), np.full(runs, -np.inf)
    np.minimum.at(low, owner[plain], logs[plain])
    np.maximum.at(high, owner[plain], logs[plain])
    having = np.zeros(runs, dtype=bool)
    having[owner[here]] = True
    empty = low > high
    scales = np.column_stack([np.where(empty, 0.0, low), np.where(empty, 0.0, high)]).astype(np.float32)
    scales[~having] = np.nan
    codes = _codes(cells, logs, here, scales.astype(np.float64)[owner])
    whole = [
        codes[found.start[r] : found.start[r + 1]].reshape(-1, _width(found, r))
        for r in np.flatnonzero(having).tolist()
    ]
    return _squeezed(whole), scales


def _width(found: Shapes, run: int) -> int:
    return len(found.steps[found.step[run]])


def _codes(cells: Floats, logs: Floats, here: npt.NDArray[np.bool_], scale: Floats) -> Codes:
    span = np.maximum(scale[:, 1] - scale[:, 0], 1e-30)
    share = np.clip(np.nan_to_num((logs - scale[:, 0]) / span), 0, 1)
    codes = (FIRST + np.round(share * (LAST - FIRST))).astype(np.uint16)
    codes[cells == 0] = ZERO
    codes[np.isinf(cells)] = INF
    codes[np.isnan(cells)] = NAN
    codes[cells < 0] |= SIGN
    codes[~here] = NULL
    return codes


def _squeezed(parts: Sequence[Codes]) -> bytes:
    """Differences along the steps, modulo 2^16; all low bytes, then all high ones."""
    if not parts:
        return b""
    moved = [np.diff(part, axis=1, prepend=np.zeros((len(part), 1), dtype=np.uint16)).ravel() for part in parts]
    together = np.concatenate(moved).astype("<u2")
    return together.view(np.uint8).reshape(-1, 2).T.tobytes()
