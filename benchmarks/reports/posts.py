"""The reports: what somebody built, what must be said of it, and which causes are right."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam

from benchmarks.faults.cases import Case, Composed, Loss, classes, images, mlp, regression

STEPS = 60


@dataclass(frozen=True)
class Report:
    """One report: what was built, the verdicts and causes that count as right, and after how many updates."""

    title: str
    case: Callable[[], Case]
    words: str
    causes: str
    steps: int = 0


def plain(*parts: nn.Module) -> nn.Sequential:
    """Layers one after the other, in torch's own initialization."""
    return nn.Sequential(*parts)


def dense(*sizes: int, act: Callable[[], nn.Module] = nn.ReLU, last: tuple[nn.Module, ...] = ()) -> nn.Sequential:
    """Linear layers with an activation between them."""
    parts: list[nn.Module] = []
    for one, other in itertools.pairwise(sizes):
        parts += [nn.Linear(one, other), act()]
    return plain(*parts[:-1], *last)


def convolutions(last: tuple[nn.Module, ...] = ()) -> nn.Sequential:
    """The network of the first tutorial."""
    return plain(
        *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(400, 64), nn.ReLU(), nn.Linear(64, 10), *last),
    )


def told_apart(network: Callable[[], nn.Module], **rest: Any) -> Callable[[], Case]:
    """Clusters, classified."""
    return lambda: Case(network(), classes(), **rest)


def pictures(
    network: Callable[[], nn.Module], scale: float = 1.0, shift: float = 0.0, **rest: Any
) -> Callable[[], Case]:
    """Pictures, classified."""

    def case() -> Case:
        x, y = images()
        return Case(network(), (x * scale + shift, y), **rest)

    return case


def yes_or_no(network: Callable[[], nn.Module], loss: Loss, by: float = 1.0, **rest: Any) -> Callable[[], Case]:
    """Two classes and one unit."""

    def case() -> Case:
        x, y = classes(count=2)
        return Case(network(), (x, y[:, None].float() * by), loss, **rest)

    return case


def fitted(
    network: Callable[[], nn.Module], by: float = 1.0, plus: float = 0.0, flat: bool = False, **rest: Any
) -> Callable[[], Case]:
    """A number for each sample."""

    def case() -> Case:
        x, y = regression()
        return Case(network(), (x, (y * by + plus)[:, 0] if flat else y * by + plus), F.mse_loss, **rest)

    return case


def sequences(
    cell: Callable[[], nn.Module], length: int, last: tuple[nn.Module, ...] = (), **rest: Any
) -> Callable[[], Case]:
    """Sequences, classified by the last output of a recurrent network."""

    def case() -> Case:
        way = lambda parts, x: parts["head"](parts["cell"](x)[0][:, -1])  # noqa: E731
        network = Composed(way, cell=cell(), head=plain(nn.Linear(32, 10), *last))
        return Case(network, (torch.randn(16, length, 8), torch.randint(10, (16,))), **rest)

    return case


def backbone(way: Callable[[Any, Tensor], Tensor], frozen: bool = False) -> Callable[[], Case]:
    """A backbone and a head that are put together in forward."""

    def case() -> Case:
        network = Composed(way, body=dense(20, 64, 64, 64, act=nn.ReLU), head=dense(64, 64, 10))
        if frozen:
            network.parts["body"].requires_grad_(False)
        return Case(network, classes())

    return case


@torch.no_grad()
def _unseen(parts: Any, x: Tensor) -> Tensor:
    found: Tensor = parts["body"](x)
    return found


def strong(cell: nn.Module, gain: float) -> nn.Module:
    """A recurrent network whose matrix is drawn too large."""
    nn.init.normal_(cell.get_parameter("weight_hh_l0"), std=gain)
    return cell


def equal(network: nn.Module, value: float) -> nn.Module:
    """All weights one number."""
    for one in network.parameters():
        nn.init.constant_(one, value)
    return network


