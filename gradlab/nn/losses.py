"""Losses of stacked outputs: each member's mean over its batch, its derivative, and what counts as right.

Shapes: M members, B batch, N samples, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from gradlab.nn.kernels import native
from gradlab.spec.choices.losses import MARGINS


@dataclass(frozen=True)
class Targets:
    """Of all samples, classes (N, ...) or numbers (N, K); which of them are meant (B,); and their scale (M,).

    Classes of several places a sample stand beside outputs (M, B, ..., K).
    """

    all: Tensor
    chosen: Tensor
    scale: Tensor

    @property
    def classes(self) -> Tensor:
        """(B, ...)"""
        return self.all[self.chosen]

    @property
    def numbers(self) -> Tensor:
        """(M, B, K), scaled."""
        return self.all[self.chosen] * self.scale.view(-1, 1, 1)


@dataclass(frozen=True)
class Loss:
    """``measure(output (M, B, K), targets)`` is the loss (M,) and its derivative by the output (M, B, K).

    ``correct`` counts right answers (M,), of several places a sample in parts of one; None for regression. Members
    share nothing: each has its own exact derivative.
    """

    measure: Callable[[Tensor, Targets], tuple[Tensor, Tensor]]
    correct: Callable[[Tensor, Targets], Tensor] | None


def _cross_entropy(output: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """In nats."""
    answers = (len(targets.chosen), *targets.all.shape[1:])
    if output.shape[1:-1] != answers:
        raise ValueError(f"outputs of {tuple(output.shape[1:-1])} answers; the targets have {answers}")
    if native.serves(output):
        return native.cross_entropy(output, targets.all, targets.chosen)
    flat = output.flatten(1, -2)
    members, batch, _ = flat.shape
    chosen = targets.classes.flatten().expand(members, 1, batch)
    # Over the middle axis torch's softmax is vectorised; over the last, short as it is, it takes ten times as long.
    logs = torch.log_softmax(flat.transpose(1, 2), 1)
    loss = logs.gather(1, chosen).mean((1, 2)).neg_()
    # The derivative is the softmax, less one for the right class, over the batch.
    slope = logs.exp_()
    slope.scatter_add_(1, chosen, slope.new_full((1, 1, 1), -1.0).expand(chosen.shape))
    return loss, slope.div_(batch).transpose(1, 2).reshape(output.shape)


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


def _margin(output: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Sabour et al. 2017, equation 4: added up over the classes, the mean over the batch."""
    if native.serves(output):
        return native.margin(output, targets.all, targets.chosen, MARGINS)
    answers = output.shape[1:-1].numel()
    known = F.one_hot(targets.classes, output.shape[-1]).to(output.dtype)
    lacks, excess = _lacks(output, known)
    loss = (lacks.square() + MARGINS[2] * excess.square()).flatten(1).sum(1) / answers
    return loss, (MARGINS[2] * excess - lacks) * (2 / answers)


def _lacks(output: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """What the outputs of the right class lack, and what those of others have too much; zero elsewhere."""
    return known * (MARGINS[0] - output).clamp(min=0), (1 - known) * (output - MARGINS[1]).clamp(min=0)


def _margin_of_one(output: Tensor, target: Tensor) -> Tensor:
    lacks, excess = _lacks(output, F.one_hot(target, output.shape[-1]).to(output.dtype))
    return (lacks.square() + MARGINS[2] * excess.square()).sum(-1).mean()


def _correct(output: Tensor, targets: Targets) -> Tensor:
    right = output.argmax(-1) == targets.classes
    return right.reshape(*right.shape[:2], -1).to(torch.float64).mean(2).sum(1)


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(_cross_entropy, _correct),
    "mean_squared_error": Loss(_mean_squared_error, None),
    "quartic": Loss(_quartic, None),
    "margin": Loss(_margin, _correct),
}
"""Those whose derivative is written down; of any other `stacked` has autograd find it."""


