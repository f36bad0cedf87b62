"""Every optimizer by its name: a step on the flat parameters (M, P) of a cohort, each member's equal to torch.optim's.

What may differ between members (learning rate, momentum, betas, decays) is a column (M, 1) beside the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.engine.optim import adaptive, descent
from gradlab.engine.optim.rates import SWITCHES, Rates, State, Step, rates
from gradlab.nn.kernels import convolutions, fused, native

__all__ = ["OPTIMIZERS", "Optimizer", "Rates", "State", "Step", "rates"]


@dataclass(frozen=True)
class Optimizer:
    """``step`` and the buffers (M, P) that it keeps.

    Those ``if_active`` are kept only where a member has what they are for; ``products`` are columns (M, 1) that begin
    at 1, in single precision, as torch has them. ``kernel``, where there is one, does the same, given the columns that
    it ``takes``, in this order.
    """

    step: Step
    kernel: native.Descent | None = None
    takes: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()
    if_active: tuple[tuple[str, str], ...] = ()
    products: tuple[str, ...] = ()

    def state(self, parameters: Tensor, rate: Rates) -> State:
        """The buffers at the start: zeros like ``parameters``."""
        wanted = (*self.buffers, *(name for what, name in self.if_active if what in rate.active))
        found = {name: torch.zeros_like(parameters) for name in wanted}
        return found | {name: torch.ones(rate.lr.shape, device=rate.lr.device) for name in self.products}

    def update(self, parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
        """As ``step``."""
        own = [name for what, name in self.if_active if what not in SWITCHES]
        buffers = [state.get(name) for name in (*self.buffers, *own)]
        how = None if rate.active & set(SWITCHES) or t.dim() != 1 else self.kernel
        if how is not None and fused.descends(how, parameters) and not rate.factors:
            columns = {name: getattr(rate, name) for name in self.takes}
            fused.descend(how, parameters, gradient, t, columns, buffers)
            return
        if how is not None and native.serves(parameters):
            for span, factor in rate.factors or ((slice(None), None),):
                lr = rate.lr if factor is None else convolutions.affine(rate.lr, factor, None)
                ordered = [lr if name == "lr" else getattr(rate, name) for name in self.takes]
                parts = [None if buffer is None else buffer[:, span] for buffer in buffers]
                native.descend(how, parameters[:, span], gradient[:, span], t, ordered, parts)
            return
        if "maximize" in rate.active:
            gradient.mul_(1 - 2 * rate.maximize)
        self.step(parameters, gradient, state, rate.spread(), t)


_DECAYS = ("weight_decay", "l1")
_ADAM = ("lr", "beta1", "beta2", "eps", *_DECAYS)
_MOMENTUM = (("momentum", "momentum"),)
_LARGEST = (("amsgrad", "largest"),)

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(descent.sgd, native.SGD, ("lr", "momentum", "nesterov", *_DECAYS), if_active=_MOMENTUM),
    "adam": Optimizer(adaptive.adam, native.ADAM, _ADAM, ("mean", "square"), _LARGEST),
    "adamw": Optimizer(adaptive.adamw, native.ADAMW, _ADAM, ("mean", "square"), _LARGEST),
    "rmsprop": Optimizer(
        adaptive.rmsprop,
        native.RMSPROP,
        ("lr", "momentum", "beta2", "eps", *_DECAYS),
        ("square",),
        if_active=_MOMENTUM,
    ),
    "adagrad": Optimizer(adaptive.adagrad, native.ADAGRAD, ("lr", "eps", *_DECAYS), ("sum",)),
    "nadam": Optimizer(adaptive.nadam, buffers=("mean", "square"), products=("momenta",)),
    "radam": Optimizer(adaptive.radam, buffers=("mean", "square")),
    "adamax": Optimizer(adaptive.adamax, buffers=("mean", "largest")),
    "adadelta": Optimizer(adaptive.adadelta, buffers=("square", "moved")),
    "lamb": Optimizer(adaptive.lamb, buffers=("mean", "square")),
    "lion": Optimizer(descent.lion, buffers=("mean",)),
    "muon": Optimizer(descent.muon, buffers=("momentum", "mean", "square")),
}
