"""Forty-eight faults of daily practice, written with what is right of them before the rules had been asked once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from benchmarks.faults import wiring as wired
from benchmarks.faults.cases import ADAM, PLAIN, Batch, Case, Fault, Loss, classes, images, mlp, regression, scaled
from benchmarks.faults.networks import healthy
from benchmarks.faults.trained import STEPS
from benchmarks.zoo.built import Net

Make = Callable[[], Case]


def fits(loss: Loss, batch: Callable[[], Batch] = regression, last: Callable[[Tensor], Tensor] = torch.clone) -> Make:
    """A regression of three layers with a loss, a batch and an end of its own."""
    return lambda: Case(Net(lambda net, x: last(net.body(x)), body=mlp(2, outs=1)), batch(), loss)


def sorts(loss: Loss = F.cross_entropy, optimizer: Callable[..., Optimizer] = ADAM, outs: int = 10) -> Make:
    """A classifier of three hidden layers with a loss and an optimizer of its own."""
    return lambda: Case(mlp(3, outs=outs), classes(), loss, optimizer)


def flat() -> Batch:
    """Targets without the dimension of what is put out: (samples,)."""
    x, y = regression()
    return x, y[:, 0]


def positive_targets() -> Batch:
    """Targets between 0 and 1."""
    x, y = regression()
    return x, y.sigmoid()


def one_missing() -> Batch:
    """Targets of which one is not a number."""
    x, y = regression()
    y[3] = torch.nan
    return x, y


def words(*, known: bool) -> Case:
    """A bag of words, of which none stands in the vocabulary or all do."""
    ids = torch.randint(1, 50, (32, 12))
    body = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    network = Net(lambda net, x: net.body(net.table(x).mean(1)), table=nn.Embedding(50, 32), body=body)
    return Case(network, (ids if known else torch.zeros_like(ids), ids[:, 0] % 10))


def pixels(scale: Callable[[Tensor], Tensor]) -> Make:
    """A small convolutional network on bytes that are divided by 255."""

    def case() -> Case:
        body = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10)),
        )
        x, y = images()
        return Case(body, (scale((x.sigmoid() * 254).long()).float(), y))

    return case


class Whole(SGD):
    """Descent that warms up over a thousand steps, in whole numbers or in parts of one."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, *, whole: bool) -> None:
        super().__init__(parameters, lr=0.0 if whole else lr)


class Gathering(SGD):
    """Descent whose gradients are never set to zero."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Keeps them."""


