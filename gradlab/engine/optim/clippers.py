"""Gradient clipping, each member by itself, in place on the flat gradient (M, P).

Members are sorted by mode, so that each mode is one slice of the members and members without clipping cost nothing.
Norms are float64, and one that follows from another is not measured again: a rescaled gradient has the rescaled norm.
What each mode is called elsewhere stands in `choices.CLIPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from gradlab.nn.float64 import norm64, norms64
from gradlab.nn.kernels import native
from gradlab.nn.slots import Layout
from gradlab.spec.run import RunSpec

MARGIN = 1e-6
"""Added to the norm before dividing, as torch.nn.utils.clip_grad_norm_ does."""


@dataclass(frozen=True)
class Clipped:
    """The ``norm`` (m,) float64 over all parameters after clipping; ``changed`` (m,) is zero where no entry changed."""

    norm: Tensor
    changed: Tensor


@dataclass(frozen=True)
class Limits:
    """Thresholds of m members, (m,) each, in float64; ``output`` is the output layer's own.

    ``entry`` (m, 1) is ``all`` in the gradient's precision; ``none`` (m,) are zeros.
    """

    all: Tensor
    output: Tensor
    entry: Tensor
    none: Tensor


Clipper = Callable[[Tensor, Tensor, Limits, Layout], Clipped]
"""(gradient (m, P), changed in place; its norm (m,); limits; layout) -> Clipped"""


def _leave(gradient: Tensor, norm: Tensor, limits: Limits, layout: Layout) -> Clipped:
    del gradient, layout
    return Clipped(norm, limits.none)


def _rescale(gradient: Tensor, norm: Tensor, scale: Tensor) -> Clipped:
    """Multiplies every entry of a member by its ``scale`` (m,), rounded to the gradient's precision."""
    rounded = scale.to(gradient.dtype)
    gradient.mul_(rounded.unsqueeze(1))
    after = norm * rounded
    return Clipped(after, after - norm)


def clip_by_norm(gradient: Tensor, norm: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """g*min(1, c/(|g|+1e-6)), |g| over all parameters (Pascanu et al. 2013, algorithm 1)."""
    del layout
    return _rescale(gradient, norm, (limits.all / (norm + MARGIN)).clamp(max=1.0))


def normalize(gradient: Tensor, norm: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """g*c/(|g|+1e-6), always."""
    del layout
    return _rescale(gradient, norm, limits.all / (norm + MARGIN))


def clip_by_value(gradient: Tensor, norm: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """Each entry clamped to -c..c (torch.nn.utils.clip_grad_value_)."""
    del norm, layout
    clamped = torch.minimum(gradient, limits.entry)
    torch.maximum(clamped, -limits.entry, out=clamped)
    # What was cut off, summed: above zero where any entry was, and cheaper than comparing each.
    cut = gradient.sub_(clamped).abs_().sum(1)
    gradient.copy_(clamped)
    return Clipped(norm64(gradient), cut.to(torch.float64))


def clip_layerwise(gradient: Tensor, norm: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """As `clip_by_norm`, each layer by itself; the output layer by its own threshold."""
    del norm
    norms = norms64(gradient, layout.layers)
    thresholds = limits.all.unsqueeze(1).repeat(1, norms.shape[1])
    thresholds[:, -1] = limits.output
    scale = (thresholds / (norms + MARGIN)).clamp(max=1.0).to(gradient.dtype)
    for layer, columns in enumerate(layout.layers):
        gradient[:, columns].mul_(scale[:, layer : layer + 1])
    after = norms * scale
    return Clipped(after.square().sum(1).sqrt(), (after - norms).abs().sum(1))


CLIPPERS: dict[str, Clipper] = {
    "none": _leave,
    "norm": clip_by_norm,
    "value": clip_by_value,
    "layerwise": clip_layerwise,
    "normalize": normalize,
}


@dataclass(frozen=True)
class Segment:
    """Neighbouring members that clip the same way."""

    clipper: Clipper
    members: slice
    limits: Limits


@dataclass(frozen=True)
class Clipping:
    """How each member of a cohort clips: segment by segment, and the same as columns for our kernels.

    ``columns`` is None where a mode has no kernel.
    """

    segments: tuple[Segment, ...]
    columns: native.Clips | None


def clipping(runs: Sequence[RunSpec], like: Tensor) -> Clipping:
    """Of ``runs``, sorted by clip mode lest they fall into more segments, for gradients ``like`` this."""

    def column(numbers: list[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=like.device)

    common = column([run.clip.threshold for run in runs])
    given = [run.clip.output_threshold for run in runs]
    output = column([run.clip.threshold if own is None else own for run, own in zip(runs, given, strict=True)])
    found: list[Segment] = []
    for mode, group in groupby(range(len(runs)), key=lambda member: runs[member].clip.mode):
        members = list(group)
        part = slice(members[0], members[-1] + 1)
        limits = Limits(
            common[part], output[part], common[part].to(like.dtype).unsqueeze(1), common.new_zeros(len(members))
        )
        found.append(Segment(CLIPPERS[mode], part, limits))
    modes = [run.clip.mode for run in runs]
    if not set(modes) <= set(native.CLIPS):
        return Clipping(tuple(found), None)
    numbers = torch.tensor([native.CLIPS.index(mode) for mode in modes])
    return Clipping(tuple(found), native.Clips(numbers, common, output))


def clip(gradient: Tensor, norm: Tensor, how: Clipping, layout: Layout) -> Clipped:
    """Clips ``gradient`` (M, P) in place, each member its own way; ``norm`` (M,) is that before."""
    if how.columns is not None and native.serves(gradient):
        return Clipped(*native.clip(gradient, norm, how.columns, layout.layers))
    parts = [part.clipper(gradient[part.members], norm[part.members], part.limits, layout) for part in how.segments]
    return Clipped(torch.cat([part.norm for part in parts]), torch.cat([part.changed for part in parts]))
