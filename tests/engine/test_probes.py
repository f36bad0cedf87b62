"""What is measured: norms that do not underflow, rates that theory predicts, and which columns a row has."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gradlab.engine.cohort import prepare
from gradlab.nn.network import Pass
from gradlab.nn.norms import Mode
from gradlab.spec.choices import ACTIVATIONS, PROBES
from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.store.columns import PROBE_COLUMNS
from tests.members import Member, content, measured
from tests.oracles import expected

pytestmark = pytest.mark.usefixtures("either_engine")

PARAMETERS = {
    "grad_norm",
    "grad_norm_clipped",
    "weight_grad_norm",
    "weight_norm",
    "update_ratio",
    "grad_zero",
    "grad_rms",
}
SIGNAL = {"signal_grad_norm", "signal_grad_rms", "act_mean", "act_std", "act_correlation"}
SMALL: dict[str, Value] = {"model.depth": 4, "model.width": 8, "train.steps": 2, "probe.every": 1}


def columns_of(row: dict[str, object]) -> set[str]:
    """The columns that are not null."""
    return {column for column in PROBE_COLUMNS if row[column] is not None}


def test_the_columns_are_the_named_probes() -> None:
    assert set(PROBES) == set(PROBE_COLUMNS)


def test_fifty_sigmoid_layers_have_a_first_gradient_of_1e_32_and_not_zero() -> None:
    deep: dict[str, Value] = {
        "model.depth": 50,
        "model.activation": "sigmoid",
        "model.init": "xavier",
        "train.steps": 1,
    }
    (found,) = measured(deep)
    wanted = expected(deep | {"train.precision": "float64"})
    for column in ("grad_norm", "weight_grad_norm", "signal_grad_norm"):
        profile, true = found.profile(column), wanted.profile(column)
        assert profile == pytest.approx(true, rel=1e-3, abs=0)
    assert 1e-34 < found.at(0, 1)["weight_grad_norm"] < 1e-30
    assert found.at(0, 1)["grad_zero"] < 0.9
    assert found.at(0, 0)["signal_grad_norm"] == pytest.approx(wanted.at(0, 0)["signal_grad_norm"], rel=1e-3, abs=0)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("gain", [1.5, 0.5])
def test_a_linear_chain_multiplies_the_signal_gradient_by_its_gain(gain: float, precision: str) -> None:
    chain: dict[str, Value] = {"model.name": "linear_chain", "model.depth": 10, "model.width": 16, "model.gain": gain}
    (found,) = measured(chain | {"train.steps": 0, "train.precision": precision})
    exact = 1e-12 if precision == "float64" else 1e-6
    ratio = found.at(0, 0)["signal_grad_norm"] / found.at(0, 10)["signal_grad_norm"]
    assert ratio == pytest.approx(gain**10, rel=exact)
    assert found.run["rate"] == pytest.approx(gain, rel=exact)
    assert found.run["vanishing_ratio"] == pytest.approx(gain**8, rel=exact)


def mean_rates(*settings: dict[str, Value]) -> list[float]:
    """The mean over four seeds of each setting's rate, 50 layers of 256 units at their initial weights."""
    common: dict[str, Value] = {"model.depth": 50, "model.width": 256, "train.steps": 0, "data.batch_size": 32}
    found = measured(*({**common, **setting, "seed": seed} for setting in settings for seed in range(4)))
    rates = np.array([member.run["rate"] for member in found]).reshape(len(settings), 4)
    return [float(rate) for rate in rates.mean(1)]


def test_rates_of_relu() -> None:
    he, xavier = mean_rates({"model.init": "he"}, {"model.init": "xavier"})
    assert he == pytest.approx(1.0, rel=0.02)
    assert xavier == pytest.approx(math.sqrt(1 / 2), rel=0.02)