class Earlier(SGD):
    """Descent that does not know what was put in after it, the last parameters."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, missing: int) -> None:
        super().__init__(list(parameters)[:-missing], lr=lr)


def noisy(deviation: float) -> Callable[..., object]:
    """Adds noise to every gradient, as for privacy."""

    def add(parameters: Iterable[nn.Parameter]) -> None:
        for one in parameters:
            if one.grad is not None:
                one.grad += deviation * torch.randn_like(one.grad)

    return add


def policy(factor: float, *, safe: bool) -> Make:
    """A policy whose entropy is rewarded."""

    def loss(out: Tensor, y: Tensor) -> Tensor:
        shares = (out * factor).softmax(1)
        logs = (out * factor).log_softmax(1) if safe else shares.log()
        return F.cross_entropy(out, y) + 0.01 * (shares * logs).sum(1).mean()

    return sorts(loss)


def deviations(*, over: int) -> Make:
    """A norm written by hand that divides by the deviation over some channels."""

    def way(net: Any, x: Tensor) -> Any:
        z = net.first(x).view(len(x), -1, over)
        return net.last(((z - z.mean(2, keepdim=True)) / (z.std(2, keepdim=True) + 1e-5)).flatten(1).relu())

    return lambda: Case(Net(way, first=nn.Linear(20, 64), last=nn.Linear(64, 10)), classes())


def surely(start: float) -> Make:
    """A regression that puts out its own deviation, as a logarithm from some start."""

    def loss(out: Tensor, y: Tensor) -> Tensor:
        log_deviation = out[:, 1:] + start
        return (log_deviation + 0.5 * ((y - out[:, :1]) / log_deviation.exp()).square()).mean()

    def case() -> Case:
        network = mlp(2, outs=2)
        return Case(scaled(network, -1, 0.1), regression(), loss)

    return case


def half(dtype: torch.dtype, optimizer: Callable[..., Optimizer] = ADAM, factor: float = 1.0) -> Make:
    """A classifier of another precision, with inputs times a factor."""

    def case() -> Case:
        x, y = classes()
        first = mlp(3)
        return Case(
            Net(lambda net, x: net.body(x).float(), body=first.to(dtype)),
            ((x * factor).to(dtype), y),
            optimizer=optimizer,
        )

    return case


def shares(total: float) -> Make:
    """Targets that are shares of the classes, with some sum."""

    def case() -> Case:
        x, y = classes()
        return Case(mlp(3), (x, total * (0.9 * F.one_hot(y, 10) + 0.01)))

    return case


def kept(share: float) -> Loss:
    """The mean of the losses that a mask keeps."""

    def loss(out: Tensor, y: Tensor) -> Tensor:
        mask = (torch.arange(len(y)) < share * len(y)).float()
        return (F.cross_entropy(out, y, reduction="none") * mask).sum() / mask.sum().clamp(min=1)

    return loss


def returns(factor: float) -> Make:
    """Values of states by Huber's loss."""

    def batch() -> Batch:
        x, y = regression()
        return x, y * factor

    return fits(F.smooth_l1_loss, batch)


def dated(offset: float, scale: float) -> Make:
    """Readings of which one is the time, in seconds."""

    def case() -> Case:
        x, y = classes()
        x[:, 0] = x[:, 0] * scale + offset
        return Case(mlp(3), (x, y))

    return case


def first_of_ten(weight: float) -> Loss:
    """Whether it is the first class, which weighs so much."""
    return lambda out, y: F.binary_cross_entropy_with_logits(
        out[:, 0], (y == 0).float(), pos_weight=torch.tensor(weight)
    )


def divergence(way: Callable[[Tensor], Tensor]) -> Loss:
    """The divergence from shares of the classes of what a function makes of the output."""
    return lambda out, y: F.kl_div(way(out), 0.9 * F.one_hot(y, 10) + 0.01, reduction="batchmean")


