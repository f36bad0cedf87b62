"""The logarithmic scale: zeros and what is not finite have places of their own, and ticks stay few."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.report.figures.style import DPI, Plot, fit, legend_below, log_ticks, number, save, sheet, styled


def test_zero_and_not_finite_lie_outside_the_values() -> None:
    scale = fit(np.array([-np.inf, -32.0, 0.0, np.inf, np.nan]))
    places = scale.place(np.array([-np.inf, -32.0, 0.0, np.inf, np.nan]))
    assert places[0] < -32.0 < 0.0 < places[3]
    assert places[1:3].tolist() == [-32.0, 0.0]
    assert np.isnan(places[4])
    assert (scale.zero, scale.broken, scale.beyond) == (True, True, False)


def test_an_explosion_goes_to_the_upper_strip() -> None:
    scale = fit(np.array([-1.0, 0.0, 30.0]), cap=2.0)
    assert (scale.low, scale.high, scale.beyond) == (-1.0, 0.0, True)
    assert scale.place(np.array([30.0])).tolist() == [scale.ceiling]


@pytest.mark.parametrize("low", [-320.0, -32.0, -5.0, -2.0, -0.3, -0.05])
@pytest.mark.parametrize("shift", [0.0, 7.3])
def test_every_range_has_a_sensible_number_of_ticks(low: float, shift: float) -> None:
    places, labels = log_ticks(low + shift, shift, 7)
    assert 3 <= len(places) <= 9
    assert all(low + shift - 1e-6 <= place <= shift + 1e-6 for place in places)
    assert len(set(labels)) == len(labels)


def test_two_decades_alone_make_no_scale() -> None:
    assert log_ticks(0.3, 29.5, 5)[1] == ["10⁵", "10¹⁰", "10¹⁵", "10²⁰", "10²⁵"]
    assert log_ticks(-0.9, 1.8, 5)[1] == ["0.3", "1", "3", "10", "30"]
    assert log_ticks(-9.3, 1.6, 5)[1] == ["10⁻⁹", "10⁻⁶", "10⁻³", "1"]


def test_a_legend_stands_in_one_line_where_it_has_room() -> None:
    figure = sheet(9, 4)
    words = ["depth = 5", "depth = 10", "depth = 20", "10⁻³: the usual healthy ratio"]
    legend_below(figure, [Line2D([], []) for _ in words], words)
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    (legend,) = figure.legends
    assert len({round(text.get_window_extent().y0) for text in legend.get_texts()}) == 1


def curve() -> Figure:
    figure = sheet(5, 3)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes in (left, right):
        axes.plot([1, 2, 3], [1.0, 0.5, 0.25], label="a line")
        axes.set_xlabel("layer")
    left.set_title("a title", loc="left")
    right.pcolormesh(np.arange(4), np.arange(3), np.ones((2, 3)), rasterized=True)
    legend_below(figure, *left.get_legend_handles_labels())
    return figure


def test_a_saved_figure_is_that_of_matplotlib_itself(tmp_path: Path) -> None:
    """One layout and one drawing a file give what `savefig` gives with two of each."""
    with styled():
        png, svg = save(Plot("ours", "", "", curve()), tmp_path)
        theirs = curve()
        FigureCanvasAgg(theirs)
        theirs.savefig(tmp_path / "theirs.png", dpi=DPI, metadata={"Software": None})
        theirs.set_layout_engine("none")
        theirs.savefig(tmp_path / "theirs.svg", metadata={"Date": None, "Creator": None})
    assert png.read_bytes() == (tmp_path / "theirs.png").read_bytes()
    assert svg.read_bytes() == (tmp_path / "theirs.svg").read_bytes()


def test_labels_are_the_numbers_that_they_mark() -> None:
    assert log_ticks(-32.0, 0.0, 4) == ([-30.0, -20.0, -10.0, 0.0], ["10⁻³⁰", "10⁻²⁰", "10⁻¹⁰", "1"])
    assert [number(value) for value in (0.02, 300.0, 2e-8, 1e-7, 11000.0)] == ["0.02", "300", "2·10⁻⁸", "10⁻⁷", "11000"]


def test_an_empty_scale_can_be_drawn() -> None:
    scale = fit(np.array([np.nan]))
    assert scale.low < scale.high


def test_the_callers_settings_come_back() -> None:
    before = mpl.rcParams["font.size"]
    with styled():
        mpl.rcParams["font.size"] = 33
    assert mpl.rcParams["font.size"] == before


@pytest.mark.parametrize(("asked", "taken"), [("svg", "svg"), ("nosuch", None)])
def test_a_backend_that_is_not_installed_here_is_done_without(asked: str, taken: str | None) -> None:
    look = "print(os.environ['MPLBACKEND'], dict.get(matplotlib.rcParams, 'backend'))"
    code = f"import os, gradlab.report.figures, matplotlib; {look}"
    environment = {**os.environ, "MPLBACKEND": asked}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    before, backend = done.stdout.split(maxsplit=1)
    assert before == asked
    assert taken is None or backend.strip() == taken
