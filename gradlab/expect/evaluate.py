"""Holds expectations against finished tables: what was expected, what was measured, and whether it came out.

The tables are Arrow's, in which null (nothing there) and NaN (a broken number) are two things: null is left out and
counted, NaN is a value and meets no bound. Legend for shapes: R runs, N rows of one table, K rows that were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gradlab.expect.form import Expectation
from gradlab.expect.measure import RANKS, WITHIN, Fit, Measure, Place
from gradlab.expect.ranks import spearman, worst_diverged

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Tables = Mapping[str, pa.Table]

PASS, FAIL, UNTESTED = "pass", "fail", "not tested"


@dataclass(frozen=True)
class Reading:
    """A measured ``number``, None where there is none; ``why`` says it, or how many of the rows had no value.

    ``partial``: it is the least or the largest of several, of which some had none. A bound on it is one on each of
    them (every run learns, all diverge within 20 steps), so that none is met.
    """

    number: float | None
    rows: int
    why: str = ""
    partial: bool = False


@dataclass(frozen=True)
class Outcome:
    """An expectation beside what was measured, as it is shown and stored; ``result`` is pass, fail or not tested.

    ``computed`` names the number, ``value`` is it unrounded (None where there is none or it is not finite).
    """

    what: str
    expected: str
    measured: str
    result: str
    computed: str
    value: float | None
    source: str

    def stored(self) -> dict[str, str | float | None]:
        """As JSON keeps it."""
        return asdict(self)


def evaluate(expectations: Sequence[Expectation], tables: Tables, *, lenient: bool = False) -> tuple[Outcome, ...]:
    """Every expectation held against the ``tables`` (`runs`, `steps`, `layers`, `instruments`) of a result.

    Settings that no run has fail an expectation; where ``lenient`` (they were changed), it is not tested.
    """
    return tuple(_outcome(expectation, tables, lenient) for expectation in expectations)


def columns(expectations: Sequence[Expectation]) -> dict[str, set[str]]:
    """By table the columns that `evaluate` asks for, where it has them: of a large result others need not be read."""
    found = {"runs": {"run_id", "state"}}
    for one in expectations:
        than = None if one.relation is None else one.relation.than
        for measure in (one.value, one.divided_by, than):
            if measure is not None:
                own = found.setdefault(measure.table, {"run_id", "axis", "step", "layer", "quantity", "index"})
                own.add(measure.column)
                found["runs"] |= {key for key, _ in measure.where}
                if measure.fit is not None:
                    (own if measure.fit.along in WITHIN else found["runs"]).add(measure.fit.along)
    return found


def _outcome(expectation: Expectation, tables: Tables, lenient: bool) -> Outcome:
    reading = read(expectation.value, tables)
    whole = reading if expectation.divided_by is None else _over(reading, read(expectation.divided_by, tables))
    expected, met = "", False
    others: tuple[Reading, ...] = (whole,)
    if expectation.bound is not None:
        expected, met = expectation.bound.text, expectation.bound.holds(whole.number)
    if expectation.relation is not None:
        other, less = read(expectation.relation.than, tables), expectation.relation.less
        expected = f"{'less' if less else 'more'} than {_figure(other.number)}"
        others = (whole, other)
        if whole.number is not None and other.number is not None:
            met = whole.number < other.number if less else whole.number > other.number
    met = met and not any(one.partial for one in others)
    absent = any(one.rows == 0 for one in others)
    result = PASS if met else UNTESTED if absent and lenient else FAIL
    why = "; ".join(one.why for one in others if one.why)
    measured = _figure(whole.number) + (f" ({why})" if why else "")
    finite = whole.number is not None and math.isfinite(whole.number)
    return Outcome(
        expectation.what,
        expected,
        measured,
        result,
        expectation.computed(),
        whole.number if finite else None,
        expectation.source,
    )


def _over(above: Reading, below: Reading) -> Reading:
    rows, why = min(above.rows, below.rows), "; ".join(one.why for one in (above, below) if one.why)
    if above.number is None or below.number is None:
        return Reading(None, rows, why)
    if below.number == 0:
        return Reading(None, rows, f"{_figure(above.number)} over 0")
    return Reading(above.number / below.number, rows, why, above.partial or below.partial)


def _figure(number: float | None) -> str:
    return "nothing" if number is None else f"{number:.5g}"


def read(measure: Measure, tables: Tables) -> Reading:
    """The number that ``measure`` names."""
    runs, table = tables["runs"], tables[measure.table]
    chosen = _runs(measure, runs)  # (R,)
    if not chosen.any():
        return Reading(None, 0, "no such run")
    if measure.table == "runs":
        kept, run = np.flatnonzero(chosen), np.arange(runs.num_rows)
    else:
        run = pc.index_in(table["run_id"], value_set=runs["run_id"].combine_chunks()).to_numpy().astype(np.int64)
        kept = np.flatnonzero(_rows(measure, table, run, chosen))
    if not kept.size:
        return Reading(None, 0, "no such row")
    if measure.column not in table.column_names:
        return Reading(None, 0, "no such column")
    column = table[measure.column].take(pa.array(kept))
    if measure.test is not None:
        values = np.array([measure.test.holds(value) for value in column.to_pylist()], dtype=float)
        return _gathered(values, kept.size, measure.over)
    known = column.is_valid().to_numpy()  # (K,)
    if measure.over == "count" and measure.fit is None:
        return Reading(float(known.sum()), kept.size)
    values = column.cast(pa.float64()).to_numpy()
    if measure.fit is None:
        return _gathered(values[known], kept.size, measure.over)
    if measure.fit.along in WITHIN:
        along = table[measure.fit.along].take(pa.array(kept)).to_numpy().astype(float)
        return _fitted_by_run(measure.fit, along[known], values[known], run[kept][known], measure.over)
    keys = np.array([_number(value) for value in runs[measure.fit.along].to_pylist()])
    if measure.fit.along == "loss_final":
        keys = worst_diverged(keys, np.array(runs["state"].to_pylist()))
    return _fitted(measure.fit, keys[run[kept]][known], values[known])


def _runs(measure: Measure, runs: pa.Table) -> Bools:
    """Which runs (R,) have the wanted values."""
    chosen = np.ones(runs.num_rows, dtype=bool)
    for key, values in measure.where:
        chosen &= np.array([value in values for value in runs[key].to_pylist()], dtype=bool)
    return chosen


def _rows(measure: Measure, table: pa.Table, run: Ints, chosen: Bools) -> Bools:
    """Which rows (N,) of a table with a row for each step or layer are wanted; ``run`` (N,) is each row's run."""
    kept: Bools = chosen[run]
    if "axis" in table.column_names:
        kept &= pc.equal(table["axis"], measure.axis).to_numpy()
    if measure.quantity is not None:
        kept &= pc.equal(table["quantity"], measure.quantity).to_numpy()
    for name, span in (("step", measure.step), ("layer", measure.layer), ("index", measure.index)):
        if span is not None:
            # A number that stands alone has no index: it lies in no span of them.
            numbers = pc.fill_null(table[name], -1).to_numpy()
            first, last = (_at(place, numbers, run, kept, len(chosen)) for place in span)
            kept &= (first <= numbers) & (numbers <= last)
    return kept


