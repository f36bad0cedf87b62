"""Divergence: a member ends at its own step, in its own layer, and its end touches nobody."""

from __future__ import annotations

import math
from functools import lru_cache

import pytest

from gradlab.engine.playing import WINDOW
from gradlab.spec.named import Value
from tests.members import Member, differences, measured
from tests.oracles import expected

LINE: dict[str, Value] = {
    "model.name": "linear_chain",
    "model.width": 4,
    "model.depth": 1,
    "train.steps": 130,
    "probe.every": 20,
}
"""Regression without a hidden layer: above lr = 2/curvature the weights grow by the same factor every step."""

TAME = LINE | {"optim.lr": 0.1}
SLOW = LINE | {"optim.lr": 5.5}
"""Overflows in float32 only after the first window."""


def ended(member: Member) -> int:
    """The step at which a member diverged."""
    at = member.run["diverged_at"]
    assert isinstance(at, int)
    return at


@lru_cache(maxsize=1)
def late() -> int:
    """The step at which `SLOW` diverges."""
    (found,) = measured(SLOW)
    return ended(found)


def check_end(member: Member, every: int) -> None:
    """Rows stop at the step of the divergence, and the per-layer table has it."""
    t = ended(member)
    assert (member.run["state"], member.run["steps"], member.run["accuracy"]) == ("diverged", t, None)
    assert member.run["loss_heldout"] is None
    assert [row["step"] for row in member.steps] == list(range(t + 1))
    assert member.recorded == sorted({*range(0, t + 1, every), t})
    last = member.steps[-1]["loss"]
    assert member.run["loss_last"] == last or (math.isnan(member.run["loss_last"]) and math.isnan(last))
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in member.steps[:-1])
    gradients = member.profile("grad_norm", step=t)
    assert member.run["diverged_layer"] is not None or all(math.isfinite(norm) for norm in gradients)


def test_a_slow_end_lies_in_a_later_window_between_two_records() -> None:
    assert late() > WINDOW
    assert late() % 20 != 0, "choose another learning rate: the test is about a step that is not recorded anyway"
    (found,) = measured(SLOW)
    check_end(found, every=20)


@pytest.mark.parametrize(
    "settings",
    [
        SLOW | {"train.precision": "float64", "optim.lr": 3000.0, "probe.every": 7},
        {"model.depth": 4, "model.width": 8, "data.name": "linear_teacher", "optim.lr": 30.0, "train.steps": 30},
        {"model.depth": 3, "model.width": 8, "data.name": "linear_teacher", "optim.lr": 1e250, "probe.every": 3},
        {"model.name": "rnn", "data.name": "adding", "data.length": 5, "model.width": 6, "optim.lr": 1e80},
        {"model.name": "residual_mlp", "model.depth": 4, "data.name": "linear_teacher", "optim.lr": 1e120},
        {"model.depth": 3, "model.width": 8, "data.input_scale": 1e308, "model.gain": 10.0},
        {"model.depth": 3, "model.width": 8, "model.activation": "tanh", "optim.lr": 1e308, "train.steps": 12},
    ],
    ids=["line", "relu", "relu-huge", "rnn", "residual", "input", "tanh"],
)
def test_step_and_layer_of_a_divergence_are_those_of_a_plain_network(settings: dict[str, Value]) -> None:
    settings = {"train.precision": "float64", "train.steps": 40, **settings}
    (found,) = measured(settings)
    wanted = expected(settings)
    assert found.run["state"] == wanted.run["state"]
    assert found.run["diverged_at"] == wanted.run["diverged_at"]
    assert found.run["diverged_layer"] == wanted.run["diverged_layer"]
    assert [row["step"] for row in found.steps] == [row["step"] for row in wanted.steps]
    assert found.recorded == wanted.recorded


def test_the_layer_is_the_lowest_with_a_signal_that_is_not_finite() -> None:
    """A gain of 1e30 in float32: one layer brings 1e30, two bring infinity."""
    huge: dict[str, Value] = {"model.depth": 5, "model.width": 8, "model.gain": 1e30, "train.steps": 3}
    (found,) = measured(huge)
    check_end(found, every=10)
    assert (ended(found), found.run["diverged_layer"]) == (0, 2)


