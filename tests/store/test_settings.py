"""Settings and their ranking, against a grouping row by row."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from gradlab.store.settings import ranking

COUNT = 400


def drawn(seed: int) -> pa.Table:
    """Runs of a few settings, whose seeds may diverge, fail, or have no number."""
    draw = np.random.default_rng(seed)

    def some(values: np.ndarray, absent: float) -> pa.Array:
        gone = draw.random(COUNT) < absent
        return pa.array([None if lost else value for value, lost in zip(values.tolist(), gone, strict=True)])

    losses = np.round(draw.random(COUNT), 1)
    losses[draw.random(COUNT) < 0.05] = math.inf
    return pa.table(
        {
            "run_id": [f"{place:04d}" for place in range(COUNT)],
            "seed": list(range(COUNT)),
            "model.name": pa.array(draw.choice(["mlp", "rnn"], COUNT)).dictionary_encode(),
            "model.depth": some(draw.integers(1, 8, COUNT), 0.1),
            "optim.lr": some(np.round(draw.random(COUNT), 1), 0.1),
            "state": draw.choice(["finished", "diverged", "failed"], COUNT, p=[0.8, 0.1, 0.1]),
            "loss_final": some(losses, 0.3),
            "vanishing_ratio": some(np.where(draw.random(COUNT) < 0.1, 0.0, draw.random(COUNT)), 0.3),
        }
    )


def grouped(runs: pa.Table) -> list[list[int]]:
    found: dict[tuple[object, ...], list[int]] = {}
    for place, row in enumerate(runs.to_pylist()):
        found.setdefault((row["model.name"], row["model.depth"], row["optim.lr"]), []).append(place)
    return list(found.values())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("level", [False, True])
def test_settings_are_ranked_by_the_means_over_their_seeds(seed: int, level: bool) -> None:
    runs = drawn(seed)
    rows, settings = runs.to_pylist(), grouped(runs)
    known = []
    for number, places in enumerate(settings):
        own = [rows[place] for place in places]
        if level:
            ratios = [abs(math.log(row["vanishing_ratio"])) for row in own if row["vanishing_ratio"]]
            if ratios and any(row["state"] == "finished" for row in own):
                known.append(((False, statistics.fmean(ratios)), number))
        else:
            losses = [row["loss_final"] for row in own if row["loss_final"] is not None]
            finite = [loss for loss in losses if math.isfinite(loss)]
            if finite:
                known.append(((any(row["state"] == "diverged" for row in own), statistics.fmean(finite)), number))
    found = ranking(runs, level=level)
    assert len(found) == len(settings)
    assert [list(one.places) for one in found.some(range(len(found)))] == settings
    assert found.some([3])[0].values("loss_final") == [rows[place]["loss_final"] for place in settings[3]]
    key = {number: key for key, number in known}
    assert sorted(found.ranked.tolist()) == sorted(key)
    told = [key[number] for number in found.ranked.tolist()]
    # A sum in another order may differ in its last digit, and only by that.
    assert all(one[0] <= other[0] for one, other in pairwise(told))
    assert all(a[0] < b[0] or a[1] <= b[1] * (1 + 1e-12) for a, b in pairwise(told))
    assert found.behind.tolist() == [number for number in range(len(settings)) if number not in key]


def test_each_run_by_itself_and_no_run_at_all() -> None:
    runs = drawn(2)
    assert [list(one.places) for one in ranking(runs, each=True).some([0, COUNT - 1])] == [[0], [COUNT - 1]]
    assert len(ranking(runs.slice(0, 0))) == 0
