"""The recipes of docs/house.md hold: a new choice is an entry and a function; all else serves it as it is."""

from __future__ import annotations

import math

import pytest
import torch

from gradlab.engine.plugins import TABLES
from gradlab.spec import choices
from gradlab.spec.named import Value
from tests.fixtures.lab.plugins import PLUGINS
from tests.members import Member, measured

EVERY_STEP: dict[str, Value] = {"train.steps": 2, "probe.every": 1, "model.depth": 3, "model.width": 8}


@pytest.fixture(autouse=True)
def _entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each choice is its line in the named choices, and its function in the table of its kind."""
    for plugin in PLUGINS:
        monkeypatch.setitem(choices.NAMED[plugin.key], plugin.choice.name, plugin.choice)
        monkeypatch.setitem(TABLES[plugin.key], plugin.choice.name, plugin.engine())


def check(found: Member) -> None:
    """Every row is there, every number finite, and the weights have moved."""
    assert (found.run["state"], found.run["steps"]) == ("finished", 2)
    assert found.recorded == [0, 1, 2]
    for step in (0, 1, 2):
        for column in ("grad_norm", "signal_grad_norm", "weight_norm", "act_std", "grad_zero"):
            assert torch.isfinite(torch.from_numpy(found.profile(column, step))).all()
    assert (found.profile("update_ratio", 0) > 0).all()
    assert found.run["loss_last"] != found.run["loss_first"]


@pytest.mark.parametrize("model", ["mlp", "residual_mlp", "rnn"])
def test_a_new_activation_trains_in_every_architecture(model: str) -> None:
    (found,) = measured(EVERY_STEP | {"model.name": model, "model.activation": "softsign"})
    check(found)
    assert found.at(0, 2)["saturated"] is not None
    assert found.at(0, 2)["dead"] is None


@pytest.mark.parametrize("optimizer", choices.OPTIMIZERS)
def test_a_new_architecture_meets_every_optimizer_and_every_clipper_in_one_cohort(optimizer: str) -> None:
    settings: dict[str, Value] = EVERY_STEP | {"model.name": "pair", "optim.name": optimizer, "optim.lr": 0.01}
    # One that skips has nothing to show of an update, so its threshold is out of reach.
    thresholds = {mode: 1e9 if mode == "skip" else 0.1 for mode in choices.CLIPS}
    modes = [settings | {"clip.mode": mode, "clip.threshold": threshold} for mode, threshold in thresholds.items()]
    for member in measured(*modes):
        check(member)
        assert [row["name"] for row in member.layers[:4]] == ["input", "pair_1", "pair_2", "output"]
        assert member.steps[0]["clipped"] is (member.run["clip.mode"] not in ("none", "zclip", "skip"))


@pytest.mark.parametrize("norm", choices.Model("", "", "").norms)
@pytest.mark.parametrize("activation", ["relu", "prelu", "softsign"])
def test_a_new_architecture_meets_every_norm_and_a_new_activation(norm: str, activation: str) -> None:
    (found,) = measured(EVERY_STEP | {"model.name": "pair", "model.norm": norm, "model.activation": activation})
    check(found)
    assert (found.at(0, 1)["dead"] is None) == (activation == "softsign")


@pytest.mark.usefixtures("either_engine")
def test_a_new_clipper_clips_beside_all_others_in_one_cohort() -> None:
    modes = [EVERY_STEP | {"clip.mode": mode, "clip.threshold": 0.1} for mode in choices.CLIPS]
    *_, soft = measured(*modes)
    check(soft)
    for row in soft.steps[:2]:
        assert row["grad_norm_clipped"] == pytest.approx(row["grad_norm"] * 0.1 / (0.1 + row["grad_norm"]), rel=1e-5)
        assert row["clipped"] is True
    assert soft.at(0, 1)["grad_norm_clipped"] < soft.at(0, 1)["grad_norm"]


@pytest.mark.usefixtures("either_engine")
def test_a_new_optimizer_takes_its_own_steps() -> None:
    (found,) = measured(EVERY_STEP | {"optim.name": "sign", "optim.lr": 1e-3, "model.activation": "tanh"})
    check(found)
    for layer, entries in ((1, 64 * 8), (2, 8 * 8), (3, 8 * 10)):
        moved = found.at(0, layer)["update_ratio"] * found.at(0, layer)["weight_norm"]
        assert moved == pytest.approx(1e-3 * math.sqrt(entries), rel=1e-4)


@pytest.mark.parametrize("model", ["mlp", "residual_mlp", "pair"])
def test_a_new_data_set_is_learned_by_every_architecture(model: str) -> None:
    settings: dict[str, Value] = EVERY_STEP | {"data.name": "rings", "train.steps": 150, "optim.lr": 0.3}
    (found,) = measured(settings | {"model.name": model, "probe.every": 150, "model.width": 16})
    assert found.run["accuracy"] > 0.95
