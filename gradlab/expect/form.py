"""Expectations as an experiment's file writes them: which number of the finished tables, and what it must be.

    expect:
      - what: "He's weights keep the gradient at its size"
        value: {column: rate, where: {model.init: he_normal}, over: median}
        near: 1.0
        within: 0.01

Everything is checked here, before anything runs; `gradlab.expect.measure` evaluates it. Neither numpy nor a table is
needed to read the form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradlab.spec.choices import INSTRUMENTS
from gradlab.spec.keys import KEYS, coerce
from gradlab.spec.named import SpecError, Value, nearest
from gradlab.spec.run import RunSpec

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
}
"""Least squares of a column y on x: its slope; exp of the slope of ln y; the inverse of that, as the column `rate`; the
slope of ln y on ln x."""

MEASURE_KEYS = ("column", "table", "where", "axis", "step", "layer", "quantity", "index", "fit", "along", "is", "over")
QUANTITIES = tuple(quantity for instrument in INSTRUMENTS.values() for quantity in instrument.gives)
SELECTORS = (
    *((selector, "layers") for selector in ("step", "layer", "axis")),
    *((selector, "instruments") for selector in ("quantity", "index")),
)
"""Keys that choose rows of a table with several a run, each with such a table."""

BOUND_KEYS = ("near", "between", "above", "below", "equals", "less_than", "more_than")
TOLERANCES = ("within", "within_percent")


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
class Bound:
    """The numbers from ``low`` to ``high``; the ends themselves are outside where ``strict``. ``text``: in words."""

    low: float
    high: float
    strict: bool
    text: str

    def holds(self, value: Value) -> bool:
        """Whether a number lies inside; NaN and null never do."""
        number = math.nan if value is None else float(value)
        if self.strict:
            # Infinity is above every number, so an end that is no end does not keep it out.
            return (self.low < number or self.low == -math.inf) and (number < self.high or self.high == math.inf)
        return self.low <= number <= self.high


@dataclass(frozen=True)
class Among:
    """One of these values."""

    values: tuple[Value, ...]

    @property
    def text(self) -> str:
        """In words, after the name of what must be so."""
        return f"= {'|'.join(map(_shown, self.values))}"

    def holds(self, value: Value) -> bool:
        """Whether it is one of them; null only where null is among them."""
        return value in self.values


@dataclass(frozen=True)
class Fit:
    """One of `FITS` of the column on ``along``: a number of the table's rows, one fit a run, or a key of the runs."""

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
        at += [f"{key}={'|'.join(map(_shown, values))}" for key, values in self.where]
        across = self.fit is not None and self.fit.along in KEYS
        return (what if across else f"{OVER[self.over]} of {what}") + (f" at {', '.join(at)}" if at else "")


@dataclass(frozen=True)
class Relation:
    """``value`` is less, or more, than another measured number."""

    less: bool
    than: Measure


@dataclass(frozen=True)
class Expectation:
    """One line of `expect:`: its words, a measured number (over another, where ``divided_by``), and what it must be.

    Either ``bound`` or ``relation`` is given. ``source`` is empty where the experiment's own will do.
    """

    what: str
    value: Measure
    divided_by: Measure | None
    bound: Bound | None
    relation: Relation | None
    source: str

    def computed(self) -> str:
        """What is measured, for a reader of the table."""
        over = f"; over the {self.divided_by}" if self.divided_by is not None else ""
        return f"{self.value}{over}" + (f"; against the {self.relation.than}" if self.relation is not None else "")


def parse(given: object, where: str = "expect") -> tuple[Expectation, ...]:
    """The expectations of an experiment's file, its plain YAML or JSON content; ``where`` begins each message.

    Raises `SpecError` for what is not understood: what was given, what was expected, the nearest right name.
    """
    if not isinstance(given, list):
        raise SpecError(f"{where}: expected a list of expectations, each with what, value and a bound")
    return tuple(_expectation(entry, f"{where} {number}") for number, entry in enumerate(given, start=1))


