"""Optimizers that go along a running mean of the gradient: SGD, Lion by its signs, Muon by its orthogonal part.

Shapes: M members, P parameters a member.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradlab.engine.optim.adaptive import adam_step
from gradlab.engine.optim.rates import Rates, State, blend, decay, descend, lasso, shrink
from gradlab.nn.slots import MATRICES

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration that Muon takes five times (Jordan et al. 2024)."""

LEAST_LENGTH = 1e-7
"""Of a matrix that Muon divides by its length."""


def sgd(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.SGD: b <- mu b + (1 - dampening) g; w <- w - lr b, or w - lr (g + mu b) with Nesterov's.

    The buffer begins at zero, and what comes first is not dampened, so that it is the gradient then, as torch's.
    """
    buffer = state.get("momentum")
    decay(parameters, gradient, rate)
    direction = gradient
    if buffer is not None:
        damped = gradient
        if "dampening" in rate.active:
            damped = gradient * torch.where(t == 0, torch.ones_like(rate.dampening), 1 - rate.dampening)
        direction = buffer.mul_(rate.momentum).add_(damped)
        if "nesterov" in rate.active:
            ahead = gradient.addcmul(buffer, rate.momentum)
            direction = torch.where(rate.nesterov.bool(), ahead, buffer)
    descend(parameters, direction, rate.lr)


def lion(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """The sign of a mean of gradients, with decoupled weight decay (Chen et al. 2023, algorithm 2)."""
    del t
    lasso(parameters, gradient, rate)
    shrink(parameters, rate)
    mean = state["mean"]
    descend(parameters, blend(mean.clone(), gradient, 1 - rate.beta1).sign_(), rate.lr)
    blend(mean, gradient, 1 - rate.beta2)


def muon(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """torch.optim.Muon of the matrices, adamw of all else (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982).

    Steps of a matrix are as long as AdamW's (torch's ``match_rms_adamw``), so that one learning rate serves both.
    """
    lasso(parameters, gradient, rate)
    shrink(parameters, rate)
    before = parameters.clone()
    buffer = blend(state["momentum"], gradient, 1 - rate.momentum)
    ahead = torch.where(rate.nesterov.bool(), blend(gradient.clone(), buffer, rate.momentum), buffer)
    adam_step(parameters, gradient, state, rate, t)
    for slot, span in zip(rate.layout.slots, rate.layout.columns, strict=True):
        if slot.role not in MATRICES or len(slot.shape) != 2:
            continue
        own = before[:, span]
        for rows in torch.arange(slot.size, device=own.device).chunk(slot.blocks):
            block = ahead[:, span][:, rows].view(len(own), -1, slot.shape[1])
            length = 0.2 * math.sqrt(max(block.shape[1:]))
            own[:, rows] -= rate.lr * length * _orthogonal(block).flatten(1).to(own.dtype)
        parameters[:, span] = own


def _orthogonal(matrices: Tensor) -> Tensor:
    """(M, n, k) -> nearly U V' of its singular value decomposition, in bfloat16, as torch does it."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=LEAST_LENGTH)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x
