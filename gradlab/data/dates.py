"""Dates as people write them, to be translated to ISO 8601, character by character."""

from __future__ import annotations

import datetime as dt

import numpy as np

from gradlab.data.dataset import Dataset, split
from gradlab.spec.choices import DATA
from gradlab.spec.run import DataSpec

CONTENT = 9
"""Seed of the content."""

ANSWERS = "0123456789-"
CHARACTERS = f"{ANSWERS}abcdefghijklmnopqrstuvwxyz ,./"
PAD, START = len(CHARACTERS), len(CHARACTERS) + 1
"""Tokens behind the characters: what fills up a source, and what stands before the first answer."""

READ, WRITTEN = 30, 10
"""Places of the source, and of the answer."""

FIRST, DAYS = dt.date(1950, 1, 1), 36_525
"""A hundred years of days."""

MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def dates(_spec: DataSpec) -> Dataset:
    """8,000 dates to train on and 1,000 others held out: inputs (N, 40), targets (N, 10), characters as tokens.

    The first 30 tokens are the date as somebody writes it, filled up at its end; behind them stand the sign to start
    and the answer but for its last character, so that at each of the last ten places the next one is to be given. No
    day is in both parts. The task of Bahdanau et al. 2014, arXiv:1409.0473, at the size of a laboratory.
    """
    entry = DATA["dates"]
    rng = np.random.default_rng(CONTENT)
    count = entry.train + entry.heldout
    days, forms = rng.permutation(DAYS)[:count], rng.integers(0, FORMS, count)
    inputs, targets = np.full((count, READ + WRITTEN), PAD), np.empty((count, WRITTEN), dtype=np.int64)
    for row, (day, form) in enumerate(zip(days.tolist(), forms.tolist(), strict=True)):
        date = FIRST + dt.timedelta(days=day)
        source = tokens(written(date, form))
        targets[row] = tokens(date.isoformat())
        inputs[row, : len(source)] = source
        inputs[row, READ] = START
        inputs[row, READ + 1 :] = targets[row, :-1]
    return split(inputs, targets, entry.train)


FORMS = 7


def written(date: dt.date, form: int) -> str:
    """One of the ways to write a date.

    >>> [written(dt.date(1987, 5, 3), form) for form in range(FORMS)][:4]
    ['3rd of may 1987', 'may 3, 1987', '3 may 1987', 'sunday, 3 may 1987']
    >>> [written(dt.date(1987, 5, 22), form) for form in range(4, FORMS)]
    ['22.5.1987', '1987/05/22', 'may the 22nd, 1987']
    """
    day, month, year = date.day, MONTHS[date.month - 1], date.year
    ending = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return (
        f"{day}{ending} of {month} {year}",
        f"{month} {day}, {year}",
        f"{day} {month} {year}",
        f"{WEEKDAYS[date.weekday()]}, {day} {month} {year}",
        f"{day}.{date.month}.{year}",
        f"{year}/{date.month:02}/{day:02}",
        f"{month} the {day}{ending}, {year}",
    )[form]


def tokens(text: str) -> list[int]:
    """Its characters by their numbers."""
    return [CHARACTERS.index(character) for character in text]
