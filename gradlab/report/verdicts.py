"""What the report says of the runs' verdicts: counts over each swept key, and an example of each with its evidence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from gradlab.diagnose import ORDER, History, Verdict, judge, names
from gradlab.diagnose.sweep import clearest
from gradlab.diagnose.tables import histories
from gradlab.report.cells import write_cells
from gradlab.report.findings import Table
from gradlab.report.groups import in_words, levels, swept, varying
from gradlab.report.tables import Bools, Result

MOST_BINS = 8
"""A numeric key of more values is cut into so many bins of equal count."""

MOST_EXAMPLES = 6

MOST_CANDIDATES = 200
"""Runs that are judged again in search of the clearest example of one verdict."""


@dataclass(frozen=True)
class Example:
    """A run that stands for a verdict: its place and id, its setting in words, and what was judged."""

    run: int
    run_id: str
    setting: str
    verdict: Verdict
    history: History


@dataclass(frozen=True)
class Count:
    """How many of the runs with one value of a key have each verdict, in the order of `ORDER`."""

    key: str
    value: str
    runs: int
    verdicts: tuple[int, ...]


def given(result: Result) -> list[tuple[str, ...]]:
    """The names of each run's verdicts; none of a run that crashed."""
    stored = result.columns["verdict"]
    told = {column: names(None if column is None else str(column)) for column in set(stored)}
    return [told[column] for column in stored]


def tally(result: Result) -> str:
    """The verdicts of a sweep in one sentence."""
    found = Counter(name for run in given(result) for name in run)
    known = sum(map(bool, given(result)))
    parts = ", ".join(f"{found[name]} {name}" for name in ORDER if found[name])
    several = " (a run may have several)" if found.total() > known else ""
    return f"Verdicts of {known} runs: {parts}{several}." if known else "No run left anything to judge."


def counts(result: Result) -> list[Count]:
    """All runs, then those of each value of each swept key."""
    every = np.ones(result.size, dtype=bool)
    rows = [Count("", "all", *_among(result, every))]
    for key in swept(result):
        part = levels(result, key, bins=MOST_BINS)
        rows += [
            Count(key, value, *_among(result, part.code == place))
            for place, value in enumerate(part.labels)
            if (part.code == place).any()
        ]
    return rows


def _among(result: Result, kept: Bools) -> tuple[int, tuple[int, ...]]:
    found = Counter(name for run, chosen in zip(given(result), kept, strict=True) if chosen for name in run)
    return int(kept.sum()), tuple(found[name] for name in ORDER)


def table(result: Result) -> Table:
    """`counts` for the page: of the verdicts only those that occur."""
    rows = counts(result)
    shown = [place for place, count in enumerate(rows[0].verdicts) if count]
    return Table(
        ("key", "value", "runs", *(ORDER[place] for place in shown)),
        (False, False, True, *(True for _ in shown)),
        tuple((row.key, row.value, str(row.runs), *(str(row.verdicts[place]) for place in shown)) for row in rows),
        "Runs by verdict over each value of a swept key; a run may have several verdicts.",
    )


def write_counts(result: Result, out: Path) -> Path:
    """`counts` as verdicts.csv: key (empty for all runs), value, runs, then a column for every verdict there is."""
    rows = counts(result)
    columns = {
        "key": [row.key for row in rows],
        "value": [row.value for row in rows],
        "runs": [row.runs for row in rows],
        **{name: [row.verdicts[place] for row in rows] for place, name in enumerate(ORDER)},
    }
    return write_cells(pa.table(columns), out / "verdicts.csv")


def examples(result: Result) -> list[Example]:
    """Of a single run every verdict; of a sweep the clearest example of each that occurs but `healthy`.

    It is one of the runs that have the fewest other verdicts.

    Judged again, by the thresholds that the runs were judged by: the tables keep the names alone.
    """
    if result.size == 1:
        history = _history(result)
        return [Example(0, result.ids[0], "", verdict, history) for verdict in judge(history, result.limits)]
    result = result.every
    stored = given(result)
    keys = swept(result) or varying(result)
    occurring = [name for name in ORDER if name != "healthy" and any(name in run for run in stored)]
    found = []
    for name in occurring[:MOST_EXAMPLES]:
        clear = clearest(result.rows_of, stored, name, result.limits, MOST_CANDIDATES)
        if clear is not None:
            place, verdict, history = clear
            found.append(Example(place, result.ids[place], in_words(result, place, keys), verdict, history))
    return found


def _history(one: Result) -> History:
    (history,) = histories(one.runs, one.tables["steps"], one.tables["layers"])
    return history


def outdated(result: Result) -> tuple[str, ...]:
    """Says of a single run where its table has another verdict than these rules give: that of another version."""
    again = tuple(verdict.name for verdict in judge(_history(result), result.limits)) if result.size == 1 else ()
    stored = given(result)[0]
    if result.size > 1 or again == stored:
        return ()
    return (f"The runs table says {'+'.join(stored) or 'nothing'}: it was judged by the rules of another version.",)


def thresholds(verdict: Verdict) -> str:
    """The keys that a verdict crossed with their values, and where these come from."""
    keys = ", ".join(f"{key}={value:g}" for key, value in verdict.threshold.items())
    return f"{keys}: {verdict.source}" if keys else verdict.source