def check_rows(expectations: Sequence[Expectation], runs: Sequence[RunSpec], where: str = "expect") -> None:
    """Raises `SpecError` where an expectation asks for settings that no run of the grid has."""
    flats = [run.flat() for run in runs]
    for number, expectation in enumerate(expectations, start=1):
        for measure in measures(expectation):
            wanted = [(key, values) for key, values in measure.where if key in KEYS]
            if any(all(flat[key] in values for key, values in wanted) for flat in flats):
                continue
            lost = next(
                (f"{key}={_shown(values[0])}" for key, values in wanted if not any(f[key] in values for f in flats)),
                " and ".join(f"{key}={_shown(values[0])}" for key, values in wanted),
            )
            raise SpecError(f"{where} {number}: no run of this grid has {lost}")


def measures(expectation: Expectation) -> tuple[Measure, ...]:
    """Every number that an expectation needs, its value first."""
    others = (expectation.divided_by, expectation.relation.than if expectation.relation else None)
    return (expectation.value, *(other for other in others if other is not None))


def _expectation(given: object, where: str) -> Expectation:
    allowed = ("what", "value", "divided_by", *BOUND_KEYS, *TOLERANCES, "source")
    entry = _mapping(given, allowed, where)
    what, source = entry.get("what"), entry.get("source", "")
    if not isinstance(what, str) or not what.strip():
        raise SpecError(f"{where}: expected what: a line for the reader")
    if not isinstance(source, str):
        raise SpecError(f"{where}: source: expected a text")
    if "value" not in entry:
        raise SpecError(f"{where}: expected value: {{column: ..., where: ..., over: ...}}")
    divided_by = _measure(entry["divided_by"], f"{where}: divided_by") if "divided_by" in entry else None
    value = _measure(entry["value"], f"{where}: value")
    relation = _relation(entry, where)
    bound = _bound(entry, where) if relation is None else None
    return Expectation(what.strip(), value, divided_by, bound, relation, source.strip())


def _relation(entry: Mapping[str, object], where: str) -> Relation | None:
    chosen = [key for key in BOUND_KEYS if key in entry]
    if chosen not in (["less_than"], ["more_than"]):
        return None
    _refuse_tolerance(entry, chosen[0], where)
    return Relation(chosen == ["less_than"], _measure(entry[chosen[0]], f"{where}: {chosen[0]}"))


def _bound(entry: Mapping[str, object], where: str) -> Bound:
    """The bound that near and its tolerance, between, above, below (or both) or equals give."""
    chosen = [key for key in BOUND_KEYS if key in entry]
    if chosen == ["near"]:
        return _near(entry, where)
    if chosen:
        _refuse_tolerance(entry, chosen[0], where)
    if chosen == ["between"]:
        ends = entry["between"]
        if not isinstance(ends, list) or len(ends) != 2:
            raise SpecError(f"{where}: between: expected [low, high]")
        low, high = (_number(end, f"{where}: between") for end in ends)
        if low > high:
            raise SpecError(f"{where}: between: [{low:g}, {high:g}] is empty; expected [low, high]")
        return Bound(low, high, False, f"{low:g} to {high:g}")
    if chosen == ["equals"]:
        number = _number(entry["equals"], f"{where}: equals")
        return Bound(number, number, False, f"{number:g}")
    if chosen and set(chosen) <= {"above", "below"}:
        low = _number(entry.get("above", -math.inf), f"{where}: above")
        high = _number(entry.get("below", math.inf), f"{where}: below")
        return Bound(low, high, True, " and ".join(f"{key} {low if key == 'above' else high:g}" for key in chosen))
    given = f"given {' and '.join(chosen)}" if chosen else "given none"
    raise SpecError(f"{where}: expected one of {', '.join(BOUND_KEYS)}; {given}")


def _near(entry: Mapping[str, object], where: str) -> Bound:
    number = _number(entry["near"], f"{where}: near")
    named = [key for key in TOLERANCES if key in entry]
    if len(named) != 1:
        raise SpecError(f"{where}: near {number:g}: expected within or within_percent beside it")
    tolerance = _number(entry[named[0]], f"{where}: {named[0]}")
    if tolerance < 0:
        raise SpecError(f"{where}: {named[0]}: {tolerance:g}; expected a number of at least 0")
    reach = tolerance if named[0] == "within" else abs(number) * tolerance / 100
    text = f"{_plain(number)} ± {tolerance:g}{'' if named[0] == 'within' else ' %'}"
    return Bound(number - reach, number + reach, False, text)


