"""Signals that remember how they came about, so that the loss's derivative finds its way back through them.

A stacked network knows a handful of operations, and each knows its own way back (`network.Pass`). Writing them down
here instead of asking autograd saves a third of a step on a CPU, lets weight gradients be written where they belong,
and leaves every ∂loss/∂z_l lying there to be measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(eq=False)
class Node:
    """A signal: its ``value``, and the loss's derivative by it once the way back has reached it.

    ``wanted`` is false where nobody asks for that derivative. No derivative is ever changed in place: several nodes
    may share one.
    """

    value: Tensor
    wanted: bool = True
    grad: Tensor | None = None

    def receive(self, part: Tensor) -> None:
        """Adds what one use of the signal contributes."""
        self.grad = part if self.grad is None else self.grad + part


@dataclass(eq=False)
class Tape:
    """The ways back of all operations so far. With ``keep``, derivatives stay in their nodes; else they are dropped."""

    keep: bool
    steps: list[Callable[[], None]] = field(default_factory=list)

    def remember(self, node: Node, back: Callable[[Tensor], None]) -> Node:
        """``back`` is called with the derivative by ``node``, if any reaches it."""

        def step() -> None:
            grad = node.grad
            if not self.keep:
                node.grad = None
            if grad is not None:
                back(grad)

        self.steps.append(step)
        return node

    def rewind(self) -> None:
        """Goes all the way back, forgetting each step once it is done."""
        while self.steps:
            self.steps.pop()()
