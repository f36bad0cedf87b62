"""What a measured number must be: near another, between two, above, below, or one of some values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gradlab.expect.plain import digits, read_number, shown
from gradlab.spec.named import SpecError, Value

BOUND_KEYS = ("near", "between", "above", "below", "equals", "less_than", "more_than")


TOLERANCES = ("within", "within_percent")


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
        return f"= {'|'.join(map(shown, self.values))}"

    def holds(self, value: Value) -> bool:
        """Whether it is one of them; null only where null is among them."""
        return value in self.values


def read_bound(entry: Mapping[str, object], where: str) -> Bound:
    """The bound that near and its tolerance, between, above, below (or both) or equals give."""
    chosen = [key for key in BOUND_KEYS if key in entry]
    if chosen == ["near"]:
        return _near(entry, where)
    if chosen:
        refuse_tolerance(entry, chosen[0], where)
    if chosen == ["between"]:
        ends = entry["between"]
        if not isinstance(ends, list) or len(ends) != 2:
            raise SpecError(f"{where}: between: expected [low, high]")
        low, high = (read_number(end, f"{where}: between") for end in ends)
        if low > high:
            raise SpecError(f"{where}: between: [{low:g}, {high:g}] is empty; expected [low, high]")
        return Bound(low, high, False, f"{low:g} to {high:g}")
    if chosen == ["equals"]:
        number = read_number(entry["equals"], f"{where}: equals")
        return Bound(number, number, False, f"{number:g}")
    if chosen and set(chosen) <= {"above", "below"}:
        low = read_number(entry.get("above", -math.inf), f"{where}: above")
        high = read_number(entry.get("below", math.inf), f"{where}: below")
        return Bound(low, high, True, " and ".join(f"{key} {low if key == 'above' else high:g}" for key in chosen))
    given = f"given {' and '.join(chosen)}" if chosen else "given none"
    raise SpecError(f"{where}: expected one of {', '.join(BOUND_KEYS)}; {given}")


def _near(entry: Mapping[str, object], where: str) -> Bound:
    number = read_number(entry["near"], f"{where}: near")
    named = [key for key in TOLERANCES if key in entry]
    if len(named) != 1:
        raise SpecError(f"{where}: near {number:g}: expected within or within_percent beside it")
    tolerance = read_number(entry[named[0]], f"{where}: {named[0]}")
    if tolerance < 0:
        raise SpecError(f"{where}: {named[0]}: {tolerance:g}; expected a number of at least 0")
    reach = tolerance if named[0] == "within" else abs(number) * tolerance / 100
    text = f"{digits(number)} ± {tolerance:g}{'' if named[0] == 'within' else ' %'}"
    return Bound(number - reach, number + reach, False, text)


def refuse_tolerance(entry: Mapping[str, object], chosen: str, where: str) -> None:
    """Raises `SpecError` where a tolerance stands beside ``chosen``, which takes none."""
    for key in TOLERANCES:
        if key in entry:
            raise SpecError(f"{where}: {key} belongs to near, not to {chosen}")
