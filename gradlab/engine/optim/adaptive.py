"""Optimizers that scale each entry by its own history: Adam and its kin, RMSprop, Adagrad, Adadelta, LAMB.

Equal to torch.optim's where torch has them. Powers of betas are taken in float64, as torch takes them in Python's
numbers. Shapes: M members, P parameters a member.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.optim.rates import Rates, State, blend, decay, descend, lasso, shrink
from gradlab.nn.float64 import norms64

MOMENTUM_DECAY = 4e-3
"""Of NAdam, torch's default."""


def _averages(gradient: Tensor, state: State, rate: Rates) -> tuple[Tensor, Tensor]:
    """Running mean and mean square of the gradient, moved by one step."""
    mean, square = state["mean"], state["square"]
    blend(mean, gradient, 1 - rate.beta1)
    square.mul_(rate.beta2).addcmul_(gradient, gradient * (1 - rate.beta2))
    return mean, square


def _unbiased(beta: Tensor, t: Tensor) -> Tensor:
    """1 - beta^(t+1), (M, 1) float64: what an average that began at zero is to be divided by."""
    return 1 - beta.double() ** (t + 1)


def adam_step(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """Adam without any decay."""
    mean, square = _averages(gradient, state, rate)
    if "amsgrad" in rate.active:
        largest = torch.maximum(state["largest"], square, out=state["largest"])
        square = torch.where(rate.amsgrad.bool(), largest, square)
    correction = _unbiased(rate.beta2, t).sqrt().to(rate.lr.dtype)
    # In half precision the root is rounded before eps is added, and eps with it: 1e-8 is zero there, as in torch.
    denominator = (square.sqrt() / correction).to(square.dtype).add_(rate.eps)
    descend(parameters, mean / denominator, rate.lr / _unbiased(rate.beta1, t).to(rate.lr.dtype))


def adam(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.Adam (Kingma & Ba 2014, algorithm 1)."""
    decay(parameters, gradient, rate)
    adam_step(parameters, gradient, state, rate, t)


def adamw(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.AdamW: the decay acts on the weights, not on the gradient (Loshchilov & Hutter 2017)."""
    shrink(parameters, rate)
    lasso(parameters, gradient, rate)
    adam_step(parameters, gradient, state, rate, t)


def nadam(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.NAdam: Nesterov's momentum in Adam (Dozat 2016)."""
    decay(parameters, gradient, rate)
    mean, square = _averages(gradient, state, rate)
    beta1, product = rate.beta1.double(), state["momenta"]
    here, ahead = (beta1 * (1 - 0.5 * 0.96 ** ((t + step) * MOMENTUM_DECAY)) for step in (1, 2))
    product.mul_(here.to(product.dtype))
    denominator = (square / _unbiased(rate.beta2, t).to(rate.lr.dtype)).to(square.dtype).sqrt_().add_(rate.eps)
    so_far = product.double()
    of_gradient = rate.lr.double() * (1 - here) / (1 - so_far)
    of_mean = rate.lr.double() * ahead / (1 - so_far * ahead)
    descend(parameters, gradient / denominator, of_gradient.to(rate.lr.dtype))
    descend(parameters, mean / denominator, of_mean.to(rate.lr.dtype))


def radam(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.RAdam: plain momentum until the variance of the scale can be told (Liu et al. 2019)."""
    decay(parameters, gradient, rate)
    mean, square = _averages(gradient, state, rate)
    beta2, count = rate.beta2.double(), t + 1
    unbiased = _unbiased(rate.beta2, t)
    most = 2 / (1 - beta2) - 1
    length = most - 2 * count * beta2**count / unbiased
    told = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
    scale = (told.clamp(min=0).sqrt() * unbiased.sqrt()).to(rate.lr.dtype)
    direction = torch.where(length > 5, scale / (square.sqrt() + rate.eps), torch.ones_like(mean))
    lr = rate.lr if rate.momentum_lr is None else torch.where(length > 5, rate.lr, rate.momentum_lr)
    descend(parameters, mean * direction, (lr.double() / _unbiased(rate.beta1, t)).to(rate.lr.dtype))


def adamax(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.Adamax: the largest entry lately in place of the mean square (Kingma & Ba 2014, algorithm 2)."""
    decay(parameters, gradient, rate)
    mean, largest = state["mean"], state["largest"]
    blend(mean, gradient, 1 - rate.beta1)
    torch.maximum(largest.mul_(rate.beta2), gradient.abs().add_(rate.eps), out=largest)
    descend(parameters, mean / largest, (rate.lr.double() / _unbiased(rate.beta1, t)).to(rate.lr.dtype))


def rmsprop(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.RMSprop; beta2 is its alpha."""
    del t
    decay(parameters, gradient, rate)
    square = state["square"]
    square.mul_(rate.beta2).addcmul_(gradient, gradient * (1 - rate.beta2))
    direction = gradient.div_(square.sqrt().add_(rate.eps))
    if "momentum" in rate.active:
        direction = state["momentum"].mul_(rate.momentum).add_(direction)
    descend(parameters, direction, rate.lr)


def adagrad(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.Adagrad without learning-rate decay (Duchi et al. 2011)."""
    del t
    decay(parameters, gradient, rate)
    total = state["sum"]
    total.addcmul_(gradient, gradient)
    descend(parameters, gradient.div_(total.sqrt().add_(rate.eps)), rate.lr)


def adadelta(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.Adadelta; beta2 is its rho (Zeiler 2012, algorithm 1)."""
    del t
    decay(parameters, gradient, rate)
    square, moved = state["square"], state["moved"]
    square.mul_(rate.beta2).addcmul_(gradient, gradient * (1 - rate.beta2))
    step = (moved + rate.eps).sqrt_().div_((square + rate.eps).sqrt_()).mul_(gradient)
    moved.mul_(rate.beta2).addcmul_(step, step * (1 - rate.beta2))
    descend(parameters, step, rate.lr)


def lamb(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """Adam's direction and the decay, as long in each tensor as its weights are (You et al. 2019, algorithm 2)."""
    lasso(parameters, gradient, rate)
    mean, square = _averages(gradient, state, rate)
    one, two = (_unbiased(beta, t).to(rate.lr.dtype) for beta in (rate.beta1, rate.beta2))
    direction = (mean / one).div_((square / two).sqrt_().add_(rate.eps)).addcmul_(parameters, rate.weight_decay)
    spans = rate.layout.columns
    weights, lengths = norms64(parameters, spans), norms64(direction, spans)
    trust = torch.where((weights > 0) & (lengths > 0), weights / lengths, 1.0).to(mean.dtype)
    for span, own in zip(spans, trust.unsqueeze(2).unbind(1), strict=True):
        direction[:, span] *= own
    descend(parameters, direction, rate.lr)
