"""Losses of stacked outputs: each member's mean over its batch, and what counts as right.

Shapes: M members, B batch, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Loss:
    """``value(output (M, B, K), target)`` is (M,); ``correct`` counts right answers (M,), None for regression."""

    value: Callable[[Tensor, Tensor], Tensor]
    correct: Callable[[Tensor, Tensor], Tensor] | None


def _cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """In nats; ``target`` (B,) holds classes."""
    members, batch, _ = output.shape
    # Over the middle axis torch's softmax is vectorised; over the last, short as it is, it takes ten times as long.
    logs = F.log_softmax(output.transpose(1, 2), 1)
    return -logs.gather(1, target.expand(members, 1, batch)).mean((1, 2))


def _mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean over batch and outputs, as torch.nn.MSELoss; ``target`` (M or 1, B, K)."""
    return (output - target).square().mean((1, 2))


def _correct(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(-1) == target).sum(1)


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(_cross_entropy, _correct),
    "mean_squared_error": Loss(_mean_squared_error, None),
}


def total(losses: Tensor) -> Tensor:
    """The scalar to differentiate: members share nothing, so the sum gives every member its own exact gradient."""
    return torch.sum(losses)
