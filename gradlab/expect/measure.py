"""One number of the finished tables, as an experiment's file names it: rows, column, how fitted and gathered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gradlab.expect.bound import BOUND_KEYS, TOLERANCES, Among, Bound, read_bound
from gradlab.expect.plain import read_mapping, read_name, shown
from gradlab.spec.choices import INSTRUMENTS
from gradlab.spec.keys import KEYS
from gradlab.spec.named import SpecError, Value
from gradlab.spec.values import coerce

OVER: dict[str, str] = {
    "median": "median",
    "mean": "mean",
    "min": "least",
    "max": "largest",
    "std": "standard deviation (n - 1)",
    "count": "number",
    "share": "share",
}
"""How several rows become one number, and the word for it."""


FITS: dict[str, str] = {
    "slope": "slope",
    "growth": "factor a unit",
    "rate": "rate",
    "power": "exponent",
    "rank": "rank correlation",
    "level_rank": "rank correlation of the distance from 1",
}
"""Least squares of a column y on x: its slope; exp of the slope of ln y; the inverse of that, as the column `rate`; the
slope of ln y on ln x. Of their ranks: Spearman's correlation of y, or of |ln y|, with x."""

RANKS = ("rank", "level_rank")
"""Those of `FITS` that are of ranks."""

WITHIN = ("step", "layer", "index")
"""What a fit is along within each run; anything else is a number of each run."""


MEASURE_KEYS = ("column", "table", "where", "axis", "step", "layer", "quantity", "index", "fit", "along", "is", "over")


QUANTITIES = (*(quantity for instrument in INSTRUMENTS.values() for quantity in instrument.gives), "pretrain_loss")


SELECTORS = (
    *((selector, "layers") for selector in ("step", "layer", "axis")),
    *((selector, "instruments") for selector in ("quantity", "index")),
)
"""Keys that choose rows of a table with several a run, each with such a table."""


@dataclass(frozen=True)
class Place:
    """A step, layer or index: ``number`` from the first one's 0, or back from the run's last one."""

    number: int
    from_last: bool = False

    def __str__(self) -> str:
        if not self.from_last:
            return str(self.number)
        return f"last-{self.number}" if self.number else "last"


Span = tuple[Place, Place]
"""The first and the last of some steps, layers or indices."""


@dataclass(frozen=True)
class Fit:
    """One of `FITS` of the column on ``along``: a number of the table's rows, one fit a run, or a key of the runs.

    Ranks may be along any number of the runs, such as their final loss.
    """

    how: str
    along: str


@dataclass(frozen=True)
class Measure:
    """One number of the finished tables.

    The rows of ``table`` whose run has the values of ``where`` (column of `runs`, values that will do), at ``step`` and
    within ``layer``, or of an instrument's ``quantity`` within ``index``; of them ``column``, fitted within each run
    where ``fit`` is along the table, turned into yes or no by ``test``, and gathered by ``over``.
    """

    table: str
    column: str
    where: tuple[tuple[str, tuple[Value, ...]], ...]
    axis: str
    step: Span | None
    layer: Span | None
    quantity: str | None
    index: Span | None
    fit: Fit | None
    test: Bound | Among | None
    over: str

    def __str__(self) -> str:
        what = self.column if self.quantity is None else self.quantity
        if self.fit is not None:
            what = f"{FITS[self.fit.how]} of {what} on {self.fit.along}"
        if self.test is not None:
            what += f" {self.test.text}"
        layer = "layer" if self.axis == "depth" else "time step"
        nouns = (("step", self.step, "s"), (layer, self.layer, "s"), ("index", self.index, " values"))
        at = [
            f"{noun} {span[0]}" if span[0] == span[1] else f"{noun}{several} {span[0]} to {span[1]}"
            for noun, span, several in nouns
            if span is not None
        ]
        at += [f"{key}={'|'.join(map(shown, values))}" for key, values in self.where]
        across = self.fit is not None and self.fit.along not in WITHIN
        return (what if across else f"{OVER[self.over]} of {what}") + (f" at {', '.join(at)}" if at else "")


