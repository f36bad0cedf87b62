"""Losses of stacked outputs equal those of torch, one network at a time, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradlab.nn.losses import LOSSES, Targets, objective, right, stacked

OUTPUT = torch.randn(3, 16, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CLASSES = torch.arange(16) % 5
NUMBERS = torch.linspace(-2, 2, 80, dtype=torch.float64).view(16, 5)
SCALE = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
ONE_HOT = F.one_hot(CLASSES, 5).double()

OF_CLASSES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross_entropy": lambda output: F.cross_entropy(output, CLASSES),
    "negative_log_likelihood": lambda output: F.nll_loss(output, CLASSES),
    "hinge": lambda output: F.multi_margin_loss(output, CLASSES),
    "binary_cross_entropy": lambda output: F.binary_cross_entropy_with_logits(output, ONE_HOT),
    "mean_squared_error": lambda output: F.mse_loss(output, ONE_HOT),
    "mean_absolute_error": lambda output: F.l1_loss(output, ONE_HOT),
    "huber": lambda output: F.huber_loss(output, ONE_HOT),
    "quartic": lambda output: output.pow(4).mean(),
    "margin": lambda output: (
        (ONE_HOT * F.relu(0.9 - output) ** 2 + 0.5 * (1 - ONE_HOT) * F.relu(output - 0.1) ** 2).sum(1).mean()
    ),
}
OF_NUMBERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean_squared_error": F.mse_loss,
    "mean_absolute_error": F.l1_loss,
    "huber": F.huber_loss,
}


def by_torch(output: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    known = output.clone().requires_grad_()
    losses = torch.stack([loss(one) for one in known])
    (slope,) = torch.autograd.grad(losses.sum(), known)
    return losses.detach(), slope


def _beside(loss: Callable[[Tensor, Tensor], Tensor], target: Tensor, output: Tensor) -> Tensor:
    return loss(output, target)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_losses_of_classes(name: str) -> None:
    found = stacked(name, None, "cross_entropy").measure(OUTPUT, Targets(CLASSES, torch.arange(16), SCALE))
    torch.testing.assert_close(found, by_torch(OUTPUT, OF_CLASSES[name]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_losses_of_numbers_know_their_scale(name: str) -> None:
    found = stacked(name, None, "mean_squared_error").measure(OUTPUT, Targets(NUMBERS, torch.arange(16), SCALE))
    for member, scale in enumerate(SCALE):
        wanted = by_torch(OUTPUT[member : member + 1], partial(_beside, OF_NUMBERS[name], scale * NUMBERS))
        torch.testing.assert_close(found[0][member], wanted[0][0], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(found[1][member], wanted[1][0], rtol=1e-12, atol=1e-14)


def test_probabilities_are_taken_as_such() -> None:
    probable = torch.sigmoid(OUTPUT[0])
    wanted = F.binary_cross_entropy(probable, ONE_HOT)
    torch.testing.assert_close(objective("binary_cross_entropy", "sigmoid")(probable, CLASSES), wanted)


def test_a_column_and_a_row_of_targets_are_the_same_numbers() -> None:
    output, target = torch.randn(7, 1), torch.randn(7)
    found = objective("mean_squared_error")(output, target)
    torch.testing.assert_close(found, F.mse_loss(output[:, 0], target))
    with pytest.raises(ValueError, match=r"the output is \(7, 1\) and the targets are \(3,\)"):
        objective("mean_squared_error")(output, target[:3])


def test_classes_of_sequences_stand_beside_either_axis() -> None:
    output, target = torch.randn(4, 6, 9), torch.randint(0, 9, (4, 6))
    found = objective("cross_entropy")(output, target)
    torch.testing.assert_close(found, objective("cross_entropy")(output.transpose(1, 2), target))
    assert right(output, target) == right(output.transpose(1, 2), target)


def test_right_answers_are_counted_in_samples() -> None:
    assert right(ONE_HOT, CLASSES) == 16
    assert right(torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 1])) == 1


def test_cross_entropy_refuses_answers_that_have_no_target() -> None:
    targets = Targets(torch.zeros(4, 2, dtype=torch.long), torch.arange(3), torch.ones(1))
    with pytest.raises(ValueError, match=r"outputs of \(3, 5\) answers; the targets have \(3, 2\)"):
        LOSSES["cross_entropy"].measure(torch.zeros(1, 3, 5, 7), targets)
