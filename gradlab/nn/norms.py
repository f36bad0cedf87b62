"""Normalization of stacked signals (M, B, D), or of matrices (M, out, in), each member by itself, and its way back.

Only `batch` has a memory: running statistics, kept as torch.nn.BatchNorm1d keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from types import ModuleType

import torch
from torch import Tensor

from gradlab.nn.kernels import fused, native

EPS = 1e-5
"""Of batch and layer norm, as torch's; rms norm takes the precision's epsilon, as torch.nn.RMSNorm does."""

MOMENTUM = 0.1
"""The share of the newest batch in the running statistics, as torch's."""


class Mode(Enum):
    """TRAIN: statistics of the batch, remembered. MEASURE: of the batch, forgotten. EVALUATE: the running ones.

    FROZEN: as MEASURE, but on the way back the statistics are constants, so that each sample's derivative is its own.
    """

    TRAIN = "train"
    MEASURE = "measure"
    EVALUATE = "evaluate"
    FROZEN = "frozen"


@dataclass(frozen=True)
class Running:
    """Running ``mean`` and (unbiased) ``var`` of one layer, (M, D) each, updated in place."""

    mean: Tensor
    var: Tensor


@dataclass(frozen=True)
class Affine:
    """A norm's learned ``gain`` (M, D), its ``shift`` (M, D) if it has one, and its running statistics if any.

    ``groups`` of units are what a group norm is over.
    """

    gain: Tensor
    shift: Tensor | None
    running: Running | None
    groups: int = 1


Back = Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]
"""dy (M, B, D) -> dz (M, B, D), the gain's gradient (M, D) and the shift's, if there is one."""

Norm = Callable[[Tensor, Affine, Mode], tuple[Tensor, Back]]
"""z (M, B, D) -> y (M, B, D) and its way back."""


