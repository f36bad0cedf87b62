"""The sharpness against dense Hessians of plain networks, and its products against differences of gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradlab.data.batches import batches
from gradlab.engine.cohort import prepare, twin
from gradlab.engine.instruments import bench
from gradlab.engine.instruments.sharpness import curvature, lanczos
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build
from tests.engine.test_instruments import ATTENTION, BASE, read
from tests.members import content
from tests.oracles import Plain


def flat_loss(run: RunSpec) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The loss of batch 0 as a function of all parameters of a plain network in one vector, and that vector."""
    network, data = Plain(run), content(run.data)
    chosen = batches(run.data, len(data.train_inputs), 1)[0]
    x, y = torch.from_numpy(data.train_inputs[chosen]), torch.from_numpy(data.train_targets[chosen])
    y = y * run.data.target_scale if y.is_floating_point() else y
    own = dict(network.named_parameters())

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([one.numel() for one in own.values()])
        given = {name: part.view_as(one) for part, (name, one) in zip(parts, own.items(), strict=True)}
        output = torch.func.functional_call(network, given, (x,))[-1].z[0]
        return nn.functional.mse_loss(output, y) if y.is_floating_point() else nn.functional.cross_entropy(output, y)

    return loss, torch.cat([one.detach().flatten() for one in own.values()])


@pytest.mark.parametrize(
    "settings",
    [
        {"model.activation": "tanh", "data.batch_size": 16, "optim.momentum": 0.9},
        {"model.activation": "gelu", "model.norm": "batch", "data.batch_size": 16},
        {
            "model.activation": "tanh",
            "model.norm": "layer",
            "data.name": "linear_teacher",
            "data.features": 5,
            "data.target_scale": 3.0,
            "data.batch_size": 16,
        },
        {"model.name": "rnn", "model.depth": 1, "data.length": 4, "data.name": "adding", "data.batch_size": 8},
    ],
)
def test_the_sharpness_is_the_largest_eigenvalue_of_the_exact_hessian(settings: Mapping[str, Value]) -> None:
    base = {**BASE, "model.width": 3, "model.depth": 3, **settings, "probe.instrument": "sharpness"}
    wanted = [{**base, "seed": seed} for seed in (0, 1)]
    for values, found in zip(wanted, read(*wanted), strict=True):
        run = build(values)
        loss, at = flat_loss(run)
        exact = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, at))[-1].item()
        assert abs(found[0, "sharpness"][0] - exact) <= 1e-9 * exact + found[0, "sharpness_error"][0]
        assert found[0, "sharpness_error"][0] < 1e-4 * exact
        assert found[0, "stable"][0] == pytest.approx((2 + 2 * run.optim.momentum) / run.optim.lr)


@pytest.mark.parametrize(
    "settings",
    [
        {"model.name": "lstm", "model.depth": 1, "data.name": "adding", "data.length": 5},
        {"model.name": "gru", "model.depth": 1, "data.name": "adding", "data.length": 5},
        {**ATTENTION, "model.depth": 1, "model.activation": "gelu", "data.length": 6},
        {"model.name": "cnn", "model.depth": 3, "model.activation": "tanh", "model.norm": "batch"},
        {"model.name": "seq2seq", "model.attention": "additive", "data.name": "dates"},
        {"model.name": "mlp", "model.depth": 3, "model.activation": "tanh", "model.norm": "weight"},
        {"model.name": "capsule", "model.capsule_width": 4},
    ],
)
def test_products_with_the_hessian_are_differences_of_gradients(settings: Mapping[str, Value]) -> None:
    run = build({"train.precision": "float64", "model.width": 4, **settings, "data.batch_size": 4, "train.steps": 0})
    cohort = prepare([run], content(run.data), torch.device("cpu"))
    cohort.task.turn_to(0)
    (part,) = bench.parts(cohort, 4)
    vector = torch.randn(1, cohort.layout.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradient(step: float) -> Tensor:
        own = twin(cohort, cohort.parameters + step * vector)
        own.way.there_and_back(own.task, 0, record=False, last=True)
        return own.way.gradient.clone()

    near = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
    np.testing.assert_allclose(curvature(cohort, part)(vector).numpy(), near.numpy(), rtol=1e-5, atol=1e-8)


def test_lanczos_finds_what_is_there_where_its_space_is_exhausted() -> None:
    values = torch.tensor([[-3.0, -3.0, 5.0, 5.0], [-1.0, 0.0, 0.5, 0.5]], dtype=torch.float64)
    found, error = lanczos(lambda v: values * v, torch.ones(2, 4, dtype=torch.float64), 4)
    np.testing.assert_allclose(found.numpy(), [5.0, 0.5], rtol=1e-12)
    np.testing.assert_allclose(error.numpy(), 0, atol=1e-12)
