"""Norms equal torch's, forward and backward, and batch norm's memory is torch's in each mode."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from gradlab.nn.norms import NORMS, Affine, Mode, Running
from gradlab.spec import choices
from gradlab.spec.named import Value
from tests.members import measured
from tests.oracles import normalization

pytestmark = pytest.mark.usefixtures("any_engine")

MEMBERS, BATCH, WIDTH = 3, 6, 5


def start() -> Running:
    return Running(torch.zeros(MEMBERS, WIDTH).double(), torch.ones(MEMBERS, WIDTH).double())


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def module_of(name: str, gain: Tensor, shift: Tensor) -> torch.nn.Module:
    module = normalization(name, WIDTH)
    assert module is not None
    module.double()
    with torch.no_grad():
        cast(Tensor, module.weight).copy_(gain)
        if name != "rms":
            cast(Tensor, module.bias).copy_(shift)
    return module


def test_the_names_are_the_named_choices() -> None:
    assert list(NORMS) == list(choices.NORMS)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("name", ["batch", "layer", "rms"])
def test_values_and_gradients_equal_torch_s_for_every_member(name: str, offset: float) -> None:
    norm = NORMS[name]
    assert norm is not None
    z = draw(MEMBERS, BATCH, WIDTH) * torch.tensor([0.01, 1.0, 50.0]).view(-1, 1, 1) + offset
    gain, shift = 1 + 0.3 * draw(MEMBERS, WIDTH, seed=1), draw(MEMBERS, WIDTH, seed=2)
    weights = draw(MEMBERS, BATCH, WIDTH, seed=3)
    affine = Affine(gain, None if name == "rms" else shift, start() if name == "batch" else None)
    found, back = norm(z, affine, Mode.TRAIN)
    gradients = [part for part in back(weights.clone()) if part is not None]
    for member in range(MEMBERS):
        module = module_of(name, gain[member], shift[member])
        own = z[member].clone().requires_grad_()
        value = module(own)
        wanted = torch.autograd.grad((value * weights[member]).sum(), [own, *module.parameters()])
        torch.testing.assert_close(found[member], value, rtol=1e-9, atol=1e-9)
        for mine, theirs in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(mine[member], theirs, rtol=1e-7, atol=1e-9)


def test_batch_norm_remembers_in_training_forgets_in_measuring_and_recalls_in_evaluation() -> None:
    norm = NORMS["batch"]
    assert norm is not None
    running, gain, shift = start(), 1 + draw(MEMBERS, WIDTH, seed=1), draw(MEMBERS, WIDTH, seed=2)
    modules = [module_of("batch", gain[member], shift[member]) for member in range(MEMBERS)]
    for step in range(4):
        z = draw(MEMBERS, BATCH, WIDTH, seed=10 + step) * 3 + 1
        before = running.mean.clone(), running.var.clone()
        measured_value, _ = norm(z, Affine(gain, shift, running), Mode.MEASURE)
        assert torch.equal(running.mean, before[0])
        assert torch.equal(running.var, before[1])
        value, _ = norm(z, Affine(gain, shift, running), Mode.TRAIN)
        assert torch.equal(value, measured_value)
        for member, module in enumerate(modules):
            module(z[member])
            torch.testing.assert_close(running.mean[member], cast(Tensor, module.running_mean), rtol=1e-13, atol=1e-14)
            torch.testing.assert_close(running.var[member], cast(Tensor, module.running_var), rtol=1e-13, atol=1e-14)
    z = draw(MEMBERS, 2, WIDTH, seed=20)
    kept = running.mean.clone()
    found, _ = norm(z, Affine(gain, shift, running), Mode.EVALUATE)
    assert torch.equal(running.mean, kept)
    for member, module in enumerate(modules):
        torch.testing.assert_close(found[member], module.eval()(z[member]), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["batch", "layer", "rms"])
def test_a_broken_member_touches_no_other(name: str) -> None:
    norm = NORMS[name]
    assert norm is not None
    z, gain, shift = draw(MEMBERS, BATCH, WIDTH), draw(MEMBERS, WIDTH, seed=1), draw(MEMBERS, WIDTH, seed=2)
    broken = z.clone()
    broken[1, 2, 3] = torch.inf
    broken[1, 0, 0] = torch.nan
    memory, other = start(), start()
    found, back = norm(broken, Affine(gain, shift, memory), Mode.TRAIN)
    wanted, wanted_back = norm(z, Affine(gain, shift, other), Mode.TRAIN)
    pairs = [
        (a, b) for a, b in zip(back(z.clone()), wanted_back(z.clone()), strict=True) if a is not None and b is not None
    ]
    for member in (0, 2):
        assert torch.equal(found[member], wanted[member])
        assert torch.equal(memory.mean[member], other.mean[member])
        assert torch.equal(memory.var[member], other.var[member])
        assert all(torch.equal(mine[member], theirs[member]) for mine, theirs in pairs)


def test_the_last_row_leaves_the_running_statistics_alone() -> None:
    """Two learning rates of zero differ in nothing but how many batches were met; the held-out loss shows which."""
    still: dict[str, Value] = {"model.depth": 3, "model.width": 8, "model.norm": "batch", "optim.lr": 0.0}
    (one,), (two,) = measured(still | {"train.steps": 1}), measured(still | {"train.steps": 2})
    assert one.steps[0]["loss"] == two.steps[0]["loss"]
    assert one.run["loss_heldout"] != two.run["loss_heldout"]
    # Over the whole training part every batch has the same statistics, so a row more would show in the mean alone.
    (full,) = measured(still | {"train.steps": 1, "data.batch_size": "full"})
    assert full.steps[0]["loss"] == pytest.approx(full.steps[1]["loss"], rel=1e-5)
