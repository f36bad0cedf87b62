"""Company: a member's numbers are its own, whoever trains beside it."""

from __future__ import annotations

import pytest

from gradlab.spec.named import Value
from tests.members import differences, measured

pytestmark = pytest.mark.usefixtures("either_engine")

FIXED: tuple[dict[str, Value], ...] = (
    {"model.norm": "batch", "model.activation": "prelu", "optim.name": "adam", "optim.lr": 0.003},
    {"model.norm": "layer", "model.activation": "gelu"},
    {"model.name": "residual_mlp", "model.norm": "rms", "optim.name": "rmsprop", "optim.lr": 0.001},
    {"model.name": "rnn", "model.depth": 2, "model.activation": "tanh", "optim.name": "adagrad", "optim.lr": 0.02},
    {"model.name": "rnn", "model.depth": 1, "data.name": "adding", "data.length": 6, "optim.lr": 0.01},
    {"model.name": "linear_chain", "optim.name": "adamw", "optim.lr": 0.01, "model.gain": 0.9},
)
WITHIN: tuple[dict[str, Value], ...] = (
    {"seed": 3},
    {"seed": 3, "model.init": "xavier_uniform", "clip.mode": "norm", "clip.threshold": 0.2},
    {"seed": 1, "model.weight_var": 1.5, "model.bias_var": 0.1, "optim.momentum": 0.9},
    {"seed": 2, "model.init": "orthogonal", "clip.mode": "value", "clip.threshold": 0.01, "optim.l1": 0.01},
    {"seed": 0, "model.init": "torch_default", "clip.mode": "layerwise", "optim.weight_decay": 0.1},
    {"seed": 3, "model.gain": 0.5, "clip.mode": "normalize", "clip.threshold": 0.3, "optim.beta1": 0.5},
    {"seed": 3, "data.input_scale": 2.0, "data.target_scale": 0.5, "optim.momentum": 0.5, "optim.nesterov": True},
)
CHAIN_LACKS = ("model.init", "model.weight_var", "model.bias_var")


def company(fixed: dict[str, Value], precision: str) -> list[dict[str, Value]]:
    """Seven members that differ in all that may differ inside a cohort."""
    common: dict[str, Value] = {"model.width": 12, "model.depth": 3, "train.steps": 15, "train.precision": precision}
    lacks = CHAIN_LACKS if fixed.get("model.name") == "linear_chain" else ()
    return [
        {key: value for key, value in {**common, **fixed, **within}.items() if key not in lacks} for within in WITHIN
    ]


@pytest.mark.parametrize("fixed", FIXED, ids=lambda fixed: "-".join(str(value) for value in fixed.values()))
def test_a_member_is_the_same_alone_and_in_company(fixed: dict[str, Value]) -> None:
    cohort = company(fixed, "float64")
    for settings, among in zip(cohort, measured(*cohort), strict=True):
        (alone,) = measured(settings)
        assert alone.run["state"] == "finished", "a setting that diverges compares little"
        assert among.run["run_id"] == alone.run["run_id"]
        # Of a bias before a batch norm, rounding decides whether its gradient is exactly zero.
        skip = ("grad_zero",) if fixed.get("model.norm") == "batch" else ()
        assert list(differences(among, alone, relative=1e-8, absolute=1e-14, skip=skip)) == []


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("fixed", FIXED, ids=lambda fixed: "-".join(str(value) for value in fixed.values()))
def test_the_same_company_gives_the_same_bits(fixed: dict[str, Value], precision: str) -> None:
    cohort = company(fixed, precision)
    for once, again in zip(measured(*cohort), measured(*cohort), strict=True):
        assert list(differences(once, again)) == []


@pytest.mark.parametrize("fixed", FIXED, ids=lambda fixed: "-".join(str(value) for value in fixed.values()))
def test_the_order_of_the_members_does_not_matter(fixed: dict[str, Value]) -> None:
    cohort = company(fixed, "float64")
    backwards = measured(*reversed(cohort))
    skip = ("grad_zero",) if fixed.get("model.norm") == "batch" else ()
    for found, other in zip(measured(*cohort), reversed(backwards), strict=True):
        assert list(differences(found, other, relative=1e-8, absolute=1e-14, skip=skip)) == []
