"""Activations equal torch's, their slopes autograd's, and their steepest slope a fine search's."""

from __future__ import annotations

import pytest
import torch

from gradlab.models import MODELS
from gradlab.nn.activations import ACTIVATIONS
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.network import Pass, assemble
from gradlab.nn.norms import Mode
from gradlab.nn.slots import Role
from gradlab.spec import choices
from gradlab.spec.run import build
from tests.oracles import activation, steepest

pytestmark = pytest.mark.usefixtures("any_engine")

SLOPES = {"leaky_relu": 0.01, "prelu": 0.25}


SLOPES_OF = (0.25, -0.5, 2.0)


def grid() -> torch.Tensor:
    return torch.cat([torch.linspace(-40, 40, 4001), torch.linspace(-2, 2, 801)]).double().view(1, -1, 1)


def test_the_names_are_the_named_choices() -> None:
    assert list(ACTIVATIONS) == list(choices.ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients_equal_torch_s(name: str) -> None:
    slope = SLOPES.get(name, 0.0)
    mine, theirs = grid(), grid().requires_grad_()
    found = ACTIVATIONS[name].value(mine, slope)
    wanted = activation(name, slope).double()(theirs)
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-15)
    weights = torch.linspace(1, 2, found.numel(), dtype=torch.float64).view_as(found)
    by_mine = ACTIVATIONS[name].back(weights, found if ACTIVATIONS[name].by_value else mine, slope)
    (by_theirs,) = torch.autograd.grad((wanted * weights).sum(), theirs)
    torch.testing.assert_close(by_mine, by_theirs, rtol=1e-13, atol=1e-15)


def test_a_learned_slope_has_its_gradient_member_by_member() -> None:
    z = torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    runs = [
        build({"model.activation": "prelu", "model.depth": 2, "model.width": 5, "model.slope": s}) for s in SLOPES_OF
    ]
    layout = MODELS["mlp"].layout(runs[0].model, runs[0].facts)
    network = assemble(runs[0], layout, initial_parameters(layout, runs, torch.float64))
    through = Pass(network, Mode.TRAIN, keep=True)
    x = through.input(z)
    found = through.activate(1, x)
    through.backward(found, 2 * found.value)
    for member, slope in enumerate(SLOPES_OF):
        module = torch.nn.PReLU(init=slope).double()
        own = z[member].clone().requires_grad_()
        value = module(own)
        wanted, by_z = torch.autograd.grad(value.square().sum(), [module.weight, own])
        torch.testing.assert_close(found.value[member], value, rtol=1e-14, atol=1e-15)
        torch.testing.assert_close(network.gradients[1, Role.SLOPE][member], wanted, rtol=1e-12, atol=0)
        assert x.grad is not None
        torch.testing.assert_close(x.grad[member], by_z, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_steepest_slope_is_the_maximum(name: str) -> None:
    assert ACTIVATIONS[name].steepest == pytest.approx(steepest(name), rel=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_is_autograd_s_and_never_saturates_ones_need_none(name: str) -> None:
    entry = ACTIVATIONS[name]
    assert (entry.derivative is None) == choices.ACTIVATIONS[name].never_saturates
    if entry.derivative is None:
        return
    z = grid()
    theirs = z.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(activation(name, 0.0)(theirs).sum(), theirs)
    # torch's softplus is z itself above 20, where its slope is 1 - 2e-9.
    torch.testing.assert_close(entry.derivative(z, entry.value(z, 0.0)), wanted, rtol=3e-9, atol=1e-13)
