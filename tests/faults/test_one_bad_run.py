"""One run with an extreme value, or one that crashes: theory says nothing, and the other runs are what they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gradlab.engine.keeper import Keeper
from gradlab.grid.cohorts import make_plan
from gradlab.launch import worker
from gradlab.launch.devices import CPU_MEMORY
from gradlab.launch.events import Event, Job
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build
from gradlab.store.folder import Folder
from gradlab.store.pieces import saved_pieces
from gradlab.store.record import failed_tables
from gradlab.theory.predict import predict, profile
from tests.commands import Gradlab, before_training

EXTREME: dict[str, dict[str, Value]] = {
    "a branch of 1e8": {
        "model.name": "residual_mlp",
        "model.activation": "tanh",
        "model.depth": 50,
        "model.branch_scale": 1e8,
    },
    "weights of 1e-300": {"model.activation": "tanh", "model.weight_var": 1e-300, "model.depth": 1000},
    "the least weights": {"model.activation": "tanh", "model.weight_var": 5e-324},
    "a gain of 1e-160": {"model.activation": "gelu", "model.gain": 1e-160},
    "a slope of 1e78": {"model.activation": "leaky_relu", "model.slope": 1e78},
    "a slope of 1e300": {"model.activation": "leaky_relu", "model.slope": 1e300},
    "prelu's of 1e308": {"model.activation": "prelu", "model.slope": 1e308},
    "a normed slope of 1e160": {"model.activation": "leaky_relu", "model.slope": 1e160, "model.norm": "batch"},
}


@pytest.mark.parametrize("case", EXTREME)
def test_theory_of_extreme_values_is_none_or_a_number_and_a_failure_can_be_recorded(case: str) -> None:
    spec = build(EXTREME[case])
    said = predict(spec)
    assert said.rate is None or said.rate >= 0
    assert said.note
    profile(spec)
    assert failed_tables([spec], "it broke").runs["error"].to_pylist() == ["it broke"]


def test_a_run_that_crashes_costs_that_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [build({"model.width": 8, "model.depth": 2, "train.steps": 3, "seed": seed}) for seed in range(5)]
    (tmp_path / "pieces").mkdir()
    (piece,) = make_plan(runs, CPU_MEMORY, 1).pieces

    def train(runs: list[RunSpec], _: Keeper) -> None:
        if any(run.seed == 3 for run in runs):
            raise ZeroDivisionError("seed 3")

    before_training(monkeypatch, train)
    said: list[Event] = []
    worker.run_job(Job(piece, tuple(runs), tmp_path), torch.device("cpu"), said.append)
    table = saved_pieces(Folder(tmp_path))[piece.index]
    assert table["state"].to_pylist() == ["finished"] * 3 + ["failed", "finished"]
    assert table["run_id"].to_pylist() == [run.id for run in runs]
    assert (said[-1].kind, said[-1].failed, said[-1].error) == ("failed", 1, "ZeroDivisionError: seed 3")


def test_a_sweep_with_an_extreme_run_ends_and_is_resumed(tmp_path: Path, gradlab_: Gradlab) -> None:
    sizes = ("model.width=8", "train.steps=5", "model=residual_mlp", "model.activation=tanh")
    ended = gradlab_("sweep", *sizes, "model.depth=5,50", "model.branch_scale=1,1e8", "-o", "p")
    assert "Traceback" not in ended.err
    assert ended.status == 0
    manifest = json.loads((tmp_path / "p/manifest.json").read_text(encoding="utf-8"))
    assert manifest["state"] == "done"
    assert gradlab_("sweep", "--resume", "p").status == 0
