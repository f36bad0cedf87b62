"""Seventeen faults that were written after the rules which `practice` brought about, and asked once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adagrad, Adam

from benchmarks.faults.cases import PLAIN, Case, Fault, Loss, classes, images, linears, mlp, regression
from benchmarks.faults.practice import sorts
from benchmarks.faults.trained import STEPS
from benchmarks.faults.unseen import Paced
from benchmarks.zoo.built import Net

Make = Callable[[], Case]


def tasks(factor: float) -> Make:
    """Classes and a value on one body, the value times a factor."""

    def loss(out: Any, y: Tensor) -> Tensor:
        return F.cross_entropy(out[0], y) + factor * F.mse_loss(out[1], (y[:, None] > 4).float())

    def way(net: Any, x: Tensor) -> Any:
        h = net.body(x).relu()
        return net.sorts(h), net.values(h)

    return lambda: Case(
        Net(way, body=mlp(1, outs=64), sorts=nn.Linear(64, 10), values=nn.Linear(64, 1)), classes(), loss
    )


def overlap(smooth: float) -> Make:
    """Maps by how they overlap with their targets, of which some are empty and what is found may be."""

    def loss(out: Tensor, y: Tensor) -> Tensor:
        both = (out * y).flatten(1).sum(1)
        return 1 - ((2 * both + smooth) / (out.flatten(1).sum(1) + y.flatten(1).sum(1) + smooth)).mean()

    def case() -> Case:
        x, y = images()
        network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1), nn.ReLU())
        nn.init.constant_(network[2].get_parameter("bias"), -5.0 if smooth == 0 else 0.1)
        return Case(network, (x, (x > 0.5).float() * (y > 2)[:, None, None, None]), loss)

    return case


def between(change: Callable[[Tensor], Tensor], scale: float = 1.0) -> Make:
    """A classifier with something of its own between its layers."""

    def way(net: Any, x: Tensor) -> Any:
        return net.last(change(net.second(net.first(x).relu())))

    return lambda: Case(
        Net(way, first=nn.Linear(20, 64), second=nn.Linear(64, 64), last=nn.Linear(64, 10)),
        (classes()[0] * scale, classes()[1]),
    )


def remembered(*, kept: bool) -> Case:
    """A cell in a loop whose state is made anew at each step, or kept."""

    def way(net: Any, x: Tensor) -> Any:
        state = x.new_zeros(len(x), 32)
        for step in x.unbind(1):
            state = net.cell(step, state if kept else torch.zeros_like(state))
        return net.head(state)

    y = torch.arange(16) % 10
    x = torch.randn(16, 12, 8) * 0.1
    x[:, 0] += torch.randn(10, 8)[y]
    cell = nn.RNNCell(8, 32)
    nn.init.orthogonal_(cell.weight_hh)
    return Case(Net(way, cell=cell, head=nn.Linear(32, 10)), (x, y))


def scaled_by(start: float) -> Make:
    """Logits times the exponential of a number that is learned."""
    return lambda: Case(
        Net(lambda net, x: net.scale.exp() * net.body(x), body=mlp(3), scale=nn.Parameter(torch.tensor(start))),
        classes(),
    )


def kept_from(*, closed: bool) -> Case:
    """An encoder that runs where no gradient is kept."""

    def way(net: Any, x: Tensor) -> Any:
        with torch.set_grad_enabled(not closed):
            h = net.encoder(x)
        return net.head(h.relu())

    return Case(Net(way, encoder=mlp(3, outs=32), head=mlp(1, ins=32)), classes())


def counts(rate: float) -> Make:
    """Counts of events by Poisson's loss."""

    def case() -> Case:
        x, y = regression()
        return Case(mlp(2, outs=1), (x, torch.poisson(rate * (0.5 * y).exp())), F.poisson_nll_loss)

    return case


def pruned(share: float) -> Make:
    """A classifier whose hidden matrices keep a share of their weights."""

    def case() -> Case:
        network = mlp(4)
        for layer in linears(network)[1:-1]:
            layer.register_buffer("mask", (torch.rand_like(layer.weight) < share).float())
            layer.weight.data *= layer.get_buffer("mask") / share**0.5
        return Case(network, classes())

    return case


def hooked(factor: float) -> Make:
    """A classifier whose gradients are multiplied where they come to a layer's parameters."""

    def case() -> Case:
        network = mlp(4)
        for parameter in network[:6].parameters():
            parameter.register_hook(lambda gradient: factor * gradient)
        return Case(network, classes(), optimizer=PLAIN)

    return case


