"""Maps over two keys: every value of a full grid has its cell, and theory's critical line lies where χ₁ is 1."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from gradlab.report.figures.heat_maps import map_plots
from gradlab.report.figures.style import Plot, styled
from gradlab.report.tables import Result, read
from gradlab.spec.named import Value
from tests.synthetic import grid, write_result

KEYS = ("model.weight_var", "model.bias_var")


def plane(folder: Path, weights: list[float], biases: list[float], **others: list[int]) -> Result:
    axes: dict[str, Iterable[Value]] = {"model.weight_var": weights, "model.bias_var": biases}
    axes |= {f"model.{key}": values for key, values in others.items()}
    return read([write_result(folder / "result", grid(axes, {"train.steps": 0, "model.activation": "tanh"}))])


def with_chi1(result: Result, chi1: list[float]) -> Result:
    place = result.runs.column_names.index("chi1")
    runs = result.runs.set_column(place, "chi1", pa.array(chi1, pa.float64()))
    return Result({**result.tables, "runs": runs}, result.manifests, result.notes)


def ratio_map(result: Result) -> Figure:
    with styled():
        return next(plot.figure for plot in map_plots(result, KEYS, KEYS) if plot.name == "vanishing_ratio_map")


def lines(figure: Figure) -> list[ContourSet]:
    return [one for one in figure.axes[0].collections if isinstance(one, ContourSet)]


def test_the_critical_line_lies_where_theory_has_chi_of_one(tmp_path: Path) -> None:
    """χ₁ = 10^(x - 1.25 - y/2) at column x and row y: 1 along x = 1.25 + y/2."""
    result = plane(tmp_path, [1.0, 2.0, 3.0, 4.0], [0.0, 0.1, 0.2])
    x, y = result.number(KEYS[0]) - 1, result.number(KEYS[1]) / 0.1
    figure = ratio_map(with_chi1(result, (10 ** (x - 1.25 - y / 2)).tolist()))
    (line,) = lines(figure)
    (path,) = line.get_paths()
    along, up = np.asarray(path.vertices, dtype=float).T
    np.testing.assert_allclose(along, 1.25 + up / 2, atol=1e-6)
    assert (up.min(), up.max()) == (0.0, 2.0)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["χ₁ = 1, critical by theory"]


@pytest.mark.parametrize("chi1", [0.5, float("nan")])
def test_no_critical_line_where_chi_does_not_cross_one(tmp_path: Path, chi1: float) -> None:
    result = plane(tmp_path, [1.0, 2.0, 3.0], [0.0, 0.1])
    assert not lines(ratio_map(with_chi1(result, [chi1] * result.size)))
    assert not lines(ratio_map(result)), "tables older than theory have no such column"


def test_no_critical_line_where_a_pooled_key_decides(tmp_path: Path) -> None:
    result = plane(tmp_path, [1.0, 2.0, 3.0], [0.0, 0.1], depth=[10, 20])
    deep = result.number("model.depth") > 10
    assert not lines(ratio_map(with_chi1(result, np.where(deep, 0.5, 2.0).tolist())))


def test_a_full_plane_keeps_all_its_values(tmp_path: Path) -> None:
    result = plane(tmp_path, [0.1 * (1 + place) for place in range(70)], [0.0, 0.1])
    (mesh,) = [one for one in ratio_map(result).axes[0].collections if one.get_array() is not None][:1]
    assert np.ma.asarray(mesh.get_array()).size == 140


def test_the_dots_of_a_value_lie_evenly_about_it(tmp_path: Path) -> None:
    values = grid({"model.gain": [0.5, 1.0], "seed": range(3)})
    result = read([write_result(tmp_path / "result", values)])
    with styled():
        plot = next(map_plots(result, ("model.gain",), ("model.gain",)))
    dots = np.asarray(plot.figure.axes[0].lines[0].get_xdata(), dtype=float)
    np.testing.assert_allclose(dots, [-0.1, 0.0, 0.1, 0.9, 1.0, 1.1], atol=1e-12)


def test_many_seeds_are_one_cloud_about_their_median(tmp_path: Path) -> None:
    result = read([write_result(tmp_path / "result", grid({"seed": range(30)}))])
    with styled():
        axes = next(map_plots(result, ("seed",), ())).figure.axes[0]
    dots, median = axes.lines[:2]
    assert np.ptp(np.asarray(dots.get_xdata(), dtype=float)) > 0.9
    assert np.asarray(median.get_ydata())[0] == pytest.approx(np.median(np.asarray(dots.get_ydata(), dtype=float)))


def cells(plot: Plot) -> list[list[float]]:
    (mesh,) = [one for one in plot.figure.axes[0].collections if one.get_array() is not None][:1]
    return [row.tolist() for row in np.ma.asarray(mesh.get_array())]


def test_a_cell_of_the_final_loss_is_its_best_setting_and_not_a_median_over_other_keys(tmp_path: Path) -> None:
    """A lower learning rate works at gain 3 alone: the median over the rates would hide it."""
    axes: dict[str, Iterable[Value]] = {"model.gain": [1.0, 3.0], "model.norm": ["none", "layer"]}
    values = grid(axes | {"optim.lr": [0.01, 0.1, 1.0], "seed": [0, 1, 2]})
    # By gain, norm and rate; three seeds each.
    loss = np.array([[[0.4, 0.2, 9.0], [0.3, 0.1, 9.0]], [[0.5, 9.0, 9.0], [0.6, 9.0, 9.0]]])[..., None]
    loss = (loss * np.array([0.9, 1.0, 1.2])).ravel()
    # One seed of the best setting of the first cell diverges: it is the best of this cell no more.
    result = read([write_result(tmp_path / "result", values, diverge={4: 3})])
    runs, place = result.runs, result.runs.column_names.index("loss_final")
    losses = pa.array([None if row == 4 else value for row, value in enumerate(loss.tolist())], pa.float64())
    result = Result(
        {**result.tables, "runs": runs.set_column(place, "loss_final", losses)}, result.manifests, result.notes
    )
    with styled():
        plots = {plot.name: plot for plot in map_plots(result, ("model.gain", "model.norm"), ("model.gain",))}
    np.testing.assert_allclose(10 ** np.array(cells(plots["final_loss_map"])), [[0.4, 0.5], [0.1, 0.6]])
    assert "the best of its settings (9 runs, best over optim.lr), each with the median over its seeds" in (
        plots["final_loss_map"].caption
    )
    accuracy = result.number("accuracy").reshape(2, 2, 3, 3)
    best = np.median(accuracy[0, 1], axis=-1).max()
    assert cells(plots["accuracy_map"])[1][0] == pytest.approx(best)
    assert {"heldout_loss_map", "diverged_map"} <= set(plots)


def test_a_cell_whose_runs_made_no_step_is_not_said_to_be_without_runs(tmp_path: Path) -> None:
    axes: dict[str, list[Value]] = {"model.activation": ["tanh", "relu"], "model.depth": [3, 5]}
    trained, *others = grid(axes)
    source = write_result(tmp_path / "result", [trained, *({**one, "train.steps": 0} for one in others[:2])])
    with styled():
        maps = {plot.name: plot for plot in map_plots(read([source]), tuple(axes), tuple(axes))}
    words = {
        name: [text.get_text() for one in plot.figure.legends for text in one.get_texts()]
        for name, plot in maps.items()
    }
    assert words["final_loss_map"] == ["no run, or none that has one"]
    assert words["vanishing_ratio_map"] == ["no run"]