def biased(network: nn.Sequential, bias: float) -> nn.Sequential:
    """A network whose hidden biases start far below zero."""
    for part in list(network)[:-1]:
        if isinstance(part, nn.Linear):
            nn.init.constant_(part.bias, bias)
    return network


class Adding(SGD):
    """Plain descent by somebody who forgets to set the gradients to zero."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgotten."""


def forgotten(parameters: Iterable[nn.Parameter], **_: Any) -> SGD:
    """An optimizer that was made before the network was made anew."""
    return SGD([one.detach().clone().requires_grad_() for one in parameters], lr=0.05)


def clipped(norm: float) -> Callable[[Iterable[nn.Parameter]], object]:
    """Clips the norm of the gradient."""
    return lambda parameters: nn.utils.clip_grad_norm_(list(parameters), norm)


def half(factor: float) -> Case:
    """A network in half precision whose loss is small."""
    x, y = classes()
    loss = lambda out, target: F.cross_entropy(out.float(), target) * factor  # noqa: E731
    return Case(dense(20, 64, 64, 10).half(), (x.half(), y), loss)


def spoiled() -> Case:
    """A table with a missing number."""
    x, y = classes()
    x[3, 7] = torch.nan
    return Case(dense(20, 64, 10), (x, y))


def from_one() -> Case:
    """Labels that are counted from 1."""
    x, y = classes()
    return Case(dense(20, 64, 10), (x, y + 1))


def sgd(lr: float, **rest: Any) -> Callable[..., SGD]:
    """Plain descent."""
    return partial(SGD, lr=lr, **rest)


def lstm() -> nn.LSTM:
    """As torch makes it."""
    return nn.LSTM(8, 32, batch_first=True)


