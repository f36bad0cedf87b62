"""The coordinate check: how large signals are, and how far training has moved them, on samples that stay the same."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Part, Read, parts
from gradlab.nn.network import Pass
from gradlab.nn.norms import Mode
from gradlab.spec.choices import MODELS

SAMPLES = 32
"""At most so many are looked at, the first of the training part; ..."""

MOST_ENTRIES = 2**18
"""... and of large signals as many as have so many entries in all layers: where each began is kept, 2 MB a member."""


def coordinates(cohort: Cohort, _: Advance) -> Read:
    """Gives of the signals z_1..z_L ``signal_rms`` and ``signal_change``, root mean squares over samples and units.

    The first is of z_l(t), the second, from the first update on, of z_l(t) - z_l(0). Of one parametrization at
    several widths they tell whether all of them train alike (Yang et al. 2022, arXiv:2203.03466, appendix D.1).
    """
    run = cohort.runs[0]
    entries = sum(fan_out * uses for _, fan_out, uses in MODELS[run.model.name].matrices(run.model, run.facts))
    count = max(1, min(SAMPLES, len(cohort.task.inputs), MOST_ENTRIES // entries))
    samples = cohort.task.inputs[:count]
    # A training that is taken up again begins here too, at its initial weights.
    first = [_signals(cohort, part, samples) for part in parts(cohort, count)]

    def read(t: int) -> tuple[Curve, ...]:
        sizes, changes = [], []
        for part, begun in zip(parts(cohort, count), first, strict=True):
            now = _signals(cohort, part, samples)
            sizes.append(torch.stack([_rms(z) for z in now], 1))
            changes.append(torch.stack([_rms(z - before) for z, before in zip(now, begun, strict=True)], 1))
        layers = tuple(range(1, len(first[0]) + 1))
        moved = (Curve("signal_change", layers, torch.cat(changes)),) if t else ()
        return Curve("signal_rms", layers, torch.cat(sizes)), *moved

    return read


def _signals(cohort: Cohort, part: Part, samples: Tensor) -> list[Tensor]:
    """(m, entries) of each layer; of time steps all."""
    through = Pass(part.network, Mode.MEASURE, keep=True)
    cohort.architecture.forward(through, through.input(part.scaled(samples)))
    return [torch.cat([z.value.flatten(1) for z in signal.z], 1) for signal in through.signals]


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(1).sqrt()