def test_rate_of_sigmoid() -> None:
    (rate,) = mean_rates({"model.activation": "sigmoid", "model.init": "xavier"})
    assert rate == pytest.approx(0.236, rel=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        SMALL | {"model.norm": "batch", "model.activation": "prelu", "clip.mode": "value", "clip.threshold": 0.01},
        SMALL | {"model.name": "rnn", "model.depth": 2, "model.norm": "layer", "clip.mode": "layerwise"},
        SMALL | {"model.name": "residual_mlp", "clip.mode": "norm", "clip.threshold": 0.1},
    ],
    ids=["mlp", "rnn", "residual_mlp"],
)
def test_squares_of_the_layers_norms_add_up_to_the_step_s(settings: dict[str, Value]) -> None:
    (found,) = measured(settings)
    for step in (0, 1, 2):
        # Of the clipped gradient, the one is the norm rescaled and the other the norm of what was rescaled and rounded.
        for column, exact in (("grad_norm", 1e-12), ("grad_norm_clipped", 1e-6)):
            whole = found.steps[step][column]
            if whole is not None:
                assert math.sqrt(float(np.square(found.profile(column, step)).sum())) == pytest.approx(whole, rel=exact)
        assert (found.profile("weight_grad_norm", step) <= found.profile("grad_norm", step) * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"model.activation": "tanh", "model.norm": "batch"},
        {"model.activation": "prelu", "model.norm": "layer"},
        {"model.name": "residual_mlp", "model.activation": "gelu", "model.norm": "rms"},
        {"model.name": "rnn", "model.depth": 1, "model.activation": "elu", "data.name": "adding", "data.length": 3},
    ],
    ids=["batch", "layer", "rms-residual", "rnn"],
)
def test_gradients_equal_finite_differences(settings: dict[str, Value]) -> None:
    tiny: dict[str, Value] = {"model.depth": 3, "model.width": 3, "data.batch_size": 5, "train.steps": 0}
    tiny |= {"train.precision": "float64", "model.bias_var": 0.3}
    if "data.name" not in settings:
        tiny |= {"data.name": "gaussian_mixture", "data.features": 2}
    run = build(tiny | settings)
    cohort = prepare([run], content(run.data), torch.device("cpu"))
    cohort.task.turn_to(0)
    inputs, targets = cohort.task.batch()

    @torch.no_grad()
    def loss(x: torch.Tensor) -> float:
        through = Pass(cohort.network, Mode.MEASURE)
        output = cohort.architecture.forward(through, through.input(x))
        return float(cohort.loss.measure(output.value, targets)[0])

    def slope(tensor: torch.Tensor, place: int, x: torch.Tensor) -> float:
        entries, step = tensor.view(-1), 1e-5
        middle = float(entries[place])
        ends = []
        for value in (middle + step, middle - step):
            entries[place] = value
            ends.append(loss(x))
        entries[place] = middle
        return (ends[0] - ends[1]) / (2 * step)

    parameters = cohort.parameters
    numeric = np.array([slope(parameters, place, inputs) for place in range(parameters.numel())])
    (found,) = measured(tiny | settings)
    for layer, columns in enumerate(cohort.layout.layers, start=1):
        assert found.at(0, layer)["grad_norm"] == pytest.approx(np.linalg.norm(numeric[columns]), rel=1e-6)
    x = inputs.contiguous().clone()
    by_input = np.array([slope(x, place, x) for place in range(x.numel())])
    assert found.at(0, 0)["signal_grad_norm"] == pytest.approx(np.linalg.norm(by_input), rel=1e-6)


def test_the_input_has_its_moments_and_its_gradient_alone() -> None:
    (found,) = measured(SMALL)
    for step in (0, 1, 2):
        row = found.at(step, 0)
        assert columns_of(row) == SIGNAL
        assert row["name"] == "input"


def test_the_output_layer_neither_saturates_nor_dies() -> None:
    (relu,), (tanh,) = measured(SMALL), measured(SMALL | {"model.activation": "tanh"})
    everything = PARAMETERS | SIGNAL
    assert columns_of(relu.at(0, 4)) == columns_of(tanh.at(0, 4)) == everything
    assert columns_of(relu.at(0, 1)) == everything | {"dead"}
    assert columns_of(tanh.at(0, 1)) == everything | {"saturated"}
    assert columns_of(tanh.at(2, 1)) == (everything | {"saturated"}) - {"update_ratio", "grad_norm_clipped"}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_only_the_relu_family_dies_and_what_has_no_flat_ends_does_not_saturate(name: str) -> None:
    (found,) = measured(SMALL | {"model.activation": name})
    row = found.at(0, 2)
    assert (row["dead"] is not None) == (name in ("relu", "leaky_relu", "prelu"))
    assert (row["saturated"] is None) == (name in ("relu", "leaky_relu", "prelu", "linear"))


def test_dead_needs_sixteen_samples() -> None:
    (fifteen,), (sixteen,) = measured(SMALL | {"data.batch_size": 15}), measured(SMALL | {"data.batch_size": 16})
    assert fifteen.at(0, 1)["dead"] is None
    assert sixteen.at(0, 1)["dead"] is not None


@pytest.mark.parametrize(
    ("name", "slope", "dead"), [("relu", None, 1.0), ("leaky_relu", 0.01, 0.0), ("prelu", 0.0, 1.0)]
)
def test_units_below_zero_are_dead_where_the_slope_is_zero(name: str, slope: float | None, dead: float) -> None:
    """After matrices of zeros a unit is below zero on every sample if its bias is."""
    settings: dict[str, Value] = SMALL | {"model.activation": name, "model.slope": slope, "model.init": "zeros"}
    (found,) = measured(settings | {"model.bias_var": 1.0, "data.batch_size": 16, "model.width": 40})
    share = found.at(0, 1)["dead"]
    below = float((prepared_biases(settings | {"model.bias_var": 1.0, "model.width": 40}) <= 0).mean())
    assert 0.2 < below < 0.8
    assert share == pytest.approx(below * dead)


