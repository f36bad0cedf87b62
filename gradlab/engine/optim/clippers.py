"""Gradient clipping, each member by itself, in place on the flat gradient (M, P).

Members are sorted by mode, so that each mode is one slice of the members and members without clipping cost nothing.
Norms are float64, and one that follows from another is not measured again: a rescaled gradient has the rescaled norm.
What each mode is called elsewhere stands in `choices.CLIPS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from gradlab.nn.float64 import norm64, norms64
from gradlab.nn.kernels import fused, native
from gradlab.nn.slots import Layout
from gradlab.spec.run import RunSpec

MARGIN = 1e-6
"""Added to the norm before dividing, as torch.nn.utils.clip_grad_norm_ does."""


@dataclass(frozen=True)
class Clipped:
    """The ``norm`` (m,) float64 over all parameters after clipping; ``changed`` (m,) is zero where no entry changed.

    ``skipped`` (m,) is true where there is to be no update; None where that cannot be.
    """

    norm: Tensor
    changed: Tensor
    skipped: Tensor | None = None

    def cloned(self) -> Clipped:
        """The same figures in tensors of their own."""
        return Clipped(self.norm.clone(), self.changed.clone(), None if self.skipped is None else self.skipped.clone())


@dataclass(frozen=True)
class Limits:
    """Thresholds of m members, (m,) each, in float64; ``output`` is the output layer's own.

    ``entry`` (m, 1) is ``all`` in the gradient's precision; ``none`` (m,) are zeros. ``weights`` (m, P) are the
    parameters, ``done`` (1,) counts the steps so far, ``memory`` is what the mode keeps from step to step.
    """

    all: Tensor
    output: Tensor
    entry: Tensor
    none: Tensor
    weights: Tensor
    done: Tensor
    memory: Mapping[str, Tensor]


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


def soften(gradient: Tensor, norm: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """g*c/(|g|+c), always: a norm far above c ends at c, one far below stays (Zhang et al. 2019)."""
    del layout
    return _rescale(gradient, norm, limits.all / (norm + limits.all))


LEAST_WEIGHT = 1e-3
"""Of a unit's weights in `agc`, so that what begins at zero can move (Brock et al. 2021, section 4.1)."""


