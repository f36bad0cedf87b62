"""At which depth a format ends: against runs of half precision, whose δ is exactly zero from some layer on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import gradlab
from gradlab.data.facts import described
from gradlab.spec.named import Value
from gradlab.theory.formats import TOLD, ends, first_size, told
from tests.commands import Gradlab

RUNS: dict[str, dict[str, Value]] = {
    "sigmoid": {"model.activation": "sigmoid", "model.init": "xavier_normal", "model.depth": 24},
    "scaled": {
        "model.activation": "sigmoid",
        "model.init": "xavier_normal",
        "model.depth": 24,
        "train.loss_scale": "1024",
    },
    "dynamic": {
        "model.activation": "sigmoid",
        "model.init": "xavier_normal",
        "model.depth": 24,
        "train.loss_scale": "dynamic",
    },
    "tanh": {"model.activation": "tanh", "model.init": "torch_default", "model.depth": 32},
    "relu": {"model.activation": "relu", "model.init": "torch_default", "model.depth": 24},
}


@pytest.mark.parametrize("name", RUNS)
def test_half_precision_ends_where_it_is_foretold(name: str, gradlab_: Gradlab, tmp_path: Path) -> None:
    values = {**RUNS[name], "train.precision": "float16", "train.steps": 0}
    spec, out = described(values), tmp_path / "out"
    words = [f"{key}={value}" for key, value in values.items()]
    assert gradlab_("sweep", "--no-report", "-o", str(out), "seed=range(10,13)", *words).status == 0
    layers = gradlab.load(out).layers
    zero = layers[(layers["signal_grad_norm"] == 0) & (layers["layer"] > 0)].groupby("run_id")["layer"].max()
    found = next(one.place for one in ends(spec) if one.form.name == "float16")
    assert found is not None
    assert len(zero) == 3
    measured = spec.model.depth - zero.to_numpy()
    assert (measured >= found).all()
    assert (measured <= found + 2).all()
    last = layers[layers["layer"] == spec.model.depth - 1]["signal_grad_norm"] / np.sqrt(64 * 64)
    begin = first_size(spec)
    assert begin is not None
    scale = {"1024": 1024.0, "dynamic": 2.0**16}.get(spec.train.loss_scale, 1.0)
    assert math.exp(begin) / scale == pytest.approx(last.mean(), rel=0.1)


def test_formats_end_in_the_order_of_their_smallest_numbers() -> None:
    found = {one.form.name: one.place for one in ends(described({**RUNS["sigmoid"], "model.depth": 12}))}
    assert list(found) == list(TOLD)
    ordered = sorted(found, key=lambda name: found[name] or 0)
    assert ordered == ["float8_e4m3", "float8_e5m2", "float16", "bfloat16", "float32"]
    # A layer of rate 0.2361 more for each such factor of the smallest number.
    per_layer = -math.log(0.2361)
    expected = (found["float16"] or 0) + (133 - 24) * math.log(2) / per_layer
    assert found["bfloat16"] == pytest.approx(expected, abs=1)


def test_what_grows_overflows_in_a_network_that_is_deep_enough() -> None:
    steep: dict[str, Value] = {"model.activation": "relu", "model.weight_var": 8.0, "model.depth": 30}
    assert told(described(steep)).startswith("float16 overflows at layer ~")
    assert not told(described({**steep, "model.depth": 5}))


@pytest.mark.parametrize(
    "values",
    [
        {"model.depth": 20},
        {"model.name": "transformer", "data.name": "digits"},
        {"data.name": "linear_teacher", "model.activation": "sigmoid"},
        {"model.name": "residual_mlp", "model.activation": "sigmoid"},
    ],
    ids=["critical", "no theory", "squared errors", "a stream"],
)
def test_nothing_is_said_where_nothing_is_known(values: dict[str, Value]) -> None:
    assert told(described(values)) == ""
