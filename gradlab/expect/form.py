"""Expectations as an experiment's file writes them: which number of the finished tables, and what it must be.

    expect:
      - what: "He's weights keep the gradient at its size"
        value: {column: rate, where: {model.init: he_normal}, over: median}
        near: 1.0
        within: 0.01

Everything is checked here, before anything runs; `gradlab.expect.evaluate` evaluates it. Neither numpy nor a table is
needed to read the form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradlab.expect.bound import BOUND_KEYS, TOLERANCES, Bound, read_bound, refuse_tolerance
from gradlab.expect.measure import Measure, read_measure
from gradlab.expect.plain import read_mapping, shown
from gradlab.spec.keys import is_key
from gradlab.spec.named import SpecError
from gradlab.spec.run import RunSpec


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
            wanted = [(key, values) for key, values in measure.where if is_key(key)]
            if any(all(flat.get(key) in values for key, values in wanted) for flat in flats):
                continue
            lost = next(
                (f"{key}={shown(values[0])}" for key, values in wanted if not any(f.get(key) in values for f in flats)),
                " and ".join(f"{key}={shown(values[0])}" for key, values in wanted),
            )
            raise SpecError(f"{where} {number}: no run of this grid has {lost}")


def measures(expectation: Expectation) -> tuple[Measure, ...]:
    """Every number that an expectation needs, its value first."""
    others = (expectation.divided_by, expectation.relation.than if expectation.relation else None)
    return (expectation.value, *(other for other in others if other is not None))


def _expectation(given: object, where: str) -> Expectation:
    allowed = ("what", "value", "divided_by", *BOUND_KEYS, *TOLERANCES, "source")
    entry = read_mapping(given, allowed, where)
    what, source = entry.get("what"), entry.get("source", "")
    if not isinstance(what, str) or not what.strip():
        raise SpecError(f"{where}: expected what: a line for the reader")
    if not isinstance(source, str):
        raise SpecError(f"{where}: source: expected a text")
    if "value" not in entry:
        raise SpecError(f"{where}: expected value: {{column: ..., where: ..., over: ...}}")
    divided_by = read_measure(entry["divided_by"], f"{where}: divided_by") if "divided_by" in entry else None
    value = read_measure(entry["value"], f"{where}: value")
    relation = _relation(entry, where)
    bound = read_bound(entry, where) if relation is None else None
    return Expectation(what.strip(), value, divided_by, bound, relation, source.strip())


def _relation(entry: Mapping[str, object], where: str) -> Relation | None:
    chosen = [key for key in BOUND_KEYS if key in entry]
    if chosen not in (["less_than"], ["more_than"]):
        return None
    refuse_tolerance(entry, chosen[0], where)
    return Relation(chosen == ["less_than"], read_measure(entry[chosen[0]], f"{where}: {chosen[0]}"))
