"""The verdicts of trained networks: pathologies that theory fixes are found, healthy runs are left alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmarks.verdicts import DEAD, HEALTHY, SICK, Judged, healthy, lines, share, sick
from gradlab.diagnose import ORDER, fit
from gradlab.diagnose.tables import histories
from gradlab.engine.train import train
from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.store.record import tidy
from tests.members import content

torch.set_num_threads(1)


@pytest.mark.parametrize("half", [sick, healthy])
def test_95_of_100_verdicts_are_right(half: Callable[[], list[Judged]]) -> None:
    results = half()
    assert len(results) >= 60
    assert share(results) >= 0.95, "\n".join(lines(results))


def test_every_verdict_has_its_networks() -> None:
    """All but those that no run of gradlab's own networks can get: they are said of what is measured."""
    said_of_others = {"no_gradient", "misspecified", "ill_scaled", "collapsed"}
    assert {group.expected for group in (*SICK, DEAD, *HEALTHY)} == set(ORDER) - said_of_others


def test_other_seeds_change_the_draws_and_nothing_else() -> None:
    for group in (*SICK, DEAD, *HEALTHY):
        other = group.seeded((7, 8, 9))
        drawn = len(group.inside.get("seed", ())) > 1
        assert {run.get("seed") for run in other.runs()} == (
            {7, 8, 9} if drawn else {r.get("seed") for r in group.runs()}
        )
        without = [[{**run, "seed": None} for run in one.runs()] for one in (group, other)]
        assert all(run in without[0] for run in without[1])
        assert group.seeded(()) == group


@pytest.mark.parametrize(("activation", "variance"), [("relu", 2.0), ("sigmoid", 1.0)])
def test_the_standard_error_of_the_rate_is_its_spread_over_seeds(activation: str, variance: float) -> None:
    shared: dict[str, Value] = {"model.activation": activation, "model.weight_var": variance, "train.steps": 0}
    runs = [build({**shared, "seed": seed, "model.depth": 30, "model.width": 32}) for seed in range(100)]
    tables = tidy(train(runs, content(runs[0].data), torch.device("cpu"), lambda *_: None))
    histories_ = histories(tables.runs, tables.steps, tables.layers)
    fits = [found for history in histories_ if (found := fit(history.along[0].deltas, "depth")) is not None]
    assert len(fits) == 100
    spread = np.std([math.log(found.rate) for found in fits])
    # A profile whose trend chance brings about once in twenty draws states none.
    stated = [found for found in fits if math.isfinite(found.error)]
    assert len(stated) >= 85
    told = math.sqrt(np.mean([(found.error / found.rate) ** 2 for found in stated]))
    # 100 seeds know their spread to 7 %; the increments of ReLU are not quite independent.
    assert told == pytest.approx(spread, rel=0.3)
