"""Optimizer steps equal torch.optim's for every member, whatever its company has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradlab.engine.optim.optimizers import OPTIMIZERS, rates
from gradlab.nn.slots import Layout, Role, Slot, Start
from gradlab.spec import choices
from gradlab.spec.named import Value
from gradlab.spec.run import build
from tests.descents import optimizer

pytestmark = pytest.mark.usefixtures("any_engine")

LAYOUT = Layout((Slot(1, Role.WEIGHT, (6, 5), Start.DRAWN), Slot(1, Role.BIAS, (10,), Start.DRAWN)), ("layer",))
P = LAYOUT.size
ROUGH = {"muon": 1e-3}
"""Iterated in bfloat16, where the last bit may depend on the order of a product's sums."""
LASSO = 0.03
FOREIGN: dict[str, Value] = {"optim.amsgrad": True, "optim.dampening": 0.5}
"""Switches that act in few of them, and elsewhere change nothing."""

OWN: dict[str, tuple[dict[str, Value], ...]] = {
    "sgd": (
        {},
        {"optim.momentum": 0.9},
        {"optim.momentum": 0.9, "optim.nesterov": True, "optim.weight_decay": 0.1},
        {"optim.lr": 0.3, "optim.weight_decay": 0.2},
        {"optim.momentum": 1.2, "optim.l1": LASSO},
        {"optim.momentum": 0.9, "optim.dampening": 0.5},
        {"optim.momentum": 0.8, "optim.maximize": True, "optim.weight_decay": 0.1},
    ),
    "adam": (
        {},
        {"optim.beta1": 0.0, "optim.beta2": 0.5},
        {"optim.beta1": 0.99, "optim.weight_decay": 0.3},
        {"optim.eps": 0.1, "optim.lr": 0.5},
        {"optim.l1": LASSO, "optim.beta2": 0.0},
        {"optim.amsgrad": True, "optim.beta2": 0.5},
        {"optim.maximize": True},
    ),
    "adamw": (
        {"optim.amsgrad": True, "optim.beta2": 0.5, "optim.maximize": True},
        {"optim.weight_decay": 0.0},
        {"optim.weight_decay": 2.0},
        {"optim.beta1": 0.5},
        {"optim.l1": LASSO},
    ),
    "rmsprop": (
        {},
        {"optim.momentum": 0.9},
        {"optim.beta2": 0.5, "optim.weight_decay": 0.1},
        {"optim.eps": 1.0},
        {"optim.l1": LASSO},
    ),
    "adagrad": ({}, {"optim.lr": 1.0}, {"optim.weight_decay": 0.1}, {"optim.eps": 1.0}, {"optim.l1": LASSO}),
    **{
        name: (
            {},
            {"optim.beta2": 0.9},
            {"optim.weight_decay": 0.3},
            {"optim.l1": LASSO},
            {"optim.maximize": True},
            FOREIGN,
        )
        for name in ("nadam", "radam", "adamax", "adadelta", "lamb", "lion")
    },
    "muon": (
        {},
        {"optim.nesterov": False},
        {"optim.momentum": 0.5},
        {"optim.l1": LASSO, "optim.weight_decay": 0.0},
        {"optim.beta1": 0.5},
        FOREIGN,
    ),
}


def test_the_names_are_the_named_choices() -> None:
    assert list(OPTIMIZERS) == list(choices.OPTIMIZERS) == list(OWN)


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twelve_steps_equal_torch_s(name: str, dtype: torch.dtype, exact: float) -> None:
    generator = torch.Generator().manual_seed(0)
    runs = [build({"optim.name": name, "optim.lr": 0.05, **own}) for own in OWN[name]]
    start = torch.randn(len(runs), P, generator=generator, dtype=torch.float64).to(dtype)
    gradients = torch.randn(12, len(runs), P, generator=generator, dtype=torch.float64).to(dtype)
    gradients[:, :, 0] = 0  # an entry that the loss does not see
    gradients[:6, :, 1] = 0
    parameters = start.clone()
    columns = rates(runs, parameters, LAYOUT)
    state = OPTIMIZERS[name].state(parameters, columns)
    for t, gradient in enumerate(gradients):
        OPTIMIZERS[name].update(
            parameters, gradient.clone(), state, columns, torch.tensor([float(t)], dtype=torch.float64)
        )
    for member, run in enumerate(runs):
        module = nn.Module()
        for slot, span in zip(LAYOUT.slots, LAYOUT.columns, strict=True):
            setattr(module, slot.role.value, nn.Parameter(start[member, span].view(slot.shape).clone()))
        mover, sign = optimizer(run, module), -1 if run.optim.maximize else 1
        for gradient in gradients[:, member]:
            for tensor, span in zip(module.parameters(), LAYOUT.columns, strict=True):
                lasso = sign * run.optim.l1 * tensor.detach().sign()
                tensor.grad = gradient[span].view(tensor.shape) + lasso
            mover.step()
        found = torch.cat([tensor.detach().flatten() for tensor in module.parameters()])
        near = max(exact, ROUGH.get(name, 0.0))
        torch.testing.assert_close(parameters[member], found, rtol=near, atol=near)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_broken_member_touches_no_other(name: str) -> None:
    runs = [build({"optim.name": name, "optim.lr": 0.05, **own}) for own in OWN[name]]
    ends = []
    for value in (1.0, torch.nan, torch.inf):
        parameters = torch.ones(len(runs), P)
        columns = rates(runs, parameters, LAYOUT)
        state = OPTIMIZERS[name].state(parameters, columns)
        for t in range(3):
            gradient = torch.full((len(runs), P), 0.1 * (t + 1))
            gradient[2, 7] = value
            OPTIMIZERS[name].update(parameters, gradient, state, columns, torch.tensor([float(t)], dtype=torch.float64))
        ends.append(parameters[[0, 1, 3, 4]])
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])
