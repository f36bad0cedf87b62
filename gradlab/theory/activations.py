"""Nonlinearities and their slopes as numpy functions, by the names of `choices.ACTIVATIONS`; entry by entry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772


@dataclass(frozen=True)
class Activation:
    """``value(z, slope)`` is phi(z), ``derivative(z, slope)`` phi'(z).

    ``kinks``: where phi' jumps, other than at 0. ``homogeneous``: phi(a z) = a phi(z) for every a > 0.
    """

    value: Callable[[Floats, float], Floats]
    derivative: Callable[[Floats, float], Floats]
    kinks: tuple[float, ...] = ()
    homogeneous: bool = False


@dataclass(frozen=True)
class Phi:
    """An activation by name, with its slope below zero where it has one (0 elsewhere): what results are cached by."""

    name: str
    slope: float = 0.0

    @property
    def kinks(self) -> tuple[float, ...]:
        """Where phi' jumps, other than at 0."""
        return ACTIVATIONS[self.name].kinks

    @property
    def homogeneous(self) -> bool:
        """Whether phi(a z) = a phi(z) for every a > 0: no scale is special, and there is no fixed variance."""
        return ACTIVATIONS[self.name].homogeneous

    def value(self, z: Floats) -> Floats:
        """phi(z)."""
        return ACTIVATIONS[self.name].value(z, self.slope)

    def derivative(self, z: Floats) -> Floats:
        """phi'(z)."""
        return ACTIVATIONS[self.name].derivative(z, self.slope)


def _sigmoid(z: Floats) -> Floats:
    # By the hyperbolic tangent, so that no exponential overflows.
    return 0.5 * (1 + np.tanh(0.5 * z))


_ERF = np.frompyfunc(math.erf, 1, 1)


def _normal_distribution(z: Floats) -> Floats:
    erf = np.asarray(_ERF(z / math.sqrt(2)), dtype=np.float64)
    return 0.5 * (1 + erf)


def _gelu_derivative(z: Floats) -> Floats:
    return _normal_distribution(z) + z * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _silu_derivative(z: Floats) -> Floats:
    gate = _sigmoid(z)
    return gate * (1 + z * (1 - gate))


def _leaky(z: Floats, slope: float) -> Floats:
    return np.where(z > 0, z, slope * z)


def _leaky_derivative(z: Floats, slope: float) -> Floats:
    return np.where(z > 0, 1.0, slope)


def _elu(z: Floats) -> Floats:
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))


def _elu_derivative(z: Floats) -> Floats:
    return np.exp(np.minimum(z, 0))


ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation(lambda z, _: _sigmoid(z), lambda z, _: 0.25 - 0.25 * np.tanh(0.5 * z) ** 2),
    "tanh": Activation(lambda z, _: np.tanh(z), lambda z, _: 1 - np.tanh(z) ** 2),
    "relu": Activation(lambda z, _: np.maximum(z, 0), lambda z, _: np.where(z > 0, 1.0, 0.0), homogeneous=True),
    "leaky_relu": Activation(_leaky, _leaky_derivative, homogeneous=True),
    "prelu": Activation(_leaky, _leaky_derivative, homogeneous=True),
    "elu": Activation(lambda z, _: _elu(z), lambda z, _: _elu_derivative(z)),
    "selu": Activation(
        lambda z, _: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * _elu(z)),
        lambda z, _: SELU_SCALE * np.where(z > 0, 1.0, SELU_ALPHA * _elu_derivative(z)),
    ),
    "gelu": Activation(lambda z, _: z * _normal_distribution(z), lambda z, _: _gelu_derivative(z)),
    "silu": Activation(lambda z, _: z * _sigmoid(z), lambda z, _: _silu_derivative(z)),
    "softplus": Activation(lambda z, _: np.logaddexp(0, z), lambda z, _: _sigmoid(z)),
    "hardtanh": Activation(
        lambda z, _: np.clip(z, -1, 1), lambda z, _: np.where(np.abs(z) < 1, 1.0, 0.0), kinks=(-1.0, 1.0)
    ),
    "linear": Activation(lambda z, _: z, lambda z, _: np.ones_like(z), homogeneous=True),
}
