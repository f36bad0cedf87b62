"""Nonlinearities of stacked signals, their slopes, and the way back through them.

Every function works entry by entry, on (M, B, D) or anything else: M members, B batch, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gradlab.nn.float64 import share
from gradlab.nn.kernels import native
from gradlab.nn.kernels.calls import Place, Shared
from gradlab.theory.activations import Phi

Slope = float | Tensor
"""Of the leaky family: a number, or (M, 1, 1) where it is learned."""

_SELU_SCALE = 1.0507009873554805
_SELU_ALPHA = 1.6732632423543772


Back = Callable[[Tensor, Tensor, Slope], Tensor]
"""(dh, z or phi(z), slope) -> dh phi'(z)."""


@dataclass(frozen=True)
class Activation:
    """``value(z, slope)`` is phi(z); ``back(dh, z, slope)`` is dh phi'(z), from phi(z) instead where ``by_value``.

    ``derivative(z, phi(z))`` is phi'(z) and ``steepest`` the maximum of its size; what has no flat ends on
    both sides cannot saturate and has none. ``kernel`` is what our kernels call it, if they know it.
    """

    value: Callable[[Tensor, Slope], Tensor]
    back: Back
    by_value: bool = False
    derivative: Callable[[Tensor, Tensor], Tensor] | None = None
    steepest: float = 1.0
    kernel: str | None = None


def _leaky(z: Tensor, slope: Slope) -> Tensor:
    # slope*z + (1-slope)*relu(z): a selection by comparison takes ten times as long on a CPU.
    return F.leaky_relu(z, slope) if isinstance(slope, float) else slope * z + (1 - slope) * torch.relu(z)


def _leaky_back(dh: Tensor, z: Tensor, slope: Slope) -> Tensor:
    if isinstance(slope, float):
        return torch.ops.aten.leaky_relu_backward(dh, z, slope, False)  # type: ignore[no-any-return]
    above: Tensor = torch.ops.aten.threshold_backward(dh, z, 0)
    return slope * dh + (1 - slope) * above


def _selu_derivative(z: Tensor, _: Tensor) -> Tensor:
    return torch.where(z > 0, torch.full_like(z, _SELU_SCALE), _SELU_SCALE * _SELU_ALPHA * torch.exp(z))


def _gelu_derivative(z: Tensor, _: Tensor) -> Tensor:
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(z / math.sqrt(2))) + z * density


def _hardtanh_derivative(z: Tensor, _: Tensor) -> Tensor:
    return (z.abs() < 1).to(z.dtype)


def _silu_derivative(z: Tensor, h: Tensor) -> Tensor:
    # With s = sigmoid(z): (z s)' = s + z s (1 - s).
    gate = torch.sigmoid(z)
    return gate + h * (1 - gate)


def _elu_back(alpha: float, scale: float) -> Back:
    backward = torch.ops.aten.elu_backward
    return lambda dh, z, _: backward(dh, alpha, scale, 1, False, z)


def _kernel(name: str, *constants: float) -> Back:
    """Torch's own way back."""
    backward = getattr(torch.ops.aten, f"{name}_backward")
    return lambda dh, needed, _: backward(dh, needed, *constants)


ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation(
        lambda z, _: torch.sigmoid(z),
        _kernel("sigmoid"),
        by_value=True,
        derivative=lambda _, h: h * (1 - h),
        steepest=0.25,
        kernel="sigmoid",
    ),
    "tanh": Activation(
        lambda z, _: torch.tanh(z), _kernel("tanh"), by_value=True, derivative=lambda _, h: 1 - h * h, kernel="tanh"
    ),
    "relu": Activation(lambda z, _: torch.relu(z), _kernel("threshold", 0), by_value=True, kernel="relu"),
    "leaky_relu": Activation(_leaky, _leaky_back, kernel="leaky"),
    "prelu": Activation(_leaky, _leaky_back, kernel="leaky"),
    "elu": Activation(
        lambda z, _: F.elu(z), _elu_back(1.0, 1.0), derivative=lambda z, _: torch.exp(z.clamp(max=0)), kernel="elu"
    ),
    "selu": Activation(
        lambda z, _: F.selu(z),
        _elu_back(_SELU_ALPHA, _SELU_SCALE),
        derivative=_selu_derivative,
        steepest=_SELU_SCALE * _SELU_ALPHA,
        kernel="selu",
    ),
    # The slopes of gelu and silu overshoot 1: gelu's is largest at z = sqrt(2), silu's where z*tanh(z/2) = 2.
    "gelu": Activation(
        lambda z, _: F.gelu(z), _kernel("gelu"), derivative=_gelu_derivative, steepest=1.1289042, kernel="gelu"
    ),
    "silu": Activation(
        lambda z, _: F.silu(z), _kernel("silu"), derivative=_silu_derivative, steepest=1.0998397, kernel="silu"
    ),
    "softplus": Activation(
        lambda z, _: F.softplus(z),
        _kernel("softplus", 1, 20),
        derivative=lambda z, _: torch.sigmoid(z),
        kernel="softplus",
    ),
    "hardtanh": Activation(
        lambda z, _: F.hardtanh(z), _kernel("hardtanh", -1, 1), derivative=_hardtanh_derivative, kernel="hardtanh"
    ),
    "linear": Activation(lambda z, _: z, lambda dh, _z, _s: dh),
}


