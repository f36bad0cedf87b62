"""What a faulty network is, and the parts that many of them share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

Batch = tuple[Any, Any]
Loss = Callable[[Any, Any], Tensor]

ADAM = partial(Adam, lr=1e-3)
PLAIN = partial(SGD, lr=0.05)


def untouched(parameters: Iterable[nn.Parameter]) -> None:
    """What happens to the gradients before an update, by default: nothing."""


@dataclass(frozen=True)
class Case:
    """A network with its batch, loss and optimizer; ``between`` changes the gradients before each update."""

    module: nn.Module
    batch: Batch
    loss: Loss = F.cross_entropy
    optimizer: Callable[..., Optimizer] = ADAM
    between: Callable[[Iterable[nn.Parameter]], object] = untouched


@dataclass(frozen=True)
class Fault:
    """A fault: the network that has it, its repaired twin, and the verdicts and causes that count as right.

    With ``steps`` of 0 both are judged at their initialization, else after so many updates.
    """

    name: str
    kind: str
    sick: Callable[[], Case]
    cured: Callable[[], Case]
    words: frozenset[str]
    causes: frozenset[str]
    steps: int = 0
    listed: str = ""

    @property
    def half(self) -> str:
        """The half its kind falls in: `tune`, by which thresholds may be chosen, or `held`.

        `blind` and `unseen` are lists of their own, which were written before the rules that they were first asked by.
        """
        if self.listed:
            return self.listed
        return ("tune", "held")[hashlib.sha256(self.kind.encode()).digest()[0] % 2]


def fault(
    name: str, kind: str, sick: Callable[[], Case], cured: Callable[[], Case], words: str, causes: str, steps: int = 0
) -> Fault:
    """A `Fault` whose words and causes are written with blanks between them."""
    return Fault(name, kind, sick, cured, frozenset(words.split()), frozenset(causes.split()), steps)


def mlp(
    depth: int = 4, act: Callable[[], nn.Module] = nn.ReLU, ins: int = 20, width: int = 64, outs: int = 10
) -> nn.Sequential:
    """``depth`` hidden layers and a linear output; He's initialization for ReLU, else Glorot's."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(ins if index == 0 else width, width), act()]
    network = nn.Sequential(*layers, nn.Linear(width if depth else ins, outs))
    for layer in linears(network)[:-1]:
        (nn.init.kaiming_normal_ if act is nn.ReLU else nn.init.xavier_normal_)(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.xavier_normal_(linears(network)[-1].weight)
    return network


def linears(network: nn.Module) -> list[nn.Linear]:
    """The linear layers in the order of their registration."""
    return [module for module in network.modules() if type(module) is nn.Linear]


@torch.no_grad()
def scaled(network: nn.Module, at: int, factor: float) -> nn.Module:
    """The network with the weights of one linear layer multiplied."""
    linears(network)[at].weight.mul_(factor)
    return network


@torch.no_grad()
def drawn(network: nn.Module, draw: Callable[[Tensor], object]) -> nn.Module:
    """The network with every matrix drawn again."""
    for parameter in network.parameters():
        if parameter.dim() > 1:
            draw(parameter)
    return network


def classes(samples: int = 64, ins: int = 20, count: int = 10) -> Batch:
    """Clusters around random centres: (samples, ins) and their classes."""
    y = torch.randint(count, (samples,))
    return (torch.randn(count, ins)[y] * 0.8 + torch.randn(samples, ins) * 0.6), y


def regression(samples: int = 64, ins: int = 20) -> Batch:
    """A smooth function of the inputs: (samples, ins) and (samples, 1), both of variance about 1."""
    x = torch.randn(samples, ins)
    return x, torch.sin(x[:, :1]) + 0.5 * x[:, 1:2]


def images(samples: int = 16, channels: int = 1, size: int = 16, count: int = 10) -> Batch:
    """Noisy prototypes: (samples, channels, size, size) and their classes."""
    y = torch.randint(count, (samples,))
    return torch.randn(count, channels, size, size)[y] * 0.8 + 0.6 * torch.randn(samples, channels, size, size), y


def rings(samples: int = 64) -> Batch:
    """Two circles, one in the other: (samples, 2) and 0 or 1."""
    y = torch.arange(samples) % 2
    angle = torch.rand(samples) * 6.2832
    return torch.stack((angle.cos(), angle.sin()), 1) * (1 + y)[:, None], y


class Composed(nn.Module):
    """A network whose way forward is a function of its parts."""

    def __init__(self, forward: Callable[[nn.ModuleDict, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.parts, self.way = nn.ModuleDict(parts), forward

    def forward(self, x: Tensor) -> Tensor:
        """What the function makes of the input."""
        return self.way(self.parts, x)
