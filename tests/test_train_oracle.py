"""A member of a cohort equals one plain torch.nn network trained with torch.optim and torch.nn.utils, over the axes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from gradlab.choices import ACTIVATIONS, INITS, NORMS
from gradlab.spec import Value
from tests.oracles import differences, expected, measured

Cohort = list[dict[str, Value]]

BASE: dict[str, Value] = {"train.precision": "float64", "train.steps": 20, "probe.every": 6, "model.width": 8}

CLIPS: tuple[dict[str, Value], ...] = (
    {"clip.mode": "none"},
    {"clip.mode": "norm", "clip.threshold": 0.4},
    {"clip.mode": "value", "clip.threshold": 0.01},
    {"clip.mode": "layerwise", "clip.threshold": 0.2},
    {"clip.mode": "layerwise", "clip.threshold": 0.05, "clip.output_threshold": 0.6},
    {"clip.mode": "normalize", "clip.threshold": 0.5},
    {"clip.mode": "norm", "clip.threshold": 1e6},
)

# The eps are larger than torch's: a bias before a batch norm has the gradient zero but for rounding, and dividing
# rounding by less than rounding would be compared here.
OPTIMIZERS: dict[str, tuple[dict[str, Value], ...]] = {
    "sgd": (
        {"optim.lr": 0.05},
        {"optim.lr": 0.02, "optim.momentum": 0.9},
        {"optim.lr": 0.02, "optim.momentum": 0.8, "optim.nesterov": True, "optim.weight_decay": 0.1},
        {"optim.lr": 0.05, "optim.l1": 0.01},
    ),
    "adam": (
        {"optim.lr": 0.01, "optim.eps": 1e-6},
        {"optim.lr": 0.01, "optim.beta1": 0.5, "optim.beta2": 0.9, "optim.eps": 1e-4},
        {"optim.lr": 0.02, "optim.beta1": 0.0, "optim.weight_decay": 0.1, "optim.eps": 1e-6},
        {"optim.lr": 0.005, "optim.l1": 0.01, "optim.eps": 1e-6},
    ),
    "adamw": (
        {"optim.lr": 0.01, "optim.eps": 1e-6},
        {"optim.lr": 0.02, "optim.weight_decay": 0.3, "optim.eps": 1e-6},
        {"optim.lr": 0.01, "optim.weight_decay": 0.0, "optim.beta1": 0.7, "optim.eps": 1e-6},
        {"optim.lr": 0.005, "optim.l1": 0.01, "optim.eps": 1e-6},
    ),
    "rmsprop": (
        {"optim.lr": 0.005, "optim.eps": 1e-6},
        {"optim.lr": 0.002, "optim.momentum": 0.9, "optim.eps": 1e-6},
        {"optim.lr": 0.005, "optim.beta2": 0.9, "optim.weight_decay": 0.1, "optim.eps": 1e-5},
        {"optim.lr": 0.002, "optim.l1": 0.01, "optim.eps": 1e-6},
    ),
    "adagrad": (
        {"optim.lr": 0.05, "optim.eps": 1e-6},
        {"optim.lr": 0.02, "optim.weight_decay": 0.1, "optim.eps": 1e-6},
        {"optim.lr": 0.05, "optim.l1": 0.01, "optim.eps": 1e-6},
    ),
}

SCALES: tuple[dict[str, Value], ...] = (
    {},
    {"model.gain": 0.6},
    {"data.input_scale": 1.7},
    {"model.weight_var": 1.3},
    {"model.bias_var": 0.2, "model.init": "lecun_normal"},
    {"data.target_scale": 2.5, "data.input_scale": -0.5},
    {"model.gain": 1.4, "model.weight_var": 0.7, "model.bias_var": 0.05},
)

TASKS: tuple[dict[str, Value], ...] = (
    {"data.name": "digits", "data.batch_size": 16, "model.depth": 3},
    {"data.name": "linear_teacher", "data.features": 5, "data.batch_size": 32, "model.depth": 2, "data.seed": 4},
    {"data.name": "gaussian_mixture", "data.features": 6, "data.batch_size": 12, "model.depth": 5},
    {"data.name": "digits", "data.batch_size": 1, "model.depth": 2, "data.standardise": False},
    {"data.name": "digits", "data.batch_size": "full", "model.depth": 4},
)


def members(fixed: dict[str, Value], name: str, turns: Iterator[int], count: int = 3) -> Cohort:
    """``count`` members that share ``fixed`` and differ in seed, init, scales, clipping and the optimizer's numbers."""
    inits = list(INITS)
    cohort = []
    for seed in range(count):
        turn = next(turns)
        choice = OPTIMIZERS[name]
        within: dict[str, Value] = {"seed": seed, "model.init": inits[turn % len(inits)], "optim.name": name}
        within |= choice[turn % len(choice)] | CLIPS[turn % len(CLIPS)] | SCALES[turn // 2 % len(SCALES)]
        if within.get("model.bias_var") and within["model.init"] == "torch_default" and "model.weight_var" not in within:
            within["model.init"] = "he_uniform"
        cohort.append(BASE | fixed | within)
    return cohort


def mlps() -> Iterator[Any]:
    """Every activation with every norm, the other axes taking turns."""
    turns = itertools.count()
    names = itertools.cycle(OPTIMIZERS)
    for number, (activation, norm) in enumerate(itertools.product(ACTIVATIONS, NORMS)):
        task = TASKS[number % len(TASKS)]
        if norm == "batch" and task["data.batch_size"] == 1:
            task = TASKS[0]
        fixed: dict[str, Value] = {"model.activation": activation, "model.norm": norm, **task}
        name = next(names)
        yield pytest.param(members(fixed, name, turns), id=f"{activation}-{norm}-{name}")


def others() -> Iterator[Any]:
    """Architectures other than the mlp, and depth 1."""
    turns = itertools.count(1)
    one: dict[str, Value] = {"model.depth": 1, "data.batch_size": 16}
    yield pytest.param(members(one, "sgd", turns), id="mlp-depth1")
    for activation, norm, name, extra in (
        ("relu", "none", "sgd", {"model.branch_scale": 0.5}),
        ("tanh", "batch", "adam", {}),
        ("prelu", "layer", "adamw", {"model.branch_scale": -0.7, "model.slope": 0.1}),
        ("gelu", "rms", "rmsprop", {"model.depth": 2}),
        ("selu", "batch", "adagrad", {"model.branch_scale": 0.0}),
    ):
        fixed: dict[str, Value] = {"model.name": "residual_mlp", "model.depth": 5, "data.batch_size": 16}
        fixed |= {"model.activation": activation, "model.norm": norm, **extra}
        yield pytest.param(members(fixed, name, turns), id=f"residual_mlp-{activation}-{norm}-{name}")
    for activation, norm, name, depth, data in (
        ("tanh", "none", "sgd", 1, {"data.name": "digits", "data.batch_size": 16}),
        ("relu", "none", "adam", 2, {"data.name": "adding", "data.length": 5, "data.batch_size": 20}),
        ("sigmoid", "layer", "rmsprop", 2, {"data.name": "digits", "data.batch_size": 16}),
        ("prelu", "rms", "adagrad", 1, {"data.name": "adding", "data.length": 4, "data.batch_size": 1}),
        ("leaky_relu", "layer", "adamw", 1, {"data.name": "adding", "data.length": 3, "data.batch_size": 16}),
    ):
        fixed = {"model.name": "rnn", "model.depth": depth, "model.width": 6, **data}
        fixed |= {"model.activation": activation, "model.norm": norm}
        yield pytest.param(members(fixed, name, turns), id=f"rnn{depth}-{activation}-{norm}-{name}")
    chain: dict[str, Value] = {**BASE, "model.name": "linear_chain", "model.width": 4, "model.depth": 5}
    gains: list[dict[str, Value]] = [{"model.gain": 1.1}, {"model.gain": 0.5, "clip.mode": "norm"}, {"model.gain": -1.0}]
    yield pytest.param([{**chain, "optim.lr": 0.01, **gain} for gain in gains], id="linear_chain")


@pytest.mark.parametrize("cohort", [*mlps(), *others()])
def test_a_member_equals_one_plain_network(cohort: Cohort) -> None:
    for found, settings in zip(measured(*cohort), cohort, strict=True):
        wanted = expected(settings)
        assert found.run["state"] == "finished", "a setting that diverges compares nothing"
        assert list(differences(found, wanted, relative=1e-8, absolute=1e-14)) == [], settings


def test_float32_follows_the_plain_network_as_far_as_its_precision_allows() -> None:
    cohort: Cohort = [
        {"train.steps": 10, "model.depth": 3, "model.width": 8, "model.activation": "tanh", **extra}
        for name in ("adam",)
        for extra in ({"optim.name": name, "optim.lr": 0.003}, {"optim.name": name, "optim.lr": 0.001})
    ]
    for found, settings in zip(measured(*cohort), cohort, strict=True):
        assert list(differences(found, expected(settings), relative=1e-3, absolute=1e-6)) == []