def _refuse_tolerance(entry: Mapping[str, object], chosen: str, where: str) -> None:
    for key in TOLERANCES:
        if key in entry:
            raise SpecError(f"{where}: {key} belongs to near, not to {chosen}")


def _measure(given: object, where: str) -> Measure:
    entry = _mapping(given, MEASURE_KEYS, where)
    table = _table(entry.get("table", "runs"), where)
    columns = _columns(table)
    if "column" not in entry:
        raise SpecError(f"{where}: expected column: one of the table {table}")
    column = _named("column", entry["column"], list(columns), where)
    fit = _fit(entry, columns, where)
    test = _test(entry["is"], column, columns[column], where) if "is" in entry else None
    over = _named("over", entry.get("over", "median" if test is None else "share"), list(OVER), where)
    if fit is not None and fit.along in KEYS and "over" in entry:
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
    quantity = _named("quantity", entry.get("quantity"), QUANTITIES, where) if "quantity" in columns else None
    axis = _named("axis", entry.get("axis", "depth"), ["depth", "time"], where)
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
    from gradlab.store.record import SCHEMAS

    return _named("table", given, list(SCHEMAS), where)


def _columns(table: str) -> dict[str, str]:
    """The columns of a table, each "text" or "number"."""
    from gradlab.store.record import SCHEMAS

    return {field.name: "text" if str(field.type) == "string" else "number" for field in SCHEMAS[table]}


def _fit(entry: Mapping[str, object], columns: Mapping[str, str], where: str) -> Fit | None:
    if ("fit" in entry) != ("along" in entry):
        raise SpecError(f"{where}: expected fit and along together, as in fit: rate, along: layer")
    if "fit" not in entry:
        return None
    own = [name for name in ("step", "layer", "index") if name in columns and "run_id" in columns]
    numeric = [key for key, rule in KEYS.items() if rule.kind in (int, float)]
    return Fit(_named("fit", entry["fit"], list(FITS), where), _named("along", entry["along"], [*own, *numeric], where))


def _test(given: object, column: str, kind: str, where: str) -> Bound | Among:
    if not isinstance(given, dict):
        values = given if isinstance(given, list) else [given]
        return Among(tuple(_value(column, value, f"{where}: is") for value in values))
    if kind == "text":
        raise SpecError(f"{where}: is: column {column} holds texts; expected one of them, or a list")
    return _bound(_mapping(given, (*BOUND_KEYS[:5], *TOLERANCES), f"{where}: is"), f"{where}: is")


def _where(given: object, where: str) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    columns = list(_columns("runs"))
    wanted = []
    for key, value in _mapping(given, columns, f"{where}: where").items():
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


def _mapping(given: object, allowed: Sequence[str], where: str) -> dict[str, object]:
    if not isinstance(given, dict):
        raise SpecError(f"{where}: expected a mapping, given {_shown(given)}")
    for key in given:
        if key not in allowed:
            known = f"; keys: {', '.join(allowed)}" if len(allowed) < 20 else ""
            raise SpecError(f"{where}: unknown key {str(key)!r}{nearest(str(key), allowed) or known}")
    return {str(key): value for key, value in given.items()}


def _named(what: str, given: object, names: Sequence[str], where: str) -> str:
    if given not in names:
        known = f"; available: {', '.join(names)}"
        raise SpecError(f"{where}: unknown {what} {_shown(given)!r}{nearest(str(given), names) or known}")
    return str(given)


def _number(given: object, where: str) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, float)) or math.isnan(given):
        raise SpecError(f"{where}: expected a number, given {_shown(given)}")
    return float(given)


def _plain(number: float) -> str:
    """As few digits as tell the number from its neighbours: a tolerance is meant for all of them."""
    return f"{number:.10g}"


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _plain(value) if isinstance(value, float) else str(value)
