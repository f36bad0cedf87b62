"""The course of a training: what is written down at every step, and costs next to nothing.

Figures stay where they were computed until somebody asks for them: on a GPU nothing waits for them between records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.watching.ears import Scale
from gradlab.watching.entries import real, square

Figure = float | Tensor
"""A number, or a tensor of one that nobody has waited for."""

SMALLEST, LARGEST = 1e-14, 1e17
"""Between them a norm in float32 is right to its last digits; outside, squares of entries underflow or overflow."""

HALF = (torch.float16, torch.bfloat16)


def local(tensor: Tensor) -> Tensor:
    """A tensor, or of one that lies on several processes the part that lies here."""
    if type(tensor) in (Tensor, nn.Parameter):
        return tensor
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def sharded(module: nn.Module) -> bool:
    """Whether each process holds a part of the parameters: as `local` takes it, or as FSDP's older class cuts it."""
    older = [part for part in module.modules() if type(part).__name__ == "FullyShardedDataParallel"]
    cut = any(getattr(part.sharding_strategy, "name", "") != "NO_SHARD" for part in older)
    return cut or any(local(one) is not one for one in module.parameters())


def norms_of(gradients: Sequence[Tensor]) -> list[Tensor]:
    """The 2-norm of each tensor as a tensor of one, where it lies: in float32 on a CPU, in float64 on a GPU."""
    plain = [one for one in gradients if not one.is_sparse and not one.is_complex()]
    if len(plain) < len(gradients):
        return [torch.linalg.vector_norm(real(one)) for one in gradients]
    if gradients[0].is_cuda:
        return list(torch._foreach_norm(plain, 2, dtype=torch.float64))
    if gradients[0].dtype in HALF:
        return list(torch._foreach_norm(plain, 2, dtype=torch.float32))
    return list(torch._foreach_norm(plain, 2))


@dataclass(frozen=True)
class Norms:
    """The norms of all gradients at one moment: of each, in the order of the parameters that have one, and of all."""

    each: Sequence[float] | Tensor
    total: Figure


def norms(gradients: Sequence[Tensor]) -> Norms:
    """Of these gradients; exact in float64 where float32 would lose or overflow it, but on a GPU at once in float64."""
    if not gradients:
        return Norms((), 0.0)
    found = norms_of(gradients)
    mixed = len({(one.dtype, one.device) for one in found}) > 1
    stacked = torch.stack([one.to(found[0].device, torch.float64) for one in found] if mixed else found)
    if stacked.is_cuda:
        return Norms(stacked, torch.linalg.vector_norm(stacked))
    each = stacked.tolist()
    total = math.sqrt(sum(one * one for one in each))
    if not SMALLEST < total < LARGEST:
        each = [math.sqrt(square(one)) for one in gradients]
        total = math.hypot(*each)
    return Norms(each, total)


@dataclass
class Course:
    """The columns of `steps` so far, a value a step; and further scalars that the script told."""

    loss: list[Figure | None] = field(default_factory=list)
    lr: list[Figure] = field(default_factory=list)
    grad_norm: list[Figure] = field(default_factory=list)
    grad_norm_clipped: list[Figure | None] = field(default_factory=list)
    loss_scale: list[Figure | None] = field(default_factory=list)
    skipped: list[bool | Tensor] = field(default_factory=list)
    scalars: list[tuple[int, str, Figure]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.loss)

    def columns(self) -> dict[str, list[Any]]:
        """As the table has them; the numbers that lie on a device are asked for here."""
        before, after = plain(self.grad_norm), plain(self.grad_norm_clipped)
        self.loss, self.lr, self.grad_norm, self.grad_norm_clipped = plain(self.loss), plain(self.lr), before, after
        self.loss_scale = plain(self.loss_scale)
        self.skipped = [bool(one) for one in self.skipped]
        return {
            "step": list(range(len(self))),
            "loss": self.loss,
            "lr": self.lr,
            "grad_norm": before,
            "grad_norm_clipped": after,
            "clipped": [None if then is None else not same(now, then) for now, then in zip(before, after, strict=True)],
            "loss_scale": self.loss_scale,
            "skipped": self.skipped,
        }


def plain(figures: Sequence[Figure | None]) -> list[Any]:
    """Figures as numbers."""
    return [None if one is None else float(one) for one in figures]


UNTOUCHED = 1e-6
"""Two norms that differ by less are of the same gradient: unscaling rounds."""


def same(one: float, other: float) -> bool:
    """Whether two norms are of the same gradient."""
    return one == other or abs(one - other) <= UNTOUCHED * abs(one) or (math.isnan(one) and math.isnan(other))


def divided(figure: Figure, scale: Scale) -> Figure:
    """A figure of a scaled gradient as one of the gradient."""
    return figure if isinstance(scale, float) and scale == 1.0 else figure / scale
