"""How alike two inputs stay: closed forms and limits of the literature, quadrature, and the engine's own networks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.theory.activations import Floats, Phi
from gradlab.theory.mean_field import critical
from gradlab.theory.setting import Setting, setting
from gradlab.theory.similarity import course, passed_on, shaped_slope, tangent
from tests.members import measured

Settings = dict[str, Value]


def seen(**model: Value) -> Setting:
    return setting(build({f"model.{key}": value for key, value in model.items()}))


@pytest.mark.parametrize("name", ["tanh", "gelu", "sigmoid", "elu", "hardtanh", "relu", "leaky_relu"])
def test_the_map_of_correlations_is_that_of_two_gaussian_variables(name: str) -> None:
    """On a grid of two dimensions, which shares nothing with the closed form and the series; kinks cost it 1 %."""
    phi, root_q = Phi(name, 0.2), math.sqrt(1.3)
    z, weight = np.polynomial.hermite_e.hermegauss(200)
    weight = weight / weight.sum()
    u = np.broadcast_to(z[:, None], (200, 200))

    def told(function: str, c: float) -> float:
        def f(at: Floats) -> Floats:
            found: Floats = getattr(phi, function)(root_q * at)
            return found

        return float(weight @ (f(u) * f(c * u + math.sqrt(1 - c * c) * u.T)) @ weight) / float(weight @ f(z) ** 2)

    found = passed_on(phi, 1.3, np.array([-0.4, 0.2, 0.9]))
    slack = 1e-6 if name in ("tanh", "gelu", "sigmoid") else 0.012
    for at, c in enumerate((-0.4, 0.2, 0.9)):
        assert found[0][at] == pytest.approx(told("value", c), abs=slack)
        assert found[1][at] == pytest.approx(told("derivative", c), abs=slack)


def test_relu_s_inputs_become_one_algebraically() -> None:
    """1 - c after 10, 20 and 30 layers from orthogonal inputs; l^2 (1 - c) tends to 9 pi^2/2."""
    found = course(seen(depth=2001), np.zeros(1))
    assert found is not None
    assert 1 - found.h[[9, 19, 29], 0] == pytest.approx([0.129, 0.052, 0.028], abs=6e-4)
    assert 2000**2 * (1 - found.z[-1, 0]) == pytest.approx(9 * math.pi**2 / 2, rel=0.02)


@pytest.mark.parametrize("case", ["relu", "tanh"])
def test_the_tangent_kernel_of_deep_networks_tends_to_a_quarter_and_to_a_third(case: str) -> None:
    """Where a gradient keeps its size."""
    smooth: Settings = {"activation": "tanh", "weight_var": critical(Phi("tanh"), 0.05)[0], "bias_var": 0.05}
    found = tangent(seen(depth=4000, **(smooth if case == "tanh" else {})), np.array([0.3, 0.5]))
    assert found is not None
    own, both = found
    assert both.sum() / own.sum() == pytest.approx(1 / 4 if case == "relu" else 1 / 3, rel=0.01)


def test_slopes_that_are_shaped_to_the_depth() -> None:
    assert [shaped_slope(depth) for depth in (20, 50, 100)] == pytest.approx([0.181, 0.431, 0.570], abs=6e-4)
    found = course(seen(activation="leaky_relu", slope=shaped_slope(50), depth=51), np.zeros(1))
    assert found is not None
    assert found.h[-1, 0] == pytest.approx(0.9, abs=1e-6)


PLAIN: dict[str, Settings] = {
    "ReLU": {},
    "tanh, chaos": {"model.activation": "tanh", "model.weight_var": 2.5, "model.bias_var": 0.05},
    "sigmoid": {"model.activation": "sigmoid", "model.init": "xavier"},
}


@pytest.mark.parametrize("case", PLAIN)
def test_the_column_of_a_wide_network_is_what_theory_says(case: str) -> None:
    """The course of the mean cosine, from that of the inputs on."""
    settings: Settings = {**PLAIN[case], "model.width": 256, "model.depth": 20, "train.steps": 0}
    settings |= {"data.name": "gaussian_mixture", "data.batch_size": 128}
    members = measured(*({**settings, "seed": seed} for seed in range(6)))
    found = np.mean([member.profile("act_correlation")[:-1] for member in members], axis=0)
    told = course(setting(build(settings)), np.array([members[0].at(0, 0)["act_correlation"]]))
    assert told is not None
    assert found == pytest.approx(told.h[:, 0], abs=0.03)


def test_of_other_networks_nothing_is_said() -> None:
    others: tuple[Settings, ...] = ({"norm": "batch"}, {"name": "residual_mlp"}, {"depth": 1})
    for other in others:
        assert course(seen(**other), np.zeros(1)) is None
        assert tangent(seen(**other), np.zeros(1)) is None
