"""Losses of stacked outputs: each member's mean over its batch, its derivative, and what counts as right.

Shapes: M members, B batch, N samples, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.nn.kernels import native


@dataclass(frozen=True)
class Targets:
    """Of all samples, classes (N,) or numbers (N, K); which of them are meant (B,); and their scale (M,)."""

    all: Tensor
    chosen: Tensor
    scale: Tensor

    @property
    def classes(self) -> Tensor:
        """(B,)"""
        return self.all[self.chosen]

    @property
    def numbers(self) -> Tensor:
        """(M, B, K), scaled."""
        return self.all[self.chosen] * self.scale.view(-1, 1, 1)


@dataclass(frozen=True)
class Loss:
    """``measure(output (M, B, K), targets)`` is the loss (M,) and its derivative by the output (M, B, K).

    ``correct`` counts right answers (M,); None for regression. Members share nothing: each has its own exact
    derivative.
    """

    measure: Callable[[Tensor, Targets], tuple[Tensor, Tensor]]
    correct: Callable[[Tensor, Targets], Tensor] | None


def _cross_entropy(output: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """In nats."""
    if native.serves(output):
        return native.cross_entropy(output, targets.all, targets.chosen)
    members, batch, _ = output.shape
    chosen = targets.classes.expand(members, 1, batch)
    # Over the middle axis torch's softmax is vectorised; over the last, short as it is, it takes ten times as long.
    logs = torch.log_softmax(output.transpose(1, 2), 1)
    loss = logs.gather(1, chosen).mean((1, 2)).neg_()
    # The derivative is the softmax, less one for the right class, over the batch.
    slope = logs.exp_()
    slope.scatter_add_(1, chosen, slope.new_full((1, 1, 1), -1.0).expand(chosen.shape))
    return loss, slope.div_(batch).transpose(1, 2)


def _mean_squared_error(output: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Mean over batch and outputs, as torch.nn.MSELoss."""
    if native.serves(output):
        return native.squared_error(output, targets.all, targets.chosen, targets.scale)
    error = output - targets.numbers
    return error.square().mean((1, 2)), error * (2 / error[0].numel())


def _quartic(output: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Mean over batch and outputs of y^4, whatever the targets (Zhang et al. 2019, arXiv:1905.11881)."""
    del targets
    return output.pow(4).mean((1, 2)), output.pow(3) * (4 / output[0].numel())


def _correct(output: Tensor, targets: Targets) -> Tensor:
    return (output.argmax(-1) == targets.classes).sum(1)


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(_cross_entropy, _correct),
    "mean_squared_error": Loss(_mean_squared_error, None),
    "quartic": Loss(_quartic, None),
}
