"""How the plain content of a file is read: each fault is one line with the place, what was given and what expected."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradlab.spec.named import SpecError, nearest


def read_mapping(given: object, allowed: Sequence[str], where: str) -> dict[str, object]:
    """A mapping whose keys are all ``allowed``."""
    if not isinstance(given, dict):
        raise SpecError(f"{where}: expected a mapping, given {shown(given)}")
    for key in given:
        if key not in allowed:
            known = f"; keys: {', '.join(allowed)}" if len(allowed) < 20 else ""
            raise SpecError(f"{where}: unknown key {str(key)!r}{nearest(str(key), allowed) or known}")
    return {str(key): value for key, value in given.items()}


def read_name(what: str, given: object, names: Sequence[str], where: str) -> str:
    """One of ``names``."""
    if given not in names:
        known = f"; available: {', '.join(names)}"
        raise SpecError(f"{where}: unknown {what} {shown(given)!r}{nearest(str(given), names) or known}")
    return str(given)


def read_number(given: object, where: str) -> float:
    """A number, which NaN and true are not."""
    if isinstance(given, bool) or not isinstance(given, (int, float)) or math.isnan(given):
        raise SpecError(f"{where}: expected a number, given {shown(given)}")
    return float(given)


def digits(number: float) -> str:
    """As few digits as tell the number from its neighbours: a tolerance is meant for all of them."""
    return f"{number:.10g}"


def shown(value: object) -> str:
    """A value as its file would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return digits(value) if isinstance(value, float) else str(value)
