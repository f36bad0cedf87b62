"""Normalization of stacked signals (M, B, D), each member by itself.

Only `batch` has a memory: running statistics, kept as torch.nn.BatchNorm1d keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

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


def batch_norm(z: Tensor, gain: Tensor, shift: Tensor | None, running: Running | None, mode: Mode) -> Tensor:
    """Each unit over the batch (Ioffe & Szegedy 2015, algorithm 1)."""
    if running is None or shift is None:
        raise ValueError("batch norm needs its shift and its running statistics")
    if mode is Mode.EVALUATE:
        mean, var = running.mean.unsqueeze(1), running.var.unsqueeze(1)
    else:
        var, mean = torch.var_mean(z, dim=1, correction=0, keepdim=True)
        if mode is Mode.TRAIN:
            batch = z.shape[1]
            running.mean.lerp_(mean.detach().squeeze(1), MOMENTUM)
            running.var.lerp_(var.detach().squeeze(1) * (batch / (batch - 1)), MOMENTUM)
    scale = gain.unsqueeze(1) * torch.rsqrt(var + EPS)
    return torch.addcmul(shift.unsqueeze(1), z - mean, scale)


def layer_norm(z: Tensor, gain: Tensor, shift: Tensor | None, running: Running | None, mode: Mode) -> Tensor:
    """Each sample over its units (Ba et al. 2016, equation 3)."""
    del running, mode
    if shift is None:
        raise ValueError("layer norm needs its shift")
    normalised = torch.nn.functional.layer_norm(z, z.shape[-1:], eps=EPS)
    return torch.addcmul(shift.unsqueeze(1), normalised, gain.unsqueeze(1))


def rms_norm(z: Tensor, gain: Tensor, shift: Tensor | None, running: Running | None, mode: Mode) -> Tensor:
    """Each sample over the root mean square of its units (Zhang & Sennrich 2019, equation 4)."""
    del shift, running, mode
    scale = torch.rsqrt(z.square().mean(-1, keepdim=True) + torch.finfo(z.dtype).eps)
    return z * scale * gain.unsqueeze(1)


NORMS: dict[str, Norm | None] = {"none": None, "batch": batch_norm, "layer": layer_norm, "rms": rms_norm}
