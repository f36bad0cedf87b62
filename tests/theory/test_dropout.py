"""Dropout's mean field: variances, rates and correlations as sampled, and no critical point left."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.theory.activations import Phi
from gradlab.theory.mean_field import correlations
from gradlab.theory.predict import Prediction, predict
from tests.members import measured

TANH: dict[str, Value] = {"model.activation": "tanh", "model.bias_var": 0.05, "model.depth": 30, "model.width": 200}


def told(**own: Value) -> Prediction:
    return predict(build(TANH | {f"model.{key}": value for key, value in own.items()}))


@pytest.mark.parametrize(("sw2", "share"), [(1.0, 0.1), (1.761, 0.02), (4.0, 0.3)])
def test_fixed_points_are_those_of_a_sampled_layer(sw2: float, share: float) -> None:
    said, keep = told(weight_var=sw2, dropout=share), 1 - share
    assert said.q_star is not None
    one, two = np.random.default_rng(0).standard_normal((2, 400_000))
    c = correlations(Phi("tanh"), said.q_star, sw2, 0.05)
    # Two inputs have masks of their own, so that these count once for each input in a variance, and in no product.
    u, v = (math.sqrt(said.q_star) * z for z in (one, c.fixed * one + math.sqrt(1 - c.fixed**2) * two))
    assert sw2 / keep * np.mean(np.tanh(u) ** 2) + 0.05 == pytest.approx(said.q_star, rel=0.01)
    assert (sw2 * np.mean(np.tanh(u) * np.tanh(v)) + 0.05) / said.q_star == pytest.approx(c.fixed, abs=0.01)
    assert said.chi1 == pytest.approx(sw2 / keep * np.mean(1 / np.cosh(u) ** 4), rel=0.01)
    slope = sw2 * np.mean(1 / np.cosh(u) ** 2 / np.cosh(v) ** 2)
    assert said.depth_scale == pytest.approx(-1 / math.log(slope), rel=0.05)


def test_no_weight_variance_is_critical() -> None:
    depths = [told(weight_var=sw2, dropout=0.1).depth_scale for sw2 in np.geomspace(0.5, 8, 30).tolist()]
    assert max(depth for depth in depths if depth is not None) < 6
    for activation in ("relu", "tanh"):
        said = told(weight_var=1.9, dropout=0.1, activation=activation, bias_var=0.0)
        assert said.critical_weight_var is None
        assert said.note.startswith(f"{activation}, σb²=0, dropout 0.1: no critical σw²")
        assert "yours is 1.9" in said.note
        assert said.depth_scale is not None
        assert said.depth_scale < 7
    vanishing = told(weight_var=0.5, dropout=0.1, bias_var=0.0)
    assert vanishing.q_star == 0
    assert vanishing.depth_scale == pytest.approx(-1 / math.log(0.9), rel=0.01)


@pytest.mark.parametrize(
    "own",
    [
        {"model.weight_var": 1.5},
        {"model.norm": "layer", "model.activation": "relu"},
        {"model.name": "residual_mlp", "model.branch_scale": 0.3},
    ],
)
def test_rates_are_those_of_trained_networks(own: dict[str, Value]) -> None:
    every = TANH | own | {"model.dropout": 0.3, "train.steps": 0, "data.batch_size": 64}
    rates = [member.run["rate"] for member in measured(*(every | {"seed": seed} for seed in range(6)))]
    said = predict(build(every))
    assert said.fitted == pytest.approx(float(np.median(rates)), rel=0.01)
    without = predict(build(every | {"model.dropout": 0.0}))
    assert without.fitted != pytest.approx(said.fitted, rel=0.005)


def test_what_is_not_followed_is_said() -> None:
    assert "batch norm sees what dropout adds" in told(norm="batch", dropout=0.1).note
    resnet = build({"model.name": "resnet", "model.dropout": 0.1})
    assert "in some of its layers alone" in predict(resnet).note
