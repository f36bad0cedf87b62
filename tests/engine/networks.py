"""Networks as somebody else writes them, and their data: what gradlab lends itself with `model=module`."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """Fully connected, of a depth that is an argument."""

    def __init__(self, depth: int = 3, width: int = 8) -> None:
        super().__init__()
        sizes = [64, *[width] * (depth - 1), 10]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


class Naming(nn.Module):
    """An `Mlp` that puts out what it has under names."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body, self.classes = Mlp(), classes

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"penalty": torch.zeros(()), "scores": self.body(x)[:, : self.classes]}


class Convolutional(nn.Module):
    """Convolutions with batch norm, whose running statistics must be right, and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        )
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.unsqueeze(1)).flatten(1))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two residual blocks between a stem and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)) for _ in range(2)
        )
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.unsqueeze(1))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Lstm(nn.Module):
    """A fused LSTM over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0][:, -1])  # type: ignore[no-any-return]


class Cells(nn.Module):
    """A cell that is called in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(8, 6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 6)
        for row in x.unbind(1):
            state = self.cell(row, state)
        return self.head(state)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """An encoder over the rows of an image, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """An autoencoder-like pair of layers that share one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.out.weight = self.into.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.out(torch.tanh(self.into(x.flatten(1))))))  # type: ignore[no-any-return]


class Repeated(nn.Module):
    """One layer that is called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for _ in range(3):
            x = torch.relu(self.layer(x))
        return self.head(x)  # type: ignore[no-any-return]


class Dropping(nn.Module):
    """Dropout between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class Buffered(nn.Module):
    """A buffer that is replaced at every call."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 16), nn.Linear(16, 10)
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x.flatten(1)))
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return self.head(h - self.mean)  # type: ignore[no-any-return]


class Frozen(nn.Module):
    """A first layer that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 16), nn.Linear(16, 10)
        self.first.requires_grad_(requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x.flatten(1))))  # type: ignore[no-any-return]


class Words(nn.Module):
    """A bag of words: whole numbers as input."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(20, 8, sparse=sparse), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.table(x).mean(1)))  # type: ignore[no-any-return]


class TwoInputs(nn.Module):
    """Numbers and words together, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.numbers, self.head = nn.Embedding(20, 8), nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, words: Tensor, numbers: Tensor) -> Tensor:
        return self.head(torch.tanh(self.table(words).mean(1) + self.numbers(numbers)))  # type: ignore[no-any-return]


class Complex(nn.Module):
    """A complex matrix between real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 8), nn.Linear(8, 10)
        self.turn = nn.Parameter(torch.randn(8, 8, dtype=torch.complex64) / 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x.flatten(1)))
        return self.head((h.to(self.turn.dtype) @ self.turn).abs())  # type: ignore[no-any-return]


class Functional(nn.Module):
    """Parameters of its own beside a layer, and F.relu."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.scale = nn.Linear(64, 16), nn.Parameter(torch.ones(16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.first(x.flatten(1))) * self.scale)  # type: ignore[no-any-return]


class Lazy(nn.Module):
    """A layer whose inputs are counted at the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(12), nn.ReLU(), nn.LazyLinear(10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class Still(Mlp):
    """One that takes no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


MADE = Mlp()
"""A network, and nothing that makes one."""


def not_a_module() -> list[int]:
    """What no network is."""
    return [1]


def words(samples: int = 96, named: bool = False) -> Any:
    """Sentences of five words, the class that of their sum; with ``named`` numbers beside them."""
    rng = np.random.default_rng(0)
    found = rng.integers(0, 20, (samples, 5))
    numbers, classes = rng.normal(size=(samples, 5)), found.sum(1) % 3
    inputs = {"words": found, "numbers": numbers} if named else found
    cut = samples // 3

    def part(at: slice) -> Any:
        taken = {name: one[at] for name, one in inputs.items()} if isinstance(inputs, dict) else inputs[at]
        return taken, classes[at]

    return part(slice(cut, None)), part(slice(0, cut))


def unequal() -> Any:
    """Targets that are too few."""
    return (np.zeros((4, 2)), np.zeros(3)), (np.zeros((2, 2)), np.zeros(2))


class Odd(nn.Module):
    """Complex numbers that stand at odd places behind real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 7), nn.Linear(7, 10)
        self.turn, self.shift = (nn.Parameter(torch.randn(*size, dtype=torch.complex64) / 4) for size in ((7, 7), (7,)))
        self.last = nn.Parameter(torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x.flatten(1))).to(self.turn.dtype) @ self.turn + self.shift
        return self.head(h.abs()) + self.last  # type: ignore[no-any-return]


class Loop(nn.Module):
    """Cells written by hand, which feed themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.turn, self.head = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 6)
        for row in x.unbind(1):
            state = torch.tanh(self.enter(row) + self.turn(state))
        return self.head(state)  # type: ignore[no-any-return]


class Counting(Mlp):
    """A count of its calls that is no buffer, and by which it scales what it puts out."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) / self.calls


class Hidden(Mlp):
    """Numbers drawn once that are neither parameters nor buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = torch.rand(64, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1) * self.mask)


class Choosing(Mlp):
    """A branch that looks at numbers."""

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        return found if found.mean() > 0 else -found


class Tossing(Mlp):
    """A branch by Python's own random numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * random.choice((1, -1))
