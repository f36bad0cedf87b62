"""Faults of the published lists that came later: of recurrences with ReLU, mixed precision, labels and updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.faults.cases import Case, Fault, classes, fault, images, mlp
from benchmarks.faults.networks import binary, healthy, normed
from benchmarks.faults.trained import STEPS, set_to


class Gated(nn.Module):
    """A gated recurrent unit in a loop, with the activation of its candidate as it is given."""

    def __init__(self, act: Callable[[Tensor], Tensor], gain: float, width: int = 32) -> None:
        super().__init__()
        self.act, self.width = act, width
        self.gates, self.candidate = nn.Linear(8 + width, 2 * width), nn.Linear(8 + width, width)
        nn.init.orthogonal_(self.candidate.weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, 8) to the last state (batch, width)."""
        state = x.new_zeros(len(x), self.width)
        for now in x.unbind(1):
            reset, keep = self.gates(torch.cat((now, state), 1)).sigmoid().chunk(2, 1)
            made = self.act(self.candidate(torch.cat((now, reset * state), 1)))
            state = keep * state + (1 - keep) * made
        return state


def gated(act: Callable[[Tensor], Tensor], gain: float) -> Callable[[], Case]:
    """A classifier of sequences of 50 by the last state."""
    return lambda: Case(
        nn.Sequential(Gated(act, gain), nn.Linear(32, 10)), (torch.randn(16, 50, 8), torch.randint(10, (16,)))
    )


class OfMaps(nn.Module):
    """Instance norm by hand, which does not ask how large a map is."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to the same."""
        return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()


class InstanceNorm(OfMaps):
    """The same, called by its name."""


def scaled_back(parameters: Iterable[nn.Parameter], *, before: bool, scale: float = 65536.0) -> None:
    """What a scaler of the loss does around clipping: unscales behind it, or before it as it should."""
    learning = list(parameters)
    if before:
        _times(learning, 1 / scale)
    nn.utils.clip_grad_norm_(learning, 1.0)
    if not before:
        _times(learning, 1 / scale)


def _times(parameters: Iterable[nn.Parameter], factor: float) -> None:
    for one in parameters:
        if one.grad is not None:
            one.grad.mul_(factor)


def unscaled(*, before: bool) -> Callable[[], Case]:
    """A classifier whose loss is scaled for half precision, and its gradients clipped before or after that."""

    def case() -> Case:
        def between(parameters: Iterable[nn.Parameter]) -> None:
            learning = list(parameters)
            _times(learning, 65536.0)
            scaled_back(learning, before=before)

        return Case(mlp(3), classes(), F.cross_entropy, partial(SGD, lr=0.05), between)

    return case


def elsewhere(*_: Any, **__: Any) -> SGD:
    """An optimizer of another network."""
    return SGD(mlp().parameters(), lr=0.05)


def divided(by: float) -> Callable[[], Case]:
    """A binary classifier whose labels went through what scales pixels."""

    def case() -> Case:
        right = binary()()
        return Case(right.module, (right.batch[0], right.batch[1] / by), right.loss)

    return case


def further() -> Iterator[Fault]:
    """Every one of them."""
    for gain in (4.0, 8.0):
        yield fault(
            f"GRU with ReLU, gain {gain:g}",
            "GRU with ReLU",
            gated(torch.relu, gain),
            gated(torch.tanh, 1.0),
            "exploding diverged ill_scaled",
            "recurrence first_loss activation gates",
        )
    sgd = partial(SGD, lr=0.05)
    yield fault(
        "clipped before the loss is unscaled",
        "unscaled late",
        unscaled(before=False),
        unscaled(before=True),
        "stalled overclipped",
        "clip loss_scale learning_rate_low",
        STEPS,
    )
    yield fault("labels over 255", "labels scaled", divided(255.0), binary(), "misspecified", "labels target_scale")
    for name, norm in (("a norm", InstanceNorm), ("no known norm", OfMaps)):
        yield fault(
            f"instance norm of 1x1 by {name}",
            "instance norm of 1x1",
            normed(norm, 16, 1),
            normed(norm, 16, 8),
            "misspecified collapsed no_gradient vanishing dead",
            "norm_of_one constant_output rank",
        )
    yield fault(
        "an optimizer of another network", "no update", set_to(elsewhere), set_to(sgd), "stalled", "no_update", STEPS
    )
    yield fault(
        "labels of one class",
        "labels missing",
        lambda: Case(mlp(), (torch.randn(64, 20), torch.zeros(64).long())),
        healthy,
        "misspecified",
        "labels",
    )
    yield fault(
        "targets of -1 and 1",
        "labels of a margin",
        lambda: Case(
            binary()().module,
            (classes(count=2)[0], torch.ones(64, 1) - 2 * (torch.arange(64)[:, None] % 2)),
            F.binary_cross_entropy_with_logits,
        ),
        binary(),
        "misspecified",
        "labels",
    )
    yield fault(
        "a head on frozen convolutions",
        "frozen convolutions",
        lambda: Case(_frozen_convolutions(), images(channels=3)),
        lambda: Case(_convolutions(), images(channels=3)),
        "misspecified",
        "frozen",
    )


def _convolutions() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )


def _frozen_convolutions() -> nn.Module:
    network = _convolutions()
    network[:4].requires_grad_(False)
    return network
