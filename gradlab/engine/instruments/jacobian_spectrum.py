"""The singular values of a network's input-output Jacobian, at the first sample of the batch.

Dynamical isometry (Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735): they all stay near one number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Part, Read, asked, gathered, parts, singular_values
from gradlab.nn.network import Pass
from gradlab.nn.norms import Mode


def jacobian_spectrum(cohort: Cohort, _: Advance) -> Read:
    """Gives ``singular_value`` k = 1, 2, ... in descending order, and ``spread`` and ``mean_square``, single numbers.

    With s_k the singular values, ``mean_square`` is the mean of s_k^2, and ``spread`` is the variance of s_k^2 over the
    square of that mean: Pennington et al.'s sigma^2_JJ' over the mean squared, L for products of L Gaussian matrices.
    """

    def read(t: int) -> tuple[Curve, ...]:
        cohort.task.turn_to(t)
        sample = cohort.task.inputs[cohort.task.chosen[:1]]
        outputs = cohort.runs[0].facts.outputs
        (values,) = gathered((singular_values(jacobian(cohort, part, sample)),) for part in parts(cohort, outputs))
        largest = values[:, :1]
        # Squares of the ratios, lest they underflow.
        squares = (values / largest).square()
        mean = squares.mean(1, keepdim=True)
        spread = (squares - mean).square().mean(1, keepdim=True) / mean.square()
        return (
            Curve("singular_value", tuple(range(1, values.shape[1] + 1)), values),
            Curve("spread", None, spread),
            Curve("mean_square", None, values.square().mean(1, keepdim=True)),
        )

    return read


def jacobian(cohort: Cohort, part: Part, sample: Tensor) -> Tensor:
    """d(output)/d(input) at ``sample`` (1, *shape): (m, K, inputs).

    The sample is given K times over, and the way back begins at copy k with the k-th unit vector.
    """
    outputs = cohort.runs[0].facts.outputs
    through = Pass(part.network, Mode.MEASURE)
    x = asked(part.scaled(sample.expand(outputs, *sample.shape[1:])))
    output = cohort.architecture.forward(through, x)
    through.backward(output, torch.eye(outputs).to(x.value).expand(part.size, -1, -1).contiguous())
    gradient = x.derivative
    return gradient.flatten(2)
