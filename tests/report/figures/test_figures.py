"""Every kind of result draws, without a warning, the figures that it has data for."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from gradlab.report import Report, write_report
from gradlab.report.figures.all_figures import NAMES
from gradlab.report.figures.layer_profiles import history_plot, signal_plots
from gradlab.report.tables import read
from gradlab.spec.named import Value
from tests.conftest import dotted
from tests.synthetic import GRID_432, grid, write_result

SINGLE = {
    "verdict_evidence",
    "signal_by_layer",
    "signal_by_layer_and_step",
    "loss_by_step",
    "gradient_norm_by_step",
    "update_ratio_by_layer",
    "updates_by_layer_and_step",
    "activations_by_layer_and_step",
}
UPDATES = "updates_by_layer_and_step"
ACTIVATIONS = "activations_by_layer_and_step"
SWEEP = (SINGLE - {"signal_by_layer", UPDATES}) | {"signal_by_layer_start", "signal_by_layer_end"}
TRAINED = {"final_loss_map", "heldout_loss_map", "accuracy_map"}
MAPS = {*TRAINED, "vanishing_ratio_map", "diverged_map", "effects"}
ONE_EARLY = {*TRAINED, "vanishing_ratio_by_key", "diverged_map", "effects"}
BY_KEY = {"final_loss_by_key", "heldout_loss_by_key", "accuracy_by_key", "vanishing_ratio_by_key", "diverged_by_key"}
SMALL: dict[str, Iterable[Value]] = {"model.activation": ["sigmoid", "tanh", "relu"], "optim.lr": [0.01, 0.1]}
PLANE: dict[str, Iterable[Value]] = {
    "model.weight_var": [0.5 + 0.1 * i for i in range(9)],
    "model.bias_var": [0.01 * i for i in range(9)],
}

CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "single": ({"grid_values": [{}]}, SINGLE),
    "sigmoid50": (
        {"grid_values": [{"model.depth": 50, "model.activation": "sigmoid", "model.init": "xavier"}]},
        SINGLE,
    ),
    "diverged at step 3": ({"grid_values": [{"model.gain": 3.0}], "diverge": {0: 3}}, SINGLE),
    "exact zeros": ({"grid_values": [{"model.depth": 40}], "zeros": True}, SINGLE),
    "rnn": ({"grid_values": [{"model.name": "rnn"}]}, SINGLE | {"signal_by_time", "signal_by_time_and_step"}),
    "five seeds": ({"grid_values": grid({**SMALL, "seed": range(5)}), "diverge": {27: 40, 28: 60}}, SWEEP | ONE_EARLY),
    "seeds alone": (
        {"grid_values": grid({"seed": range(5)})},
        (SWEEP - {"verdict_evidence"}) | BY_KEY - {"diverged_by_key"},
    ),
    "one key": (
        {"grid_values": grid({"optim.lr": [0.001 * 2**i for i in range(10)]}), "diverge": {9: 4}},
        SWEEP | BY_KEY - {"vanishing_ratio_by_key"},
    ),
    "plane without training": (
        {"grid_values": grid(PLANE, {"train.steps": 0, "model.activation": "tanh"})},
        {
            "vanishing_ratio_map",
            "effects",
            "verdict_evidence",
            "signal_by_layer_start",
            "activations_by_layer_and_step",
        },
    ),
    "one run without training": (
        {"grid_values": [{"train.steps": 0}]},
        {"verdict_evidence", "signal_by_layer", UPDATES, ACTIVATIONS},
    ),
    "everything diverged": (
        {"grid_values": grid({"optim.lr": [1.0, 2.0], "model.gain": [2.0, 3.0]}), "diverge": {0: 3, 1: 5, 2: 0, 3: 44}},
        SWEEP | ONE_EARLY - TRAINED,
    ),
    "only failed": (
        {"grid_values": grid({"optim.lr": [1.0, 2.0]}), "fail": {0: "RuntimeError: x", 1: "KeyError: y"}},
        set(),
    ),
    "one failed run": ({"grid_values": [{}], "fail": {0: "RuntimeError: x"}}, set()),
    "models of many lengths": (
        {"grid_values": grid({"model.name": ["mlp", "rnn"], "model.depth": [2, 3, 4], "model.gain": [0.5, 1.0]})},
        SWEEP
        | MAPS - {"diverged_map"}
        | {"signal_by_time_start", "signal_by_time_end", "signal_by_time_and_step", "beforehand"},
    ),
    "some failed": ({"grid_values": grid(SMALL), "fail": {0: "RuntimeError: x"}, "diverge": {1: 7}}, SWEEP | ONE_EARLY),
    "rnn and mlp": (
        {"grid_values": grid({"model.name": ["mlp", "rnn"], "seed": [0, 1]})},
        SWEEP - {"verdict_evidence"}
        | BY_KEY - {"diverged_by_key"}
        | {"signal_by_time_start", "signal_by_time_end", "signal_by_time_and_step"},
    ),
}


def names(report: Report, suffix: str) -> set[str]:
    return {file.stem for file in report.files if file.suffix == suffix}


PAINTED = ("exact zeros", "rnn", "seeds alone", "everything diverged")
"""All kinds of figures, but for the maps of `large`, and all kinds of odd numbers; the others are only laid out."""


@pytest.mark.parametrize("case", CASES)
def test_a_result_gets_its_figures(tmp_path: Path, case: str) -> None:
    arguments, expected = CASES[case]
    source = write_result(tmp_path / "result", **arguments)
    with nullcontext() if case in PAINTED else dotted(laid_out=True):
        report = write_report([source], tmp_path / "report")
    assert names(report, ".png") == names(report, ".svg") == expected
    assert expected <= set(NAMES)
    for file in report.files:
        assert file.is_file()
        assert file.suffix != ".png" or file.read_bytes().startswith(b"\x89PNG")
        assert file.suffix != ".svg" or ET.parse(file).getroot().tag.endswith("svg")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str]:
    folder = tmp_path_factory.mktemp("grid")
    source = write_result(
        folder / "result", grid(GRID_432), rule=True, fail={17: "RuntimeError: out of memory\ntraceback"}
    )
    with dotted(laid_out=True, painted=("final_loss_map", "vanishing_ratio_map", "signal_by_layer_end", "beforehand")):
        report = write_report([source], folder / "report")
    return report, report.page.read_text(encoding="utf-8")


def test_a_large_grid_stays_small(large: tuple[Report, str]) -> None:
    report, page = large
    assert names(report, ".png") == SWEEP | MAPS | {"beforehand"}
    # Some of its pictures are painted: were all of them as large as those are, it would still be small.
    pictures = [file.stat().st_size for file in report.files if file.suffix == ".png"]
    painted = [size for size in pictures if size > 10_000]
    assert len(painted) == 4
    assert report.page.stat().st_size + len(pictures) * sum(painted) / 4 * 4 / 3 < 5_000_000
    assert page.partition('<section id="runs"')[2].count("<tr") == 433


def test_a_large_grid_hides_no_diverged_and_no_failed_run(large: tuple[Report, str]) -> None:
    _, page = large
    assert "Of 432 runs 395 finished, 36 diverged and 1 failed." in page
    assert "RuntimeError: out of memory (1)" in page
    assert "36 of 432 runs diverged, at the steps marked ×" in page
    assert "36 of 431 runs diverged; 1 failed" in page


def test_captions_say_what_was_pooled(large: tuple[Report, str]) -> None:
    _, page = large
    assert "Each line is the median of 5 to 6 runs (pooled over model.init, clip.mode)" in page
    assert "72 of 432 runs differ before their first update" in page


def test_the_same_data_draw_the_same_bytes(tmp_path: Path) -> None:
    source = write_result(tmp_path / "result", grid({"optim.lr": [0.01, 0.1]}, {"train.steps": 0}))
    first, second = (write_report([source], tmp_path / name) for name in ("first", "second"))
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


@pytest.mark.parametrize("keys", [{"x": "optim.lr", "y": "model.activation"}, {"y": "optim.lr"}])
@pytest.mark.usefixtures("unpainted")
def test_the_keys_of_the_maps_can_be_chosen(tmp_path: Path, keys: Mapping[str, Any]) -> None:
    source = write_result(tmp_path / "result", grid({**SMALL, "seed": range(2)}))
    page = write_report([source], tmp_path / "report", **keys).page.read_text(encoding="utf-8")
    x = keys.get("x", "model.activation")
    assert f"Final loss by {x} and {keys['y']}" in page


@pytest.mark.usefixtures("unpainted")
def test_a_report_made_again_leaves_no_figure_of_the_first_and_no_other_file_out(tmp_path: Path) -> None:
    source = write_result(tmp_path / "result", grid({"model.gain": [0.5, 1.0], "optim.lr": [0.01, 0.1]}))
    out = tmp_path / "report"
    first = write_report([source], out)
    assert "vanishing_ratio_by_key" in names(first, ".png")
    (out / "mine.png").write_bytes(b"mine")
    second = write_report([source], out, x="optim.lr", y="model.gain")
    assert "vanishing_ratio_map" in names(second, ".svg")
    assert {path for path in out.iterdir() if path.name != "mine.png"} == set(second.files)
    assert (out / "mine.png").read_bytes() == b"mine"


def test_figures_along_time_leave_out_what_has_no_time(tmp_path: Path) -> None:
    values = grid({"model.name": ["mlp", "rnn"], "model.depth": [2], "model.gain": [0.5, 1.0], "seed": [0, 1]})
    result = read([write_result(tmp_path / "result", values)])
    start, end = signal_plots(result, "time")
    for plot, dashed in ((start, ["theory"]), (end, [])):
        assert "4 of 8 runs have no time steps and are left out." in plot.caption
        (legend,) = plot.figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["gain = 0.5", "gain = 1", *dashed]
    history = history_plot(result, "time")
    assert history is not None
    assert "left out" in history.caption
    assert not any("left out" in plot.caption for plot in signal_plots(result, "depth"))
