"""What the experiments of a report were expected to show, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.report.findings import Table
from gradlab.report.tables import Result
from gradlab.store.documents import read_expectations

HEAD = ("expectation", "result", "expected", "measured", "computed as", "source")


@dataclass(frozen=True)
class Expected:
    """The expectations of one result folder: a line that sums them up, and the table."""

    summary: str
    table: Table


def expected(result: Result) -> list[Expected]:
    """One entry for each of the result's folders that expected something, in their order.

    Raises `SpecError` where the folder's expectations cannot be read.
    """
    told = [read_expectations(path) for path in result.manifests]
    return [_expected(one["experiment"], one["altered"], one["outcomes"]) for one in told if one is not None]


def _expected(experiment: str, altered: list[str], outcomes: list[dict[str, str]]) -> Expected:
    met = sum(outcome["result"] == "pass" for outcome in outcomes)
    summary = f"{met} of {len(outcomes)} expectations of {experiment} are met."
    if altered:
        summary += f" Settings of the experiment were changed ({', '.join(altered)}), so none of this has to hold."
    names = ("what", "result", "expected", "measured", "computed", "source")
    rows = tuple(tuple(outcome[name] for name in names) for outcome in outcomes)
    shown = len(HEAD) if any(outcome["source"] for outcome in outcomes) else len(HEAD) - 1
    return Expected(summary, Table(HEAD[:shown], (False,) * shown, tuple(row[:shown] for row in rows), ""))
