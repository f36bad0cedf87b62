"""Ten faulty networks that were written when the rules stood; three rules came after they had been asked once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.faults.cases import Case, Composed, Fault, Loss, classes, linears, mlp, regression
from benchmarks.faults.networks import ending, orthogonal, recurrent
from benchmarks.faults.trained import STEPS


def chaotic(gain: float) -> Callable[[], Case]:
    """A tanh network through time whose recurrent matrix is drawn from N(0, gain²)."""

    def draw(cell: nn.RNNBase) -> object:
        return nn.init.normal_(cell.get_parameter("weight_hh_l0"), std=gain)

    return recurrent(lambda: nn.RNN(8, 32, batch_first=True), draw if gain > 0 else orthogonal(1.0), 60)


def tied(std: float) -> Callable[[], Case]:
    """A model of words whose head is its table of embeddings."""

    def way(parts: Any, ids: Tensor) -> Tensor:
        x = parts["norm"](parts["hidden"](parts["table"](ids)))
        logits: Tensor = (x @ parts["table"].weight.T).flatten(0, 1)
        return logits

    def case() -> Case:
        network = Composed(way, table=nn.Embedding(64, 256), hidden=mlp(2, ins=256, outs=256), norm=nn.LayerNorm(256))
        nn.init.normal_(network.parts["table"].get_parameter("weight"), std=std)
        ids = torch.randint(64, (8, 16))
        return Case(network, (ids, ids.roll(-1, 1).flatten()))

    return case


def masked(*, upside_down: bool) -> Callable[[], Case]:
    """Attention with a mask of which every row is masked where it stands upside down."""

    def way(parts: Any, x: Tensor) -> Tensor:
        tokens = parts["into"](x.view(len(x), 5, 4))
        scores = tokens @ tokens.transpose(1, 2) / 16**0.5
        allowed = torch.ones(5, 5, dtype=torch.bool).tril()
        scores = scores.masked_fill(allowed if upside_down else ~allowed, -torch.inf)
        out: Tensor = parts["head"]((scores.softmax(-1) @ tokens).flatten(1))
        return out

    return lambda: Case(Composed(way, into=nn.Linear(4, 16), head=nn.Linear(80, 10)), classes())


def distance(eps: float) -> Callable[[], Case]:
    """A loss that takes the root of a squared distance, which is zero on one sample."""

    def loss(out: Tensor, y: Tensor) -> Tensor:
        weight = (torch.arange(len(y)) > 0).float()[:, None]
        return ((weight * (out - y)).square().sum(1) + eps).sqrt().mean()

    return lambda: Case(mlp(outs=1), regression(), loss)


def of_one_sign(sign: float) -> Callable[[], Case]:
    """A classifier whose loss has a sign."""
    return lambda: Case(mlp(3), classes(), lambda out, y: sign * F.cross_entropy(out, y), partial(SGD, lr=0.05))


def dropped(share: float) -> Callable[[], Case]:
    """A classifier most of whose units are dropped."""

    def case() -> Case:
        parts = [
            part for layer in mlp(4) for part in ((layer, nn.Dropout(share)) if type(layer) is nn.ReLU else (layer,))
        ]
        return Case(nn.Sequential(*parts), classes())

    return case


def of_two_losses(factor: float) -> Callable[[], Case]:
    """A classifier beside a penalty of its output that has a factor."""
    loss: Loss = lambda out, y: F.cross_entropy(out, y) + factor * out.square().mean()  # noqa: E731
    return lambda: Case(mlp(3), classes(), loss)


def normed_wrongly(variance: float) -> Callable[[], Case]:
    """A network whose batch norms are frozen, with the variance that they remember."""

    def case() -> Case:
        parts = [
            part for layer in mlp(6) for part in ((layer, nn.BatchNorm1d(64)) if type(layer) is nn.Linear else (layer,))
        ]
        network = nn.Sequential(*parts[:-1])
        network.train()
        for part in network:
            if isinstance(part, nn.BatchNorm1d):
                part.eval()
                assert part.running_var is not None
                part.running_var.fill_(variance)
        return Case(network, classes())

    return case


def wide(std: float) -> Callable[[], Case]:
    """A regression whose output layer alone is drawn too wide."""

    def case() -> Case:
        network = mlp(3, outs=1)
        nn.init.normal_(linears(network)[-1].weight, std=std)
        return Case(network, regression(), F.mse_loss, partial(SGD, lr=0.02))

    return case


def blind() -> Iterator[Fault]:
    """All ten."""
    every: tuple[tuple[str, Callable[[], Case], Callable[[], Case], str, str, int], ...] = (
        ("tanh RNN, N(0, 1)", chaotic(1.0), chaotic(0.0), "exploding saturated vanishing", "recurrence init", 0),
        ("tied embeddings, N(0, 1)", tied(1.0), tied(0.02), "ill_scaled exploding", "first_loss init", 0),
        ("mask upside down", masked(upside_down=True), masked(upside_down=False), "diverged", "all_masked", 0),
        ("root of zero", distance(0.0), distance(1e-6), "diverged", "infinite_slope", 0),
        ("loss of the wrong sign", of_one_sign(-1.0), of_one_sign(1.0), "oscillating diverged misspecified", "sign",
         STEPS),
        ("99 % dropout", dropped(0.99), dropped(0.1),
         "stalled vanishing collapsed no_gradient exploding dead ill_scaled", "dropout", STEPS),
        ("a penalty of 1e6", of_two_losses(1e6), of_two_losses(1e-4),
         "ill_scaled exploding oscillating diverged stalled", "loss_scale penalty weight_decay", STEPS),
        ("frozen batch norm of variance 1e6", normed_wrongly(1e6), normed_wrongly(2.0),
         "vanishing collapsed ill_scaled", "init depth", 0),
        ("output layer, N(0, 30²)", wide(30.0), wide(0.1), "ill_scaled exploding oscillating diverged",
         "broken_layer init learning_rate_high first_loss", STEPS),
        ("softmax over the samples", ending(nn.LogSoftmax(0), loss=F.nll_loss),
         ending(nn.LogSoftmax(1), loss=F.nll_loss), "misspecified", "log_probabilities softmax_twice", 0),
    )  # fmt: skip
    for name, sick, cured, words, causes, steps in every:
        yield Fault(name, "blind", sick, cured, frozenset(words.split()), frozenset(causes.split()), steps, "blind")
