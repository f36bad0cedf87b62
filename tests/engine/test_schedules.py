"""Schedules of the learning rate equal torch.optim.lr_scheduler's, step by step and in whole trainings."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from gradlab.engine.optim.schedules import SCHEDULES, factors, pace
from gradlab.spec import choices
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build
from gradlab.spec.unused import unused
from tests.members import differences, measured, on_each_engine
from tests.oracles import expected
from tests.schedulers import Paced

STEPS = 60

OWN: tuple[dict[str, Value], ...] = (
    {},
    {"optim.end_factor": 0.25, "optim.decay": 0.5, "optim.decay_every": 7},
    {"optim.decay": 0.9, "optim.decay_every": 1, "optim.end_factor": 1.0},
)

EVERY: list[dict[str, Value]] = [
    {"optim.lr": 0.3, "train.steps": STEPS, "optim.schedule": name, "optim.warmup": warmup, **own}
    for name, warmup, own in product(choices.SCHEDULES, (0, 1, 9, STEPS + 5), OWN)
    if name != "one_cycle" or 1 < warmup <= STEPS or warmup == 0
]


def used(run: RunSpec, losses: list[float]) -> list[float]:
    """The learning rates at every step of torch's own, from the losses of a training."""
    module = nn.Linear(1, 1, dtype=torch.float64)
    mover = torch.optim.SGD(module.parameters(), lr=run.optim.lr)
    paced, found = Paced(mover, run), []
    for loss in losses:
        found.append(paced.lr)
        mover.step()
        paced.step(loss)
    return [*found, paced.lr]


def test_the_names_are_the_named_choices() -> None:
    assert list(SCHEDULES) == list(choices.SCHEDULES)


def test_every_schedule_equals_torch_s_for_every_member_of_one_company() -> None:
    """Losses that fall, stand still and rise again, others for each member."""
    runs = [build(values | {"seed": seed}) for seed, values in enumerate(EVERY)]
    rng = np.random.default_rng(0)
    losses = np.exp(np.cumsum(rng.normal(-0.02, 0.1, (STEPS, len(runs))), axis=0))
    losses[STEPS // 2 :] = losses[STEPS // 2]
    losses[::11, ::5] = math.nan
    column = torch.zeros(len(runs), 1, dtype=torch.float64)
    company = pace(runs, column)
    found = []
    for t in range(STEPS + 1):
        lr = company.turn_to(t)
        found.append(lr.clone())
        assert torch.equal(column.squeeze(1), lr)
        company.heed(t, torch.from_numpy(losses[min(t, STEPS - 1)]), lr)
    for member, run in enumerate(runs):
        wanted = used(run, losses[:, member].tolist())
        np.testing.assert_allclose(torch.stack(found)[:, member].numpy(), wanted, rtol=1e-12, atol=1e-15)


def test_what_is_said_of_the_ends() -> None:
    """Loshchilov & Hutter 2016, Vaswani et al. 2017, Smith & Topin 2017: first, largest and last factors."""

    def ends(**values: Value) -> tuple[float, float, float]:
        of = build({f"optim.{key}": value for key, value in values.items()}).optim
        found = factors(of, 200)
        return float(found[0]), float(found.max()), float(found[-1])

    assert ends(schedule="cosine", end_factor=0.1) == pytest.approx((1, 1, 0.1))
    assert ends(schedule="linear", warmup=10) == pytest.approx((0.1, 1, 0))
    assert ends(schedule="inverse_sqrt", warmup=50) == pytest.approx((0.02, 1, math.sqrt(50 / 201)))
    assert ends(schedule="one_cycle") == pytest.approx((0.04, 1, 0), abs=1e-3)
    assert ends(schedule="step", decay_every=70) == pytest.approx((1, 1, 0.01))


def test_what_acts_is_known() -> None:
    own = {"optim.end_factor", "optim.decay", "optim.decay_every"}
    assert own <= unused(build({}))
    assert own & unused(build({"optim.schedule": "cosine"})) == {"optim.decay", "optim.decay_every"}
    assert own & unused(build({"optim.schedule": "plateau"})) == {"optim.end_factor"}


SMALL: dict[str, Value] = {
    "model.depth": 3,
    "model.width": 8,
    "model.activation": "tanh",
    "data.batch_size": 16,
    "train.precision": "float64",
    "train.steps": 40,
    "probe.every": 8,
}

MOVERS: tuple[dict[str, Value], ...] = (
    {"optim.name": "sgd", "optim.lr": 0.3, "optim.momentum": 0.5, "clip.mode": "norm", "clip.threshold": 0.5},
    {"optim.name": "adamw", "optim.lr": 0.02, "optim.weight_decay": 0.3, "clip.mode": "value", "clip.threshold": 0.01},
    {"optim.name": "rmsprop", "optim.lr": 0.003, "optim.momentum": 0.5},
    {"optim.name": "adagrad", "optim.lr": 0.05},
    {"optim.name": "adam", "optim.lr": 0.02, "clip.mode": "layerwise", "clip.threshold": 0.1},
)


@pytest.mark.parametrize("mover", MOVERS, ids=lambda mover: str(mover["optim.name"]))
def test_a_training_of_every_schedule_in_one_cohort_equals_torch_s(mover: dict[str, Value]) -> None:
    cohort = [
        SMALL
        | mover
        | {"optim.schedule": name, "optim.warmup": 6 * (place % 2), "optim.decay": 0.5, "optim.decay_every": 5}
        for place, name in enumerate(choices.SCHEDULES)
    ]
    for settings, *either in zip(cohort, *on_each_engine(*cohort), strict=True):
        wanted = expected(settings)
        for found in either:
            assert list(differences(found, wanted, relative=1e-8, absolute=1e-14)) == []
    plateau = measured(cohort[-1] | {"optim.warmup": 0, "optim.decay_every": 2})[0]
    assert len({row["lr"] for row in plateau.steps}) > 2, "a plateau that is never met compares nothing"


@pytest.mark.usefixtures("either_engine")
def test_a_member_is_the_same_alone_and_in_company_bit_for_bit() -> None:
    cohort = [SMALL | {"optim.schedule": name, "optim.decay_every": 3} for name in choices.SCHEDULES]
    for settings, among in zip(cohort, measured(*cohort), strict=True):
        (alone,) = measured(settings)
        assert list(differences(among, alone, relative=1e-8, absolute=1e-14)) == []
        assert [row["lr"] for row in among.steps] == [row["lr"] for row in alone.steps]


def test_a_twin_has_a_plateau_of_its_own() -> None:
    """What the twin's losses come to does not touch the run: its numbers are those without an instrument."""
    settings = SMALL | {"optim.schedule": "plateau", "optim.decay_every": 1, "optim.decay": 0.7}
    (plain,), (watched,) = measured(settings), measured(settings | {"probe.instrument": "twin_distance"})
    assert len({row["lr"] for row in plain.steps}) > 3
    assert list(differences(watched, plain)) == []
