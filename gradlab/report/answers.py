"""The top of the page: what is wrong, with which runs, where and since when by a clear example, and what to do."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradlab.diagnose import ORDER
from gradlab.diagnose.sweep import gathered, since
from gradlab.report.groups import short
from gradlab.report.tables import Result
from gradlab.report.verdicts import Count, Example, counts, given

MOST = 3
"""Illnesses that are told at the top; the section on verdicts has all."""


@dataclass(frozen=True)
class Answer:
    """An illness of a sweep: how many runs have it and where most of them are, an example, and a command."""

    name: str
    runs: str
    example: str
    heal: str | None


def answers(result: Result, examples: Sequence[Example], homes: Mapping[str, Path]) -> list[Answer]:
    """The gravest illnesses of a sweep; none of a single run, whose verdicts say it all."""
    if result.size == 1:
        return []
    rows = counts(result)
    told = []
    for one in examples[:MOST]:
        name = one.verdict.name
        heal = (
            f"gradlab cure --from {shlex.quote(str(homes[one.run_id]))} {one.run_id}" if result.own[one.run] else None
        )
        told.append(
            Answer(name, _gathered(rows, name), f"{one.setting}: {one.verdict.told}.{_since(one, result)}", heal)
        )
    return told


def _since(one: Example, result: Result) -> str:
    step = since(one.history, one.verdict.name, result.limits) if one.verdict.name != "diverged" else None
    return "" if step is None else f" It has been so since step {step}."


def well(result: Result) -> str:
    """What is said where nothing is wrong; empty where something is, or nobody knows."""
    found = [run for run in given(result) if run]
    return f"Nothing is wrong with any of {len(found)} runs." if found and set(found) == {("healthy",)} else ""


def _gathered(rows: Sequence[Count], name: str) -> str:
    """How many runs have an illness, and at which value of a key it gathers: the one that tells ill from well best."""
    place = ORDER.index(name)
    every, ill = rows[0].runs, rows[0].verdicts[place]
    return gathered(every, ill, [(short(row.key), row.value, row.runs, row.verdicts[place]) for row in rows[1:]])
