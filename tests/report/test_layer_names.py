"""Layers on an axis: by their names where these are of several kinds and the same in all runs, never too many."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from matplotlib.figure import Figure

from gradlab.models import MODELS
from gradlab.report.figures.layer_names import WIDE, layer_ticks, names_of
from gradlab.report.tables import Result
from gradlab.spec.named import Value
from gradlab.spec.run import build


def result(*settings: Mapping[str, Value]) -> Result:
    runs = [build(one) for one in settings]
    named = [MODELS[run.model.name].layout(run.model, run.facts).names for run in runs]
    rows = [(layer, name) for names in named for layer, name in enumerate(("input", *names))]
    layers, names = zip(*rows, strict=True)
    return Result({"layers": pa.table({"axis": ["depth"] * len(rows), "layer": layers, "name": names})}, {}, ())


def test_layers_of_one_kind_are_numbers_and_those_of_several_have_names() -> None:
    assert names_of(result({})) == {}
    assert names_of(result({"model.name": "cnn"})) == {}
    assert names_of(result({"model.name": "resnet", "model.depth": 4})) == {
        0: "input",
        1: "read_in",
        2: "block_1.1",
        3: "block_1.2",
        4: "output",
    }
    assert names_of(result({"model.name": "capsule"}))[3] == "digit_capsules"


def test_runs_that_call_a_layer_otherwise_are_told_by_numbers() -> None:
    assert (
        names_of(result({"model.name": "resnet", "model.depth": 4}, {"model.name": "resnet", "model.depth": 6})) == {}
    )


def test_no_axis_has_more_names_than_there_is_room_for() -> None:
    names = names_of(result({"model.name": "transformer", "model.depth": 50}))
    axes = Figure().subplots()
    layer_ticks(axes.xaxis, names, WIDE)
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert len(shown) <= WIDE
    assert shown[-1] == "read_out"
    assert {name.rstrip("0123456789") for name in shown[1:-1]} in ({"attention_"}, {"feed_forward_"})
