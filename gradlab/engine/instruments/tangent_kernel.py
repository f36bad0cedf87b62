"""The tangent kernel of one output: whether a step on one sample moves what the network says of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Part, Read, gathered, of_first_output, parts
from gradlab.theory.setting import setting
from gradlab.theory.similarity import tangent

SAMPLES = 32
"""At most so many are looked at, the first of the training part."""


def tangent_kernel(cohort: Cohort, _: Advance) -> Read:
    """Gives ``kernel_ratio``: JJ' of two samples over that of one with itself, means over pairs and samples.

    J is the derivative of the first output by all parameters. ``layer_ratio`` is the same of each layer's own, l =
    1..L, ``layer_predicted`` and ``kernel_predicted`` are those of wide layers at their initial weights, for
    inputs of one length. Near 1 all samples have one gradient and cannot be told apart; near 0 nothing that is
    learned of one holds for another. (Jacot et al. 2018, arXiv:1806.07572.)
    """
    count = min(SAMPLES, len(cohort.task.inputs))

    def read(_t: int) -> tuple[Curve, ...]:
        samples = cohort.task.inputs[:count]
        own, both = gathered(_layers(cohort, part, samples) for part in parts(cohort, count))
        told, foretold = _predicted(cohort, samples)
        layers = tuple(range(1, own.shape[1] + 1))
        return (
            Curve("layer_ratio", layers, both / own),
            Curve("layer_predicted", layers, foretold / told),
            Curve("kernel_ratio", None, both.sum(1, keepdim=True) / own.sum(1, keepdim=True)),
            Curve("kernel_predicted", None, foretold.sum(1, keepdim=True) / told.sum(1, keepdim=True)),
        )

    return read


def _layers(cohort: Cohort, part: Part, samples: Tensor) -> tuple[Tensor, Tensor]:
    """(m, L) each: the mean of (h.h' + 1) (delta.delta') over samples with themselves, and over pairs."""
    x, through = of_first_output(cohort, part, samples)
    found = []
    before = x.value.flatten(2)
    for signal in through.signals:
        (z,), (h,) = signal.z, signal.h
        kernel = (before @ before.mT + 1) * (z.derivative @ z.derivative.mT)
        own = kernel.diagonal(dim1=1, dim2=2)
        found.append((own.mean(1), (kernel.sum((1, 2)) - own.sum(1)) / (own.shape[1] * (own.shape[1] - 1))))
        before = h.value
    own, both = (torch.stack(each, dim=1) for each in zip(*found, strict=True))
    return own, both


def _predicted(cohort: Cohort, samples: Tensor) -> tuple[Tensor, Tensor]:
    """As `_layers`, of all members, by theory; nan where it has nothing to say."""
    unit = torch.nn.functional.normalize(samples.flatten(1).to(torch.float64), dim=1)
    cosines = (unit @ unit.T)[torch.triu(torch.ones(len(unit), len(unit)), 1) > 0].cpu().numpy()
    nothing = [float("nan")] * cohort.runs[0].model.depth
    told = [tangent(setting(run), cosines) or (nothing, nothing) for run in cohort.runs]
    own, both = (torch.tensor([list(one[which]) for one in told], dtype=torch.float64) for which in (0, 1))
    return own.to(samples.device), both.to(samples.device)
