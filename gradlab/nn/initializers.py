"""Initial weights: standard normals drawn from a member's seed alone, in layer order, then shaped and scaled.

Because the draw does not depend on anything but the seed, two runs that differ only in init scale, gain or learning
rate start from the same draw, and a member's weights are the same alone and in company.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from gradlab.nn.parametrization import at_base
from gradlab.nn.slots import BIASES, Layout, Role, Slot, Start
from gradlab.spec.run import ModelSpec, RunSpec


@dataclass(frozen=True)
class Init:
    """``shape`` turns standard normals (out, in) into unit-variance entries, ``std(slot)`` is what scales them."""

    shape: Callable[[Tensor, Slot], Tensor]
    std: Callable[[Slot], float]


def _normal(draw: Tensor, _: Slot) -> Tensor:
    return draw


def _uniform(draw: Tensor, _: Slot) -> Tensor:
    # erf(z/sqrt 2) is uniform on (-1, 1) for a standard normal z, and has variance 1/3.
    return math.sqrt(3) * torch.erf(draw / math.sqrt(2))


def _orthogonal(draw: Tensor, _: Slot) -> Tensor:
    """Saxe et al. 2013: Q of the QR decomposition, signs fixed by R's diagonal so that Q is uniform (as torch's)."""
    tall = draw if draw.shape[0] >= draw.shape[1] else draw.T
    q: Tensor
    q, r = torch.linalg.qr(tall)
    q = q * torch.sign(torch.diagonal(r))
    return q if draw.shape[0] >= draw.shape[1] else q.T


DRIVE = 1e-3
"""Standard deviation of what reads into and out of identity recurrences (Le et al. 2015, section 4)."""


def _keeps(slot: Slot) -> bool:
    """Whether `identity` makes a matrix one: from time step to time step, or a square one of a network without time."""
    return slot.role is Role.RECURRENT or (slot.fan_in == slot.fan_out and not slot.in_time)


def _identity(draw: Tensor, slot: Slot) -> Tensor:
    channels = draw.shape[1] // slot.taps
    return _at_the_centre(torch.eye(len(draw), channels, dtype=draw.dtype), slot) if _keeps(slot) else draw


def _at_the_centre(matrix: Tensor, slot: Slot) -> Tensor:
    """(out, C) -> (out, taps C): of a convolution what its middle tap has, the others being zero."""
    return F.pad(matrix, (slot.taps // 2 * matrix.shape[1],) * 2)


def _delta_orthogonal(draw: Tensor, slot: Slot) -> Tensor:
    """Xiao et al. 2018, algorithm 1: of a convolution an orthogonal matrix at the middle tap, which is the 5th of 9."""
    channels = draw.shape[1] // slot.taps
    return _at_the_centre(_orthogonal(draw[:, :channels], slot), slot)


def _fixup(slot: Slot) -> float:
    """Zhang et al. 2019, section 4: a power of the number of branches, 0 in the last of each and in the read-out."""
    return 1.0 if slot.layer == 1 else slot.fixup


def _identity_std(slot: Slot) -> float:
    return 1.0 if _keeps(slot) else DRIVE if slot.in_time else math.sqrt(1 / slot.fan_in)


INITS: dict[str, Init] = {
    "xavier_normal": Init(_normal, lambda slot: math.sqrt(2 / (slot.fan_in + slot.fan_out))),
    "xavier_uniform": Init(_uniform, lambda slot: math.sqrt(2 / (slot.fan_in + slot.fan_out))),
    "he_normal": Init(_normal, lambda slot: math.sqrt(2 / slot.fan_in)),
    "he_uniform": Init(_uniform, lambda slot: math.sqrt(2 / slot.fan_in)),
    "lecun_normal": Init(_normal, lambda slot: math.sqrt(1 / slot.fan_in)),
    "lecun_uniform": Init(_uniform, lambda slot: math.sqrt(1 / slot.fan_in)),
    "orthogonal": Init(_orthogonal, lambda _: 1.0),
    "torch_default": Init(_uniform, lambda slot: math.sqrt(1 / (3 * slot.torch_fan))),
    # What it begins with; `nn.lsuv` scales it.
    "lsuv": Init(_orthogonal, lambda _: 1.0),
    "identity": Init(_identity, _identity_std),
    "fixup": Init(_normal, lambda slot: _fixup(slot) * math.sqrt(2 / slot.fan_in)),
    "delta_orthogonal": Init(_delta_orthogonal, lambda _: 1.0),
    "zero_branches": Init(
        _normal, lambda slot: 0.0 if slot.role is Role.SECOND else math.sqrt(2 / (slot.fan_in + slot.fan_out))
    ),
    "zeros": Init(_normal, lambda _: 0.0),
}


def initial_parameters(layout: Layout, runs: Sequence[RunSpec], dtype: torch.dtype) -> Tensor:
    """The parameters (M, P) that ``runs`` begin with, on the CPU."""
    flat = torch.empty(len(runs), layout.size, dtype=dtype)
    members_of_seed: dict[int, list[int]] = {}
    for member, run in enumerate(runs):
        members_of_seed.setdefault(run.seed, []).append(member)
    for seed, members in members_of_seed.items():
        for slot, columns, draw in zip(layout.slots, layout.columns, _draws(layout, seed), strict=True):
            rules = {member: _rule(slot, runs[member].model) for member in members}
            for rule in dict.fromkeys(rules.values()):
                group = [member for member in members if rules[member] == rule]
                entries = _entries(slot, rule, draw).flatten()
                scale = torch.tensor([_scale(slot, runs[member].model) for member in group], dtype=torch.float64)
                flat[group, columns] = (scale.unsqueeze(1) * entries).to(dtype)
            if slot.start is Start.LENGTHS:
                at = next(place for place, one in enumerate(layout.slots) if _of_layer(one, slot.layer))
                matrix = flat[members, layout.columns[at]].view(-1, *layout.slots[at].shape)
                flat[members, columns] = matrix.norm(dim=2)
            if slot.keeps is not None and draw is not None:
                for member in members:
                    _open(flat[member, columns].chunk(slot.blocks), slot, runs[member], draw.chunk(slot.blocks))
    return flat


def _of_layer(slot: Slot, layer: int) -> bool:
    return (slot.layer, slot.role) == (layer, Role.WEIGHT)


def _open(biases: Sequence[Tensor], slot: Slot, run: RunSpec, draws: Sequence[Tensor]) -> None:
    """Changes the biases of gates in place, as `model.forget_bias` or `model.chrono` says.

    Chrono (Tallec & Ollivier 2018, arXiv:1804.11188, section 3): ln U(1, T-1) of the gate that keeps, for lags of up to
    T steps, and its negative of the one that admits; the uniform number is that of the bias's normal draw.
    """
    if slot.keeps is None or not (run.model.chrono or run.model.forget_bias):
        return
    if not run.model.chrono:
        biases[slot.keeps].add_(run.model.forget_bias or 0.0)
        return
    uniform = 0.5 * torch.erfc(-draws[slot.keeps] / math.sqrt(2))
    lags = torch.log1p((run.facts.steps - 2) * uniform).to(biases[slot.keeps].dtype)
    biases[slot.keeps].copy_(lags)
    if slot.admits is not None:
        biases[slot.admits].copy_(-lags)


@lru_cache(maxsize=2)
def _draws(layout: Layout, seed: int) -> tuple[Tensor | None, ...]:
    """The standard normals of every slot that is drawn; kept, since the pieces of a cohort often share their seeds."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(slot.shape, generator=generator, dtype=torch.float64) if slot.start is Start.DRAWN else None
        for slot in layout.slots
    )


