"""The mean field of convolutions, pixel by pixel, against networks drawn in the engine and in plain numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.theory.activations import Phi
from gradlab.theory.images import border, convolutions, smoothed
from gradlab.theory.predict import predict, profile
from gradlab.theory.setting import Setting, setting
from tests.members import measured

Settings = dict[str, Value]

CNN: Settings = {"model.name": "cnn", "model.depth": 16, "model.width": 40}
RESNET: Settings = {"model.name": "resnet", "model.depth": 20, "model.width": 40}

CASES: dict[str, Settings] = {
    "He": CNN,
    "tanh in chaos": CNN | {"model.activation": "tanh", "model.weight_var": 2.5, "model.bias_var": 0.05},
    "tanh, orthogonal": CNN | {"model.activation": "tanh", "model.init": "orthogonal"},
    "tanh, delta-orthogonal": CNN | {"model.activation": "tanh", "model.init": "delta_orthogonal"},
    "torch's default": CNN | {"model.activation": "tanh", "model.init": "torch_default"},
    "layer norm": CNN | {"model.activation": "tanh", "model.norm": "layer"},
    "batch norm": CNN | {"model.norm": "batch"},
    "residual": RESNET | {"model.branch_scale": 0.5},
    "residual, layer norm": RESNET | {"model.norm": "layer"},
    "rezero": RESNET | {"model.block": "rezero"},
}


@pytest.mark.parametrize("case", CASES)
def test_rates_and_courses_are_those_that_are_measured(case: str) -> None:
    settings: Settings = {"train.steps": 0, "data.batch_size": 4, **CASES[case]}
    said, course = predict(build(settings)), profile(build(settings))
    assert said.fitted is not None
    assert course is not None
    members = measured(*({**settings, "seed": seed} for seed in range(10)))
    found = math.exp(float(np.mean([math.log(member.run["rate"]) for member in members])))
    assert found == pytest.approx(said.fitted, rel=0.03)
    places = [place for place in course.place if place > 0]
    # Inside rezero's blocks there is none at first.
    known = np.array(places) - 1
    logs = np.mean([np.log(member.profile("signal_grad_norm")[known]) for member in members], axis=0)
    foretold = [course.log[course.place.index(place)] for place in places]
    np.testing.assert_allclose((logs - logs[-1])[1:], foretold[1:], atol=0.45)


def test_a_border_of_zeros_costs_what_the_smoothing_s_eigenvalue_says() -> None:
    for side, known in ((8, 0.921), (28, 0.992), (1, 1 / 9)):
        plain = np.array([[float(abs(i - j) <= 1) for j in range(side)] for i in range(side)]) / 3
        assert border((side, side)) == pytest.approx(float(np.linalg.eigvalsh(plain)[-1]) ** 2)
        assert border((side, side)) == pytest.approx(known, abs=1e-3)
    said = predict(build(CNN | {"model.depth": 60}))
    assert said.chi1 == pytest.approx(border((8, 8)), rel=1e-3)
    assert "8x8 pixels is a factor of 0.960" in said.note


def test_a_pixel_s_variance_is_that_of_a_drawn_network() -> None:
    """Forward, map by map: a filter meets four, six or nine pixels."""
    seen = setting(build(CNN | {"model.activation": "tanh", "model.weight_var": 1.7}))
    rng, width, variances = np.random.default_rng(0), 400, []
    h = rng.standard_normal((6, 6, width))
    q = np.full((6, 6), float((h**2).mean()))
    for _ in range(3):
        weights = rng.standard_normal((3, 3, width, width)) * math.sqrt(1.7 / (9 * width))
        framed = np.pad(h, ((1, 1), (1, 1), (0, 0)))
        z = sum(framed[i : i + 6, j : j + 6] @ weights[i, j] for i in range(3) for j in range(3))
        variances.append((z**2).mean(-1))
        h = np.tanh(z)
        q = 1.7 * smoothed(seen, q)
        np.testing.assert_allclose(variances[-1], q, rtol=0.35)
        q = (h**2).mean(-1)


def test_a_filter_of_its_middle_tap_loses_nothing_at_the_border() -> None:
    seen = setting(build(CNN | {"model.init": "delta_orthogonal", "model.activation": "linear"}))
    assert isinstance(seen, Setting)
    assert seen.phi == Phi("linear", 0.0)
    assert convolutions(seen).back[1:] == pytest.approx([1.0] * 15)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (CNN | {"model.pool": "3"}, "the mean of four pixels"),
        (RESNET | {"model.block": "postact"}, "not normal"),
        (RESNET | {"model.block": "fixup"}, "begins at 0"),
        (RESNET | {"model.norm": "batch"}, "batch norm in residual convolutions"),
    ],
)
def test_where_it_ends_it_says_so(settings: Settings, why: str) -> None:
    said = predict(build(settings))
    assert said.rate is None
    assert why in said.note
    assert "\n" not in said.note