def reports() -> Iterator[Report]:
    """Every report."""
    high, slow = "oscillating diverged dead exploding ill_scaled stalled", "stalled"
    mlp_of = partial(dense, 20, 64, 64, 10)
    of_cases: tuple[tuple[str, Callable[[], Case], str, str, int], ...] = (
        ("LSTM with softmax before CrossEntropyLoss", sequences(lstm, 20, (nn.Softmax(-1),)), "misspecified",
         "softmax_twice", 0),
        ("two classes, one output, CrossEntropyLoss", lambda: Case(dense(20, 64, 1), (torch.randn(64, 20),
         torch.zeros(64).long())), "misspecified no_gradient", "one_unit", 0),
        ("sigmoid before BCEWithLogitsLoss", yes_or_no(partial(dense, 20, 64, 1, last=(nn.Sigmoid(),)),
         F.binary_cross_entropy_with_logits), "misspecified", "activation_on_logits", 0),
        ("house prices, not scaled", fitted(partial(dense, 20, 64, 64, 1), 8e4, 2e5), "ill_scaled", "target_scale", 0),
        ("pictures from 0 to 255", pictures(convolutions, 60.0, 128.0), "ill_scaled", "input_scale input_offset", 0),
        ("loss is nan from the first step", spoiled, "diverged", "input_not_finite", 0),
        ("Adam with 0.1, stuck at 2.30", pictures(convolutions, optimizer=partial(Adam, lr=0.1)), high,
         "learning_rate_high", STEPS),
        ("SGD with 1e-6, nothing happens", told_apart(mlp_of, optimizer=sgd(1e-6)), slow, "learning_rate_low", STEPS),
        ("optimizer made before the network", told_apart(mlp_of, optimizer=forgotten), slow, "no_update", STEPS),
        ("zero_grad forgotten", told_apart(mlp_of, optimizer=partial(Adding, lr=0.5)), high,
         "learning_rate_high momentum", STEPS),
        ("ten sigmoid layers", told_apart(partial(dense, 20, *[64] * 10, 10, act=nn.Sigmoid)), "vanishing collapsed",
         "activation depth", 0),
        ("five linear layers and nothing between", told_apart(partial(dense, 20, *[64] * 4, 10, act=nn.Identity)),
         "misspecified", "missing_activation", 0),
        ("ReLU after the last layer of a regression", fitted(partial(dense, 20, 64, 1, last=(nn.ReLU(),)), 1.0, -20.0),
         "misspecified dead no_gradient collapsed", "activation_on_logits dead_units constant_output labels", 0),
        ("biases of -10, all ReLUs asleep", told_apart(lambda: biased(mlp_of(), -10.0)), "dead no_gradient collapsed",
         "dead_units", 0),
        ("LSTM forgets after 200 steps", sequences(lstm, 200), "vanishing", "gates recurrence", 0),
        ("detach between backbone and head", backbone(lambda parts, x: parts["head"](parts["body"](x).detach())),
         "vanishing no_gradient", "cut", 0),
        ("no_grad around the backbone", backbone(lambda parts, x: parts["head"](_unseen(parts, x))),
         "vanishing no_gradient", "cut", 0),
        ("backbone frozen, and never trained", backbone(lambda parts, x: parts["head"](parts["body"](x)), frozen=True),
         "misspecified", "frozen", 0),
        ("softmax over the batch", told_apart(partial(dense, 20, 64, 10, last=(nn.Softmax(0),))), "misspecified",
         "softmax_twice log_probabilities", 0),
        ("NLLLoss of a softmax", told_apart(partial(dense, 20, 64, 10, last=(nn.Softmax(1),)), loss=F.nll_loss),
         "misspecified", "log_probabilities", 0),
        ("labels from 1 to 10", from_one, "refused", "", 0),
        ("masks of 0 and 255", yes_or_no(partial(dense, 20, 64, 1), F.binary_cross_entropy_with_logits, 255.0),
         "misspecified", "labels", 0),
        ("MSELoss of (N, 1) and (N,)", fitted(partial(dense, 20, 64, 1), flat=True), "misspecified", "labels", 0),
        ("all weights zero", told_apart(lambda: equal(mlp_of(), 0.0)), "collapsed no_gradient dead vanishing",
         "equal_weights", 0),
        ("all weights a half", told_apart(lambda: equal(mlp_of(), 0.5)), "collapsed ill_scaled", "equal_weights", 0),
        ("half precision, loss of 1e-7", partial(half, 1e-7), "underflow no_gradient", "underflow_half", 0),
        ("weight decay of 1", told_apart(partial(mlp, 3), optimizer=sgd(0.1, weight_decay=1.0)),
         "stalled vanishing collapsed", "weight_decay", STEPS),
        ("gradients clipped to 1e-5", told_apart(mlp_of, optimizer=sgd(0.05), between=clipped(1e-5)), slow,
         "clip learning_rate_low", STEPS),
        ("tanh output, targets up to 10", fitted(partial(dense, 20, 64, 1, last=(nn.Tanh(),)), 10.0), "misspecified",
         "labels", 0),
        ("ReLU RNN explodes", sequences(lambda: strong(nn.RNN(8, 32, nonlinearity="relu", batch_first=True), 0.5), 60),
         "exploding diverged", "recurrence", 0),
        ("loss summed over the batch, SGD", told_apart(partial(mlp, 3), optimizer=sgd(0.1),
         loss=lambda out, y: F.cross_entropy(out, y, reduction="sum")), high, "learning_rate_high", STEPS),
        ("momentum of 0.99", told_apart(partial(mlp, 3), optimizer=sgd(0.3, momentum=0.99)), high,
         "momentum learning_rate_high", STEPS),
        ("thirty layers, loss stays at 2.30", told_apart(partial(dense, 20, *[64] * 30, 10)), "vanishing collapsed",
         "init depth", 0),
        ("inputs of 1e-5 (units of the sensor)", lambda: Case(mlp_of(), (classes()[0] * 1e-5, classes()[1])),
         "ill_scaled", "input_scale", 0),
    )  # fmt: skip
    for title, case, words, causes, steps in of_cases:
        yield Report(title, case, words, causes, steps)
