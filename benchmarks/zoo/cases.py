"""What a network of the zoo is: how it is made, what it is given, and how it is usually trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Any, Any]
Loss = Callable[[Any, Any], Tensor]

CLASSES = 10
SAMPLES = 16


@dataclass(frozen=True)
class Stock:
    """One network: ``make`` builds it with the random generator as it is, ``batch`` what it is given.

    ``family`` decides on which half it stands: thresholds may be chosen on the one, and are reported on the other.
    """

    name: str
    family: str
    make: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    loss: Loss = F.cross_entropy
    optimizer: str = "adam"
    listed: str = ""

    @property
    def half(self) -> str:
        """Tune or held, by a digest of the family's name, or the list of its own that it stands on."""
        return self.listed or ("tune", "held")[hashlib.sha256(self.family.encode()).digest()[0] % 2]


OPTIMIZERS: Mapping[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "careful sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
}


def images(size: int = 32, channels: int = 3, samples: int = SAMPLES) -> Batch:
    """Pictures with a class that can be learned: each class has a pattern of its own under noise."""
    patterns = torch.randn(CLASSES, channels, size, size, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(samples) % CLASSES
    return patterns[classes] + 0.5 * torch.randn(samples, channels, size, size), classes


def vectors(features: int = 64, samples: int = 64) -> Batch:
    """Vectors of unit variance, each class around a centre of its own."""
    centres = torch.randn(CLASSES, features, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(samples) % CLASSES
    return (centres[classes] + torch.randn(samples, features)) / 2**0.5, classes


def words(length: int = 24, vocabulary: int = 100, samples: int = SAMPLES) -> Tensor:
    """Sequences in which each word follows from the one before."""
    start = torch.randint(vocabulary, (samples, 1))
    return (start + 7 * torch.arange(length)) % vocabulary


def next_word(logits: Tensor, tokens: Tensor) -> Tensor:
    """The cross-entropy of the next word, (B, T, V) against (B, T)."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
