"""The losses: the mean over the batch of what an output costs beside its target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Loss(Choice):
    """``classes``: the targets are classes, so that answers can be counted as right.

    ``guess``: the least that one answer to every input costs, of so many classes that are right as often as each other.
    """

    classes: bool = False
    guess: Callable[[int], float] | None = None


MARGINS = (0.9, 0.1, 0.5)
"""Of `margin`: below what the right output costs, above what another does, and the weight of that."""


def _middle(classes: int) -> float:
    """Where the two parabolas of an output meet that is right once in ``classes`` times."""
    below, above, weight = MARGINS
    right, wrong = 1 / classes, weight * (1 - 1 / classes)
    return classes * right * wrong / (right + wrong) * (below - above) ** 2


LOSSES: dict[str, Loss] = table(
    Loss(
        "cross_entropy",
        "log-softmax of the output, and the negative log-likelihood of the class",
        "-",
        classes=True,
        guess=math.log,
    ),
    Loss(
        "negative_log_likelihood",
        "minus the output of the class: for an output of log-probabilities (model.output=log_softmax)",
        "Bishop 2006, section 4.3",
        classes=True,
    ),
    Loss(
        "binary_cross_entropy",
        "of each output, as a logit; as a probability behind model.output=sigmoid or softmax",
        "Bishop 2006, section 4.3",
        classes=True,
    ),
    Loss(
        "hinge",
        "the margin of 1 by which the right class must lead every other, averaged over classes",
        "Crammer & Singer 2001; torch.nn.MultiMarginLoss",
        classes=True,
    ),
    Loss(
        "margin",
        "squares of what the right output lacks of 0.9, and half those of what others have above 0.1, added up",
        "Sabour et al. 2017, arXiv:1710.09829, equation 4",
        classes=True,
        guess=_middle,
    ),
    Loss("mean_squared_error", "the mean of the squared errors; classes count as one-hot vectors", "Legendre 1805"),
    Loss("mean_absolute_error", "the mean of the absolute errors; classes count as one-hot vectors", "Laplace 1774"),
    Loss("huber", "squared up to an error of 1, absolute beyond it", "Huber 1964"),
    Loss(
        "quartic", "the mean of the output's fourth power, whatever the target", "Zhang et al. 2019, arXiv:1905.11881"
    ),
)
