"""Normalization of stacked signals (M, B, D), each member by itself.

Only `batch` has a memory: running statistics, kept as torch.nn.BatchNorm1d keeps them. The backward passes are written
out: on a CPU they take a third of the time of what autograd derives from the separate operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradlab.nn.autograd import call

EPS = 1e-5
"""Of batch and layer norm, as torch's; rms norm takes the precision's epsilon, as torch.nn.RMSNorm does."""

MOMENTUM = 0.1
"""The share of the newest batch in the running statistics, as torch's."""


class Mode(Enum):
    """TRAIN: statistics of the batch, remembered. MEASURE: of the batch, forgotten. EVALUATE: the running ones."""

    TRAIN = "train"
    MEASURE = "measure"
    EVALUATE = "evaluate"


@dataclass(frozen=True)
class Running:
    """Running ``mean`` and (unbiased) ``var`` of one layer, (M, D) each, updated in place."""

    mean: Tensor
    var: Tensor


Norm = Callable[[Tensor, Tensor, Tensor | None, Running | None, Mode], Tensor]
"""(z (M, B, D), gain (M, D), shift (M, D) or None, running, mode) -> (M, B, D)"""


class _BatchNorm(torch.autograd.Function):
    """(z, gain, shift) -> normalised z, and the batch's mean and biased variance (M, 1, D)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = z.mean(1, keepdim=True)
        centred = z - mean
        var = centred.square().mean(1, keepdim=True)
        inverse = torch.rsqrt(var + EPS)
        scale = gain.unsqueeze(1) * inverse
        ctx.save_for_backward(centred, inverse, scale)
        ctx.mark_non_differentiable(mean, var)
        return torch.addcmul(shift.unsqueeze(1), centred, scale), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # With c = z - mean, r = 1/sqrt(var + eps): y = shift + gain r c. The mean and r depend on z as well, so
        # dz = gain r (dy - mean(dy) - c r^2 mean(dy c)), means over the batch.
        centred, inverse, scale = ctx.saved_tensors
        along = (dy * centred).sum(1, keepdim=True)
        dshift = dy.sum(1, keepdim=True)
        batch = dy.shape[1]
        dz = torch.addcmul(dy, centred, along * inverse.square() * (-1 / batch))
        dz.sub_(dshift / batch).mul_(scale)
        return dz, (along * inverse).squeeze(1), dshift.squeeze(1)


def batch_norm(z: Tensor, gain: Tensor, shift: Tensor | None, running: Running | None, mode: Mode) -> Tensor:
    """Each unit over the batch (Ioffe & Szegedy 2015, algorithm 1)."""
    if running is None or shift is None:
        raise ValueError("batch norm needs its shift and its running statistics")
    if mode is Mode.EVALUATE:
        scale = gain * torch.rsqrt(running.var + EPS)
        return torch.addcmul(shift.unsqueeze(1), z - running.mean.unsqueeze(1), scale.unsqueeze(1))
    normalised: Tensor
    normalised, mean, var = call(_BatchNorm, z, gain, shift)
    if mode is Mode.TRAIN:
        batch = z.shape[1]
        running.mean.lerp_(mean.squeeze(1), MOMENTUM)
        running.var.lerp_(var.squeeze(1) * (batch / (batch - 1)), MOMENTUM)
    return normalised


class _LayerNorm(torch.autograd.Function):
    """(z, gain, shift) -> normalised z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        centred = z - z.mean(-1, keepdim=True)
        inverse = torch.rsqrt(centred.square().mean(-1, keepdim=True) + EPS)
        normalised = centred.mul_(inverse)
        ctx.save_for_backward(normalised, inverse, gain)
        return torch.addcmul(shift.unsqueeze(1), normalised, gain.unsqueeze(1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # As for batch norm, with n the normalised signal and dn = gain dy:
        # dz = r (dn - mean(dn) - n mean(dn n)), means over the units.
        normalised, inverse, gain = ctx.saved_tensors
        dgain = (dy * normalised).sum(1)
        dn = dy * gain.unsqueeze(1)
        along = (dn * normalised).mean(-1, keepdim=True)
        dz = dn.sub_(dn.mean(-1, keepdim=True)).addcmul_(normalised, along, value=-1).mul_(inverse)
        return dz, dgain, dy.sum(1)


def layer_norm(z: Tensor, gain: Tensor, shift: Tensor | None, running: Running | None, mode: Mode) -> Tensor:
    """Each sample over its units (Ba et al. 2016, equation 3)."""
    del running, mode
    if shift is None:
        raise ValueError("layer norm needs its shift")
    normalised: Tensor = call(_LayerNorm, z, gain, shift)
    return normalised


class _RMSNorm(torch.autograd.Function):
    """(z, gain) -> z over the root mean square of its units."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, gain: Tensor) -> Tensor:
        inverse = torch.rsqrt(z.square().mean(-1, keepdim=True) + torch.finfo(z.dtype).eps)
        normalised = z * inverse
        ctx.save_for_backward(normalised, inverse, gain)
        return normalised * gain.unsqueeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        # As for layer norm, without the mean.
        normalised, inverse, gain = ctx.saved_tensors
        dgain = (dy * normalised).sum(1)
        dn = dy * gain.unsqueeze(1)
        along = (dn * normalised).mean(-1, keepdim=True)
        return dn.addcmul_(normalised, along, value=-1).mul_(inverse), dgain


def rms_norm(z: Tensor, gain: Tensor, shift: Tensor | None, running: Running | None, mode: Mode) -> Tensor:
    """Each sample over the root mean square of its units (Zhang & Sennrich 2019, equation 4)."""
    del shift, running, mode
    normalised: Tensor = call(_RMSNorm, z, gain)
    return normalised


NORMS: dict[str, Norm | None] = {"none": None, "batch": batch_norm, "layer": layer_norm, "rms": rms_norm}