def phi(activation: Activation, z: Tensor, slope: Slope) -> Tensor:
    """The activation of z (M, B, D), (M, B, D)."""
    if activation.kernel is not None and native.serves(z):
        return native.activate(activation.kernel, z, _place(slope, z))
    return activation.value(z, slope)


def phi_back(
    activation: Activation, dh: Tensor, known: Tensor, slope: Slope, *, learned: bool
) -> tuple[Tensor, Tensor | None]:
    """The derivative dh phi'(z) (M, B, D), and the slope's (M, 1) where it is ``learned``.

    ``known`` is what `Activation.back` takes.
    """
    if activation.kernel is not None and native.serves(dh):
        return native.activate_back(activation.kernel, dh, known, _place(slope, dh), learned=learned)
    dslope = (dh * known.clamp(max=0)).sum((1, 2)).unsqueeze(1) if learned else None
    return activation.back(dh, known, slope), dslope


def saturated_share(name: str, z: Tensor, h: Tensor, part: float, out: Tensor) -> None:
    """The share of entries (M, ...) whose slope is below ``part`` of the largest, into ``out`` (M,) float64."""
    activation = ACTIVATIONS[name]
    if activation.derivative is None:
        raise ValueError("an activation without flat ends cannot saturate")
    limit = part * activation.steepest
    if activation.kernel is not None and native.serves(h):
        native.within(h if activation.by_value else z, _flat_ends(name, limit, by_value=activation.by_value), out)
    else:
        out.copy_(share(limit - activation.derivative(z, h).abs()))


@cache
def _flat_ends(name: str, limit: float, *, by_value: bool) -> tuple[float, ...]:
    """Low and high end of the two ranges of z, or of phi(z), in which phi' is below ``limit``; one may be empty."""
    known = Phi(name)
    grid = np.linspace(-40, 40, 8001)
    flat = np.abs(known.derivative(grid)) < limit
    left = np.flatnonzero(flat[1:] != flat[:-1])
    within, beyond = (np.where(flat[left] == inner, grid[left], grid[left + 1]) for inner in (True, False))
    for _ in range(60):
        middle = (within + beyond) / 2
        inner = np.abs(known.derivative(middle)) < limit
        within, beyond = np.where(inner, middle, within), np.where(inner, beyond, middle)
    ends = known.value(within) if by_value else within
    empty = (math.inf, -math.inf)
    return (*(empty[1:] if flat[0] else ()), *map(float, ends), *(empty[:1] if flat[-1] else ()), *empty, *empty)[:4]


def dead_share(z: Tensor, slope: Slope, out: Tensor) -> None:
    """Of the leaky family: the share of units of z (M, ..., B, D) at zero slope everywhere, into ``out`` (M,) float64.

    That is never above zero, and zero is the slope there.
    """
    if native.serves(z):
        native.dead(z.flatten(1, -2), _place(slope, z), out)
        return
    flat = (z.new_full((1, 1), slope) if isinstance(slope, float) else slope.reshape(-1, 1)) == 0
    out.copy_(((z.flatten(1, -2).amax(1) <= 0) & flat).to(torch.float64).mean(1))


def _place(slope: Slope, like: Tensor) -> Place:
    return _shared(slope, like.dtype, like.device) if isinstance(slope, float) else slope


@cache
def _shared(slope: float, dtype: torch.dtype, on: torch.device) -> Shared:
    return Shared(torch.tensor([slope], dtype=dtype, device=on))
