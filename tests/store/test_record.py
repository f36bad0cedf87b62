"""The tidy tables: columns, types, nulls and the order of the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch

from gradlab.diagnose import final_loss
from gradlab.engine.train import train
from gradlab.spec.keys import KEYS
from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.store.columns import LAYERS, PROBE_COLUMNS, RUNS, STEPS
from gradlab.store.record import Tables, failed_tables, joined, tidy, with_final_losses
from tests.members import content

SETTINGS: tuple[dict[str, Value], ...] = (
    {"seed": 1},
    {"data.input_scale": 1e38, "model.gain": 1e10},
    {"seed": 2, "clip.mode": "norm", "clip.threshold": 0.1, "optim.lr": 0.05},
)
COMMON: dict[str, Value] = {"model.depth": 3, "model.width": 8, "train.steps": 4, "probe.every": 3}


def tables(settings: Sequence[dict[str, Value]]) -> Tables:
    runs = [build(COMMON | values) for values in settings]
    return tidy(train(runs, content(runs[0].data), torch.device("cpu"), lambda *_: None))


@pytest.fixture(scope="module")
def three() -> Tables:
    return tables(SETTINGS)


def test_the_columns_are_those_of_the_schemas(three: Tables) -> None:
    for table, schema in ((three.runs, RUNS), (three.steps, STEPS), (three.layers, LAYERS)):
        assert table.schema.equals(schema)
    assert RUNS.names[:2] == ["run_id", "state"]
    assert set(KEYS) <= set(RUNS.names)
    assert LAYERS.names == ["run_id", "step", "axis", "layer", "name", *PROBE_COLUMNS]
    assert STEPS.names[:7] == ["run_id", "step", "loss", "lr", "grad_norm", "grad_norm_clipped", "clipped"]


def test_rows_keep_the_order_of_the_members(three: Tables) -> None:
    ids = [build(COMMON | values).id for values in SETTINGS]
    assert three.runs["run_id"].to_pylist() == ids
    assert list(dict.fromkeys(three.steps["run_id"].to_pylist())) == ids
    assert list(dict.fromkeys(three.layers["run_id"].to_pylist())) == ids
    assert three.steps["step"].to_pylist() == [0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4]
    rows = zip(three.layers["step"].to_pylist(), three.layers["layer"].to_pylist(), strict=True)
    whole = [(step, layer) for step in (0, 3, 4) for layer in range(4)]
    assert list(rows) == [*whole, *((0, layer) for layer in range(4)), *whole]


def test_the_runs_hold_their_keys(three: Tables) -> None:
    for row, values in zip(three.runs.to_pylist(), SETTINGS, strict=True):
        assert {key: row[key] for key in KEYS} == build(COMMON | values).flat()
        assert row["error"] is None
        assert row["verdict"] == ("diverged" if row["state"] == "diverged" else "healthy")
        assert row["duration_s"] > 0


def test_learning_rates_are_the_members_own(three: Tables) -> None:
    assert three.steps["lr"].to_pylist() == [0.1] * 6 + [0.05] * 5


def test_nan_stays_nan_and_null_stays_null(three: Tables) -> None:
    row = three.runs.to_pylist()[1]
    assert (row["state"], row["steps"], row["diverged_at"]) == ("diverged", 0, 0)
    assert not math.isfinite(row["loss_first"])
    assert row["loss_heldout"] is None
    assert row["accuracy"] is None
    assert row["rate"] is None
    finished = three.runs.to_pylist()[0]
    assert (finished["diverged_at"], finished["diverged_layer"]) == (None, None)
    assert 0 <= finished["accuracy"] <= 1
    broken = [row for row in three.layers.to_pylist() if row["run_id"] == three.runs["run_id"][1].as_py()]
    assert math.isnan(broken[1]["signal_grad_norm"])
    assert broken[0]["grad_norm"] is None
    assert three.steps["loss"].null_count == 0
    assert three.layers["signal_grad_norm"].null_count == 0


def test_clipping_is_told(three: Tables) -> None:
    rows = [row for row in three.steps.to_pylist() if row["run_id"] == three.runs["run_id"][2].as_py()]
    assert [row["clipped"] for row in rows] == [True] * 4 + [None]
    for row in rows[:-1]:
        assert row["grad_norm_clipped"] == pytest.approx(0.1, rel=1e-4)
        assert row["grad_norm"] > 0.1


def test_accuracy_is_null_for_regression() -> None:
    (row,) = tables([{"data.name": "linear_teacher"}]).runs.to_pylist()
    assert row["accuracy"] is None
    assert row["loss_heldout"] > 0


def test_fractions_are_fractions(three: Tables) -> None:
    for column in ("saturated", "dead", "grad_zero"):
        values = [value for value in three.layers[column].to_pylist() if value is not None and not math.isnan(value)]
        assert all(0 <= value <= 1 for value in values)


def test_parts_are_joined_in_order(three: Tables) -> None:
    whole = joined([three, three])
    assert whole.runs.num_rows == 6
    assert whole.layers.slice(three.layers.num_rows).equals(three.layers) or math.isnan(whole.steps["loss"][5].as_py())
    assert whole.steps["step"].to_pylist() == three.steps["step"].to_pylist() * 2


def test_runs_that_crashed_have_their_keys_and_the_error() -> None:
    runs = [build(COMMON), build(COMMON | {"seed": 5})]
    failed = failed_tables(runs, "RuntimeError: no")
    assert failed.runs["state"].to_pylist() == ["failed"] * 2
    assert failed.runs["error"].to_pylist() == ["RuntimeError: no"] * 2
    assert failed.runs["seed"].to_pylist() == [0, 5]
    assert failed.runs["loss_first"].to_pylist() == [None, None]
    assert failed.steps.num_rows == failed.layers.num_rows == 0
    assert pa.concat_tables([failed.runs, failed.runs]).num_rows == 4


def test_the_final_loss_is_the_mean_of_the_end_and_none_of_a_run_that_has_none(three: Tables) -> None:
    first, diverged, _ = three.runs.to_pylist()
    losses = [row["loss"] for row in three.steps.to_pylist() if row["run_id"] == first["run_id"]]
    assert first["loss_final"] == pytest.approx(sum(losses[1:]) / 4)
    assert diverged["loss_final"] is None
    (untrained,) = tables([{"train.steps": 0}]).runs.to_pylist()
    assert untrained["loss_last"] == untrained["loss_first"]
    assert untrained["loss_final"] is None


def test_the_final_loss_is_over_a_tenth_of_many_steps_and_five_of_few() -> None:
    losses = np.arange(101.0)
    assert final_loss(losses) == pytest.approx(np.mean([*range(91, 101)]))
    assert final_loss(losses[:31]) == pytest.approx(np.mean([26, 27, 28, 29, 30]))
    assert math.isnan(final_loss(losses[:1]))


def test_older_tables_get_their_final_losses_from_their_steps(three: Tables) -> None:
    older = three.runs.drop_columns(["loss_final"])
    null = older.append_column("loss_final", pa.nulls(3, pa.float64()))
    shuffled = three.steps.take(list(reversed(range(three.steps.num_rows))))
    for runs in (older, null):
        again = with_final_losses(runs, shuffled)["loss_final"].to_pylist()
        assert again == pytest.approx(three.runs["loss_final"].to_pylist())
    assert with_final_losses(three.runs, three.steps) is three.runs
