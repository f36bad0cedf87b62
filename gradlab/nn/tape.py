"""Signals that remember how they came about, so that the loss's derivative finds its way back through them.

A stacked network knows a handful of operations, and each knows its own way back (`network.Pass`). Writing them down
here instead of asking autograd saves a third of a step on a CPU, lets weight gradients be written where they belong,
and leaves every ∂loss/∂z_l lying there to be measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradlab.nn.products import combine


@dataclass(eq=False)
class Cell:
    """Where the loss's derivative by a signal gathers. It is never changed in place, for cells may share one."""

    grad: Tensor | None = None

    def receive(self, part: Tensor) -> None:
        """Adds what one use of the signal contributes."""
        self.grad = part if self.grad is None else combine(part, 1.0, self.grad)


@dataclass(frozen=True, eq=False)
class Node:
    """A signal's ``value``, and the ``cell`` for the derivative by it; None where nobody asks for that.

    Ways back hold on to cells, and to a value only if they need it: what they do not need is free to be overwritten
    while it is still in the cache.
    """

    value: Tensor
    cell: Cell | None = field(default_factory=Cell)

    @property
    def grad(self) -> Tensor | None:
        """The derivative by the signal, after the way back, where it is kept and anything came back."""
        return None if self.cell is None else self.cell.grad

    @property
    def derivative(self) -> Tensor:
        """As ``grad``; zeros where nothing came back."""
        return torch.zeros_like(self.value) if self.grad is None else self.grad


@dataclass(eq=False)
class Tape:
    """The ways back of all operations so far. With ``keep``, derivatives stay in their cells; else they are dropped."""

    keep: bool
    steps: list[tuple[tuple[Cell, ...], Callable[..., None]]] = field(default_factory=list)

    def remember(self, cells: tuple[Cell, ...], back: Callable[..., None]) -> None:
        """``back`` is called with the derivatives in ``cells``, None where none has come, if any reaches them."""
        self.steps.append((cells, back))

    def rewind(self) -> None:
        """Goes all the way back, forgetting each step once it is done."""
        while self.steps:
            cells, back = self.steps.pop()
            grads = [cell.grad for cell in cells]
            if not self.keep:
                for cell in cells:
                    cell.grad = None
            if any(grad is not None for grad in grads):
                back(*grads)
