"""Stacked matrix products with their gradients laid out as the flat storage wants them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradlab.nn.autograd import call


class _Linear(torch.autograd.Function):
    """(h (M, B, in), weight (M, out, in), offset (M, 1 or B, out)) -> offset + h weight' (M, B, out).

    Autograd by itself would give the weight's gradient transposed, and so pay for copying it.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        ctx.save_for_backward(h, weight)
        ctx.shared = offset.shape[1] == 1
        return torch.baddbmm(offset, h, weight.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        h, weight = ctx.saved_tensors
        dh = torch.bmm(dz, weight) if ctx.needs_input_grad[0] else None
        return dh, torch.bmm(dz.transpose(1, 2), h), dz.sum(1, keepdim=True) if ctx.shared else dz


def linear(h: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """(M, B, in), (M, out, in), (M, 1 or B, out) -> (M, B, out): offset + h weight', each member by itself."""
    result: Tensor = call(_Linear, h, weight, offset)
    return result