def batch_norm(z: Tensor, affine: Affine, mode: Mode) -> tuple[Tensor, Back]:
    """Each unit over the batch (Ioffe & Szegedy 2015, algorithm 1)."""
    gain, shift, running = affine.gain.unsqueeze(1), affine.shift, affine.running
    if shift is None or running is None:
        raise ValueError("batch norm needs its shift and its running statistics")
    if mode in (Mode.TRAIN, Mode.MEASURE) and native.serves(z):
        moved = (running.mean, running.var) if mode is Mode.TRAIN else None
        y, found = native.batch_norm(z, affine.gain, shift, EPS, moved, MOMENTUM)
        return y, lambda dy: native.batch_norm_back(dy, z, found, affine.gain)
    if mode is Mode.EVALUATE:
        centred, var = z - running.mean.unsqueeze(1), running.var.unsqueeze(1)
    else:
        var, mean = torch.var_mean(z, 1, correction=0, keepdim=True)
        centred = z - mean
    inverse = torch.rsqrt(var + EPS)
    normalised = centred.mul_(inverse)
    batch = z.shape[1]
    if mode is Mode.TRAIN:
        running.mean.lerp_(mean.squeeze(1), MOMENTUM)
        running.var.lerp_(var.squeeze(1) * (batch / (batch - 1)), MOMENTUM)

    def back(dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # With r = 1/sqrt(var + eps), n = r (z - mean): y = shift + gain n. The mean and r depend on z as well, so
        # dz = gain r (dy - mean(dy) - n mean(dy n)), means over the batch.
        dgain, dshift = (dy * normalised).sum(1, keepdim=True), dy.sum(1, keepdim=True)
        dz = dy
        if mode is not Mode.FROZEN:
            dz = torch.addcmul(dy, normalised, dgain, value=-1 / batch).sub_(dshift, alpha=1 / batch)
        return dz * (gain * inverse), dgain.squeeze(1), dshift.squeeze(1)

    return torch.addcmul(shift.unsqueeze(1), normalised, gain), back


def _kernels(z: Tensor) -> ModuleType | None:
    """What has kernels for rows of ``z`` (M, B, D), if anything: both have them by the same names."""
    if native.serves(z):
        return native
    return fused if fused.serves(z) and z.shape[2] <= fused.WIDEST else None


def layer_norm(z: Tensor, affine: Affine, mode: Mode) -> tuple[Tensor, Back]:
    """Each sample over its units (Ba et al. 2016, equation 3)."""
    del mode
    gain, shift = affine.gain.unsqueeze(1), affine.shift
    if shift is None:
        raise ValueError("layer norm needs its shift")
    if (kernels := _kernels(z)) is not None:
        y, found = kernels.layer_norm(z, affine.gain, shift, EPS, centred=True)
        return y, lambda dy: kernels.layer_norm_back(dy, found, affine.gain, centred=True, shifted=True)
    units = z.shape[-1:]
    normalised, mean, inverse = torch.native_layer_norm(z, units, None, None, EPS)

    def back(dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # As for batch norm, means over the units.
        by_z = torch.ops.aten.native_layer_norm_backward
        dz: Tensor = by_z(dy * gain, z, units, mean, inverse, None, None, [True, False, False])[0]
        return dz, (dy * normalised).sum(1), dy.sum(1)

    return torch.addcmul(shift.unsqueeze(1), normalised, gain), back


def rms_norm(z: Tensor, affine: Affine, mode: Mode) -> tuple[Tensor, Back]:
    """Each sample over the root mean square of its units (Zhang & Sennrich 2019, equation 4)."""
    del mode
    eps = torch.finfo(z.dtype).eps
    if (kernels := _kernels(z)) is not None:
        y, found = kernels.layer_norm(z, affine.gain, None, eps, centred=False)
        return y, lambda dy: kernels.layer_norm_back(dy, found, affine.gain, centred=False, shifted=False)
    gain = affine.gain.unsqueeze(1)
    inverse = torch.rsqrt(z.square().mean(-1, keepdim=True) + eps)
    normalised = z * inverse

    def back(dy: Tensor) -> tuple[Tensor, Tensor, None]:
        # With dn = gain dy: as for layer norm, without the mean.
        dgain = (dy * normalised).sum(1)
        dn = dy * gain
        along = (dn * normalised).mean(-1, keepdim=True)
        return dn.addcmul_(normalised, along, value=-1).mul_(inverse), dgain, None

    return normalised * gain, back


def group_norm(z: Tensor, affine: Affine, mode: Mode) -> tuple[Tensor, Back]:
    """(M, B, ..., D): each sample over its groups of units, with all pixels between (Wu & He 2018, equation 7)."""
    del mode
    shape, width = z.shape, z.shape[-1]
    gain, shift = affine.gain.unsqueeze(1), affine.shift
    if shift is None:
        raise ValueError("group norm needs its shift")
    if native.serves(z):
        y, found = native.group_norm(z, affine.gain, shift, EPS, affine.groups)
        return y, lambda dy: native.group_norm_back(dy, found, affine.gain, affine.groups)
    apart = (len(z), z.shape[1], -1, affine.groups, width // affine.groups)

    def mean(x: Tensor) -> Tensor:
        return x.mean((2, 4), keepdim=True)

    grouped = z.reshape(apart)
    normalised = grouped - mean(grouped)
    inverse = torch.rsqrt(mean(normalised.square()) + EPS)
    normalised = normalised * inverse
    rows = normalised.view(len(z), -1, width)

    def back(dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # As for layer norm, means over the units and pixels of a group.
        flat = dy.reshape(rows.shape)
        dn = (flat * gain).view(normalised.shape)
        dz = inverse * (dn - mean(dn) - normalised * mean(dn * normalised))
        return dz.view(shape), (flat * rows).sum(1), flat.sum(1)

    return torch.addcmul(shift.unsqueeze(1), rows, gain).view(shape), back


def instance_norm(z: Tensor, affine: Affine, mode: Mode) -> tuple[Tensor, Back]:
    """(M, B, ..., D): each channel of each sample over its pixels (Ulyanov et al. 2016, equation 4)."""
    return group_norm(z, replace(affine, groups=z.shape[-1]), mode)


def directed(matrix: Tensor, length: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """Rows v of ``matrix`` (M, out, in) as g v/|v|, g = ``length`` (M, out) (Salimans & Kingma 2016, equations 2, 3).

    The way back is from the derivative by what acts to those by matrix and length.
    """
    if native.serves(matrix):
        acting, found = native.directed(matrix, length)
        return acting, lambda dw: native.directed_back(dw, matrix, length, found)
    inverse = matrix.norm(dim=2, keepdim=True).reciprocal()
    direction, by = matrix * inverse, length.unsqueeze(2)

    def back(dw: Tensor) -> tuple[Tensor, Tensor]:
        along = (dw * direction).sum(2, keepdim=True)
        return by * inverse * (dw - along * direction), along.squeeze(2)

    return by * direction, back


NORMS: dict[str, Norm | None] = {
    "none": None,
    "batch": batch_norm,
    "layer": layer_norm,
    "rms": rms_norm,
    "group": group_norm,
    "instance": instance_norm,
    "weight": None,
}

OVER_PIXELS = ("group", "instance")
"""Norms that take a sample's signal (M, B, ..., D) as a whole."""
