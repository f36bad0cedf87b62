"""Faults that only training shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam, AdamW

from benchmarks.faults.cases import Case, Fault, classes, fault, images, mlp, regression, untouched
from benchmarks.faults.networks import lenet

STEPS = 60


def set_to(
    optimizer: Callable[..., Any], depth: int = 3, between: Callable[..., object] = untouched
) -> Callable[[], Case]:
    """A classifier with an optimizer."""
    return lambda: Case(mlp(depth), classes(), F.cross_entropy, optimizer, between)


def on_images(optimizer: Callable[..., Any]) -> Callable[[], Case]:
    """LeNet with an optimizer."""
    return lambda: Case(lenet(0)().module, images(), F.cross_entropy, optimizer)


def squared(optimizer: Callable[..., Any], scale: float = 1.0) -> Callable[[], Case]:
    """A regression with an optimizer and scaled inputs."""

    def case() -> Case:
        x, y = regression()
        return Case(mlp(2, outs=1), (x * scale, y), F.mse_loss, optimizer)

    return case


def clipped(norm: float) -> Callable[..., object]:
    """Clips the norm of the gradient before each update."""
    return lambda parameters: nn.utils.clip_grad_norm_(list(parameters), norm)


def shuffled() -> Case:
    """A classifier of noise whose labels are drawn by chance, too narrow to remember them."""
    return Case(mlp(1, width=2), (torch.randn(512, 20), torch.randint(10, (512,))), optimizer=partial(SGD, lr=0.05))


def in_training() -> Iterator[Fault]:
    """Every fault that shows in training alone."""
    high, low = "oscillating diverged exploding dead ill_scaled", "stalled"
    sgd, adam = partial(SGD, lr=0.05), partial(Adam, lr=1e-3)
    for lr in (3.0, 10.0, 100.0):
        yield fault(
            f"SGD, lr {lr:g}",
            "SGD too fast",
            set_to(partial(SGD, lr=lr)),
            set_to(sgd),
            high,
            "learning_rate_high",
            STEPS,
        )
    for lr in (0.3, 1.0, 10.0):
        yield fault(
            f"Adam, lr {lr:g}",
            "Adam too fast",
            set_to(partial(Adam, lr=lr)),
            set_to(adam),
            high,
            "learning_rate_high",
            STEPS,
        )
    yield fault(
        "LeNet, Adam, lr 0.5",
        "Adam too fast",
        on_images(partial(Adam, lr=0.5)),
        on_images(adam),
        high,
        "learning_rate_high",
        STEPS,
    )
    yield fault(
        "regression, SGD, lr 1",
        "SGD too fast",
        squared(partial(SGD, lr=1.0)),
        squared(partial(SGD, lr=0.02)),
        high,
        "learning_rate_high",
        STEPS,
    )
    for lr in (1e-6, 1e-8):
        yield fault(
            f"SGD, lr {lr:g}", "SGD too slow", set_to(partial(SGD, lr=lr)), set_to(sgd), low, "learning_rate_low", STEPS
        )
        yield fault(
            f"Adam, lr {lr:g}",
            "Adam too slow",
            set_to(partial(Adam, lr=lr)),
            set_to(adam),
            low,
            "learning_rate_low",
            STEPS,
        )
    yield fault(
        "LeNet, Adam, lr 1e-8",
        "Adam too slow",
        on_images(partial(Adam, lr=1e-8)),
        on_images(adam),
        low,
        "learning_rate_low",
        STEPS,
    )
    for momentum in (0.99, 0.999):
        fast = partial(SGD, lr=0.5, momentum=momentum)
        yield fault(
            f"momentum {momentum:g}, lr 0.5",
            "momentum",
            set_to(fast),
            set_to(partial(SGD, lr=0.02, momentum=0.9)),
            high,
            "momentum learning_rate_high",
            STEPS,
        )
    for name, decayed in (
        ("SGD, weight decay 0.5", partial(SGD, lr=0.1, weight_decay=0.5)),
        ("AdamW, weight decay 50", partial(AdamW, lr=1e-2, weight_decay=50.0)),
        ("SGD, weight decay 5", partial(SGD, lr=0.1, weight_decay=5.0)),
    ):
        yield fault(
            name,
            "weight decay",
            set_to(decayed),
            set_to(sgd),
            "stalled vanishing collapsed no_gradient",
            "weight_decay",
            STEPS,
        )
    for norm in (1e-4, 1e-6):
        yield fault(
            f"clipped to {norm:g}",
            "clip",
            set_to(sgd, between=clipped(norm)),
            set_to(sgd, between=clipped(5.0)),
            "stalled overclipped",
            "clip learning_rate_low",
            STEPS,
        )
    yield fault(
        "Adam, eps 100",
        "eps",
        set_to(partial(Adam, lr=1e-3, eps=100.0)),
        set_to(adam),
        "stalled",
        "eps learning_rate_low",
        STEPS,
    )
    yield fault(
        "inputs times 255, SGD",
        "inputs unscaled in training",
        squared(sgd, 255.0),
        squared(partial(SGD, lr=0.02)),
        f"{high} stalled",
        "input_scale",
        STEPS,
    )
    yield fault("labels by chance", "labels", shuffled, set_to(sgd), "stalled misspecified", "labels", STEPS)
