"""What the page says in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradlab.report.findings import sentences
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
