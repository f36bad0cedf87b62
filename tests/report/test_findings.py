"""What the page says in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradlab.report import findings
from gradlab.report.findings import mixed, runs_table, sentences
from gradlab.report.tables import read
from gradlab.spec.named import Value
from tests.synthetic import grid, write_result


def said(folder: Path, runs: list[dict[str, Value]], diverge: dict[int, int] | None = None) -> str:
    return " ".join(sentences(read([write_result(folder, runs, diverge=diverge or {})])))


@pytest.mark.parametrize(
    ("models", "along", "ends"),
    [
        (["mlp"], "a layer towards", "of the first layer over that of the last hidden one"),
        (["rnn"], "a time step towards", "of the first time step over that of the last one"),
        (["mlp", "rnn"], "a layer (a time step in an RNN) towards", "of the first layer (time step) over that of the"),
    ],
)
def test_a_sweep_is_followed_along_depth_or_time(tmp_path: Path, models: list[Value], along: str, ends: str) -> None:
    text = said(tmp_path / "out", grid({"model.name": models, "model.depth": [5], "model.gain": [0.5, 1.5]}))
    assert along in text
    assert ends in text


def test_a_single_run_names_the_places_that_its_ratio_compares(tmp_path: Path) -> None:
    deep = said(tmp_path / "deep", [{"model.depth": 10}])
    assert "a layer on its way" in deep
    assert "At step 0 the first layer gets" in deep
    recurrent = said(tmp_path / "recurrent", [{"model.name": "rnn", "model.depth": 5}])
    assert "a time step on its way" in recurrent
    assert "At step 0 the first time step gets" in recurrent


def test_divergence_at_one_step_is_no_interval(tmp_path: Path) -> None:
    runs = grid({"seed": [0, 1, 2]})
    assert "Runs diverged at step 3." in said(tmp_path / "one", runs, {0: 3, 1: 3})
    assert "Runs diverged between steps 3 and 7." in said(tmp_path / "two", runs, {0: 3, 1: 7})


def the_table(
    folder: Path, runs: list[dict[str, Value]], diverge: dict[int, int] | None = None
) -> list[dict[str, str]]:
    table = runs_table(read([write_result(folder, runs, diverge=diverge or {})]))
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


def test_the_runs_table_has_a_row_a_setting_with_what_matters_at_the_left(tmp_path: Path) -> None:
    runs = grid({"optim.lr": [0.01, 0.1], "seed": [0, 1, 2]})
    result = read([write_result(tmp_path / "out", runs, diverge={5: 4})])
    table = runs_table(result)
    assert table.head[:7] == ("run_id", "state", "runs", "verdict", "accuracy", "± accuracy", "loss_final")
    assert len(table.rows) == 2
    slow, fast = (dict(zip(table.head, row, strict=True)) for row in table.rows)
    loss = result.number("loss_final")
    assert (slow["runs"], slow["state"], slow["optim.lr"]) == ("3", "finished", "0.01")
    assert float(slow["loss_final"]) == pytest.approx(loss[:3].mean(), rel=1e-3)
    assert float(slow["± loss_final"]) == pytest.approx(loss[:3].std(ddof=1), rel=1e-3)
    assert slow["run_id"] == result.columns["run_id"][np.argsort(loss[:3])[1]]
    assert fast["state"] == "2 finished, 1 diverged"
    assert "means over its runs" in table.note


def test_seeds_of_a_single_setting_stand_one_by_one(tmp_path: Path) -> None:
    rows = the_table(tmp_path / "out", grid({"seed": [0, 1, 2]}))
    assert [row["seed"] for row in rows] == ["0", "1", "2"]
    assert "± accuracy" not in rows[0]


def test_the_runs_table_says_what_it_holds_where_it_does_not_hold_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = read([write_result(tmp_path / "out", grid({"model.width": list(range(2, 14))}), diverge={0: 2, 1: 2})])
    assert len(runs_table(result).rows) == 12
    monkeypatch.setattr(findings, "MOST_ROWS", 11)
    table = runs_table(result)
    assert "The table holds 7 of 12 settings, and sorts these alone: 5 of 10 that have a final loss" in table.note
    assert "2 of 2 that have none" in table.note


def test_lowest_and_highest_are_settings(tmp_path: Path) -> None:
    text = said(tmp_path / "out", grid({"optim.lr": [0.01, 0.1], "seed": [0, 1]}))
    assert "mean of 2 seeds (lr=0.1). Highest" in text
    assert "final loss" not in said(tmp_path / "none", grid({"optim.lr": [0.01, 0.1], "train.steps": [0]}))


def test_folders_of_different_sweeps_are_said_to_be_no_grid(tmp_path: Path) -> None:
    axes: tuple[dict[str, list[Value]], ...] = (
        {"model.depth": [3, 5, 7, 9]},
        {"optim.lr": [0.01, 0.02, 0.03, 0.04]},
        {"model.width": [8, 16, 32]},
    )
    folders = [write_result(tmp_path / str(place), grid(one)) for place, one in enumerate(axes)]
    (said,) = mixed(read(folders))
    assert said.startswith("These folders hold different sweeps")
    assert mixed(read(folders[:1])) == ()
    halves = [write_result(tmp_path / f"half{seed}", grid({**axes[0], "seed": [seed]})) for seed in (1, 2)]
    assert mixed(read(halves)) == ()
