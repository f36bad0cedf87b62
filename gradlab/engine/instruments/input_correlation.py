"""How alike two inputs still are at every layer: alike in the ordered phase, strangers in the chaotic one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Part, Read, gathered, parts
from gradlab.nn.network import Pass
from gradlab.nn.norms import Mode

PAIRS = 32
"""At most so many pairs are looked at: samples 1 and 2, 3 and 4, ... of the training part."""


def input_correlation(cohort: Cohort, _: Advance) -> Read:
    """Gives ``correlation`` at layers l = 0..L: z_l.z_l'/(|z_l| |z_l'|) of two samples, the mean over pairs.

    Layer 0 is the input, where it is continuous; z_l of a recurrent layer is that of the last time step. In wide
    networks it tends to the fixed point c* of Poole et al. (2016, arXiv:1606.05340). Alone of all instruments it leaves
    dropout at work, which parts two inputs.
    """
    count = 2 * min(PAIRS, len(cohort.task.inputs) // 2)

    def read(t: int) -> tuple[Curve, ...]:
        samples = cohort.task.inputs[:count]
        (values,) = gathered((_cosines(cohort, part, samples, t),) for part in parts(cohort, count))
        first = int(not samples.is_floating_point())
        return (Curve("correlation", tuple(range(first, first + values.shape[1])), values),)

    return read


def _cosines(cohort: Cohort, part: Part, samples: Tensor, t: int) -> Tensor:
    """(m, L + 1); of tokens (m, L)."""
    drops = cohort.network.drops
    network = part.network if drops is None else replace(part.network, drops=drops.of(part.which, t))
    through = Pass(network, Mode.MEASURE, keep=True)
    x = through.input(part.scaled(samples))
    cohort.architecture.forward(through, x)
    layers = [*([x.value] if samples.is_floating_point() else []), *(each.z[-1].value for each in through.signals)]
    pairs = [layer.flatten(2).unflatten(1, (-1, 2)) for layer in layers]  # (m, pairs, 2, D)
    return torch.stack([_cosine(pair[:, :, 0], pair[:, :, 1]).mean(1) for pair in pairs], dim=1)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """(..., D), (..., D) -> (...)."""
    cosine: Tensor = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return cosine