def test_where_all_signals_are_finite_it_is_the_highest_layer_whose_gradient_is_not() -> None:
    """Matrices of 1e12 in float32 on inputs of 1e-30: every signal is finite, the products backward are not."""
    settings: dict[str, Value] = {
        "model.name": "linear_chain",
        "model.depth": 4,
        "model.width": 4,
        "model.gain": 1e12,
        "data.input_scale": 1e-30,
        "train.steps": 2,
    }
    (found,) = measured(settings)
    assert ended(found) == 0
    finite = [math.isfinite(norm) for norm in found.profile("grad_norm")]
    assert not all(finite), "nothing overflowed"
    assert all(math.isfinite(value) for value in found.profile("act_std"))
    assert found.run["diverged_layer"] == max(layer for layer, good in enumerate(finite, start=1) if not good)


def test_the_end_of_one_member_changes_no_bit_of_another() -> None:
    first, second = TAME | {"seed": 1}, TAME | {"seed": 2, "clip.mode": "norm"}
    with_end = measured(first, SLOW, second)
    without = measured(first, TAME | {"seed": 3}, second)
    assert with_end[1].run["state"] == "diverged"
    for found, other in ((with_end[0], without[0]), (with_end[2], without[2])):
        assert found.run["state"] == "finished"
        assert list(differences(found, other)) == []
        assert found.recorded == [*range(0, 130, 20), 130]


@pytest.mark.parametrize(
    "fixed",
    [
        {"model.norm": "batch", "optim.name": "adam", "model.activation": "prelu"},
        {"model.norm": "layer", "optim.name": "rmsprop"},
        {"model.norm": "rms", "optim.name": "adagrad", "model.name": "residual_mlp"},
        {"optim.name": "sgd", "optim.momentum": 0.9, "model.name": "rnn", "model.depth": 1, "clip.mode": "norm"},
        {"optim.name": "adamw", "clip.mode": "value"},
    ],
    ids=lambda fixed: "-".join(str(value) for value in fixed.values()),
)
def test_playing_a_window_again_restores_every_buffer(fixed: dict[str, Value]) -> None:
    """The end lies between two records, so its window is played again; momenta and running statistics come back."""
    common: dict[str, Value] = {
        "model.depth": 3,
        "model.width": 8,
        "train.steps": 70,
        "probe.every": 50,
        "optim.lr": 1e-3,
    }
    common |= fixed
    healthy = [common | {"seed": 1}, common | {"seed": 2}]
    broken = common | {"seed": 3, "optim.lr": 1e38, "optim.weight_decay": 1e3, "clip.mode": "none"}
    found = measured(healthy[0], broken, healthy[1])
    others = measured(healthy[0], common | {"seed": 3, "clip.mode": "none"}, healthy[1])
    assert 0 < ended(found[1]) < 50
    check_end(found[1], every=50)
    for one, other in ((found[0], others[0]), (found[2], others[2])):
        assert list(differences(one, other)) == []


def test_an_end_at_the_last_row() -> None:
    settings = SLOW | {"train.steps": late()}
    (found,) = measured(settings)
    check_end(found, every=20)
    assert ended(found) == late()
    (longer,) = measured(SLOW)
    for row, other in zip(found.steps[:-1], longer.steps, strict=False):
        assert {**row, "run_id": ""} == {**other, "run_id": ""}
    assert found.steps[-1]["clipped"] is None
    (short,) = measured(SLOW | {"train.steps": late() - 1})
    assert short.run["state"] == "finished"


def test_all_members_may_end_each_at_its_own_step() -> None:
    found = measured(SLOW, SLOW | {"optim.lr": 1e6}, SLOW | {"optim.lr": 1e30}, SLOW | {"data.input_scale": 1e30})
    steps = [ended(member) for member in found]
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) == 4
    assert steps[-1] == 0
    for member in found:
        check_end(member, every=20)


def test_progress_counts_the_ended() -> None:
    (found, other) = measured(SLOW, TAME)
    assert (found.run["state"], other.run["state"]) == ("diverged", "finished")


def test_a_divergence_at_the_first_step_has_its_rows() -> None:
    (found,) = measured({"model.depth": 3, "model.width": 8, "data.input_scale": 1e38, "train.steps": 60})
    check_end(found, every=10)
    assert ended(found) == 0
    assert found.recorded == [0]
    assert found.run["rate"] is None