def prepared_biases(settings: dict[str, Value]) -> NDArray[np.float64]:
    """The initial biases of layer 1: after matrices of zeros they are its whole signal."""
    run = build(settings)
    cohort = prepare([run], content(run.data), torch.device("cpu"))
    (bias,) = (
        columns
        for slot, columns in zip(cohort.layout.slots, cohort.layout.columns, strict=True)
        if slot.layer == 1 and slot.role.value == "bias"
    )
    return cohort.parameters[0, bias].double().numpy()


def test_saturated_units_are_counted() -> None:
    wide: dict[str, Value] = SMALL | {"model.activation": "tanh", "model.depth": 2, "model.width": 64}
    (small, large) = measured(wide | {"model.gain": 0.01}, wide | {"model.gain": 1000.0})
    assert small.at(0, 1)["saturated"] == 0.0
    assert large.at(0, 1)["saturated"] > 0.97


def test_a_hardtanh_is_saturated_where_it_is_clamped() -> None:
    """Of z ~ N(0, s^2), P(|z| >= 1): 0.317 at s = 1 by the normal table; inputs are standardised, W of variance 1."""
    wide: dict[str, Value] = SMALL | {"model.activation": "hardtanh", "model.depth": 2, "model.width": 256}
    (small, large) = measured(wide | {"model.gain": 0.01}, wide | {"model.gain": 1000.0})
    assert small.at(0, 1)["saturated"] == 0.0
    assert large.at(0, 1)["saturated"] > 0.97
    (one,) = measured(wide | {"model.weight_var": 1.0})
    assert one.at(0, 1)["saturated"] == pytest.approx(0.317, abs=0.05)


def test_exact_zeros_of_the_gradient_are_counted() -> None:
    (zeros, normal) = measured(SMALL | {"model.init": "zeros"}, SMALL)
    # Every hidden unit is at zero, so only the biases of the output layer move.
    assert zeros.at(0, 1)["grad_zero"] == 1.0
    assert zeros.at(0, 4)["grad_zero"] == pytest.approx(80 / 90)
    assert normal.at(0, 4)["grad_zero"] < 0.2


@pytest.mark.parametrize("gain", [1e-13, 1e-12])
def test_subnormal_gradients_are_not_zeros(gain: float) -> None:
    """Three factors of 1e-13 make 1e-39: below float32's smallest normal number, and counted as what it is."""
    chain: dict[str, Value] = {"model.name": "linear_chain", "model.width": 8, "model.depth": 4, "model.gain": gain}
    (found,) = measured(chain | {"train.steps": 0})
    first = found.at(0, 0)["signal_grad_norm"]
    factor = found.at(0, 4)["signal_grad_norm"]
    if gain == 1e-12:
        assert found.at(0, 1)["signal_grad_norm"] == pytest.approx(factor * gain**3, rel=1e-2)
    else:
        assert 0 < found.at(0, 1)["signal_grad_norm"] < 1e-37
    assert first < found.at(0, 1)["signal_grad_norm"]


def test_time_steps_have_rows_of_their_own() -> None:
    rnn: dict[str, Value] = SMALL | {"model.name": "rnn", "model.depth": 2, "model.activation": "tanh"}
    (found,) = measured(rnn)
    rows = [row for row in found.layers if row["step"] == 0]
    assert [(row["axis"], row["layer"]) for row in rows] == [
        *(("depth", layer) for layer in range(4)),
        *(("time", t) for t in range(1, 9)),
    ]
    times = found.profile("signal_grad_norm", axis="time")
    assert math.sqrt(float(np.square(times).sum())) == pytest.approx(found.at(0, 2)["signal_grad_norm"], rel=1e-6)
    for t in range(1, 9):
        row = found.at(0, t, axis="time")
        assert row["signal_grad_norm"] is not None
        assert not columns_of(row) & PARAMETERS
    assert found.run["vanishing_ratio"] == pytest.approx(times[0] / times[-1], rel=1e-12)
    assert found.run["rate"] is not None


def test_a_feed_forward_network_has_no_time() -> None:
    (found,) = measured(SMALL)
    assert {row["axis"] for row in found.layers} == {"depth"}


def names(member: Member) -> list[str]:
    return [row["name"] for row in member.layers if row["step"] == 0]


def test_layers_have_names() -> None:
    (mlp,) = measured(SMALL)
    assert names(mlp)[0] == "input"
    assert len(set(names(mlp))) == 5
