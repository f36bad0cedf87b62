"""The top of the page: what is wrong, with which runs, where and since when by a clear example, and what to do."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gradlab.cure.words import loss, what_it_is
from gradlab.diagnose import ORDER
from gradlab.diagnose.sweep import gathered, since
from gradlab.report.cure import Cure
from gradlab.report.groups import short
from gradlab.report.tables import Result
from gradlab.report.verdicts import Count, Example, counts, examples, given, thresholds

MOST = 3
"""Illnesses that are told at the top; the section on verdicts has all."""


@dataclass(frozen=True)
class Answer:
    """What is wrong in a sentence, then in rows where, since when and why, and the command that looks for a cure."""

    title: str
    rows: tuple[tuple[str, str], ...]
    heal: str | None


def answers(result: Result, clear: Sequence[Example], homes: Mapping[str, Path]) -> list[Answer]:
    """The gravest illnesses of a sweep, each by its example; of a single run every verdict."""
    if result.size == 1:
        return [_of_one(one, result, homes, last=one is clear[-1]) for one in clear]
    rows = counts(result)
    return [_of_many(one, result, homes, rows) for one in clear[:MOST]]


def of_cure(result: Result, healing: Cure) -> list[Answer]:
    """What was wrong with the run as it was, and the smallest change that heals it."""
    before = result.only(np.array([run_id == healing.before.run_id for run_id in result.ids]))
    found = [_of_one(one, before, {}, last=False) for one in examples(before)]
    if not found or not healing.best:
        return found
    one = healing.best[0]
    cure = (("cure", f"{one.change['override']}: {what_it_is(one)}; loss {loss(one, healing.before)}."),)
    return [*found[:-1], replace(found[-1], rows=(*found[-1].rows, *cure), heal=one.change["command"])]


def _of_one(one: Example, result: Result, homes: Mapping[str, Path], *, last: bool) -> Answer:
    sick = one.verdict.name != "healthy"
    by = thresholds(one.verdict)
    rows = (*(_reasons(one, result) if sick else ()), *((("judged by", by),) if by else ()))
    return Answer(_begun(one.verdict.sentence), rows, _heal(one, result, homes) if sick and last else None)


def _of_many(one: Example, result: Result, homes: Mapping[str, Path], rows: Sequence[Count]) -> Answer:
    name = one.verdict.name
    place = ORDER.index(name)
    groups = [(short(row.key), row.value, row.runs, row.verdicts[place]) for row in rows[1:]]
    where = gathered(rows[0].runs, rows[0].verdicts[place], groups)
    example = f"{one.setting} (run {one.run_id}): {one.verdict.sentence.removeprefix(f'{name}: ')}."
    told = (("such as", example), *_reasons(one, result))
    return Answer(_begun(f"{name}: {where}"), told, _heal(one, result, homes))


def _reasons(one: Example, result: Result) -> tuple[tuple[str, str], ...]:
    """Since when a run has its verdict, where that is not said already, and why."""
    trained = one.verdict.name != "diverged" and len(one.history.loss) > 1
    step = since(one.history, one.verdict.name, result.limits) if trained else None
    cause = one.verdict.cause
    return (
        *((("since", f"step {step}"),) if step is not None else ()),
        *((("cause", f"{cause.name}: {cause}."),) if cause is not None else ()),
    )


def _heal(one: Example, result: Result, homes: Mapping[str, Path]) -> str | None:
    known = result.own[one.run]
    return f"gradlab cure --from {shlex.quote(str(homes[one.run_id]))} {one.run_id}" if known else None


def _begun(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}."


def well(result: Result) -> str:
    """What is said where nothing is wrong; empty where something is, or nobody knows."""
    found = [run for run in given(result) if run]
    return f"Nothing is wrong with any of {len(found)} runs." if found and set(found) == {("healthy",)} else ""