def _rule(slot: Slot, model: ModelSpec) -> str:
    """The init whose shape the slot takes. Biases are normal, but for torch_default's."""
    init = initialised(model)
    return "he_normal" if slot.role in BIASES and init != "torch_default" else init


def initialised(model: ModelSpec) -> str:
    """The init that acts: of a `model.weight_var` that of its normals."""
    return "he_normal" if model.weight_var is not None or model.init is None else model.init


def _entries(slot: Slot, rule: str, draw: Tensor | None) -> Tensor:
    """Entries of the slot before they are scaled."""
    if draw is not None:
        scales = slot.scales * (slot.blocks // len(slot.scales))
        blocks = zip(draw.chunk(slot.blocks), scales, strict=True)
        return torch.cat([scale * INITS[rule].shape(block, slot) for block, scale in blocks])
    if slot.start is Start.SCALED_IDENTITY:
        return torch.eye(*slot.shape, dtype=torch.float64)
    return torch.ones(slot.shape, dtype=torch.float64)


def _scale(slot: Slot, model: ModelSpec) -> float:
    match slot.start:
        case Start.ONES | Start.LENGTHS:
            return 1.0
        case Start.ZEROS:
            return 0.0
        case Start.SLOPE:
            return model.slope or 0.0
        case Start.SCALED_IDENTITY:
            return model.gain
    slot, factor = at_base(slot, model)
    if slot.role in BIASES:
        from_torch = initialised(model) == "torch_default"
        return INITS["torch_default"].std(slot) if from_torch else math.sqrt(model.bias_var or 0.0)
    init = initialised(model)
    gain = factor * model.gain * (_fixup(slot) if model.block == "fixup" and init != "fixup" else 1.0)
    if model.weight_var is not None:
        return gain * math.sqrt(model.weight_var / slot.fan_in)
    return gain * INITS[init].std(slot)
