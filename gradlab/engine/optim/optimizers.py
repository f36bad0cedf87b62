"""Optimizer steps on the flat parameters (M, P) of a cohort, equal to torch.optim's for every member.

What may differ between members (learning rate, momentum, betas, decays) is a column (M, 1) beside the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.nn.kernels import native
from gradlab.spec.run import RunSpec

State = Mapping[str, Tensor]
"""Named buffers (M, P), updated in place."""


@dataclass(frozen=True)
class Rates:
    """Columns (M, 1) of the members' own numbers, and which of them are idle in the whole cohort."""

    lr: Tensor
    momentum: Tensor
    nesterov: Tensor
    weight_decay: Tensor
    l1: Tensor
    beta1: Tensor
    beta2: Tensor
    eps: Tensor
    active: frozenset[str]


def rates(runs: Sequence[RunSpec], like: Tensor) -> Rates:
    """The columns of ``runs`` in the dtype and on the device of ``like``."""
    names = ("lr", "momentum", "nesterov", "weight_decay", "l1", "beta1", "beta2", "eps")
    values = {name: [float(getattr(run.optim, name)) for run in runs] for name in names}
    columns = {
        name: torch.tensor(numbers, dtype=like.dtype, device=like.device).unsqueeze(1)
        for name, numbers in values.items()
    }
    return Rates(**columns, active=frozenset(name for name, numbers in values.items() if any(numbers)))


Step = Callable[[Tensor, Tensor, State, Rates, Tensor], None]
"""(parameters (M, P), gradient (M, P), state, rates, t): updates parameters and state in place; t (1,) float64 counts
from 0. The gradient is scratch: it may be overwritten."""


def _decay(parameters: Tensor, gradient: Tensor, rate: Rates) -> None:
    """Adds L2 weight decay and L1 to the gradient, as torch.optim adds `weight_decay`: after clipping."""
    if "weight_decay" in rate.active:
        gradient.addcmul_(parameters, rate.weight_decay)
    _lasso(parameters, gradient, rate)


def _lasso(parameters: Tensor, gradient: Tensor, rate: Rates) -> None:
    if "l1" in rate.active:
        gradient.addcmul_(parameters.sign(), rate.l1)


def _descend(parameters: Tensor, direction: Tensor, lr: Tensor) -> None:
    parameters.addcmul_(direction, lr, value=-1)


def sgd(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.SGD with dampening 0: b <- mu b + g; w <- w - lr b, or w - lr (g + mu b) with Nesterov's.

    The buffer begins at zero, so that it is the gradient after the first step, as torch's.
    """
    del t
    buffer = state.get("momentum")
    _decay(parameters, gradient, rate)
    direction = gradient
    if buffer is not None:
        direction = buffer.mul_(rate.momentum).add_(gradient)
        if "nesterov" in rate.active:
            ahead = gradient.addcmul(buffer, rate.momentum)
            direction = torch.where(rate.nesterov.bool(), ahead, buffer)
    _descend(parameters, direction, rate.lr)


def _adam_step(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    mean, square = state["mean"], state["square"]
    mean.lerp_(gradient, 1 - rate.beta1)
    square.mul_(rate.beta2).addcmul_(gradient, gradient * (1 - rate.beta2))
    # The powers are taken in float64, as torch takes them in Python's numbers.
    count = t + 1
    correction1 = (1 - rate.beta1.double() ** count).to(mean.dtype)
    correction2 = (1 - rate.beta2.double() ** count).sqrt().to(mean.dtype)
    denominator = (square.sqrt() / correction2).add_(rate.eps)
    _descend(parameters, mean / denominator, rate.lr / correction1)


def adam(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.Adam (Kingma & Ba 2014, algorithm 1)."""
    _decay(parameters, gradient, rate)
    _adam_step(parameters, gradient, state, rate, t)


def adamw(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.AdamW: the decay acts on the weights, not on the gradient (Loshchilov & Hutter 2017)."""
    if "weight_decay" in rate.active:
        parameters.mul_(1 - rate.lr * rate.weight_decay)
    _lasso(parameters, gradient, rate)
    _adam_step(parameters, gradient, state, rate, t)


def rmsprop(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.RMSprop; beta2 is its alpha."""
    del t
    _decay(parameters, gradient, rate)
    square = state["square"]
    square.mul_(rate.beta2).addcmul_(gradient, gradient * (1 - rate.beta2))
    direction = gradient.div_(square.sqrt().add_(rate.eps))
    if "momentum" in rate.active:
        direction = state["momentum"].mul_(rate.momentum).add_(direction)
    _descend(parameters, direction, rate.lr)


def adagrad(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.Adagrad without learning-rate decay (Duchi et al. 2011)."""
    del t
    _decay(parameters, gradient, rate)
    total = state["sum"]
    total.addcmul_(gradient, gradient)
    _descend(parameters, gradient.div_(total.sqrt().add_(rate.eps)), rate.lr)


@dataclass(frozen=True)
class Optimizer:
    """``step`` and the buffers (M, P) that it keeps; those in ``if_momentum`` only where a member has momentum.

    ``kernel``, where there is one, does the same, given the columns that it ``takes``, in this order.
    """

    step: Step
    kernel: native.Descent | None = None
    takes: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()
    if_momentum: tuple[str, ...] = ()

    def state(self, parameters: Tensor, rate: Rates) -> State:
        """The buffers at the start: zeros like ``parameters``."""
        wanted = self.buffers + (self.if_momentum if "momentum" in rate.active else ())
        return {name: torch.zeros_like(parameters) for name in wanted}

    def update(self, parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
        """As ``step``."""
        if self.kernel is not None and native.serves(parameters):
            columns = [getattr(rate, name) for name in self.takes]
            buffers = [state.get(name) for name in (*self.buffers, *self.if_momentum)]
            native.descend(self.kernel, parameters, gradient, t, columns, buffers)
        else:
            self.step(parameters, gradient, state, rate, t)


_DECAYS = ("weight_decay", "l1")
_ADAM = ("lr", "beta1", "beta2", "eps", *_DECAYS)

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(sgd, native.SGD, ("lr", "momentum", "nesterov", *_DECAYS), if_momentum=("momentum",)),
    "adam": Optimizer(adam, native.ADAM, _ADAM, ("mean", "square")),
    "adamw": Optimizer(adamw, native.ADAMW, _ADAM, ("mean", "square")),
    "rmsprop": Optimizer(
        rmsprop, native.RMSPROP, ("lr", "momentum", "beta2", "eps", *_DECAYS), ("square",), if_momentum=("momentum",)
    ),
    "adagrad": Optimizer(adagrad, native.ADAGRAD, ("lr", "eps", *_DECAYS), ("sum",)),
}