def clip_adaptively(gradient: Tensor, norm: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """Each unit, a row of a matrix, to c max(|w|, 1e-3) where it is longer; a vector is one unit (timm's `agc`)."""
    del norm
    changed = limits.none.clone()
    for slot, span in zip(layout.slots, layout.columns, strict=True):
        units = slot.shape[0] if len(slot.shape) > 1 else 1
        own = gradient[:, span].unflatten(1, (units, -1))
        lengths = torch.linalg.vector_norm(own, dim=2, dtype=torch.float64)
        weights = limits.weights[:, span].unflatten(1, (units, -1))
        most = torch.linalg.vector_norm(weights, dim=2, dtype=torch.float64).clamp(min=LEAST_WEIGHT)
        most *= limits.all.unsqueeze(1)
        scale = torch.where(lengths > most, most / lengths.clamp(min=MARGIN), 1.0)
        own.mul_(scale.to(own.dtype).unsqueeze(2))
        changed += (1 - scale).abs().sum(1)
    return Clipped(norm64(gradient), changed)


def clip_by_percentile(gradient: Tensor, norm: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """To the c-th percentile of the norms of all steps so far, this one's too (AutoClip, algorithm 1)."""
    del layout
    norms, done = limits.memory["norms"], limits.done.long()
    norms.scatter_(1, done.expand(len(norms), 1), norm.unsqueeze(1))
    # Those to come are infinite, and so are at the end. Between two norms as numpy.percentile: in proportion.
    in_order = norms.sort(1).values
    place = limits.all.unsqueeze(1) / 100 * limits.done
    below = in_order.gather(1, place.floor().long())
    above = in_order.gather(1, place.ceil().long())
    threshold = torch.lerp(below, above, place - place.floor()).squeeze(1)
    return _rescale(gradient, norm, (threshold / (norm + MARGIN)).clamp(max=1.0))


ZCLIP_WARMUP, ZCLIP_KEPT = 25, 0.97
"""Steps whose norms are gathered before anything is clipped, and what is kept of the running figures at each later one
(Kumar et al. 2025, section 3)."""


def clip_spikes(gradient: Tensor, norm: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """Norms of z > c deviations above their running mean to mean + c deviations/(z/c); those begin after 25 steps."""
    del layout
    mean, variance = limits.memory["mean"], limits.memory["variance"]
    count, z = limits.done + 1, limits.all
    warm = limits.done >= ZCLIP_WARMUP
    deviation = variance.sqrt()
    score = (norm - mean) / (deviation + MARGIN)
    spike = warm & (score > z)
    threshold = torch.where(spike, mean + z * deviation / (score / z), norm)
    clipped = _rescale(gradient, norm, torch.where(spike, threshold / (norm + MARGIN), 1.0).clamp(max=1.0))
    # While norms are gathered, their mean and variance so far; then running ones, by the norm after clipping.
    gathered = mean + (norm - mean) / count
    spread = variance + ((norm - mean) * (norm - gathered) - variance) / count
    running = torch.lerp(threshold, mean, ZCLIP_KEPT)
    mean.copy_(torch.where(warm, running, gathered))
    variance.copy_(torch.where(warm, torch.lerp((threshold - running).square(), variance, ZCLIP_KEPT), spread))
    return clipped


def skip(gradient: Tensor, norm: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """No update where the norm is above c: neither weights nor what the optimizer remembers move."""
    del gradient, layout
    skipped = norm > limits.all
    return Clipped(torch.where(skipped, 0.0, norm), skipped.to(torch.float64), skipped)


CLIPPERS: dict[str, Clipper] = {
    "none": _leave,
    "norm": clip_by_norm,
    "value": clip_by_value,
    "layerwise": clip_layerwise,
    "normalize": normalize,
    "soft": soften,
    "agc": clip_adaptively,
    "autoclip": clip_by_percentile,
    "zclip": clip_spikes,
    "skip": skip,
}

REMEMBERS: dict[str, Callable[[RunSpec], dict[str, tuple[int, float]]]] = {
    "autoclip": lambda run: {"norms": (run.train.steps + 1, math.inf)},
    "zclip": lambda _: {"mean": (0, 0.0), "variance": (0, 0.0)},
}
"""What a mode keeps of each member from step to step: so many float64 numbers (0: one), and how they begin."""


def _nothing(_: RunSpec) -> dict[str, tuple[int, float]]:
    return {}


@dataclass(frozen=True)
class Segment:
    """Neighbouring members that clip the same way."""

    clipper: Clipper
    members: slice
    limits: Limits


@dataclass(frozen=True)
class Clipping:
    """How each member of a cohort clips: segment by segment, and the same as columns for our kernels.

    ``columns`` is None where a mode has no kernel. ``memory`` (M, ...) is what modes keep from step to step;
    ``skips``: some members may make no update.
    """

    segments: tuple[Segment, ...]
    columns: native.Clips | None
    memory: Mapping[str, Tensor]
    skips: bool


def clipping(runs: Sequence[RunSpec], parameters: Tensor, done: Tensor, like: Tensor | None = None) -> Clipping:
    """Of ``runs``, sorted by clip mode lest they fall into more segments; ``done`` (1,) will count the steps so far.

    Gradients are ``like`` another tensor than the parameters in half precision.
    """
    like = parameters if like is None else like

    def column(numbers: list[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=parameters.device)

    common = column([run.clip.threshold for run in runs])
    given = [run.clip.output_threshold for run in runs]
    output = column([run.clip.threshold if own is None else own for run, own in zip(runs, given, strict=True)])
    modes = [run.clip.mode for run in runs]
    memory = {
        name: common.new_full((len(runs), size) if size else (len(runs),), start)
        for mode in dict.fromkeys(modes)
        for name, (size, start) in REMEMBERS.get(mode, _nothing)(runs[0]).items()
    }
    found: list[Segment] = []
    for mode, group in groupby(range(len(runs)), key=lambda member: runs[member].clip.mode):
        members = list(group)
        part = slice(members[0], members[-1] + 1)
        limits = Limits(
            common[part],
            output[part],
            common[part].to(like.dtype).unsqueeze(1),
            common.new_zeros(len(members)),
            parameters[part],
            done,
            {name: tensor[part] for name, tensor in memory.items()},
        )
        found.append(Segment(CLIPPERS[mode], part, limits))
    if not set(modes) <= set(native.CLIPS):
        return Clipping(tuple(found), None, memory, "skip" in modes)
    numbers = torch.tensor([native.CLIPS.index(mode) for mode in modes], device=parameters.device)
    return Clipping(tuple(found), native.Clips(numbers, common, output), memory, skips=False)


def _is_whole(part: Segment) -> bool:
    return part.clipper is not clip_layerwise


def clip(gradient: Tensor, norm: Tensor, how: Clipping, layout: Layout) -> Clipped:
    """Clips ``gradient`` (M, P) in place, each member its own way; ``norm`` (M,) is that before."""
    if how.columns is not None and native.serves(gradient):
        return Clipped(*native.clip(gradient, norm, how.columns, layout.layers))
    if how.columns is not None and fused.passes(gradient) and all(_is_whole(part) for part in how.segments):
        return Clipped(*fused.clip(gradient, norm, how.columns))
    parts = [part.clipper(gradient[part.members], norm[part.members], part.limits, layout) for part in how.segments]
    skipped = None
    if how.skips:
        skipped = torch.cat(
            [
                torch.zeros_like(part.changed, dtype=torch.bool) if part.skipped is None else part.skipped
                for part in parts
            ]
        )
    return Clipped(torch.cat([part.norm for part in parts]), torch.cat([part.changed for part in parts]), skipped)
