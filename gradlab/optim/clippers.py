"""Gradient clipping, each member by itself, in place on the flat gradient (M, P).

Members are sorted by mode, so that each mode is one slice of the members and members without clipping cost nothing.
Norms are float64 and are measured once: a rescaled gradient's norm is the rescaled norm. What each mode is called
elsewhere stands in `choices.CLIPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from gradlab.nn.float64 import norms64
from gradlab.nn.slots import Layout
from gradlab.spec import RunSpec

MARGIN = 1e-6
"""Added to the norm before dividing, as torch.nn.utils.clip_grad_norm_ does."""


@dataclass(frozen=True)
class Clipped:
    """``norms`` (m, L) float64 of the layers after clipping, and whether ``any`` entry of a member changed (m,)."""

    norms: Tensor
    any: Tensor


@dataclass(frozen=True)
class Limits:
    """Thresholds of m members, (m,) each, in float64; ``output`` is the output layer's own."""

    all: Tensor
    output: Tensor


Clipper = Callable[[Tensor, Tensor, Limits, Layout], Clipped]
"""(gradient (m, P), changed in place; its layers' norms (m, L); limits; layout) -> Clipped"""


def _leave(gradient: Tensor, norms: Tensor, limits: Limits, layout: Layout) -> Clipped:
    del limits, layout
    return Clipped(norms, torch.zeros(len(gradient), dtype=torch.bool, device=gradient.device))


def _rescale(gradient: Tensor, norms: Tensor, scale: Tensor) -> Clipped:
    """Multiplies every entry of a member by its ``scale`` (m,), rounded to the gradient's precision."""
    rounded = scale.to(gradient.dtype)
    gradient.mul_(rounded.unsqueeze(1))
    changed = (rounded != 1) & (norms > 0).any(1)
    return Clipped(norms * rounded.to(norms.dtype).abs().unsqueeze(1), changed)


def clip_by_norm(gradient: Tensor, norms: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """g*min(1, c/(|g|+1e-6)), |g| over all parameters (Pascanu et al. 2013, algorithm 1)."""
    del layout
    total = norms.square().sum(1).sqrt()
    return _rescale(gradient, norms, (limits.all / (total + MARGIN)).clamp(max=1.0))


def normalize(gradient: Tensor, norms: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """g*c/(|g|+1e-6), always."""
    del layout
    total = norms.square().sum(1).sqrt()
    return _rescale(gradient, norms, limits.all / (total + MARGIN))


def clip_by_value(gradient: Tensor, norms: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """Each entry clamped to -c..c (torch.nn.utils.clip_grad_value_)."""
    del norms
    limit = limits.all.to(gradient.dtype).unsqueeze(1)
    # What sticks out beyond the limit, summed: above zero where any entry does, and cheaper than comparing each.
    changed = gradient.abs().sub_(limit).relu_().sum(1) > 0
    torch.minimum(gradient, limit, out=gradient)
    torch.maximum(gradient, -limit, out=gradient)
    return Clipped(norms64(gradient, layout.layers), changed)


def clip_layerwise(gradient: Tensor, norms: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """As `clip_by_norm`, each layer by itself; the output layer by its own threshold."""
    thresholds = limits.all.unsqueeze(1).repeat(1, norms.shape[1])
    thresholds[:, -1] = limits.output
    scale = (thresholds / (norms + MARGIN)).clamp(max=1.0).to(gradient.dtype)
    for layer, columns in enumerate(layout.layers):
        gradient[:, columns].mul_(scale[:, layer : layer + 1])
    changed = ((scale != 1) & (norms > 0)).any(1)
    return Clipped(norms * scale.to(norms.dtype), changed)


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


def segments(runs: Sequence[RunSpec], device: torch.device) -> tuple[Segment, ...]:
    """The segments of ``runs``, which are sorted by clip mode or fall into more of them."""
    found: list[Segment] = []
    start = 0
    for mode, group in groupby(runs, key=lambda run: run.clip.mode):
        clips = [run.clip for run in group]
        common = torch.tensor([clip.threshold for clip in clips], dtype=torch.float64, device=device)
        output = torch.tensor(
            [clip.threshold if clip.output_threshold is None else clip.output_threshold for clip in clips],
            dtype=torch.float64,
            device=device,
        )
        found.append(Segment(CLIPPERS[mode], slice(start, start + len(clips)), Limits(common, output)))
        start += len(clips)
    return tuple(found)


def clip(gradient: Tensor, norms: Tensor, parts: Sequence[Segment], layout: Layout) -> Clipped:
    """Clips ``gradient`` (M, P) in place, each segment its own way; ``norms`` (M, L) are those before."""
    results = [part.clipper(gradient[part.members], norms[part.members], part.limits, layout) for part in parts]
    return Clipped(torch.cat([result.norms for result in results]), torch.cat([result.any for result in results]))
