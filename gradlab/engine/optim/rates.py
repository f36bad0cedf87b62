"""What optimizers are made of: the members' own numbers as columns beside the parameters, and what all of them do.

Shapes: M members, P parameters a member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from gradlab.nn.parametrization import rate_factors
from gradlab.nn.slots import Layout
from gradlab.spec.choices import OPTIMIZERS
from gradlab.spec.run import RunSpec

State = Mapping[str, Tensor]
"""Named buffers (M, P), and columns (M, 1), updated in place."""

NUMBERS = ("lr", "momentum", "nesterov", "weight_decay", "l1", "beta1", "beta2", "eps")
SWITCHES = ("dampening", "amsgrad", "maximize")
"""Numbers that our kernels do not know: where a member has one, torch does the step."""

NOWHERE = Layout((), ())

Factors = tuple[tuple[slice, Tensor], ...]


@dataclass(frozen=True)
class Rates:
    """Columns (M, 1) of the members' own numbers, and which of them are idle in the whole cohort.

    ``layout`` says which of the P columns are one matrix, for those that ask. ``factors``: where parameters have
    learning rates of their own, neighbours that share theirs, and what ``lr`` is multiplied by there, (M, 1);
    ``momentum_factors``: the same of the steps that an adaptive optimizer makes as momentum, and ``momentum_lr`` their
    learning rates, (M, P) or (M, 1), of what is `spread`.
    """

    lr: Tensor
    momentum: Tensor
    nesterov: Tensor
    weight_decay: Tensor
    l1: Tensor
    beta1: Tensor
    beta2: Tensor
    eps: Tensor
    dampening: Tensor
    amsgrad: Tensor
    maximize: Tensor
    active: frozenset[str]
    layout: Layout = NOWHERE
    factors: Factors = ()
    momentum_factors: Factors = ()
    momentum_lr: Tensor | None = None

    def spread(self) -> Rates:
        """The same with an ``lr`` (M, P) of every parameter."""
        if not self.factors:
            return self
        return replace(self, lr=self._lr(self.factors), momentum_lr=self._lr(self.momentum_factors), factors=())

    def _lr(self, factors: Factors) -> Tensor:
        # Of spans alone, whose sizes are Python's: a step that is captured on a GPU copies nothing to it.
        each = [(self.lr * factor).expand(-1, span.stop - span.start) for span, factor in factors]
        return torch.cat(each, dim=1) if each else self.lr


def rates(runs: Sequence[RunSpec], like: Tensor, layout: Layout = NOWHERE) -> Rates:
    """The columns of ``runs`` in the dtype and on the device of ``like``: single ones beside parameters in half."""
    values = {name: [float(getattr(run.optim, name)) for run in runs] for name in (*NUMBERS, *SWITCHES)}
    columns = {
        name: torch.tensor(numbers, dtype=like.dtype, device=like.device).unsqueeze(1)
        for name, numbers in values.items()
    }
    optimizer = OPTIMIZERS[runs[0].optim.name]
    active = frozenset(name for name, found in values.items() if any(found) and name in optimizer.uses)

    def factors(*, adaptive: bool) -> Factors:
        found = rate_factors(layout, runs, adaptive=adaptive)
        column = partial(torch.tensor, dtype=like.dtype, device=like.device)
        return tuple((span, column(own).unsqueeze(1)) for span, own in found)

    return Rates(
        **columns,
        active=active,
        layout=layout,
        factors=factors(adaptive=optimizer.adaptive),
        momentum_factors=factors(adaptive=False) if optimizer.begins_as_momentum else (),
    )


Step = Callable[[Tensor, Tensor, State, Rates, Tensor], None]
"""(parameters (M, P), gradient (M, P), state, rates, t): updates parameters and state in place; t (1,) float64 counts
from 0, or (M, 1) where members have made different numbers of updates. The gradient is scratch: it may be overwritten.
"""


def decay(parameters: Tensor, gradient: Tensor, rate: Rates) -> None:
    """Adds L2 weight decay and L1 to the gradient, as torch.optim adds `weight_decay`: after clipping."""
    if "weight_decay" in rate.active:
        gradient.addcmul_(parameters, rate.weight_decay)
    lasso(parameters, gradient, rate)


def lasso(parameters: Tensor, gradient: Tensor, rate: Rates) -> None:
    """Adds L1 alone."""
    if "l1" in rate.active:
        gradient.addcmul_(parameters.sign(), rate.l1)


def shrink(parameters: Tensor, rate: Rates) -> None:
    """Weight decay of the weights themselves, not of the gradient (Loshchilov & Hutter 2017)."""
    if "weight_decay" in rate.active:
        parameters.mul_(1 - rate.lr * rate.weight_decay)


def blend(mean: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """Moves ``mean`` in place towards ``gradient`` by ``weight`` (M, 1); in half precision too it is rounded once."""
    if mean.dtype == weight.dtype:
        return mean.lerp_(gradient, weight)
    return mean.copy_(torch.lerp(mean.to(weight.dtype), gradient.to(weight.dtype), weight))


def descend(parameters: Tensor, direction: Tensor, lr: Tensor) -> None:
    """Moves the parameters by ``lr`` (M, 1 or P) against a direction."""
    parameters.addcmul_(direction, lr, value=-1)
