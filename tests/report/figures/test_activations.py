"""The figure of the activations by layer and step: a row a quantity that was measured, in the run's own numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from gradlab.report.figures.activations import activations_plot, updates_plot
from gradlab.report.figures.layer_profiles import examples
from gradlab.report.figures.style import styled
from gradlab.report.tables import Result, read
from tests.synthetic import grid, write_result


def test_each_panel_holds_the_column_of_the_layers_table(tmp_path: Path) -> None:
    result = read([write_result(tmp_path / "out", [{"model.depth": 4, "train.steps": 20}])])
    with styled():
        plot = activations_plot(result)
    assert plot is not None
    spread, alike, saturated = plot.figure.axes[:3]
    layers = result.tables["layers"].filter(pc.greater(result.tables["layers"]["layer"], 0))
    steps = np.unique(layers["step"].to_numpy())
    for axes, column, log in (
        (spread, "act_std", True),
        (alike, "act_correlation", False),
        (saturated, "saturated", False),
    ):
        drawn: np.ndarray = np.ma.asarray(axes.collections[0].get_array())
        assert drawn.shape == (4, len(steps))
        value = layers.filter(pc.and_(pc.equal(layers["layer"], 2), pc.equal(layers["step"], steps[-1])))[column][
            0
        ].as_py()
        assert drawn[1, -1] == pytest.approx(np.log10(value) if log else value)
    assert np.ma.getmaskarray(np.ma.asarray(saturated.collections[0].get_array()))[-1].all(), "none of the output"


def without(result: Result, *columns: str) -> Result:
    layers = result.tables["layers"]
    for name in columns:
        empty = pc.if_else(pc.is_null(layers["layer"]), layers[name], None)
        layers = layers.set_column(layers.column_names.index(name), name, empty)
    return Result({**result.tables, "layers": layers}, result.manifests, result.notes)


def test_what_was_not_measured_has_no_row(tmp_path: Path) -> None:
    result = read([write_result(tmp_path / "out", [{"model.depth": 4, "train.steps": 20}])])
    with styled():
        plot = activations_plot(without(result, "saturated"))
        assert plot is not None
        labels = [axes.get_ylabel() for axes in plot.figure.axes]
        assert activations_plot(without(result, "saturated", "dead", "act_std", "act_correlation")) is None
    assert "share of dead units" in labels
    assert "share of saturated entries" not in labels


def test_layers_that_did_not_move_are_white_and_no_update_is_grey(tmp_path: Path) -> None:
    result = read([write_result(tmp_path / "out", [{"model.depth": 4, "train.steps": 20}])])
    layers = result.tables["layers"]
    still = pc.if_else(pc.equal(layers["layer"], 1), pc.multiply(layers["update_ratio"], 0.0), layers["update_ratio"])
    layers = layers.set_column(layers.column_names.index("update_ratio"), "update_ratio", still)
    with styled():
        plot = updates_plot(Result({**result.tables, "layers": layers}, result.manifests, result.notes))
    assert plot is not None
    assert [text.get_text() for text in plot.figure.legends[0].get_texts()] == ["exactly 0"]
    mesh = plot.figure.axes[1].collections[0]
    values: np.ndarray = np.ma.asarray(mesh.get_array())
    assert (values[0, :-1] < mesh.get_clim()[0]).all()
    assert np.ma.getmaskarray(values)[:, -1].all()


def test_an_example_is_called_vanishing_only_where_its_verdict_says_so(tmp_path: Path) -> None:
    level = read(
        [
            write_result(
                tmp_path / "level",
                grid({"model.gain": [0.9, 1.0, 1.1], "model.depth": [5], "model.activation": ["linear"]}),
            )
        ]
    )
    assert not [why for why, _ in examples(level) if why.startswith("strongest")]
    values = grid({"model.activation": ["sigmoid", "relu"], "model.depth": [5, 20]})
    sick = read([write_result(tmp_path / "sick", values)])
    assert dict(examples(sick))["strongest vanishing at step 0"] == 1
