"""A member of a cohort equals one plain torch.nn network trained with torch.optim and torch.nn.utils, over the axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradlab.data.facts import described
from gradlab.engine.playing import WINDOW
from gradlab.spec.choices import ACTIVATIONS, INITS
from gradlab.spec.named import Value
from tests.members import differences, measured, on_each_engine, trained_with
from tests.named import CHOICES, fitting
from tests.oracles import expected

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

# The eps are larger than torch's: a bias before a batch norm has a gradient of rounding alone, which a small eps would
# blow up until it shows in the running mean.
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
        {"optim.lr": 0.02, "optim.beta1": 0.0, "optim.weight_decay": 0.1, "optim.eps": 1e-2},
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
        {"optim.lr": 0.005, "optim.beta2": 0.9, "optim.weight_decay": 0.1, "optim.eps": 1e-2},
        {"optim.lr": 0.002, "optim.l1": 0.01, "optim.eps": 1e-6},
    ),
    "adagrad": (
        {"optim.lr": 0.05, "optim.eps": 1e-6},
        {"optim.lr": 0.02, "optim.weight_decay": 0.1, "optim.eps": 1e-2},
        {"optim.lr": 0.05, "optim.l1": 0.01, "optim.eps": 1e-6},
    ),
}

NORMS = ("batch", "layer", "rms")
"""Norms of every architecture; `tests/models/test_norm_kinds.py` has the others."""

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
    # Those of some architectures alone are tested by themselves, lsuv against a pass of torch's.
    inits = [name for name, init in INITS.items() if not init.models and name != "identity"]
    cohort = []
    for seed in range(count):
        turn = next(turns)
        choice = OPTIMIZERS[name]
        within: dict[str, Value] = {"seed": seed, "model.init": inits[turn % len(inits)], "optim.name": name}
        within |= choice[turn % len(choice)] | CLIPS[turn % len(CLIPS)] | SCALES[turn // 2 % len(SCALES)]
        if fixed.get("model.norm") == "batch":
            within["optim.l1"] = 0.0  # it would take the sign of such a bias, which is that of a rounding
        if (
            within.get("model.bias_var")
            and within["model.init"] == "torch_default"
            and "model.weight_var" not in within
        ):
            within["model.init"] = "he_uniform"
        cohort.append(BASE | fixed | within)
    return cohort


def mlps() -> Iterator[Any]:
    """Every activation without a norm and with one, the other axes taking turns."""
    turns = itertools.count()
    names = itertools.cycle(OPTIMIZERS)
    pairs = ((activation, norm) for place, activation in enumerate(ACTIVATIONS) for norm in ("none", NORMS[place % 3]))
    for number, (activation, norm) in enumerate(pairs):
        task = TASKS[(number + number // len(OPTIMIZERS)) % len(TASKS)]
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
    residual: list[tuple[str, str, str, dict[str, Value]]] = [
        ("relu", "none", "sgd", {"model.branch_scale": 0.5}),
        ("tanh", "batch", "adam", {}),
        ("prelu", "layer", "adamw", {"model.branch_scale": -0.7, "model.slope": 0.1}),
        ("gelu", "rms", "rmsprop", {"model.depth": 2}),
        ("selu", "batch", "adagrad", {"model.branch_scale": 0.0}),
    ]
    for activation, norm, name, extra in residual:
        fixed: dict[str, Value] = {"model.name": "residual_mlp", "model.depth": 5, "data.batch_size": 16}
        fixed |= {"model.activation": activation, "model.norm": norm, **extra}
        yield pytest.param(members(fixed, name, turns), id=f"residual_mlp-{activation}-{norm}-{name}")
    recurrent: list[tuple[str, str, str, int, dict[str, Value]]] = [
        ("tanh", "none", "sgd", 1, {"data.name": "digits", "data.batch_size": 16}),
        ("relu", "none", "adam", 2, {"data.name": "adding", "data.length": 5, "data.batch_size": 20}),
        ("sigmoid", "layer", "rmsprop", 2, {"data.name": "digits", "data.batch_size": 16}),
        ("prelu", "rms", "adagrad", 1, {"data.name": "adding", "data.length": 4, "data.batch_size": 1}),
        ("leaky_relu", "layer", "adamw", 1, {"data.name": "adding", "data.length": 3, "data.batch_size": 16}),
    ]
    for activation, norm, name, depth, data in recurrent:
        fixed = {"model.name": "rnn", "model.depth": depth, "model.width": 6, **data}
        fixed |= {"model.activation": activation, "model.norm": norm}
        yield pytest.param(members(fixed, name, turns), id=f"rnn{depth}-{activation}-{norm}-{name}")
    chain: dict[str, Value] = {**BASE, "model.name": "linear_chain", "model.width": 4, "model.depth": 5}
    gains: list[dict[str, Value]] = [
        {"model.gain": 1.1},
        {"model.gain": 0.5, "clip.mode": "norm"},
        {"model.gain": -1.0},
    ]
    yield pytest.param([{**chain, "optim.lr": 0.01, **gain} for gain in gains], id="linear_chain")
    point: dict[str, Value] = {**BASE, "data.name": "point", "data.batch_size": 1, "model.depth": 2, "optim.lr": 0.01}
    yield pytest.param([{**point, "seed": seed} for seed in range(3)], id="quartic loss")


@pytest.mark.parametrize("cohort", [*mlps(), *others()])
def test_a_member_equals_one_plain_network(cohort: Cohort) -> None:
    for settings, *either in zip(cohort, *on_each_engine(*cohort), strict=True):
        # Of a bias before a batch norm, rounding decides whether its gradient is exactly zero; and 1 + erf(-6) is zero
        # where torch takes gelu by it, and is not where our kernel does by what is left of it.
        rounded = settings.get("model.norm") == "batch" or settings.get("model.activation") == "gelu"
        skip, wanted = ("grad_zero",) if rounded else (), expected(settings)
        for found in either:
            assert found.run["state"] == "finished", "a setting that diverges compares nothing"
            assert list(differences(found, wanted, relative=1e-8, absolute=1e-14, skip=skip)) == []


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_float32_follows_the_plain_network_as_far_as_its_precision_allows(name: str) -> None:
    common: dict[str, Value] = {"train.steps": 8, "model.depth": 3, "model.width": 8, "model.activation": "tanh"}
    cohort: Cohort = [common | {"optim.name": name} | own for own in OPTIMIZERS[name]]
    for settings, *either in zip(cohort, *on_each_engine(*cohort), strict=True):
        wanted = expected(settings)
        for found in either:
            assert list(differences(found, wanted, relative=1e-3, absolute=1e-6)) == []


TINY: dict[str, Value] = {"model.depth": 3, "model.width": 8, "data.batch_size": 16}


@pytest.mark.usefixtures("either_engine")
def test_rows_run_from_0_to_n_and_layers_at_every_nth_step_and_the_last() -> None:
    (found,) = measured(TINY | {"train.steps": 7, "probe.every": 3})
    assert [row["step"] for row in found.steps] == list(range(8))
    assert found.recorded == [0, 3, 6, 7]
    (found,) = measured(TINY | {"train.steps": 6, "probe.every": 3})
    assert found.recorded == [0, 3, 6]
    (found,) = measured(TINY | {"train.steps": 120, "probe.every": 1000})
    assert [row["step"] for row in found.steps] == list(range(121))
    assert found.recorded == [0, 120]


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize("steps", [WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW])
def test_the_transfers_to_the_host_leave_no_trace(steps: int) -> None:
    (found,) = measured(TINY | {"train.steps": steps, "probe.every": 17, "optim.momentum": 0.9, "optim.lr": 0.01})
    (longer,) = measured(TINY | {"train.steps": 3 * WINDOW, "probe.every": 17, "optim.momentum": 0.9, "optim.lr": 0.01})
    assert [row["step"] for row in found.steps] == list(range(steps + 1))
    assert found.recorded == sorted({*range(0, steps + 1, 17), steps})
    assert [row["loss"] for row in found.steps] == [row["loss"] for row in longer.steps[: steps + 1]]


@pytest.mark.usefixtures("either_engine")
def test_the_last_row_is_measured_without_an_update() -> None:
    (found,) = measured(TINY | {"train.steps": 4, "probe.every": 2})
    assert found.steps[-1]["clipped"] is None
    assert found.steps[-1]["grad_norm_clipped"] is None
    assert found.steps[-1]["loss"] is not None
    for layer in (1, 2, 3):
        last, other = found.at(4, layer), found.at(2, layer)
        assert last["update_ratio"] is None
        assert last["grad_norm_clipped"] is None
        assert last["grad_norm"] > 0
        assert other["update_ratio"] > 0
        assert other["grad_norm_clipped"] > 0


@pytest.mark.usefixtures("either_engine")
def test_no_steps_measure_the_network_at_its_initial_weights_alone() -> None:
    (found,) = measured(TINY | {"train.steps": 0})
    assert len(found.steps) == 1
    assert found.recorded == [0]
    assert (found.run["state"], found.run["steps"]) == ("finished", 0)
    assert found.run["loss_first"] == found.run["loss_last"] == found.steps[0]["loss"]
    assert found.run["loss_heldout"] is None
    assert found.run["accuracy"] is None
    assert found.steps[0]["grad_norm"] > 0
    assert found.steps[0]["clipped"] is None
    (longer,) = measured(TINY | {"train.steps": 3})
    assert longer.at(0, 2)["signal_grad_norm"] == found.at(0, 2)["signal_grad_norm"]


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize(
    "settings",
    [
        {"model.norm": "batch", "optim.name": "adam", "optim.lr": 0.01},
        {"model.activation": "prelu", "optim.momentum": 0.9, "clip.mode": "norm"},
        {"model.name": "rnn", "model.depth": 2, "model.norm": "layer"},
    ],
    ids=["batch-adam", "prelu-momentum", "rnn"],
)
def test_probes_on_equals_probes_off_bit_for_bit(settings: dict[str, Value]) -> None:
    common = TINY | settings | {"train.steps": 60}
    (on,), (off,) = measured(common | {"probe.every": 1}), measured(common | {"probe.every": 60})
    assert on.recorded == list(range(61))
    assert off.recorded == [0, 60]
    strip = [{key: row[key] for key in row if key != "run_id"} for row in on.steps]
    assert strip == [{key: row[key] for key in row if key != "run_id"} for row in off.steps]
    assert on.run["loss_heldout"] == off.run["loss_heldout"]
    for layer in range(len(off.profile("grad_norm", step=60)) + 1):
        a, b = on.at(60, layer), off.at(60, layer)
        assert {k: v for k, v in a.items() if k != "run_id"} == {k: v for k, v in b.items() if k != "run_id"}


@pytest.mark.parametrize(("engine", "precision"), [("kernels", "float32"), ("torch", "float64")])
@pytest.mark.parametrize(("key", "name"), CHOICES)
def test_every_named_choice_trains_two_steps(key: str, name: str, engine: str, precision: str, tmp_path: Path) -> None:
    settings = fitting(key, name, precision, tmp_path)
    with trained_with(engine):
        (found,) = measured(settings)
    assert (found.run["state"], found.run["steps"]) == ("finished", 2)
    assert [row["step"] for row in found.steps] == [0, 1, 2]
    assert all(math.isfinite(row["loss"]) for row in found.steps)
    assert math.isfinite(found.run["loss_heldout"])
    assert (found.run["accuracy"] is None) == (described(settings).facts.loss != "cross_entropy")