def gru(weight: float | None) -> Make:
    """A GRU all of whose weights are one number."""

    def case() -> Case:
        cell = nn.GRU(8, 32, batch_first=True)
        for parameter in cell.parameters() if weight is not None else ():
            nn.init.constant_(parameter, weight or 0.0)
        network = Net(lambda net, x: net.head(net.cell(x)[0][:, -1]), cell=cell, head=nn.Linear(32, 10))
        return Case(network, (torch.randn(16, 10, 8), torch.randint(10, (16,))))

    return case


def three(outs: int) -> Make:
    """Three targets a sample, and one output or three."""

    def case() -> Case:
        x, _ = regression()
        loss: Loss = lambda out, y: (out - y).square().mean()  # noqa: E731
        return Case(mlp(2, outs=outs), (x, x[:, :3].sin()), loss)

    return case


def by_largest(outlier: float) -> Make:
    """Inputs over the largest of them, among which one may be far out."""

    def case() -> Case:
        x, y = classes()
        x[0, 0] = outlier
        return Case(mlp(3), (x / x.abs().max() * 2, y))

    return case


def afterwards() -> Iterator[Fault]:
    """All of them."""
    l2 = partial(Adam, lr=1e-2, weight_decay=30.0)
    sized: Callable[[Tensor], Tensor] = lambda z: z / z.relu().norm(dim=1, keepdim=True)  # noqa: E731
    every: tuple[tuple[str, Make, Make, str, str, int], ...] = (
        ("a second task times 1e5", tasks(1e5), tasks(1.0), "ill_scaled", "penalty loss_scale first_loss", 0),
        ("overlap of nothing with nothing", overlap(0.0), overlap(1.0), "diverged", "infinite_slope labels", 0),
        ("root of signed numbers", between(torch.sqrt), between(torch.sigmoid), "diverged",
         "infinite_slope activation", 0),
        ("state made anew at each step", partial(remembered, kept=False), partial(remembered, kept=True), "vanishing",
         "cut recurrence idle", 0),
        ("hard tanh of large inputs", between(F.hardtanh, 60.0), between(F.hardtanh), "saturated ill_scaled dead",
         "input_scale init activation", 0),
        ("logits times e^9", scaled_by(9.0), scaled_by(0.0), "ill_scaled exploding", "first_loss init", 0),
        ("encoder without a gradient", partial(kept_from, closed=True), partial(kept_from, closed=False),
         "vanishing misspecified", "cut frozen", 0),
        ("Adam with an L2 of 30", sorts(optimizer=l2), sorts(optimizer=partial(Adam, lr=1e-3)),
         "stalled collapsed vanishing dead no_gradient", "weight_decay", STEPS),
        ("counts of 1e4", counts(1e4), counts(1.0), "ill_scaled", "target_scale first_loss", 0),
        ("divided by a length of zero", between(lambda z: sized(z - 9)), between(lambda z: F.normalize(z, dim=1)),
         "diverged", "infinite_slope", 0),
        ("a ten-thousandth of the weights kept", pruned(1e-4), pruned(0.3),
         "collapsed vanishing ill_scaled no_gradient dead", "init constant_output idle broken_layer rank cut", 0),
        ("Adagrad, lr 10", sorts(optimizer=partial(Adagrad, lr=10.0)), sorts(optimizer=partial(Adagrad, lr=0.01)),
         "oscillating diverged exploding dead ill_scaled", "learning_rate_high", STEPS),
        ("learning rate that grows by a fifth", sorts(optimizer=partial(Paced, lr=0.05, factor=1.2)),
         sorts(optimizer=partial(Paced, lr=0.05, factor=1.002)), "oscillating diverged dead", "learning_rate_high",
         STEPS),
        ("gradients hooked to nothing", hooked(0.0), hooked(1.0),
         "stalled misspecified vanishing no_gradient", "no_update frozen idle cut", 0),
        ("GRU of equal weights", gru(0.1), gru(None), "collapsed", "equal_weights", 0),
        ("three targets for one output", three(1), three(3), "misspecified", "labels", 0),
        ("inputs over an outlier", by_largest(1e5), by_largest(2.0), "ill_scaled", "input_scale", 0),
    )  # fmt: skip
    for name, sick, cured, right, causes, steps in every:
        yield Fault(
            name, "afterwards", sick, cured, frozenset(right.split()), frozenset(causes.split()), steps, "afterwards"
        )