def _at(place: Place, numbers: Ints, run: Ints, kept: Bools, runs: int) -> Ints:
    """The number (N,) that a place is in the run of each row: its last one is that of its ``kept`` rows."""
    if not place.from_last:
        return np.full(len(numbers), place.number)
    last = np.full(runs, -1)
    np.maximum.at(last, run[kept], numbers[kept])
    at: Ints = last[run] - place.number
    return at


EACH = ("min", "max")
"""Of `expect.measure.OVER` those that speak of every row."""

_GATHER: dict[str, Callable[[Floats], float]] = {
    "median": lambda values: float(np.median(values)),
    "mean": lambda values: float(np.mean(values)),
    "share": lambda values: float(np.mean(values)),
    "min": lambda values: float(np.min(values)),
    "max": lambda values: float(np.max(values)),
    "std": lambda values: float(np.std(values, ddof=1)),
    "count": lambda values: float(np.sum(values)),
}


def _gathered(values: Floats, rows: int, over: str) -> Reading:
    """One number of the values that are there, out of ``rows``."""
    if len(values) < (2 if over == "std" else 1):
        return Reading(None, rows, f"no value in {rows} row{'s' if rows > 1 else ''}")
    with np.errstate(invalid="ignore"):
        number = _GATHER[over](values)
    lost = rows - len(values)
    return Reading(number, rows, f"{lost} of {rows} have none" if lost else "", bool(lost) and over in EACH)


def _fitted_by_run(fit: Fit, x: Floats, y: Floats, run: Ints, over: str) -> Reading:
    fits = [_fitted(fit, x[run == one], y[run == one]).number for one in np.unique(run)]
    if not fits:
        return Reading(None, 1, "nothing to fit")
    return _gathered(np.array([number for number in fits if number is not None]), len(fits), over)


def _fitted(fit: Fit, x: Floats, y: Floats) -> Reading:
    """Least squares of y on x, (K,) each, as `expect.measure.FITS` says; none where a logarithm has no value."""
    if fit.how in RANKS:
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.abs(np.log(y)) if fit.how == "level_rank" else y
        there = ~np.isnan(x) & ~np.isnan(y)
        found = spearman(x[there], y[there])
        return Reading(
            None if math.isnan(found) else found, max(1, len(x)), "" if found == found else "nothing to rank"
        )
    if fit.how != "slope":
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.log(y)
            x = np.log(x) if fit.how == "power" else x
    if len(np.unique(x)) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Reading(None, max(1, len(x)), "nothing to fit")
    centred = x - x.mean()
    slope = float((centred * (y - y.mean())).sum() / (centred**2).sum())
    sign = {"growth": 1, "rate": -1}.get(fit.how)
    with np.errstate(over="ignore"):
        return Reading(slope if sign is None else float(np.exp(sign * slope)), len(x))


def _number(value: object) -> float:
    return math.nan if value is None else float(value)  # type: ignore[arg-type]
