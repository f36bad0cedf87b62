"""Remedies are trained: what heals where the literature says it does, by the cure's own reckoning."""

from __future__ import annotations

import pytest
import torch

from gradlab.cure.changes import treated
from gradlab.cure.ranking import Outcome, outcomes
from gradlab.cure.remedies import REMEDIES
from gradlab.cure.trials import guess
from gradlab.data.facts import described
from gradlab.engine.train import train
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec
from gradlab.store.record import joined, tidy
from tests.members import content

Settings = dict[str, Value]

SMALL: Settings = {"model.width": 32, "train.steps": 150, "probe.every": 150, "optim.lr": 0.05}


def over_seeds(spec: RunSpec) -> list[RunSpec]:
    values = {key: value for key, value in spec.flat().items() if value is not None}
    return [described({**values, "seed": seed}) for seed in range(3)]


def healed(settings: Settings, *alternatives: Settings | str) -> list[Outcome]:
    """What a sick run comes to, and each of ``alternatives``: a remedy by its name, or other settings."""
    sick = described(SMALL | settings)
    specs = [sick]
    for one in alternatives:
        if isinstance(one, str):
            after = treated(sick, [REMEDIES[one]])
            assert after is not None
            specs.append(after.spec)
        else:
            specs.append(described(SMALL | settings | one))
    runs = [over_seeds(spec) for spec in specs]
    tables = joined([tidy(train(some, content(sick.data), torch.device("cpu"), lambda *_: None)) for some in runs])
    changes = [
        {
            "remedies": [str(place)] if place else [],
            "kinds": [],
            "cost": 1,
            "members": [run.id for run in some],
            "unit": (some[0].data.target_scale / sick.data.target_scale) ** 2,
        }
        for place, some in enumerate(runs)
    ]
    found = {"runs": tables.runs, "steps": tables.steps, "layers": tables.layers}
    return outcomes({"changes": changes, "guess": guess(sick)}, found)


@pytest.mark.parametrize(
    "settings",
    [
        {"model.depth": 50, "model.activation": "tanh", "model.bias_var": 0.05, "model.init": "xavier"},
        {"model.depth": 16, "model.init": "xavier", "model.width": 64},
    ],
    ids=["tanh: 1.05 and no biases", "relu: sqrt(2)"],
)
def test_orthogonal_weights_heal_with_the_gain_of_the_activation_and_not_without(settings: Settings) -> None:
    """Pennington et al. 2017, arXiv:1711.04735, figure 4; Saxe et al. 2013, arXiv:1312.6120."""
    sick, plain, with_gain = healed(settings, {"model.init": "orthogonal"}, "orthogonal")
    assert sick.healthy == 0
    assert plain.state in ("no help", "harms")
    assert (with_gain.state, with_gain.healthy) == ("heals", 3)


def test_unit_variance_heals_a_network_that_begins_too_small() -> None:
    """Mishkin & Matas 2015, arXiv:1511.06422."""
    _, lsuv = healed({"model.depth": 20, "model.activation": "tanh", "model.gain": 0.5}, "lsuv")
    assert (lsuv.state, lsuv.healthy) == ("heals", 3)


def test_fixup_trains_residual_branches_that_explode() -> None:
    """Zhang et al. 2019, arXiv:1901.09321: sixty plain branches double the signal each."""
    sick, fixup = healed({"model.name": "residual_mlp", "model.depth": 60}, "fixup")
    assert sick.healthy == 0
    assert (fixup.state, fixup.healthy) == ("heals", 3)


def test_targets_of_unit_variance_are_learned_at_a_rate_that_huge_ones_are_not() -> None:
    settings: Settings = {"data.name": "linear_teacher", "model.depth": 2, "optim.lr": 0.5, "data.target_scale": 1000.0}
    sick, unit = healed(settings | {"model.width": 64}, "unit-targets")
    assert sick.healthy == 0
    assert sick.diverges
    assert (unit.state, unit.healthy) == ("heals", 3)
    # At the old scale, a guess costs a million.
    assert 1e4 < unit.final < 5e5