def stacked(loss: str, output: str | None, data: str) -> Loss:
    """The loss called ``loss`` of stacked outputs behind the activation ``output``, on data of the loss ``data``."""
    classes = data == "cross_entropy"
    if loss in LOSSES and not (classes and loss == "mean_squared_error"):
        return Loss(LOSSES[loss].measure, _correct if classes else None)
    judge = objective(loss, output)

    def measure(outputs: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        wanted = [targets.classes] * len(outputs) if classes else list(targets.numbers)
        with torch.enable_grad():
            known = outputs.detach().requires_grad_()
            losses = torch.stack([judge(one, target) for one, target in zip(known, wanted, strict=True)])
            (slope,) = torch.autograd.grad(losses.sum(), known)
        return losses.detach(), slope

    return Loss(measure, _correct if classes else None)


Objective = Callable[[Tensor, Tensor], Tensor]
"""(output of one network (B, ...), targets) -> the mean loss, a scalar with a gradient."""


def objective(loss: str, output: str | None = None) -> Objective:
    """The loss of one network's output, behind the activation ``output``, as torch.nn.functional has it.

    Classes (B,) stand beside outputs (B, K); classes (B, T) beside (B, T, K) or, as torch's, (B, K, T). Where a loss
    is of numbers, classes count as one-hot vectors.
    """
    if loss == "binary_cross_entropy":
        probable = output in ("sigmoid", "softmax")
        return partial(_binary, F.binary_cross_entropy if probable else F.binary_cross_entropy_with_logits)
    return OBJECTIVES[loss]


def _of_classes(judge: Objective, output: Tensor, target: Tensor) -> Tensor:
    if target.is_floating_point():
        return judge(output, target.view_as(output))  # probabilities of the classes
    if output.dim() > 2 and output.shape[:-1] == target.shape:
        output, target = output.flatten(0, -2), target.flatten()
    return judge(output, target)


def _of_numbers(judge: Objective, output: Tensor, target: Tensor) -> Tensor:
    """Numbers of the output's shape; (B,) beside (B, 1) must not be spread to (B, B)."""
    if not target.is_floating_point() and not target.is_complex():
        target = F.one_hot(target, output.shape[-1]) if output.numel() != target.numel() else target
        target = target.to(output.dtype)
    if target.numel() != output.numel():
        raise ValueError(
            f"the output is {tuple(output.shape)} and the targets are {tuple(target.shape)}; expected alike"
        )
    if output.is_complex() or target.is_complex():
        output, target = torch.view_as_real(output), torch.view_as_real(target.to(output.dtype))
    return judge(output, target.view_as(output))


def _binary(judge: Objective, output: Tensor, target: Tensor) -> Tensor:
    return _of_numbers(judge, output, target)


def _fourth_power(output: Tensor, target: Tensor) -> Tensor:
    del target
    return output.pow(4).mean()


OBJECTIVES: dict[str, Objective] = {
    "cross_entropy": partial(_of_classes, F.cross_entropy),
    "negative_log_likelihood": partial(_of_classes, F.nll_loss),
    "hinge": partial(_of_classes, F.multi_margin_loss),
    "mean_squared_error": partial(_of_numbers, F.mse_loss),
    "mean_absolute_error": partial(_of_numbers, F.l1_loss),
    "huber": partial(_of_numbers, F.huber_loss),
    "quartic": _fourth_power,
    "margin": partial(_of_classes, _margin_of_one),
}

SQUASHES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda output: torch.softmax(output, -1),
    "log_softmax": lambda output: torch.log_softmax(output, -1),
    "tanh": torch.tanh,
    "relu": torch.relu,
}
"""The activations of `model.output`, over the last axis where they are over one."""


def right(output: Tensor, target: Tensor) -> Tensor:
    """How many answers of one network (B, K) are right; of a single output, whether it is above the middle."""
    if output.dim() > 1 and output.shape[-1] > 1:
        classes_second = output.dim() > 2 and output.shape[:-1] != target.shape
        found = output.argmax(1 if classes_second else -1)
    else:
        found = (output.reshape(target.shape) > 0).long()
    return (found == target).double().mean() * len(target)
