"""What half precision and eight bits would lose: entries that a format rounds to zero, or that lie outside its range.

All is computed in double precision at the run's weights and rounded afterwards, so that what is lost on the way, which
rounding at every layer adds to, is not hidden by what was lost before. A loss scale of 2^k moves gradients by k.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Part, Read, gathered, parts
from gradlab.nn.losses import SQUASHES, Targets
from gradlab.nn.network import Pass
from gradlab.nn.norms import Mode
from gradlab.spec.choices.formats import FORMATS, SHORT
from gradlab.spec.choices.instruments import OUT_OF_RANGE, RANGED

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}

LEAST, MOST = -80, 40
"""Exponents of the histograms; what lies beyond counts at their ends."""


def number_range(cohort: Cohort, _: Advance) -> Read:
    """Gives shares by layer l = 1..L, of the entries that are not zero: ``gradient_below_float16`` and its kin.

    ``zero``: rounded to zero; ``below``: below the smallest normal number, those among them; ``above``: above the
    largest. Of the matrix of a layer (``weight``), the loss's derivative by it (``gradient``), z (``signal``) and the
    derivative by z (``delta``), on the batch at hand. ``gradient_exact_zero`` is the share of all entries that is zero,
    ``gradient_log2`` the share of the others, over all layers, of each exponent e: 2^e <= |x| < 2^(e+1).
    """

    def read(t: int) -> tuple[Curve, ...]:
        cohort.task.turn_to(t)
        batch = len(cohort.task.chosen)
        found = gathered(tuple(_figures(cohort, part)) for part in parts(cohort, batch))
        layers, exponents = tuple(range(1, len(cohort.layout.names) + 1)), tuple(range(LEAST, MOST + 1))
        names = [f"{kind}_{what}" for kind in RANGED for what in ("exact_zero", "log2", *_rounded())]
        return tuple(
            Curve(name, exponents if name.endswith("_log2") else layers, values)
            for name, values in zip(names, found, strict=True)
        )

    return read


def _rounded() -> list[str]:
    return [f"{what}_{name}" for name in SHORT for what in OUT_OF_RANGE]


def _figures(cohort: Cohort, part: Part) -> Iterator[Tensor]:
    """(m, L) each, of histograms (m, exponents), in the order of `number_range`'s names."""
    for layers in _entries(cohort, part):
        held = [(entries != 0).sum(1, dtype=torch.float64) for entries in layers]
        yield torch.stack([1 - some / entries.shape[1] for some, entries in zip(held, layers, strict=True)], 1)
        counts = torch.stack([_exponents(entries) for entries in layers]).sum(0)
        yield counts / counts.sum(1, keepdim=True)
        for name in SHORT:
            lost = [_outside(entries, name) for entries in layers]
            for what in range(len(OUT_OF_RANGE)):
                yield torch.stack([one[what] / some for one, some in zip(lost, held, strict=True)], 1)


def _entries(cohort: Cohort, part: Part) -> tuple[list[Tensor], ...]:
    """Of each kind the entries (m, n) of every layer."""
    network, task = part.network, cohort.task
    through = Pass(network, Mode.MEASURE, keep=True)
    output = cohort.architecture.forward(through, through.input(part.scaled(task.inputs[task.chosen])))
    squash = SQUASHES.get(network.model.output or "none")
    output = output if squash is None else through.apply(squash, output)
    targets = Targets(task.targets, task.chosen, part.target_scale)
    gradient = through.backward(output, cohort.loss.measure(output.value, targets)[1])
    matrices = cohort.layout.matrices
    flat = cohort.parameters[part.which].to(torch.float64)
    return (
        [flat[:, columns] for columns in matrices],
        [gradient[:, columns] for columns in matrices],
        [torch.cat([z.value.flatten(1) for z in signal.z], 1) for signal in through.signals],
        [torch.cat([z.derivative.flatten(1) for z in signal.z], 1) for signal in through.signals],
    )


def _outside(entries: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """(m, n) -> how many (m,) are rounded to zero, below the normal numbers and above the largest."""
    size, some = entries.abs(), entries != 0
    zero = some & (entries.to(DTYPES[name]).to(torch.float64) == 0)
    below = some & (size < FORMATS[name].smallest_normal)
    above = size > FORMATS[name].largest
    return zero.sum(1), below.sum(1), above.sum(1)


def _exponents(entries: Tensor) -> Tensor:
    """(m, n) -> how many of those that are not zero, and finite, have each exponent (m, MOST - LEAST + 1)."""
    place = (torch.frexp(entries)[1].long() - 1).clamp(LEAST, MOST) - LEAST
    counts = entries.new_zeros(len(entries), MOST - LEAST + 1)
    return counts.scatter_add_(1, place, ((entries != 0) & torch.isfinite(entries)).to(counts.dtype))
