"""The gradient noise scale against the gradients of single samples, and the batch size that it suggests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from gradlab.data.batches import batches
from gradlab.diagnose.noise import batch_advice
from gradlab.engine.cohort import prepare
from gradlab.engine.instruments.gradient_noise import sample_gradients
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import build
from tests.engine.test_instruments import ATTENTION, read
from tests.members import content
from tests.oracles import Plain

BASE: dict[str, Value] = {
    "train.precision": "float64",
    "train.steps": 0,
    "model.width": 5,
    "model.depth": 3,
    "model.activation": "tanh",
    "data.batch_size": 12,
    "probe.instrument": "gradient_noise",
}


@pytest.mark.parametrize(
    "settings",
    [
        {"model.norm": "layer", "data.input_scale": 2.0},
        {"data.name": "linear_teacher", "data.features": 4, "data.target_scale": 3.0},
    ],
)
def test_the_noise_is_that_of_explicit_samples(settings: Mapping[str, Value]) -> None:
    wanted = [{**BASE, **settings, "seed": seed} for seed in (0, 1)]
    for values, found in zip(wanted, read(*wanted), strict=True):
        run = build(values)
        network, data = Plain(run), content(run.data)
        rows = []
        for sample in batches(run.data, len(data.train_inputs), 1)[0]:
            output = network(torch.from_numpy(data.train_inputs[[sample]]) * run.data.input_scale)[-1].z[0]
            target = torch.from_numpy(data.train_targets[[sample]])
            if target.is_floating_point():
                loss = nn.functional.mse_loss(output, target * run.data.target_scale)
            else:
                loss = nn.functional.cross_entropy(output, target)
            rows.append(torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(network.parameters()))]))
        g = torch.stack(rows).numpy()
        variance = g.var(axis=0, ddof=1).sum()
        square = (g.mean(0) ** 2).sum() - variance / len(g)
        np.testing.assert_allclose(found[0, "gradient_variance"], [variance], rtol=1e-9)
        np.testing.assert_allclose(found[0, "gradient_square"], [square], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(found[0, "noise_scale"], [variance / square if square > 0 else np.inf], rtol=1e-7)


def test_samples_make_up_the_gradient_of_their_batch() -> None:
    run = build({**ATTENTION, "model.depth": 1, "data.length": 6, "data.batch_size": 5, "train.steps": 0})
    cohort = prepare([run], content(run.data), torch.device("cpu"))
    cohort.task.turn_to(0)
    alone = sample_gradients(cohort, 0, cohort.task.chosen).mean(0)
    cohort.way.there_and_back(cohort.task, 0, record=False, last=True)
    np.testing.assert_allclose(alone.numpy(), cohort.way.gradient[0].numpy(), rtol=1e-9, atol=1e-12)


def test_the_estimates_are_unbiased() -> None:
    """Over many batches their means are the noise and the squared gradient of the whole training part."""
    values = {**BASE, "data.batch_size": 16, "train.steps": 150, "optim.lr": 0.0, "probe.every": 1}
    run = build(values)
    cohort = prepare([run], content(run.data), torch.device("cpu"))
    every = sample_gradients(cohort, 0, torch.arange(len(cohort.task.inputs)))
    (found,) = read(values)
    for quantity, whole in (
        ("gradient_variance", every.var(0).sum().item()),
        ("gradient_square", every.mean(0).square().sum().item()),
    ):
        seen = np.concatenate([found[step, quantity] for step in range(151)])
        error = seen.std(ddof=1) / np.sqrt(len(seen))
        assert abs(seen.mean() - whole) < 4 * error
        assert error < 0.2 * whole


def test_a_batch_of_one_has_no_noise_to_measure() -> None:
    with pytest.raises(SpecError, match=r"needs data.batch_size of at least 2; given 1"):
        build({**BASE, "data.batch_size": 1})
    with pytest.raises(SpecError, match=r"needs model.norm=none or layer or rms"):
        build({**BASE, "model.norm": "batch"})


def test_the_advice_is_of_the_second_half_and_says_what_a_batch_costs() -> None:
    advice = batch_advice([9e9, 9e9, 300.0, 500.0], [1.0, 1.0, 3.0, 5.0], 25)
    assert advice is not None
    assert advice.scale == pytest.approx(100)
    assert "Gradient noise scale 100: batches of 25 need 5 times the fewest steps" in advice.sentence
    assert "1.25 times the fewest samples; data.batch_size=128 would" in advice.sentence
    drowned = batch_advice([1.0, 1.0], [-1.0, 0.5], 8)
    assert drowned is not None
    assert drowned.scale == pytest.approx(2.0)
    noise = batch_advice([1.0, 1.0], [0.5, -1.0], 8)
    assert noise is not None
    assert noise.scale is None
    assert "cannot be told from its noise" in noise.sentence
    assert batch_advice([], [], 8) is None
