"""What could have been known before training: rankings of outcomes that are made of known orders."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from gradlab.report import write_report
from gradlab.report.beforehand import beforehand, interval, sentences, table
from gradlab.report.tables import read
from gradlab.spec.named import Value
from tests.synthetic import grid, write_result

NETWORKS: dict[str, Iterable[Value]] = {"model.gain": [0.4 + 0.05 * i for i in range(12)], "optim.lr": [0.01, 0.1]}


@pytest.mark.usefixtures("unpainted")
def test_a_score_that_orders_the_losses_is_found_and_told(tmp_path: Path) -> None:
    """By its formula a run of the synthetic result learns the faster, the nearer its rate is to 1 from below."""
    source = write_result(tmp_path / "result", grid(NETWORKS))
    found = beforehand(read([source]))
    assert found is not None
    by_name = {one.name: one for one in found.scores}
    rate = by_name["distance of rate of δ from 1, |ln|"]
    assert rate.alike > 0.8
    assert 0 < rate.low < rate.rho < rate.high
    assert (rate.runs, rate.networks) == (24, 12)
    assert list(found.scores) == sorted(found.scores, key=lambda one: -abs(one.rho))
    report = write_report([source], tmp_path / "report")
    assert {"beforehand.png", "beforehand.svg", "beforehand.csv"} <= {file.name for file in report.files}
    page = report.page.read_text(encoding="utf-8")
    assert "What could have been known before training" in page
    assert found.scores[0].name in page
    with (tmp_path / "report" / "beforehand.csv").open(encoding="utf-8") as file:
        assert [row["score"] for row in csv.DictReader(file)] == [one.name for one in found.scores]


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"model.gain": [0.5, 0.7, 0.9, 1.0], "seed": range(3)}, "4 networks are too few"),
        ({"model.gain": [0.5, 0.7, 0.9, 1.0], "data.name": ["digits", "gaussian_mixture"]}, "different data.name"),
        ({"optim.lr": [0.01, 0.02, 0.05, 0.1], "seed": range(3)}, None),
    ],
)
def test_what_cannot_be_ranked_is_said(tmp_path: Path, axes: dict[str, Iterable[Value]], told: str | None) -> None:
    found = beforehand(read([write_result(tmp_path / "result", grid(axes))]))
    assert table(found) is None
    assert (found is None) == (told is None)
    assert told is None or told in " ".join(sentences(found))


def test_the_interval_covers_what_it_should_and_counts_networks_alone() -> None:
    """Of normal pairs that are correlated by 0.6, whose rank correlation is 0.58, with each pair given five times."""
    rng = np.random.default_rng(7)
    inside, widths = 0, []
    for _ in range(100):
        x, e = rng.standard_normal((2, 40))
        pair = np.repeat(x, 5), np.repeat(0.6 * x + 0.8 * e, 5)
        low, high = interval(*pair, np.repeat(np.arange(40), 5))
        inside += low <= 0.582 <= high
        widths.append(high - low)
        alone = interval(*pair, np.arange(200))
        assert alone[1] - alone[0] < high - low
    assert inside >= 85
