"""Layer-sequential unit variance (Mishkin & Matas 2015, arXiv:1511.06422): weights scaled by the data that they meet.

One pass does it: each matrix is scaled when the signal comes to it, and what it puts out then goes on to the next.
The output is linear in the matrix, so one scaling is exact, where the paper, whose biases count, repeats it.

Shapes: M members, B batch, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradlab.nn.network import Name, Pass


@dataclass(frozen=True)
class Scaling(Pass):
    """A pass that scales the matrices it meets, so that W h has the deviation ``wanted`` (M,) over batch and units.

    Members whose ``wanted`` is not a number are left as they are, and so is a matrix that puts out no spread at all.
    """

    wanted: Tensor = field(kw_only=True)

    def ready(self, name: Name, matrix: Tensor, output: Callable[[], Tensor]) -> Tensor:
        """The matrix, after it has been scaled in place."""
        del name
        factor = self.wanted / output().flatten(1).to(torch.float64).var(1, correction=0).sqrt()
        matrix.mul_(torch.where(factor.isfinite(), factor, 1.0).view(-1, 1, 1))
        return matrix
