"""Small networks that faults are put into."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.faults.cases import (
    PLAIN,
    Case,
    Composed,
    classes,
    drawn,
    images,
    linears,
    mlp,
    regression,
    rings,
    scaled,
)


def healthy() -> Case:
    """The twin of most faults in a classifier."""
    return Case(mlp(), classes())


def healthy_regression() -> Case:
    """The twin of most faults in a regression."""
    return Case(mlp(outs=1), regression(), F.mse_loss)


def multiplied(factor: float) -> Callable[[], Case]:
    """A classifier whose inputs are multiplied."""
    return on_inputs(lambda x: x * factor)


def shifted(offset: float) -> Callable[[], Case]:
    """A classifier whose inputs are far from zero."""
    return on_inputs(lambda x: x + offset)


def with_biases(bias: float) -> Callable[[], Case]:
    """A classifier whose hidden biases are all set."""
    return lambda: Case(biased(mlp(), bias), classes())


def on_inputs(change: Callable[[Tensor], Tensor]) -> Callable[[], Case]:
    """A classifier whose inputs are changed."""

    def case() -> Case:
        x, y = classes()
        return Case(mlp(), (change(x), y))

    return case


def on_targets(factor: float, shift: float = 0.0) -> Callable[[], Case]:
    """A regression whose targets are scaled and shifted."""

    def case() -> Case:
        x, y = regression()
        return Case(mlp(outs=1), (x, y * factor + shift), F.mse_loss)

    return case


def ending(*last: nn.Module, loss: Any = F.cross_entropy, outs: int = 10) -> Callable[[], Case]:
    """A classifier with something behind its logits."""
    return lambda: Case(nn.Sequential(*mlp(outs=outs), *last), classes(count=max(2, outs)), loss)


def one_layer(depth: int, at: int, factor: float) -> Callable[[], Case]:
    """A classifier one layer of which is scaled."""
    return lambda: Case(scaled(mlp(depth), at, factor), classes())


def deep(depth: int, act: Callable[[], nn.Module] = nn.ReLU) -> Callable[[], Case]:
    """A classifier of some depth."""
    return lambda: Case(mlp(depth, act), classes())


def biased(network: nn.Module, bias: float) -> nn.Module:
    """The network with the biases of all but the last linear layer set."""
    for layer in linears(network)[:-1]:
        nn.init.constant_(layer.bias, bias)
    return network


def frozen(network: nn.Module, share: float) -> nn.Module:
    """The network whose first layers take no gradient."""
    layers = linears(network)
    for layer in layers[: round(share * len(layers))]:
        layer.requires_grad_(False)
    return network


def detached(after: int) -> Case:
    """A classifier of eight layers through which the gradient ends behind one."""
    layers = list(mlp(8))
    head, tail = nn.Sequential(*layers[: 2 * after]), nn.Sequential(*layers[2 * after :])
    return Case(Composed(lambda parts, x: parts["tail"](parts["head"](x).detach()), head=head, tail=tail), classes())


def experts(gate: Callable[[Tensor], Tensor]) -> Callable[[], Case]:
    """Two experts mixed by a gate: (samples, 2) of logits to their weights."""

    def way(parts: Any, x: Tensor) -> Tensor:
        share = gate(parts["gate"](x))
        out: Tensor = parts["one"](x) * share[:, :1] + parts["two"](x) * share[:, 1:]
        return out

    return lambda: Case(Composed(way, gate=nn.Linear(20, 2), one=mlp(2), two=mlp(2)), classes())


def branches(share: float) -> Callable[[], Case]:
    """Two branches that are added, the second times a share."""
    return lambda: Case(
        Composed(lambda parts, x: parts["one"](x) + share * parts["two"](x), one=mlp(3), two=mlp(3)), classes()
    )


def residual(depth: int, share: float) -> Callable[[], Case]:
    """A stack of residual branches without a norm."""

    def way(parts: Any, x: Tensor) -> Tensor:
        x = parts["stem"](x)
        for index in range(depth):
            x = x + share * parts[f"branch{index}"](x)
        out: Tensor = parts["head"](x)
        return out

    def case() -> Case:
        parts = {f"branch{index}": mlp(1, ins=64, outs=64) for index in range(depth)}
        return Case(Composed(way, stem=nn.Linear(20, 64), **parts, head=nn.Linear(64, 10)), classes(), optimizer=PLAIN)

    return case


class Attention(nn.Module):
    """Self-attention of one head whose logits are multiplied by ``scale``."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.qkv, self.out, self.scale = nn.Linear(width, 3 * width), nn.Linear(width, width), scale

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same."""
        q, k, v = self.qkv(x).chunk(3, -1)
        out: Tensor = self.out(torch.softmax(self.scale * q @ k.transpose(1, 2), -1) @ v)
        return out


def transformer(depth: int, scale: float, order: str = "pre", std: float = 0.02, width: int = 32) -> Callable[[], Case]:
    """A classifier of every token whose attention logits are scaled; ``order`` is `pre` or `post` norm."""
    ways = {"pre": lambda norm, part, x: x + part(norm(x)), "post": lambda norm, part, x: norm(x + part(x))}

    def way(parts: Any, ids: Tensor) -> Tensor:
        x = parts["embedding"](ids)
        for index in range(depth):
            x = ways[order](parts[f"norm{index}a"], parts[f"attention{index}"], x)
            x = ways[order](parts[f"norm{index}b"], parts[f"mlp{index}"], x)
        out: Tensor = parts["head"](parts["norm"](x)).flatten(0, 1)
        return out

    def case() -> Case:
        parts: dict[str, nn.Module] = {"embedding": nn.Embedding(32, width)}
        for index in range(depth):
            parts |= {f"norm{index}a": nn.LayerNorm(width), f"attention{index}": Attention(width, scale)}
            parts |= {f"norm{index}b": nn.LayerNorm(width)}
            parts |= {f"mlp{index}": nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))}
        parts |= {"norm": nn.LayerNorm(width), "head": nn.Linear(width, 32)}
        network = drawn(Composed(way, **parts), lambda weight: nn.init.normal_(weight, std=std))
        ids = torch.randint(32, (8, 16))
        return Case(network, (ids, ids.roll(-1, 1).flatten()))

    return case


def recurrent(make: Callable[[], nn.RNNBase], change: Callable[[nn.RNNBase], object], steps: int) -> Callable[[], Case]:
    """A classifier of sequences by the last output of a recurrent network."""

    def case() -> Case:
        cell = make()
        with torch.no_grad():
            change(cell)
        network = Composed(
            lambda parts, x: parts["head"](parts["cell"](x)[0][:, -1]), cell=cell, head=nn.Linear(32, 10)
        )
        return Case(network, (torch.randn(16, steps, 8), torch.randint(10, (16,))))

    return case


def orthogonal(gain: float) -> Callable[[nn.RNNBase], object]:
    """Draws the recurrent matrix."""
    return lambda cell: nn.init.orthogonal_(cell.get_parameter("weight_hh_l0"), gain)


def forget(bias: float) -> Callable[[nn.RNNBase], object]:
    """Sets the bias of an LSTM's forget gates."""
    return lambda cell: cell.get_parameter("bias_hh_l0")[32:64].fill_(bias)


