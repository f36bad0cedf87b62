"""How a measured number is written for a reader: in a sentence, and in a table."""

from __future__ import annotations

import math


def figure(value: float, digits: int = 3) -> str:
    """A number for a sentence, readable from 1e-300 to 1e300.

    >>> figure(0.25), figure(1.4421e-32), figure(0.0)
    ('0.25', '1.44e-32', '0')
    """
    return f"{value:.{digits}g}"


def number(value: float | None, digits: int = 3) -> str:
    """A figure that stays readable from 1e-32 to 1e32; a dash where there is none.

    >>> number(0.25), number(1.4421e-32), number(None), number(math.nan)
    ('0.25', '1.44e-32', '-', 'nan')
    """
    if value is None:
        return "-"
    if not math.isfinite(value) or value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits}g}"
    return f"{value:.{digits - 1}e}"
