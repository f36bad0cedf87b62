"""Layer-sequential unit variance (Mishkin & Matas 2015, arXiv:1511.06422): weights scaled by the data that they meet.

One pass does it: each matrix is scaled when the signal comes to it, and what it puts out then goes on to the next.
The output is linear in the matrix, so one scaling is exact, where the paper, whose biases count, repeats it.

Shapes: M members, B batch, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradlab.nn.network import Pass, rows
from gradlab.nn.products import product
from gradlab.nn.slots import Role
from gradlab.nn.tape import Node


@dataclass(frozen=True)
class Scaling(Pass):
    """A pass that scales the matrices it meets, so that W h has the deviation ``wanted`` (M,) over batch and units.

    Members whose ``wanted`` is not a number are left as they are, and so is a matrix that puts out no spread at all.
    """

    wanted: Tensor = field(kw_only=True)

    def linear(self, layer: int, h: Node, weight: Role = Role.WEIGHT, bias: Role = Role.BIAS) -> Node:
        """(M, ..., in) -> (M, ..., out), after the matrix has been scaled in place."""
        matrix = self.network.parameters[layer, weight]
        signal = product(rows(h.value), matrix.transpose(1, 2)).to(torch.float64)
        factor = self.wanted / signal.var((1, 2), correction=0).sqrt()
        matrix.mul_(torch.where(factor.isfinite(), factor, 1.0).view(-1, 1, 1))
        return super().linear(layer, h, weight, bias)
