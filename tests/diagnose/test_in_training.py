"""Causes that lie in how a network was trained: what moved its weights, in which order, and against whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradlab.diagnose import History
from gradlab.diagnose.rules import judge
from tests.diagnose.cases import FLAT, LAYERS, STEPS, ZIGZAG, entropy, falling, passed, profile, squared


def course(
    loss: np.ndarray, updates: float = 1e-3, weights: tuple[float, ...] = (1.0, 1.1, 1.2), **more: Any
) -> History:
    """A watched training with three recorded steps, of these updates over weights and norms of weights."""
    facts = {"losses": entropy(weight=1.0), "at_first": True} | more.pop("facts", {})
    one = profile(update_ratio=np.full(LAYERS, updates), grad_norm=np.ones(LAYERS), act_mean=np.ones(LAYERS))
    columns = {name: np.stack([column[0]] * 3) for name, column in one.columns.items()}
    columns["weight_norm"] = np.outer(weights, np.ones(LAYERS))
    along = (replace(one, step=np.array([0, STEPS // 2, STEPS]), columns=columns),)
    return History(along=along, loss=loss, measured=True, facts=facts, **more)


def errors(scale: float, value: float) -> dict[str, Any]:
    """A squared error of this value, whose targets have this scale."""
    return {"mean_squared_error": {**squared(scale)["mean_squared_error"], "weight": 1.0, "value": value}}  # type: ignore[dict-item]


FELL = falling(0.01)
SLOWLY = 2.3 * np.linspace(1, 0.94, STEPS + 1) * (FLAT / 2.3)

CASES: dict[str, tuple[History, str, str, str]] = {
    "sorted samples": (course(FELL, facts={"alone": [0, 2, 1]}), "misspecified", "order", "3 classes"),
    "a group of rate 0": (
        course(FELL, facts={"resting": ["0.weight"], "never_moved": True}),
        *("misspecified", "no_update", "0.weight"),
    ),
    "an encoder that nobody trains": (
        course(FLAT, facts={"feeders": {"count": 4, "numbers": 99}}),
        *("misspecified", "no_update", "another module"),
    ),
    "gradients never set to zero": (course(FELL, facts={"kept_gradients": 1.0}), "misspecified", "accumulated", "zero"),
    "a head put in after the optimizer": (
        course(FELL, facts={"held": 9, "trainable": 10, "unheld": ["head.weight"], "replaced": True}),
        *("misspecified", "no_update", "no longer has"),
    ),
    "an encoder whose state is detached": (
        course(FELL, facts={"severed": ["enc.weight", "enc.bias"], "never_reached": True}),
        *("misspecified", "cut", "the 2 parameters from enc.weight to enc.bias"),
    ),
    "logits torn apart": (
        course(FLAT, facts={"viewed_from": [32, 10, 16], "losses": entropy(places=False)}),
        *("misspecified", "labels", "(32, 10, 16)"),
    ),
    "an optimizer that climbs": (course(FELL, spec={"optim.maximize": True}), "misspecified", "sign", "maximize"),
    "targets of 255": (
        course(1.0 - np.arange(STEPS + 1), facts={"losses": {"binary_cross_entropy": {"outside": 9}}}),
        *("misspecified", "labels", "9 targets"),
    ),
    "a loss of noise": (course(FELL, updates=1e-12), "stalled", "learning_rate_low", "noise"),
    "weights put back": (course(FLAT, weights=(1.0, 1.0, 1.0)), "stalled", "no_update", "puts them back"),
    "weights shrunk by hand": (course(FLAT, weights=(1.0, 0.5, 0.1)), "stalled", "weight_decay", "without a decay"),
    "a schedule that ends": (
        course(FLAT, updates=1e-5, lr=0.1 * 0.5 ** np.arange(STEPS + 1.0)),
        *("stalled", "learning_rate_low", "schedule"),
    ),
    "updates skipped": (
        course(FLAT, loss_scale=np.full(STEPS + 1, 2.0**60), grad_norm_clipped=np.full(STEPS + 1, np.nan)),
        *("stalled", "loss_scale", "200 of 200"),
    ),
    "a draw on the way": (course(FLAT, facts={"draws": ["normal"]}), "stalled", "cut", "torch.normal"),
    "a slow fall": (course(SLOWLY), "stalled", "learning_rate_low", "too slowly"),
    "a part that outweighs": (
        course(10 * FLAT, facts={"losses": errors(1.0, 0.1)}, guess=1.0),
        *("stalled", "penalty", "the rest decides"),
    ),
    "small targets, wide weights": (
        course(700 * FLAT / 2.3, facts={"losses": errors(0.1, 700.0)}, guess=0.01),
        *("ill_scaled", "first_loss", "700"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_went_wrong_in_the_training_is_named(case: str) -> None:
    history, name, cause, said = CASES[case]
    verdict = next(one for one in judge(history) if one.name == name)
    assert verdict.cause is not None
    assert verdict.cause.name == cause
    assert said in verdict.told


def test_what_was_level_at_the_first_record_was_brought_about() -> None:
    history = course(FLAT)
    (depth,) = history.along
    deltas = depth.columns["signal_grad_norm"].copy()
    deltas[1:, : LAYERS // 2] = 0.0
    lost = replace(depth, columns={**depth.columns, "signal_grad_norm": deltas})
    (verdict,) = judge(replace(history, along=(lost,)))
    assert verdict.cause is not None
    assert (verdict.name, verdict.cause.name) == ("vanishing", "learning_rate_high")


@pytest.mark.parametrize("loss", [FLAT, ZIGZAG], ids=["flat", "zigzag"])
def test_a_loss_of_one_side_of_a_game_need_not_fall(loss: np.ndarray) -> None:
    assert judge(course(loss, facts={"losses": {}}))[0].name in ("stalled", "oscillating")
    (verdict,) = judge(course(loss, facts={"losses": {}, "plays": True}))
    assert verdict.name == "healthy"
    assert "one side of a game" in verdict.sentence
    assert judge(course(FLAT, updates=1e-9, facts={"plays": True}))[0].name == "stalled"


def test_what_is_as_it_should_be_is_healthy() -> None:
    for history in (
        course(FELL, facts={"alone": [1, 1, 1]}),
        course(FELL, facts={"resting": ["0.weight"], "never_moved": False}),
        course(FELL, facts={"draws": ["normal"]}),
        course(FELL, updates=1e-5),
        course(FELL, facts={"kept_gradients": 0.5}),
        course(FELL, facts={"severed": ["enc.weight"], "never_reached": False}),
        course(FELL, facts={"viewed_from": [32, 16, 10], "losses": entropy(places=False)}),
        course(FELL, facts={"viewed_from": [32, 10, 1, 1], "losses": entropy(places=False)}),
        passed(),
    ):
        assert [one.name for one in judge(history)] == ["healthy"]
