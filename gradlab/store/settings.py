"""Runs that differ in their seeds alone, together: what a ranking compares is a setting, not one lucky seed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradlab.spec.keys import in_order

if TYPE_CHECKING:
    import pyarrow as pa

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

REPLICATES = ("seed", "data.seed")
"""Keys whose values mean nothing by themselves: runs are pooled over them."""


SHORT = 100_000
"""Rows of a table whose columns are kept as lists."""


class Columns(Mapping[str, "list[Any]"]):
    """A table as lists, each made when it is first asked for; equal texts of a numbered column are one object."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._made: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self._made:
            self._made[name] = _listed(self._table[name])
        return self._made[name]

    def part(self, name: str, rows: slice) -> list[Any]:
        """Some rows of a column; of a long table the others are not made."""
        if self._table.num_rows <= SHORT:
            return self[name][rows]
        return _listed(self._table[name].slice(rows.start, rows.stop - rows.start))

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_columns)


def _listed(column: pa.ChunkedArray) -> list[Any]:
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        values: list[Any] = column.to_pylist()
        return values
    one = column.unify_dictionaries().combine_chunks()
    words = [*one.dictionary.to_pylist(), None]
    return [words[place] for place in one.indices.fill_null(len(words) - 1).to_pylist()]


@dataclass(frozen=True)
class Setting:
    """One setting: ``places`` of its runs in the table of all, in its order, and their ``part`` of ``columns``."""

    places: Ints
    columns: Columns
    part: slice

    def __len__(self) -> int:
        return len(self.places)

    def values(self, column: str) -> list[Any]:
        """What its runs have in a column."""
        return self.columns.part(column, self.part)

    def first(self, column: str) -> Any:
        """What the first of them has."""
        return self.columns.part(column, slice(self.part.start, self.part.start + 1))[0]

    def known(self, column: str) -> list[float]:
        """The finite values of a column, over the runs that have one."""
        return [float(value) for value in self.values(column) if value is not None and math.isfinite(value)]

    def mean(self, column: str) -> float | None:
        """Their mean; None where there is none."""
        known = self.known(column)
        return statistics.fmean(known) if known else None

    def deviation(self, column: str) -> float | None:
        """Their standard deviation between seeds; None of fewer than two."""
        known = self.known(column)
        return statistics.stdev(known) if len(known) > 1 else None

    @property
    def state(self) -> str:
        """The state of all its runs, or how many have which: ``4 finished, 1 diverged``."""
        found = Counter(map(str, self.values("state")))
        if len(found) == 1:
            return next(iter(found))
        return ", ".join(f"{found[state]} {state}" for state in ("finished", "diverged", "failed") if found[state])

    @property
    def verdict(self) -> str | None:
        """The verdict of all its runs, or the most frequent one with its count: ``healthy 4/5``."""
        found = Counter(filter(None, self.values("verdict")))
        if not found:
            return None
        name, times = found.most_common(1)[0]
        return str(name) if times == len(self) else f"{name} {times}/{len(self)}"

    @property
    def middle(self) -> str:
        """The id of the run to look at: of those with a final loss the one in the middle, else the first."""
        losses = self.values("loss_final")
        ended = sorted((place for place, loss in enumerate(losses) if loss is not None), key=losses.__getitem__)
        return str(self.values("run_id")[ended[(len(ended) - 1) // 2] if ended else 0])


@dataclass(frozen=True)
class Ranking:
    """The settings of a table of runs, of which a million are too many to be made all: S of them, by number.

    ``places`` of the runs (R,), those of one setting together, and the ``edges`` (S + 1,) between settings; the numbers
    that are ``ranked``, the best first, and those ``behind`` them, in the order of the grid.
    """

    runs: pa.Table
    places: Ints
    edges: Ints
    ranked: Ints
    behind: Ints

    def __len__(self) -> int:
        return len(self.edges) - 1

    def some(self, numbers: Sequence[int] | Ints) -> list[Setting]:
        """The settings of these ``numbers``."""
        from gradlab.store.merging import taken

        places = [self.places[self.edges[one] : self.edges[one + 1]] for one in numbers]
        columns = Columns(taken(self.runs, np.concatenate([*places, np.zeros(0, np.int64)])))
        ends = accumulate(map(len, places))
        return [Setting(part, columns, slice(end - len(part), end)) for part, end in zip(places, ends, strict=True)]


def ranking(runs: pa.Table, *, each: bool = False, level: bool = False) -> Ranking:
    """The settings of ``runs``: those that differ in their seeds alone, numbered as each first occurs.

    Ranked are those of which a run has a final loss, by its mean over seeds; what diverges for some seed stands behind
    the others. ``level``: instead those that finished with a vanishing ratio above 0, the one nearest to 1 first: all
    there is without training. ``each``: every run is a setting by itself.
    """
    keys = [] if each else [key for key in in_order(runs.column_names) if key not in REPLICATES]
    code = np.arange(runs.num_rows) if each else np.zeros(runs.num_rows, dtype=np.int64)
    for key in keys:
        place: dict[Any, int] = {}
        own = np.array([place.setdefault(value, len(place)) for value in _listed(runs[key])], dtype=np.int64)
        if len(place) > 1:
            code = np.unique(code * len(place) + own, return_inverse=True)[1].astype(np.int64)
    # Settings are numbered in the order in which each first occurs.
    _, first, code = np.unique(code, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))[code]
    size = len(first)
    state = np.array(_listed(runs["state"]), dtype=str)
    # As lists: Arrow imports pandas where it makes an array of numpy's that may have nulls.
    values = np.array(runs["vanishing_ratio" if level else "loss_final"].to_pylist(), dtype=float)
    known = np.isfinite(values) & ((values > 0) if level else True)
    told = np.abs(np.log(values[known])) if level else values[known]
    count = np.bincount(number[known], minlength=size)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(number[known], told, size) / count
    broken = np.bincount(number[state == "diverged"], minlength=size) > 0
    ended = np.bincount(number[state == "finished"], minlength=size) > 0
    ranked = np.flatnonzero((count > 0) & (ended | (not level)))
    order = np.lexsort((mean[ranked], broken[ranked] & (not level)))
    places = np.argsort(number, kind="stable")
    edges = np.searchsorted(number[places], np.arange(size + 1))
    behind = np.setdiff1d(np.arange(size), ranked, assume_unique=True)
    return Ranking(runs, places, edges, ranked[order], behind)
