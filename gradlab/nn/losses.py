"""Losses of stacked outputs: each member's mean over its batch, and what counts as right.

Shapes: M members, B batch, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradlab.nn.autograd import call


@dataclass(frozen=True)
class Loss:
    """``value(output (M, B, K), target)`` is (M,); ``correct`` counts right answers (M,), None for regression."""

    value: Callable[[Tensor, Tensor], Tensor]
    correct: Callable[[Tensor, Tensor], Tensor] | None


class _CrossEntropy(torch.autograd.Function):
    """(output (M, B, K), target (B,)) -> (M,)."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, target: Tensor) -> Tensor:
        members, batch, _ = output.shape
        chosen = target.expand(members, 1, batch)
        # Over the middle axis torch's softmax is vectorised; over the last, short as it is, it takes ten times as long.
        logs = torch.log_softmax(output.transpose(1, 2), 1)
        ctx.save_for_backward(logs, chosen)
        return logs.gather(1, chosen).mean((1, 2)).neg_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor, None]:
        # The softmax, less one for the right class, over the batch.
        logs, chosen = ctx.saved_tensors
        batch = logs.shape[2]
        slope = logs.exp()
        slope.scatter_add_(1, chosen, slope.new_full((1, 1, 1), -1.0).expand(chosen.shape))
        return slope.mul_((dloss / batch).view(-1, 1, 1)).transpose(1, 2), None


def _cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """In nats; ``target`` (B,) holds classes."""
    loss: Tensor = call(_CrossEntropy, output, target)
    return loss


def _mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean over batch and outputs, as torch.nn.MSELoss; ``target`` (M or 1, B, K)."""
    return (output - target).square().mean((1, 2))


def _correct(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(-1) == target).sum(1)


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(_cross_entropy, _correct),
    "mean_squared_error": Loss(_mean_squared_error, None),
}
