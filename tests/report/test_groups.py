"""Which keys vary, which matter, and how runs are grouped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradlab.report import write_report
from gradlab.report.figures.layer_profiles import layer_keys
from gradlab.report.groups import (
    calm_cap,
    early_keys,
    influence,
    levels,
    map_keys,
    once,
    quantile,
    remaining,
    swept,
    varying,
)
from gradlab.report.layout import arrange, facets, thin
from gradlab.report.tables import Result, read
from gradlab.spec.named import SpecError, Value
from tests.synthetic import grid, write_result


def result_of(folder: Path, axes: dict[str, list[object]]) -> Result:
    return read([write_result(folder / "result", grid(axes, {"train.steps": 1}))])  # type: ignore[arg-type]


def test_quantiles_are_numpys_where_all_is_finite() -> None:
    values = np.random.default_rng(0).normal(size=(11, 7))
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share, axis=0))


def test_quantiles_leave_out_nan_and_keep_infinities() -> None:
    values = np.array([[1.0, np.nan, -np.inf], [3.0, np.nan, -np.inf], [np.inf, np.nan, 2.0], [np.nan, np.nan, np.inf]])
    assert quantile(values, 0.5).tolist()[0] == 3.0
    assert np.isnan(quantile(values, 0.5)[1])
    assert quantile(values, 0.0).tolist()[2] == -np.inf
    assert quantile(values, 1.0).tolist()[2] == np.inf


def test_numbers_ascend_and_names_keep_the_order_of_the_grid(tmp_path: Path) -> None:
    result = result_of(tmp_path, {"optim.lr": [0.1, 0.01], "model.activation": ["tanh", "relu"]})
    assert levels(result, "optim.lr").labels == ("0.01", "0.1")
    assert levels(result, "optim.lr").code.tolist() == [1, 1, 0, 0]
    assert levels(result, "model.activation").labels == ("tanh", "relu")


def test_a_key_that_comes_with_a_choice_is_not_swept(tmp_path: Path) -> None:
    result = result_of(tmp_path, {"model.activation": ["relu", "prelu"], "optim.lr": [0.1, 0.2]})
    assert "model.slope" in varying(result)
    assert swept(result) == ["model.activation", "optim.lr"]
    assert remaining(result, ["model.activation"]) == ["optim.lr"]
    assert remaining(result, ["optim.lr"]) == ["model.activation", "model.slope"]


def test_influence_finds_the_key_that_matters(tmp_path: Path) -> None:
    result = result_of(tmp_path, {"optim.lr": [0.1, 0.2, 0.3], "model.gain": [1.0, 2.0], "seed": [0, 1, 2]})
    gain = result.number("model.gain")
    noise = np.random.default_rng(1).normal(0, 0.01, result.size)
    shares = influence(result, ["optim.lr", "model.gain"], gain + noise)
    assert shares["model.gain"] > 0.99
    assert shares["optim.lr"] < 0.05
    diverging = np.where(result.number("optim.lr") > 0.25, np.inf, 1.0)
    assert influence(result, ["optim.lr"], diverging)["optim.lr"] == pytest.approx(1.0)
    assert influence(result, ["optim.lr"], np.full(result.size, np.nan)) == {"optim.lr": 0.0}


def test_the_maps_take_the_keys_that_matter_most(tmp_path: Path) -> None:
    axes: dict[str, list[object]] = {
        "model.activation": ["sigmoid", "tanh"],
        "model.gain": [0.5, 2.0],
        "optim.momentum": [0.0, 0.5],
    }
    result = result_of(tmp_path, axes)
    assert set(map_keys(result, None, None)) == {"model.activation", "model.gain"}
    assert map_keys(result, "optim.momentum", "model.gain") == ("optim.momentum", "model.gain")


def test_the_map_at_step_0_takes_keys_that_matter_there(tmp_path: Path) -> None:
    trained = result_of(tmp_path / "trained", {"optim.lr": [0.1, 9.0], "clip.threshold": [1, 2], "model.gain": [1, 2]})
    assert early_keys(trained, None, None) == ("model.gain",)
    assert early_keys(trained, "optim.lr", None) == ("optim.lr", "model.gain")
    assert early_keys(trained, "optim.lr", "clip.threshold") == ("optim.lr", "clip.threshold")
    late = result_of(tmp_path / "late", {"optim.lr": [0.1, 9.0], "clip.threshold": [1, 2]})
    assert early_keys(late, None, None) == ()
    seeds = result_of(tmp_path / "seeds", {"optim.lr": [0.1, 9.0], "seed": [0, 1]})
    assert early_keys(seeds, None, None) == ("seed",)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ("optim.lrr", None, ("--x optim.lrr", "did you mean 'optim.lr'?", "keys that vary: model.gain, optim.lr")),
        (None, "model.width", ("--y model.width", "does not vary", "keys that vary")),
        ("optim.lr", "optim.lr", ("--x and --y",)),
    ],
)
def test_a_wrong_key_of_the_maps_is_one_line_and_writes_nothing(
    tmp_path: Path, x: str | None, y: str | None, words: tuple[str, ...]
) -> None:
    source = write_result(tmp_path / "result", grid({"optim.lr": [0.1, 0.2], "model.gain": [1.0, 2.0]}))
    with pytest.raises(SpecError) as error:
        write_report([source], tmp_path / "report", x=x, y=y)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "report").exists()


def test_a_single_run_has_no_key_to_map(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no key varies"):
        write_report([write_result(tmp_path / "result", [{}])], tmp_path / "report", x="optim.lr")


def test_few_settings_stand_side_by_side_and_many_are_grouped(tmp_path: Path) -> None:
    few = result_of(tmp_path / "few", {"model.activation": ["sigmoid", "tanh", "relu"], "optim.lr": [0.1, 0.2]})
    layout = arrange(few, few.number("loss_final"))
    assert layout.colour is not None
    assert layout.dash is not None
    assert (layout.colour.key, layout.dash.key, layout.columns) == ("model.activation", "optim.lr", None)
    many = result_of(
        tmp_path / "many", {"model.depth": [5, 10, 20], "model.gain": [0.5, 1.0, 2.0], "optim.momentum": [0.0, 0.5]}
    )
    layout = arrange(many, np.log(many.number("vanishing_ratio")), first="model.depth")
    assert layout.colour is not None
    assert layout.columns is not None
    assert (layout.colour.key, layout.columns.key) == ("model.depth", "model.gain")
    assert layout.pooled == ("optim.momentum",)


def test_a_sparse_sweep_is_grouped_by_bins(tmp_path: Path) -> None:
    draws = np.random.default_rng(0).uniform(0.5, 2.0, (40, 2)).tolist()
    values: list[dict[str, Value]] = [{"optim.lr": lr, "model.gain": gain, "train.steps": 1} for lr, gain in draws]
    result = read([write_result(tmp_path / "result", values)])
    layout = arrange(result, np.log(result.number("vanishing_ratio")))
    assert layout.columns is not None
    assert (layout.columns.key, len(layout.columns)) == ("model.gain", 4)
    assert np.bincount(layout.columns.code).tolist() == [10, 10, 10, 10]


def test_runs_of_different_lengths_are_never_pooled(tmp_path: Path) -> None:
    axes: dict[str, list[object]] = {"model.name": ["mlp", "rnn"], "model.depth": [2, 3, 4], "model.gain": [0.5, 1.0]}
    result = result_of(tmp_path, axes)
    assert layer_keys(result, result.depth) == ("model.depth", "model.name")
    assert layer_keys(result, result.time) == (None, None)


def test_thinning_keeps_both_ends_and_the_default(tmp_path: Path) -> None:
    result = result_of(tmp_path, {"optim.lr": [0.01 * step for step in range(1, 31)]})
    assert thin(levels(result, "optim.lr"), 6) == (0, 9, 12, 17, 23, 29), "0.1 is the default"
    assert thin(levels(result, "optim.lr"), 4) == (0, 9, 19, 29)
    assert thin(None, 6) == (0,)
    assert len(levels(result, "optim.lr", bins=8)) == 8


def test_bins_are_named_by_what_they_hold_and_do_not_overlap(tmp_path: Path) -> None:
    result = result_of(tmp_path, {"optim.lr": [0.001, 0.01, 0.02, 0.03, 0.1, 0.3]})
    assert levels(result, "optim.lr", bins=3).labels == ("0.001…0.01", "0.02…0.03", "0.1…0.3")


def test_a_spike_of_one_run_stretches_no_scale(tmp_path: Path) -> None:
    result = result_of(tmp_path, {"seed": [0, 1, 2, 3]})
    logs = np.zeros((4, 200))
    logs[2, 50] = 3.0
    assert calm_cap(result, logs, logs[:, :1]) == 5.0
    assert calm_cap(result, logs, logs[:, :1], margin=0.3, share=0.99) == pytest.approx(0.3)
    start = np.array([[0.0], [0.0], [0.0], [1.0]])
    assert calm_cap(result, logs, start, margin=0.3, share=0.99) == pytest.approx(1.3)


def test_runs_that_differ_after_their_first_update_alone_count_once_before_it(tmp_path: Path) -> None:
    result = result_of(tmp_path, {"model.gain": [0.5, 1.0], "optim.lr": [0.1, 0.2], "clip.mode": ["none", "norm"]})
    assert once(result).tolist() == [True, False, False, False, True, False, False, False]


def test_one_choice_of_keys_holds_for_all_figures(tmp_path: Path) -> None:
    axes: dict[str, list[object]] = {
        "model.depth": [3, 5, 8],
        "model.gain": [0.5, 1.0, 1.5],
        "optim.lr": [0.01, 0.1],
        "optim.momentum": [0, 0.5],
    }
    result = result_of(tmp_path, axes)
    usual = facets(result, None, None, ("model.depth", None))
    noise = np.random.default_rng(0).normal(size=(2, result.size))
    first, second = (arrange(result, outcome, chosen=usual) for outcome in noise)
    assert [part.key for part in first.shown()] == [part.key for part in second.shown()]
    assert first.colour is not None
    assert first.colour.key == "model.depth"
    asked = arrange(result, noise[0], chosen=facets(result, "optim.momentum", "optim.lr", ("model.depth", None)))
    assert asked.colour is not None
    assert asked.columns is not None
    assert asked.rows is not None
    assert (asked.colour.key, asked.columns.key, asked.rows.key) == ("optim.momentum", "optim.lr", "model.depth")
    # What cannot matter at step 0 takes no part of a figure of it.
    early = [key for key in axes if not key.startswith("optim.")]
    start = arrange(result, noise[0], keys=early, chosen=facets(result, None, "optim.lr"))
    assert "optim.lr" not in [part.key for part in start.shown()]
