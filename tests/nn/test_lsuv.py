"""Layer-sequential unit variance: every layer's W h has variance gain^2 on the first batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.data.loaders import load
from gradlab.engine.cohort import Cohort, prepare
from gradlab.nn.slots import Role
from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.theory.predict import predict
from tests.members import measured
from tests.oracles import activation

BASE: dict[str, Value] = {
    "model.init": "lsuv",
    "model.depth": 5,
    "model.width": 30,
    "train.precision": "float64",
    "data.batch_size": 50,
    "model.activation": "tanh",
}


def ready(*settings: dict[str, Value]) -> Cohort:
    runs = [build(BASE | values) for values in settings]
    return prepare(runs, load(runs[0].data), torch.device("cpu"))


def matrices(cohort: Cohort, member: int) -> list[Tensor]:
    depth = cohort.runs[0].model.depth
    return [cohort.network.parameters[layer, Role.WEIGHT][member] for layer in range(1, depth + 1)]


def inputs(cohort: Cohort, member: int) -> Tensor:
    run, task = cohort.runs[member], cohort.task
    taken: Tensor = task.inputs[task.order[0]]
    return taken.flatten(1) * run.data.input_scale


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "gelu", "leaky_relu"])
def test_every_layer_puts_out_unit_variance_times_the_gain(name: str) -> None:
    """The pass is torch's own; biases, which the paper has at 0, come after."""
    gains = (1.0, 0.7, -1.5)
    settings: list[dict[str, Value]] = [
        {"model.activation": name, "model.gain": gain, "model.bias_var": 0.1, "seed": 3} for gain in gains
    ]
    cohort = ready(*settings)
    phi = activation(name, cohort.runs[0].model.slope or 0.0)
    for member, gain in enumerate(gains):
        h = inputs(cohort, member)
        for layer, weight in enumerate(matrices(cohort, member), start=1):
            z = h @ weight.T
            assert float(z.var(correction=0)) == pytest.approx(gain**2, rel=1e-10)
            h = phi(z + cohort.network.parameters[layer, Role.BIAS][member])


def test_matrices_stay_orthogonal_but_for_their_scale() -> None:
    cohort = ready({})
    for weight in matrices(cohort, 0):
        gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        torch.testing.assert_close(gram / gram[0, 0], torch.eye(len(gram)).double(), rtol=0, atol=1e-12)


def test_residual_branches_are_scaled_as_their_stream_meets_them() -> None:
    cohort = ready({"model.name": "residual_mlp", "model.branch_scale": 0.5})
    read_in, *branches, read_out = matrices(cohort, 0)
    z = inputs(cohort, 0) @ read_in.T
    for weight in branches:
        branch = torch.tanh(z) @ weight.T
        assert float(branch.var(correction=0)) == pytest.approx(1, rel=1e-10)
        z = z + 0.5 * branch
    assert float((z @ read_out.T).var(correction=0)) == pytest.approx(1, rel=1e-10)


def test_other_members_keep_their_weights_and_a_matrix_without_spread_its_own() -> None:
    company = ready({"model.init": "he_normal"}, {}, {"data.input_scale": 0.0}, {"model.gain": 0.0})
    alone = ready({"model.init": "he_normal"})
    assert torch.equal(company.parameters[0], alone.parameters[0])
    torch.testing.assert_close(company.parameters[1], ready({}).parameters[0], rtol=1e-13, atol=0)
    assert company.parameters.isfinite().all()


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "hardtanh"])
def test_theory_knows_the_rate(name: str) -> None:
    """Its variance is that at which q = gain^2 is fixed; a batch of 200 samples stands for all inputs."""
    settings = BASE | {"model.activation": name, "model.depth": 16, "model.width": 200, "data.batch_size": 200}
    found = measured(*(settings | {"train.steps": 0, "seed": seed} for seed in range(8)))
    said = predict(build(settings))
    assert said.q_star == pytest.approx(1, rel=1e-6)
    assert said.rate is not None
    rates = np.log([member.run["rate"] for member in found])
    # The standard error of eight draws of width 200 is 0.003 where draws differ most.
    assert rates.mean() == pytest.approx(math.log(said.rate), abs=0.01)
    assert {member.run["rate_theory"] for member in found} == {said.fitted}
