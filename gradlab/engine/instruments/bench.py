"""What every instrument is given and gives: a cohort, double-precision copies of its networks, and curves.

An instrument looks and touches nothing: it computes on copies, so that a run's other numbers stay what they are.
Shapes: M members, m of them at a time, B batch, P parameters a member, n points of a curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.nn.network import Network, Pass, assemble
from gradlab.nn.norms import Mode
from gradlab.nn.tape import Cell, Node
from gradlab.spec.choices import MODELS

BYTES_AT_A_TIME = 64 * 2**20
"""Of parameters and signals, for the members that are looked at together; numbers depend on it by rounding alone."""

PARAMETER_COPIES = 2
"""Of the parameters in float64: themselves and their gradient."""

SIGNAL_COPIES = 6
"""Tensors of each layer's shape alive at the height of a pass: signal, activation, their derivatives, scratch."""


@dataclass(frozen=True)
class Curve:
    """One quantity of every member at one step: ``values`` (M, n) float64 at ``index`` (n whole numbers).

    A quantity that is a single number has no index, and n = 1.
    """

    quantity: str
    index: tuple[int, ...] | None
    values: Tensor


Read = Callable[[int], tuple[Curve, ...]]
"""Called before step t with t: what there is to see at the weights after t updates."""

Advance = Callable[[Cohort, int], None]
"""Takes step t of a cohort: an update on batch t."""

Instrument = Callable[[Cohort, Advance], Read]
"""An instrument is set up once, at the initial weights, and then read."""


@dataclass(frozen=True)
class Part:
    """Members ``which`` of a cohort in float64: their network, copied, and the scales (m,) of inputs and targets."""

    which: slice
    network: Network
    input_scale: Tensor
    target_scale: Tensor

    @property
    def size(self) -> int:
        """M."""
        return len(self.input_scale)

    def scaled(self, samples: Tensor) -> Tensor:
        """Samples (B, *shape) as each member is given them: (m, B, *shape); tokens as they are."""
        if not samples.is_floating_point():
            return samples.expand(self.size, *samples.shape).contiguous()
        return samples.to(torch.float64) * self.input_scale.view(-1, *[1] * samples.dim())


def parts(cohort: Cohort, batch: int, copies: int = PARAMETER_COPIES) -> Iterator[Part]:
    """All members, as many at a time as a pass of ``batch`` samples and so many ``copies`` of theirs have room for."""
    run = cohort.runs[0]
    matrices = MODELS[run.model.name].matrices(run.model, run.facts)
    signals = run.facts.inputs + sum(fan_out * uses for _, fan_out, uses in matrices)
    signals += MODELS[run.model.name].beside(run.model, run.facts)
    entries = copies * cohort.layout.size + SIGNAL_COPIES * batch * signals
    together = max(1, BYTES_AT_A_TIME // (8 * entries))
    for start in range(0, len(cohort.runs), together):
        which = slice(start, start + together)
        flat = cohort.parameters[which].to(torch.float64, copy=True)
        scales = (cohort.task.input_scale[which], cohort.task.target_scale[which])
        yield Part(which, assemble(run, cohort.layout, flat), *(scale.to(torch.float64) for scale in scales))


def asked(x: Tensor) -> Node:
    """An input whose derivative is kept, in a pass that keeps no other."""
    return Node(x, Cell())


def input_slopes(cohort: Cohort, part: Part, samples: Tensor) -> Tensor:
    """(m, N, *shape): the sum of the outputs by each of N inputs, the statistics of a batch norm as constants."""
    through = Pass(part.network, Mode.FROZEN)
    x = asked(part.scaled(samples))
    output = cohort.architecture.forward(through, x)
    through.backward(output, torch.ones_like(output.value))
    return x.derivative


def of_first_output(cohort: Cohort, part: Part, samples: Tensor) -> tuple[Node, Pass]:
    """The input of a pass that has been gone back through from the first output alone, and the pass."""
    through = Pass(part.network, Mode.MEASURE, keep=True)
    x = through.input(part.scaled(samples))
    output = cohort.architecture.forward(through, x)
    first = torch.zeros_like(output.value)
    first[..., 0] = 1.0
    through.backward(output, first)
    return x, through


def gathered(found: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What was found of each part, of all members: (m, ...) -> (M, ...)."""
    return tuple(torch.cat(each) for each in zip(*found, strict=True))


def singular_values(matrices: Tensor) -> Tensor:
    """(..., n, k) -> (..., min(n, k)) descending; nan where an entry is not finite, which LAPACK would not take."""
    sound = torch.isfinite(matrices).all(-1).all(-1)
    found: Tensor = torch.linalg.svdvals(torch.where(sound[..., None, None], matrices, 0.0))
    return torch.where(sound[..., None], found, torch.nan)
