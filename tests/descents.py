"""The optimizers of runs as objects of torch.optim, or of the same form where torch has none."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gradlab.spec.run import OptimSpec, RunSpec


def optimizer(run: RunSpec, network: nn.Module) -> Any:
    """The torch.optim object of a run, or one of the same form where torch has none."""
    given, parameters = run.optim, list(network.parameters())
    common: dict[str, Any] = {"lr": given.lr, "weight_decay": given.weight_decay, "maximize": given.maximize}
    eps, betas, momentum = ({"eps": given.eps}, {"betas": (given.beta1, given.beta2)}, {"momentum": given.momentum})
    adam = {**eps, **betas}
    makers: dict[str, tuple[Any, dict[str, Any]]] = {
        "sgd": (torch.optim.SGD, {**momentum, "nesterov": given.nesterov, "dampening": given.dampening}),
        "adam": (torch.optim.Adam, {**adam, "amsgrad": given.amsgrad}),
        "adamw": (torch.optim.AdamW, {**adam, "amsgrad": given.amsgrad}),
        "rmsprop": (torch.optim.RMSprop, {**eps, **momentum, "alpha": given.beta2}),
        "adagrad": (torch.optim.Adagrad, eps),
        "nadam": (torch.optim.NAdam, adam),
        "radam": (torch.optim.RAdam, adam),
        "adamax": (torch.optim.Adamax, adam),
        "adadelta": (torch.optim.Adadelta, {**eps, "rho": given.beta2}),
    }
    if given.name in makers:
        maker, own = makers[given.name]
        return maker(parameters, **own, **common)
    if given.name == "muon":
        return Muon(parameters, given)
    return {"lion": Lion, "lamb": Lamb}[given.name](parameters, {**common, **adam})


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, algorithm 2, parameter by parameter."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        del closure
        for group in self.param_groups:
            (one, two), lr = group["betas"], group["lr"]
            for weight in group["params"]:
                gradient = -weight.grad if group["maximize"] else weight.grad
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                direction = torch.sign(one * mean + (1 - one) * gradient)
                self.state[weight]["mean"] = two * mean + (1 - two) * gradient
                weight.data -= lr * group["weight_decay"] * weight.data
                weight.data -= lr * direction


class Lamb(torch.optim.Optimizer):
    """You et al. 2019, algorithm 2, parameter by parameter."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        del closure
        for group in self.param_groups:
            (one, two), lr = group["betas"], group["lr"]
            for weight in group["params"]:
                state = self.state[weight]
                gradient = -weight.grad if group["maximize"] else weight.grad
                state["t"] = state.get("t", 0) + 1
                state["m"] = one * state.get("m", 0) + (1 - one) * gradient
                state["v"] = two * state.get("v", 0) + (1 - two) * gradient**2
                unbiased = state["m"] / (1 - one ** state["t"]), state["v"] / (1 - two ** state["t"])
                direction = unbiased[0] / (unbiased[1].sqrt() + group["eps"]) + group["weight_decay"] * weight.data
                lengths = float(weight.data.norm()), float(direction.norm())
                trust = lengths[0] / lengths[1] if min(lengths) > 0 else 1.0
                weight.data -= lr * trust * direction


class Muon:
    """torch.optim.Muon of the matrices and torch.optim.AdamW of all else."""

    def __init__(self, parameters: list[nn.Parameter], given: OptimSpec) -> None:
        decays: dict[str, Any] = {"lr": given.lr, "weight_decay": given.weight_decay}
        momenta = {"momentum": given.momentum, "nesterov": given.nesterov, "adjust_lr_fn": "match_rms_adamw"}
        betas = {"betas": (given.beta1, given.beta2), "eps": given.eps}
        matrices = [weight for weight in parameters if weight.dim() == 2]
        others = [weight for weight in parameters if weight.dim() != 2]
        makers = [(torch.optim.Muon, matrices, momenta), (torch.optim.AdamW, others, betas)]
        self.parts = [maker(own, **decays, **how) for maker, own, how in makers if own]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()
