"""The losses: the mean over the batch of what an output costs beside its target."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Loss(Choice):
    """``classes``: the targets are classes, so that answers can be counted as right."""

    classes: bool = False


LOSSES: dict[str, Loss] = table(
    Loss("cross_entropy", "log-softmax of the output, and the negative log-likelihood of the class", "-", classes=True),
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
    Loss("mean_squared_error", "the mean of the squared errors; classes count as one-hot vectors", "Legendre 1805"),
    Loss("mean_absolute_error", "the mean of the absolute errors; classes count as one-hot vectors", "Laplace 1774"),
    Loss("huber", "squared up to an error of 1, absolute beyond it", "Huber 1964"),
    Loss(
        "quartic", "the mean of the output's fourth power, whatever the target", "Zhang et al. 2019, arXiv:1905.11881"
    ),
)