def read_measure(given: object, where: str) -> Measure:
    """The number that a mapping of `MEASURE_KEYS` names."""
    entry = read_mapping(given, MEASURE_KEYS, where)
    table = _table(entry.get("table", "runs"), where)
    columns = _columns(table)
    if "column" not in entry:
        raise SpecError(f"{where}: expected column: one of the table {table}")
    column = read_name("column", entry["column"], list(columns), where)
    fit = _fit(entry, columns, where)
    test = _test(entry["is"], column, columns[column], where) if "is" in entry else None
    over = read_name("over", entry.get("over", "median" if test is None else "share"), list(OVER), where)
    if fit is not None and fit.along not in WITHIN and "over" in entry:
        raise SpecError(f"{where}: over: a fit on {fit.along} is one number already")
    if fit is not None and test is not None:
        raise SpecError(f"{where}: is: expected a column without a fit")
    if columns[column] == "text" and test is None and over != "count":
        raise SpecError(f"{where}: column {column} holds texts; expected is: beside it, as in is: finished")
    if over == "share" and test is None:
        raise SpecError(f"{where}: over: share: expected is: beside it, as in is: {{above: 1}}")
    for selector, owner in SELECTORS:
        if selector in entry and selector not in columns:
            raise SpecError(f"{where}: the table {table} has no {selector}; expected table: {owner}")
    quantity = read_name("quantity", entry.get("quantity"), QUANTITIES, where) if "quantity" in columns else None
    axis = read_name("axis", entry.get("axis", "depth"), ["depth", "time"], where)
    return Measure(
        table=table,
        column=column,
        where=_where(entry.get("where", {}), where),
        axis=axis,
        step=_span(entry, "step", where),
        layer=_span(entry, "layer", where),
        quantity=quantity,
        index=_span(entry, "index", where),
        fit=fit,
        test=test,
        over=over,
    )


def _table(given: object, where: str) -> str:
    # pyarrow takes a third of a second to import: only an experiment that expects something pays for it.
    from gradlab.store.columns import SCHEMAS

    return read_name("table", given, list(SCHEMAS), where)


def _columns(table: str) -> dict[str, str]:
    """The columns of a table, each "text" or "number", with those that only some architectures have."""
    from gradlab.store.columns import MEASURED_COLUMNS, SCHEMAS

    own = {field.name: "text" if str(field.type) == "string" else "number" for field in SCHEMAS[table]}
    return own | (dict.fromkeys(MEASURED_COLUMNS, "number") if table == "layers" else {})


def _fit(entry: Mapping[str, object], columns: Mapping[str, str], where: str) -> Fit | None:
    if ("fit" in entry) != ("along" in entry):
        raise SpecError(f"{where}: expected fit and along together, as in fit: rate, along: layer")
    if "fit" not in entry:
        return None
    how = read_name("fit", entry["fit"], list(FITS), where)
    own = [name for name in WITHIN if name in columns and "run_id" in columns]
    numeric = [key for key, rule in KEYS.items() if rule.kind in (int, float)]
    if how in RANKS:
        numeric += [name for name, kind in _columns("runs").items() if kind == "number" and name not in KEYS]
    return Fit(how, read_name("along", entry["along"], [*own, *numeric], where))


def _test(given: object, column: str, kind: str, where: str) -> Bound | Among:
    if not isinstance(given, dict):
        values = given if isinstance(given, list) else [given]
        return Among(tuple(_value(column, value, f"{where}: is") for value in values))
    if kind == "text":
        raise SpecError(f"{where}: is: column {column} holds texts; expected one of them, or a list")
    return read_bound(read_mapping(given, (*BOUND_KEYS[:5], *TOLERANCES), f"{where}: is"), f"{where}: is")


def _where(given: object, where: str) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    columns = list(_columns("runs"))
    wanted = []
    for key, value in read_mapping(given, columns, f"{where}: where").items():
        values = value if isinstance(value, list) else [value]
        wanted.append((key, tuple(_value(key, one, f"{where}: where") for one in values)))
    return tuple(wanted)


def _value(key: str, given: object, where: str) -> Value:
    """A value that a column of runs may hold: of a key validated, aliases resolved."""
    if given is not None and not isinstance(given, (str, bool, int, float)):
        raise SpecError(f"{where}: {key}: expected one value or a list of values")
    if given is None or key not in KEYS:
        return given
    try:
        return coerce(key, given)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


def _span(entry: Mapping[str, object], which: str, where: str) -> Span | None:
    if which not in entry:
        return None
    given = entry[which]
    ends = given if isinstance(given, list) else [given, given]
    if len(ends) != 2:
        raise SpecError(f"{where}: {which}: expected one, or [first, last]")
    first, last = (_place(end, f"{where}: {which}") for end in ends)
    return first, last


def _place(given: object, where: str) -> Place:
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return Place(given)
    if isinstance(given, str) and (match := re.fullmatch(r"last(?:-(\d{1,9}))?", given)):
        return Place(int(match[1] or 0), from_last=True)
    raise SpecError(f"{where}: {given!r}: expected a number of at least 0, last, or last-1, last-2, ...")