def lenet(more: int, act: Callable[[], nn.Module] = nn.ReLU, std: float | None = None) -> Callable[[], Case]:
    """LeNet on 16 by 16, with further hidden layers."""

    def case() -> Case:
        convolutions = [nn.Conv2d(1, 6, 5, padding=2), act(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), act(), nn.Flatten()]
        extra = [part for _ in range(more) for part in (nn.Linear(84, 84), act())]
        network = nn.Sequential(*convolutions, nn.Linear(256, 84), act(), *extra, nn.Linear(84, 10))
        return Case(
            network if std is None else drawn(network, lambda weight: nn.init.normal_(weight, std=std)), images()
        )

    return case


def normed(norm: Callable[[], nn.Module], samples: int, size: int) -> Callable[[], Case]:
    """Two convolutions with a norm between them, on maps of some size."""
    return lambda: Case(
        nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), norm(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
        ),
        images(samples, 3, size),
    )


class Exponential(nn.Module):
    """exp as an activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Its exponential."""
        return x.exp()


def half(loss_factor: float) -> Callable[[], Case]:
    """A classifier in float16 whose loss is multiplied."""

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out.float(), y) * loss_factor

    def case() -> Case:
        x, y = classes()
        return Case(mlp().half(), (x.half(), y), loss)

    return case


def binary(*last: nn.Module, loss: Any = F.binary_cross_entropy_with_logits) -> Callable[[], Case]:
    """A classifier of two classes by one unit."""

    def case() -> Case:
        x, y = classes(count=2)
        return Case(nn.Sequential(*mlp(outs=1), *last), (x, y[:, None].float()), loss)

    return case


def narrow(width: int) -> Case:
    """A classifier with a bottleneck."""
    return Case(nn.Sequential(*mlp(2, outs=width), *mlp(2, ins=width)), classes())


def averaging(times: int) -> Callable[[], Case]:
    """A graph convolution on a ring of 16 nodes, averaging over neighbours so many times a layer."""
    ring = torch.eye(16) / 3 + torch.eye(16).roll(1, 0) / 3 + torch.eye(16).roll(-1, 0) / 3
    mixing = torch.linalg.matrix_power(ring, times)

    def way(parts: Any, x: Tensor) -> Tensor:
        for index in range(3):
            x = torch.relu(parts[f"layer{index}"](mixing @ x))
        out: Tensor = parts["head"](x)
        return out

    def case() -> Case:
        parts = {f"layer{index}": nn.Linear(20 if index == 0 else 32, 32) for index in range(3)}
        return Case(Composed(way, **parts, head=nn.Linear(32, 4)), (torch.randn(16, 20), torch.randint(4, (16,))))

    return case


def circles(depth: int, act: Callable[[], nn.Module]) -> Callable[[], Case]:
    """Two rings and a network of some depth."""
    return lambda: Case(mlp(depth, act, ins=2, width=32, outs=2), rings())


def with_nan(x: Tensor) -> Tensor:
    """The inputs with one entry that is no number."""
    x = x.clone()
    x[0, 0] = math.nan
    return x


def xor(outs: int, last: nn.Module, loss: Any) -> Callable[[], Case]:
    """The four points of XOR."""
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    return lambda: Case(nn.Sequential(*mlp(1, ins=2, width=16, outs=outs), last), (x, y), loss)
