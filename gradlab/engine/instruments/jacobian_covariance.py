"""How alike a network's derivatives by its inputs are for the samples of a batch: what tells untrained networks apart.

A network that answers each input by a linear map of its own can tell them apart (Mellor et al. 2020, arXiv:2006.04647).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Read, gathered, input_slopes, parts

SMALLEST = 1e-5
"""Added to the eigenvalues, as in the paper: k of equation 5."""


def jacobian_covariance(cohort: Cohort, _: Advance) -> Read:
    """Gives ``jacobian_score`` and ``jacobian_correlation``, single numbers, of batch t.

    With J the derivatives of the sum of the outputs by each sample's input, and s_i the eigenvalues of the correlation
    matrix of its rows, the score is -sum_i ln(s_i + k) + 1/(s_i + k): the less alike the rows, the higher. The other is
    the mean correlation of two samples' rows. Statistics of a batch norm count as constants.
    """

    def read(t: int) -> tuple[Curve, ...]:
        cohort.task.turn_to(t)
        samples = cohort.task.inputs[cohort.task.chosen]
        found = gathered(
            _scores(input_slopes(cohort, part, samples).flatten(2)) for part in parts(cohort, len(samples))
        )
        names = ("jacobian_score", "jacobian_correlation")
        return tuple(Curve(name, None, values.unsqueeze(1)) for name, values in zip(names, found, strict=True))

    return read


def _scores(jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """(m,) each; nan where a sample has no derivative, or one that is not finite."""
    centred = jacobian - jacobian.mean(2, keepdim=True)
    rows = centred / centred.norm(dim=2, keepdim=True)
    correlation = rows @ rows.mT
    sound = torch.isfinite(correlation).all(-1).all(-1)
    shifted = torch.linalg.eigvalsh(torch.where(sound[:, None, None], correlation, 0.0)).clamp(min=0) + SMALLEST
    score = -(shifted.log() + 1 / shifted).sum(1)
    count = correlation.shape[1]
    mean = (correlation.sum((1, 2)) - count) / (count * (count - 1))
    return torch.where(sound, score, torch.nan), torch.where(sound, mean, torch.nan)
