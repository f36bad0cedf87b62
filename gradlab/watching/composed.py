"""How a loss that is written by hand is put together, by the operators that it is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

LARGE = 100.0
"""A factor before a part of the loss that one looks twice at."""

ONE = 1e-2
"""How near to 1 the sum of what are called shares is."""


@dataclass
class Composed:
    """What a loss is made of.

    ``crossed``: outputs (N, 1) were compared with targets (N,), each with every one; ``repeated``: with several of
    their own (N, K); ``target``: the root mean square of what outputs were compared with. ``shares``: what the targets
    of a sample add up to beside log-probabilities, 0 where none was seen. ``no_logs``: a divergence was given what
    are no log-probabilities. ``part``: the largest size of what a large factor multiplies; ``joined``: that was added
    to another part. ``too_long``: targets that are longer than what is to tell them. ``factors`` are the tensors that
    were multiplied last.
    """

    crossed: bool = False
    repeated: bool = False
    target: float = 0.0
    shares: float = 0.0
    no_logs: bool = False
    part: float = 0.0
    joined: bool = False
    too_long: int = 0
    factors: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    def see(self, name: str, given: tuple[Any, ...]) -> None:
        """Looks at an operator of the loss."""
        if name == "_ctc_loss":
            heard, told = (torch.as_tensor(one) for one in given[2:4])
            self.too_long = int((told > heard).sum())
        elif name == "xlogy":
            self._diverges(given[0])
        elif name in ("add", "sub") and all(isinstance(one, Tensor) for one in given[:2]):
            self.joined |= self.part > 0 and given[0].dim() == given[1].dim() == 0
            for output, target in (given[:2], given[1::-1]) if name == "sub" else ():
                self._compared(output, target)
        elif name == "mul" and isinstance(given[0], Tensor) and given[0].is_floating_point():
            self._multiplied(*given[:2])

    def _compared(self, output: Tensor, target: Tensor) -> None:
        """What a network puts out, less what needs no gradient."""
        if not output.requires_grad or target.requires_grad or target.dim() == 0:
            return
        count = len(target)
        alone = count > 1 and output.shape == (count, 1)
        self.crossed |= alone and target.dim() == 1
        self.repeated |= alone and target.dim() == 2 and target.shape[1] > 1
        if output.shape == target.shape and target.is_floating_point():
            self.target = max(self.target, math.sqrt(float(target.detach().double().square().mean())))

    def _diverges(self, target: Any) -> None:
        """A divergence is p log p, less what p was multiplied with just before."""
        for mine, logs in (self.factors, self.factors[::-1]) if self.factors is not None else ():
            if mine is target and target.dim() > 1:
                self.no_logs |= _adds_up(target) and not _adds_up(logs.detach().exp())

    def _multiplied(self, one: Tensor, other: Any) -> None:
        if isinstance(other, float | int):
            if one.dim() == 0 and abs(other) >= LARGE:
                self.part = max(self.part, abs(float(one.detach()) * other))
            return
        self.factors = (one, other) if one.shape == other.shape else None
        for logs, target in (self.factors, self.factors[::-1]) if self.factors is not None else ():
            if _logs(logs) and not target.requires_grad and not bool((target < 0).any()):
                node: Any = logs.grad_fn
                # Autograd keeps a negative dimension as an unsigned number.
                dim = node._saved_dim if node._saved_dim < logs.dim() else -1
                self.shares = float(target.double().sum(dim).mean())

    def told(self) -> dict[str, Any]:
        """The plain facts."""
        self.factors = None
        return {
            name: getattr(self, name)
            for name in ("crossed", "repeated", "target", "shares", "no_logs", "part", "joined", "too_long")
        }


def _logs(tensor: Tensor) -> bool:
    return tensor.dim() > 1 and tensor.grad_fn is not None and tensor.grad_fn.name() == "LogSoftmaxBackward0"


def _adds_up(shares: Tensor) -> bool:
    """Whether numbers add up to 1 along the last dimension, or the one behind the samples."""
    return shares.numel() > 0 and any(bool((shares.sum(dim) - 1).abs().max() < ONE) for dim in (-1, 1))