def practice() -> Iterator[Fault]:
    """All of them."""
    squares: Loss = lambda out, y: (out - y).square().mean()  # noqa: E731
    number: Loss = lambda out, y: torch.tensor(F.cross_entropy(out, y).item(), requires_grad=True)  # noqa: E731
    smooth = partial(F.cross_entropy, label_smoothing=1.0)
    ignored: Loss = lambda out, y: F.cross_entropy(out, torch.full_like(y, -100))  # noqa: E731
    fp16, bf16, fp32 = torch.float16, torch.bfloat16, torch.float32
    every: tuple[tuple[str, Make, Make, str, str, int], ...] = (
        ("targets of one dimension less", fits(squares, flat), fits(squares), "misspecified collapsed", "labels", 0),
        ("all words unknown", partial(words, known=False), partial(words, known=True),
         "collapsed misspecified ill_scaled", "constant_output labels rank", 0),
        ("bytes divided as whole numbers", pixels(lambda x: x // 255), pixels(lambda x: x / 128 - 1),
         "ill_scaled collapsed no_gradient", "input_scale constant_output labels", 0),
        ("warmup in whole numbers", sorts(optimizer=partial(Whole, lr=0.05, whole=True)),
         sorts(optimizer=partial(Whole, lr=0.05, whole=False)), "stalled", "learning_rate_low no_update", STEPS),
        ("gradients never set to zero", sorts(optimizer=partial(Gathering, lr=0.3)),
         sorts(optimizer=PLAIN), "oscillating diverged misspecified", "learning_rate_high momentum", STEPS),
        ("the loss as a number", sorts(number), healthy, "no_gradient", "cut no_update frozen", 0),
        ("argmax between two networks", partial(wired.chosen, hard=True), partial(wired.chosen, hard=False),
         "vanishing no_gradient", "cut idle", 0),
        ("codes without the straight way", partial(wired.coded, straight=False), partial(wired.coded, straight=True),
         "vanishing no_gradient", "cut idle", 0),
        ("clamped out of its range", fits(F.mse_loss, positive_targets, lambda z: (z + 9).clamp(0, 1)),
         fits(F.mse_loss, positive_targets), "no_gradient collapsed dead vanishing misspecified",
         "constant_output dead_units activation_on_logits labels", 0),
        ("generator before a certain judge", wired.generated(lambda z: (1 - z.sigmoid() + 1e-12).log().mean()),
         wired.generated(lambda z: F.softplus(-z).mean()), "no_gradient vanishing saturated stalled collapsed",
         "constant_output activation_on_logits loss_scale eps learning_rate_low", STEPS),
        ("padding behind what counts", partial(wired.padded, behind=True), partial(wired.padded, behind=False),
         "vanishing stalled collapsed no_gradient", "recurrence gates constant_output rank", STEPS),
        ("labels smoothed to nothing", sorts(smooth), healthy, "misspecified stalled", "labels", STEPS),
        ("every label ignored", sorts(ignored), healthy, "diverged misspecified", "labels", 0),
        ("a positive that weighs 1e5", sorts(first_of_ten(1e5)), sorts(first_of_ten(1.0)), "ill_scaled exploding",
         "first_loss labels loss_scale penalty", 0),
        ("NaN among the targets", fits(F.mse_loss, one_missing), fits(F.mse_loss), "diverged misspecified",
         "labels input_not_finite target_scale", 0),
        ("entropy of a sure policy", policy(300.0, safe=False), policy(1.0, safe=True), "diverged",
         "infinite_slope first_loss init", 0),
        ("deviation of one channel", deviations(over=1), deviations(over=64), "diverged",
         "norm_of_one infinite_slope", 0),
        ("deviation of e^-9 at the start", surely(-9.0), surely(0.0), "ill_scaled exploding",
         "first_loss init loss_scale penalty target_scale broken_layer", 0),
        ("half precision, signals beyond 65504", half(fp16, factor=3e4), half(fp16), "diverged",
         "overflow_half init input_scale", 0),
        ("bfloat16, steps that are rounded away", half(bf16, partial(SGD, lr=3e-5)), half(fp32, PLAIN),
         "stalled", "rounding learning_rate_low", STEPS),
        ("half precision, Adam with its own eps", half(fp16), half(fp16, partial(Adam, lr=1e-3, eps=1e-4)), "diverged",
         "eps_half overflow_half", STEPS),
        ("highway gates shut", wired.highway(-25.0), wired.highway(-1.0), "saturated vanishing ill_scaled",
         "gates idle constant_output", 0),
        ("router that no gradient reaches", partial(wired.routed, weighted=False), partial(wired.routed, weighted=True),
         "vanishing no_gradient", "cut idle frozen", 0),
        ("neighbours summed", partial(wired.neighbours, summed=True), partial(wired.neighbours, summed=False),
         "exploding ill_scaled collapsed", "init depth growth first_loss rank", 0),
        ("cosines as logits of 100 classes", wired.cosines(1.0), wired.cosines(16.0), "stalled misspecified",
         "activation_on_logits learning_rate_low labels", STEPS),
        ("shares of classes in percent", shares(100.0), shares(1.0), "ill_scaled misspecified",
         "labels first_loss target_scale", 0),
        ("a mask that hides all of the loss", sorts(kept(0.0)), sorts(kept(0.6)), "no_gradient misspecified",
         "labels cut constant_output", 0),
        ("returns of 1e4, Huber's loss", returns(1e4), returns(1.0), "ill_scaled misspecified", "target_scale", 0),
        ("instance norm, then the mean", partial(wired.pooled, straight=True), partial(wired.pooled, straight=False),
         "collapsed vanishing no_gradient", "constant_output norm_of_one rank", 0),
        ("16 layers of attention without skips", partial(wired.attending, skips=False),
         partial(wired.attending, skips=True), "collapsed vanishing", "rank depth", 0),
        ("padding mask inverted", partial(wired.masked, inverted=True), partial(wired.masked, inverted=False),
         "collapsed", "constant_output all_masked rank cut", 0),
        ("layers in a plain list", wired.listed(plain=True), wired.listed(plain=False),
         "misspecified stalled vanishing", "no_update frozen", STEPS),
        ("a layer that is made where it is called", partial(wired.anew, each=True), partial(wired.anew, each=False),
         "misspecified stalled oscillating vanishing", "no_update frozen", STEPS),
        ("head put in after the optimizer", sorts(optimizer=partial(Earlier, lr=0.05, missing=2)),
         sorts(optimizer=PLAIN), "misspecified stalled", "no_update frozen", STEPS),
        ("seconds since 1970 among the inputs", dated(1.7e9, 1e6), dated(0.0, 1.0), "ill_scaled",
         "input_scale input_offset", 0),
        ("ReLU behind values of both signs", fits(F.mse_loss, last=torch.relu), fits(F.mse_loss),
         "misspecified dead collapsed", "activation_on_logits labels dead_units constant_output", 0),
        ("probabilities into kl_div", sorts(divergence(lambda z: z.softmax(1))),
         sorts(divergence(lambda z: z.log_softmax(1))), "misspecified",
         "log_probabilities softmax_twice activation_on_logits", 0),
        ("twelve letters in eight steps", wired.heard(8), wired.heard(40), "diverged misspecified", "labels", 0),
        ("gradient penalty times 1e6", wired.steep(1e6), wired.steep(0.1), "ill_scaled exploding", "penalty", 0),
        ("sines as torch draws them", wired.sines(small=False), wired.sines(small=True), "exploding ill_scaled",
         "init activation depth", 0),
        ("weights that are written too large", wired.written(30.0), wired.written(0.08), "ill_scaled exploding",
         "first_loss init broken_layer", 0),
        ("state times 1.15, a hundred times", wired.spaces(1.15), wired.spaces(0.97),
         "exploding ill_scaled vanishing saturated", "recurrence growth first_loss init", 0),
        ("gains of zero without a skip", wired.gained(0.0), wired.gained(1.0),
         "collapsed dead vanishing no_gradient", "constant_output dead_units equal_weights idle init", 0),
        ("choice at a temperature of 1e-3", wired.sampled(1e-3), wired.sampled(1.0),
         "saturated vanishing exploding ill_scaled dead", "activation init attention cut broken_layer", 0),
        ("Euler's steps of 5", wired.flowing(5.0), wired.flowing(0.05), "exploding ill_scaled",
         "growth recurrence init first_loss depth", 0),
        ("noise that drowns the gradients", lambda: Case(mlp(3), classes(), optimizer=PLAIN, between=noisy(3.0)),
         sorts(optimizer=PLAIN), "oscillating stalled diverged", "learning_rate_high clip", STEPS),
        ("towers that agree about all", wired.towers(300.0), wired.towers(0.0), "collapsed ill_scaled vanishing",
         "constant_output init rank input_offset broken_layer", 0),
        ("code of variance e^20", wired.latent(20.0), wired.latent(0.0), "ill_scaled exploding",
         "first_loss init broken_layer penalty loss_scale", 0),
    )  # fmt: skip
    for name, sick, cured, right, causes, steps in every:
        yield Fault(
            name, "practice", sick, cured, frozenset(right.split()), frozenset(causes.split()), steps, "practice"
        )
