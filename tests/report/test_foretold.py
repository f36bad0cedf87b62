"""The dashed lines: anchored, and only where theory has one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gradlab.data.facts import described
from gradlab.report.figures.layer_profiles import signal_plots
from gradlab.report.figures.panels import Series, draw
from gradlab.report.figures.style import styled
from gradlab.report.foretold import band, expected, foretold, sentences
from gradlab.report.groups import log10
from gradlab.report.layout import arrange
from gradlab.report.tables import Floats, Result, read
from gradlab.spec.named import Value
from gradlab.theory.predict import profile
from tests.synthetic import write_result

SIGMOID: dict[str, Value] = {"model.activation": "sigmoid", "model.init": "xavier_normal", "model.depth": 12}


def result(folder: Path, *settings: dict[str, Value]) -> Result:
    return read([write_result(folder / "result", settings)])


def start_of(found: Result, axis: str = "depth") -> Floats:
    rows = found.depth if axis == "depth" else found.time
    return log10(rows.profile(found.size, np.zeros(found.size, dtype=int)))


def test_the_line_begins_at_the_last_hidden_layer_s_measured_value(tmp_path: Path) -> None:
    found = result(tmp_path, SIGMOID)
    start = start_of(found)
    line = foretold(found, start, "depth")
    course = profile(described(SIGMOID))
    assert course is not None
    assert line[0, 11] == start[0, 11]
    assert np.isnan(line[0, 12])
    np.testing.assert_allclose(line[0, 1:12] - line[0, 11], course.log[1:] / np.log(10), rtol=1e-12)
    edges = band(found, line[0], "depth")
    assert edges
    assert np.all(edges[0][1:11] < line[0, 1:11])
    assert edges[0][11] == line[0, 11] == edges[1][11]


def test_no_line_where_theory_or_the_measurement_has_none(tmp_path: Path) -> None:
    found = result(tmp_path, {**SIGMOID, "model.init": "zeros"}, SIGMOID, {"model.name": "rnn"})
    start = start_of(found)
    line = foretold(found, start, "depth")
    assert np.isnan(line[0]).all()
    assert not np.isnan(line[1]).all()
    assert np.isnan(line[2]).all(), "a recurrent network's theory is along time"
    start[1, 11] = -np.inf
    assert np.isnan(foretold(found, start, "depth")).all()


def test_time_has_its_own_line(tmp_path: Path) -> None:
    found = result(tmp_path, {"model.name": "rnn"})
    line = foretold(found, start_of(found, "time"), "time")
    assert line[0, -1] == start_of(found, "time")[0, -1]
    assert not np.isnan(line[0, 1:]).any()


def test_images_from_a_folder_that_is_gone(tmp_path: Path, idx200: Path) -> None:
    """Neither the folder nor its number of samples is needed to draw."""
    settings: dict[str, Value] = {"data.name": "mnist", "data.root": str(idx200), "model.depth": 10}
    found = result(tmp_path, settings)
    found.columns["data.root"][0] = str(tmp_path / "gone")
    assert expected(found, 0, "depth") is not None


@pytest.mark.parametrize("settings", [(SIGMOID,), (SIGMOID, {**SIGMOID, "model.activation": "tanh"})])
def test_the_figures_of_step_0_show_it(tmp_path: Path, settings: tuple[dict[str, Value], ...]) -> None:
    found = result(tmp_path, *settings)
    with styled():
        plots = {plot.name: plot for plot in signal_plots(found, "depth")}
    with_theory = [name for name, plot in plots.items() if "Dashed: what mean-field theory expects" in plot.caption]
    assert with_theory == ["signal_by_layer" if len(settings) == 1 else "signal_by_layer_start"]
    (legend,) = plots[with_theory[0]].figure.legends
    assert "theory" in [text.get_text() for text in legend.get_texts()]


def test_a_group_with_a_run_that_theory_is_silent_on_has_no_line(tmp_path: Path) -> None:
    found = result(tmp_path, *({**SIGMOID, "seed": seed, "model.gain": gain} for gain in (0.5, 1.0) for seed in (0, 1)))
    start = start_of(found)
    theory = foretold(found, start, "depth")
    assert not np.isnan(theory[:, 11]).any()
    layout = arrange(found, start[:, 1])

    def lines(values: Floats) -> int:
        series = [Series(start), Series(values, "theory", "#222222")]
        with styled():
            drawn = draw(found, layout, np.arange(13), series, labels=("x", "y"), dress_x=lambda _: None)
        return sum(line.get_color() == "#222222" for line in drawn.figure.axes[0].lines)

    assert lines(theory) == 2
    theory[1] = np.nan
    assert lines(theory) == 1


def with_theory(found: Result, columns: dict[str, list[float | None]]) -> Result:
    """The result with these columns of theory's (R,)."""
    runs = found.runs
    for name, values in columns.items():
        place = runs.column_names.index(name) if name in runs.column_names else None
        column = pa.array(values, pa.float64())
        runs = runs.append_column(name, column) if place is None else runs.set_column(place, name, column)
    return Result({**found.tables, "runs": runs}, found.manifests, found.notes)


def test_a_single_run_says_what_theory_says_of_it(tmp_path: Path) -> None:
    critical: dict[str, Value] = {"model.activation": "tanh", "model.init": "xavier_normal", "model.depth": 50}
    (said,) = sentences(result(tmp_path, critical))
    assert said.startswith("Theory: tanh, σb²=0: critical at σw²=1; yours is 1, ")
    assert "which no single rate describes" in said


def test_a_sweep_says_how_far_its_rates_are_from_theory_and_where_theory_has_none(tmp_path: Path) -> None:
    settings = [{**SIGMOID, "model.gain": gain} for gain in (0.5, 1.0, 1.5, 2.0)]
    columns: dict[str, list[float | None]] = {
        "rate": [0.99, 1.02, 0.9, 0.5],
        "rate_theory": [1.0, 1.0, 1.0, None],
        "chi1": [1.0, 1.0, 1.0, 1.0],
    }
    found = with_theory(result(tmp_path, *settings), columns)
    near, bent = sentences(found)
    assert near == (
        "Half of the 3 runs for which theory has a rate measure one within 2.0% of it; the farthest is 10.0% off "
        "(gain=1.5: 0.9 beside 1)."
    )
    assert bent == "By theory no single rate describes the layers of 1 of 4 runs."
    with styled():
        (start, *_) = signal_plots(found, "depth")
    assert bent in start.caption
    old = with_theory(result(tmp_path / "old", *settings), {})
    assert sentences(old) == []


def test_a_sweep_says_of_how_many_runs_theory_gives_no_rate(tmp_path: Path) -> None:
    settings: list[dict[str, Value]] = [
        {"model.activation": name, "model.init": "he_normal", "model.depth": 10} for name in ("relu", "gelu", "silu")
    ]
    columns: dict[str, list[float | None]] = {
        "rate": [1.0, 0.9, 0.9],
        "rate_theory": [1.0, None, None],
        "chi1": [1.0, None, None],
    }
    found = with_theory(result(tmp_path, *settings), columns)
    silent = sentences(found)[-1]
    assert silent.startswith(
        "Theory gives no rate of 2 of 3 runs; of the first: gelu, σb²=0: no critical σw²; yours is 2: "
    )
    assert "run away from each other" in silent
    assert expected(found, 1, "depth") is None
