"""The logarithm of the squared gradient of one output: what finite width makes of it over many initializations."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Part, Read, gathered, of_first_output, parts
from gradlab.nn.float64 import norm64


def gradient_log(cohort: Cohort, _: Advance) -> Read:
    """Gives ``log_square`` at layers l = 0..L: ln |dy/dz_l|^2, y the first output at the batch's first sample.

    Layer 0 is the input, where it is continuous; at layer L it is 0. A loss's gradient would not do: where it begins,
    at the output, depends on all weights. In a ReLU network with He's weights it has, over seeds, the mean -2.5 beta
    and the variance 5 beta, beta the sum of 1/width over the layers between (Hanin & Nica 2018, arXiv:1812.05994).
    """

    def read(t: int) -> tuple[Curve, ...]:
        cohort.task.turn_to(t)
        sample = cohort.task.inputs[cohort.task.chosen[:1]]
        (norms,) = gathered((_norms(cohort, part, sample),) for part in parts(cohort, 1))
        first = int(not sample.is_floating_point())
        return (Curve("log_square", tuple(range(first, first + norms.shape[1])), 2 * norms.log()),)

    return read


def _norms(cohort: Cohort, part: Part, sample: Tensor) -> Tensor:
    """|dy/dz_l| (m, L + 1) at the input and every layer, over all time steps; of tokens (m, L)."""
    x, through = of_first_output(cohort, part, sample)
    layers = [*([(x,)] if sample.is_floating_point() else []), *(signal.z for signal in through.signals)]
    return torch.stack([torch.stack([norm64(z.derivative) for z in zs]).square().sum(0).sqrt() for zs in layers], dim=1)
