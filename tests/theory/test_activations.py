"""The numpy activations are those of the engine, by name and by value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gradlab.nn.activations import ACTIVATIONS as ENGINE
from gradlab.spec.choices import ACTIVATIONS as CHOICES
from gradlab.theory.activations import ACTIVATIONS, Phi
from gradlab.theory.recurrent import steepest

Z = np.linspace(-6.0, 6.0, 241) + 0.0131  # no kink among them


@pytest.mark.parametrize("name", CHOICES)
def test_values_and_slopes_are_the_engine_s(name: str) -> None:
    phi = Phi(name, 0.2)
    z = torch.tensor(Z, requires_grad=True)
    # A slope that is learned is a tensor: prelu's.
    h = ENGINE[name].value(z.detach(), 0.2)
    np.testing.assert_allclose(phi.value(Z), h.numpy(), rtol=1e-12, atol=1e-15)
    needed = h if ENGINE[name].by_value else z.detach()
    slope = ENGINE[name].back(torch.ones_like(h), needed, 0.2)
    np.testing.assert_allclose(phi.derivative(Z), slope.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_called_homogeneous_is(name: str) -> None:
    phi = Phi(name, 0.2)
    assert np.allclose(phi.value(7 * Z), 7 * phi.value(Z), rtol=1e-12) == phi.homogeneous


def test_the_names_are_those_of_the_choices() -> None:
    assert set(ACTIVATIONS) == set(CHOICES)


@pytest.mark.parametrize("name", [name for name, entry in ENGINE.items() if entry.derivative is not None])
def test_the_steepest_slope_is_the_engine_s(name: str) -> None:
    assert steepest(Phi(name)) == pytest.approx(ENGINE[name].steepest, rel=1e-5)
