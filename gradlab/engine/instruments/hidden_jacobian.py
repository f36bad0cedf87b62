"""The singular values of the way from the first hidden signal to the last, at the first sample of the batch.

What `jacobian_spectrum` sees is bounded by the few outputs; here every entry of z_(L-1) is asked for (Xiao et al. 2018,
arXiv:1806.05393, section 3: a convolution's isometry is one of whole images).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Part, Read, gathered, parts, singular_values
from gradlab.nn.network import Pass
from gradlab.nn.norms import Mode

TOGETHER = 128
"""Entries whose derivatives one way back finds: copies of the sample."""


def hidden_jacobian(cohort: Cohort, _: Advance) -> Read:
    """Gives ``hidden_singular_value`` k = 1, 2, ... in descending order, and ``condition``, the largest over the least.

    Of d z_(L-1)/d z_1, with all layers between.
    """

    def read(t: int) -> tuple[Curve, ...]:
        cohort.task.turn_to(t)
        sample = cohort.task.inputs[cohort.task.chosen[:1]]
        found = ((singular_values(jacobian(cohort, part, sample)),) for part in parts(cohort, TOGETHER))
        (values,) = gathered(found)
        return (
            Curve("hidden_singular_value", tuple(range(1, values.shape[1] + 1)), values),
            Curve("condition", None, values[:, :1] / values[:, -1:]),
        )

    return read


def jacobian(cohort: Cohort, part: Part, sample: Tensor) -> Tensor:
    """Of z_(L-1) by z_1 at ``sample`` (1, *shape): (m, entries, entries)."""
    rows: list[Tensor] = []
    while not rows or len(rows) * TOGETHER < rows[0].shape[2]:
        through = Pass(part.network, Mode.MEASURE, keep=True)
        x = through.input(part.scaled(sample.expand(TOGETHER, *sample.shape[1:])))
        cohort.architecture.forward(through, x)
        (first,), (last,) = through.signals[0].z, through.signals[-2].z
        entries = last.value[0, 0].numel()
        unit = torch.eye(entries).to(x.value)[len(rows) * TOGETHER : (len(rows) + 1) * TOGETHER]
        unit = torch.nn.functional.pad(unit, (0, 0, 0, TOGETHER - len(unit)))
        through.backward(last, unit.view(TOGETHER, *last.value.shape[2:]).expand(last.value.shape).contiguous())
        gradient = first.derivative
        rows.append(gradient.flatten(2))
    return torch.cat(rows, 1)[:, : rows[0].shape[2]]
