"""The sick and the healthy runs of every architecture: lists that share no draw, and verdicts of a few of them."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import torch

from benchmarks.verdicts_architectures import HALVES, KINDS, conditions, judged, lines
from gradlab.diagnose import ORDER

torch.set_num_threads(1)


@pytest.mark.parametrize("kind", KINDS)
def test_sixty_runs_a_half_and_none_in_both(kind: str) -> None:
    halves = {half: [run for one in conditions(kind) for run in one.runs(half)] for half in HALVES}
    assert all(len(halves[half]) >= 60 for half in ("tune", "held"))
    for one, other in combinations(halves, 2):
        assert not {run.id for run in halves[one]} & {run.id for run in halves[other]}
        assert not {run.seed for run in halves[one]} & {run.seed for run in halves[other]}
    counted = Counter(run.model.name for run in halves["held"])
    assert min(counted.values()) >= 9


def test_a_sick_run_is_not_accepted_as_healthy() -> None:
    for condition in conditions("sick"):
        assert condition.accepted <= set(ORDER) - {"healthy"}
    assert {condition.accepted for condition in conditions("healthy")} == {frozenset({"healthy"})}


@pytest.mark.parametrize(("kind", "model", "why"), [("sick", "rnn", "far too small"), ("healthy", "gru", "rows")])
def test_the_first_of_a_condition_is_judged_right(kind: str, model: str, why: str) -> None:
    (condition,) = (one for one in conditions(kind) if one.model == model and why in one.why)
    results = judged(condition, "tune", seeds=[3])
    assert all(result.right for result in results), "\n".join(lines(results))
