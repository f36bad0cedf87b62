"""Faults that are there before any training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.faults.cases import (
    PLAIN,
    Case,
    Composed,
    Fault,
    classes,
    drawn,
    fault,
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
        return parts["one"](x) * share[:, :1] + parts["two"](x) * share[:, 1:]

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
        return parts["head"](x)

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
        return self.out(torch.softmax(self.scale * q @ k.transpose(1, 2), -1) @ v)


def transformer(depth: int, scale: float, order: str = "pre", std: float = 0.02, width: int = 32) -> Callable[[], Case]:
    """A classifier of every token whose attention logits are scaled; ``order`` is `pre` or `post` norm."""
    ways = {"pre": lambda norm, part, x: x + part(norm(x)), "post": lambda norm, part, x: norm(x + part(x))}

    def way(parts: Any, ids: Tensor) -> Tensor:
        x = parts["embedding"](ids)
        for index in range(depth):
            x = ways[order](parts[f"norm{index}a"], parts[f"attention{index}"], x)
            x = ways[order](parts[f"norm{index}b"], parts[f"mlp{index}"], x)
        return parts["head"](parts["norm"](x)).flatten(0, 1)

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
    return lambda cell: nn.init.orthogonal_(cell.weight_hh_l0, gain)


def forget(bias: float) -> Callable[[nn.RNNBase], object]:
    """Sets the bias of an LSTM's forget gates."""
    return lambda cell: cell.bias_hh_l0[32:64].fill_(bias)


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
        return parts["head"](x)

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


def at_start() -> Iterator[Fault]:
    """Every fault that shows before any training."""
    scale, lost = "ill_scaled vanishing exploding", "vanishing no_gradient ill_scaled"
    for name, factor in (("1e-4", 1e-4), ("1e4", 1e4), ("255", 255.0)):
        yield fault(
            f"inputs times {name}", "input scale", on_inputs(lambda x, f=factor: x * f), healthy, scale, "input_scale"
        )
    for shift in (100.0, 1000.0):
        yield fault(
            f"inputs plus {shift:g}",
            "input offset",
            on_inputs(lambda x, s=shift: x + s),
            healthy,
            "ill_scaled",
            "input_offset input_scale",
        )
    yield fault("NaN in inputs", "input not finite", on_inputs(with_nan), healthy, "diverged", "input_not_finite")
    yield fault(
        "infinite input",
        "input not finite",
        on_inputs(lambda x: x / (x != x[0, 0])),
        healthy,
        "diverged",
        "input_not_finite",
    )
    for factor in (1e3, 1e6):
        yield fault(
            f"targets times {factor:g}",
            "target scale",
            on_targets(factor),
            healthy_regression,
            "ill_scaled exploding",
            "target_scale",
        )
    yield fault(
        "targets plus 1000", "target scale", on_targets(1.0, 1000.0), healthy_regression, "ill_scaled", "target_scale"
    )
    soft, logs = nn.Softmax(1), nn.LogSoftmax(1)
    yield fault("softmax twice", "softmax twice", ending(soft), healthy, "misspecified", "softmax_twice")
    yield fault(
        "softmax twice, LeNet",
        "softmax twice",
        lambda: Case(nn.Sequential(lenet(0)().module, nn.Softmax(1)), images()),
        lenet(0),
        "misspecified",
        "softmax_twice",
    )
    yield fault(
        "log of softmax into cross-entropy",
        "log-probabilities",
        ending(logs),
        ending(logs, loss=F.nll_loss),
        "misspecified",
        "log_probabilities",
    )
    yield fault(
        "logits into nll",
        "log-probabilities",
        ending(loss=F.nll_loss),
        ending(logs, loss=F.nll_loss),
        "misspecified",
        "log_probabilities",
    )
    for act in (nn.Sigmoid, nn.ReLU, nn.Tanh):
        yield fault(
            f"{act.__name__} on logits",
            f"{act.__name__} on logits",
            ending(act()),
            healthy,
            "misspecified dead saturated",
            "activation_on_logits",
        )
    yield fault(
        "sigmoid twice",
        "sigmoid twice",
        binary(nn.Sigmoid()),
        binary(),
        "misspecified",
        "activation_on_logits softmax_twice",
    )
    mse = F.mse_loss
    yield fault(
        "XOR by softmax of one unit",
        "one unit",
        xor(1, nn.Softmax(1), mse),
        xor(1, nn.Sigmoid(), mse),
        "misspecified no_gradient collapsed",
        "one_unit",
    )
    yield fault(
        "softmax of one unit",
        "one unit",
        binary(nn.Softmax(1), loss=F.binary_cross_entropy),
        binary(),
        "misspecified no_gradient collapsed",
        "one_unit",
    )
    yield fault(
        "cross-entropy of one unit",
        "one unit",
        lambda: Case(mlp(outs=1), (torch.randn(64, 20), torch.zeros(64).long())),
        healthy,
        "misspecified no_gradient collapsed",
        "one_unit",
    )
    for depth in (2, 4, 8):
        yield fault(
            f"{depth} linear layers, no activation",
            "missing activation",
            deep(depth, nn.Identity),
            deep(depth),
            "misspecified",
            "missing_activation",
        )
    for value in (0.0, 0.01, 0.1):
        same = lambda v=value: Case(drawn(mlp(), lambda weight: nn.init.constant_(weight, v)), classes())  # noqa: E731
        yield fault(
            f"all weights {value:g}",
            "equal weights",
            same,
            healthy,
            "no_gradient collapsed vanishing exploding ill_scaled dead misspecified",
            "equal_weights init",
        )
    yield fault(
        "all frozen but the head",
        "frozen",
        lambda: Case(frozen(mlp(6), 0.8), classes()),
        deep(6),
        "no_gradient misspecified",
        "frozen",
    )
    yield fault(
        "half frozen",
        "frozen",
        lambda: Case(frozen(mlp(6), 0.5), classes()),
        deep(6),
        "no_gradient misspecified",
        "frozen",
    )
    for after in (1, 3, 6):
        yield fault(
            f"detach behind layer {after} of 8",
            "cut",
            lambda a=after: detached(a),
            deep(8),
            "no_gradient vanishing",
            "cut",
        )
    yield fault(
        "a branch times zero", "cut branch", branches(0.0), branches(1.0), "no_gradient vanishing dead", "cut idle"
    )
    yield fault(
        "an idle expert",
        "idle",
        experts(lambda logits: torch.stack((torch.ones(64), torch.zeros(64)), 1)),
        experts(lambda logits: logits.softmax(1)),
        "no_gradient vanishing dead",
        "idle cut",
    )
    for bias in (-5.0, -50.0):
        yield fault(
            f"biases {bias:g}",
            "dead units",
            lambda b=bias: Case(biased(mlp(), b), classes()),
            healthy,
            "dead no_gradient collapsed",
            "dead_units",
        )
    yield fault(
        "relu(-50 - output)",
        "flat loss",
        lambda: Case(mlp(), classes(), lambda out, y: F.relu(-50 - out).mean()),
        healthy,
        "no_gradient",
        "constant_output dead_units activation_on_logits cut",
    )
    yield fault(
        "ReLU of output minus 50",
        "constant output",
        lambda: Case(mlp(outs=1), regression(), lambda out, y: F.mse_loss(F.relu(out - 50), y)),
        healthy_regression,
        "no_gradient dead collapsed misspecified",
        "constant_output dead_units activation_on_logits",
    )
    for name, norm, samples, size in (
        (
            "layer norm of one channel",
            lambda: nn.Sequential(nn.Conv2d(16, 1, 1), nn.GroupNorm(1, 1), nn.Conv2d(1, 16, 1)),
            16,
            1,
        ),
        ("group norm of one element", lambda: nn.GroupNorm(16, 16), 16, 1),
    ):
        yield fault(
            name,
            "norm of one",
            normed(norm, samples, size),
            normed(lambda: nn.GroupNorm(4, 16), 16, 8),
            "no_gradient collapsed vanishing misspecified",
            "norm_of_one",
        )
    yield fault(
        "batch norm of two",
        "norm of one",
        normed(lambda: nn.BatchNorm2d(16), 2, 1),
        normed(lambda: nn.BatchNorm2d(16), 16, 8),
        "no_gradient collapsed vanishing misspecified saturated",
        "norm_of_one",
    )
    for depth, at in ((6, 3), (10, 2), (10, 7), (20, 10), (30, 5)):
        for factor in (1e-6, 1e6):
            yield fault(
                f"layer {at} of {depth} times {factor:g}",
                "broken layer",
                one_layer(depth, at, factor),
                deep(depth),
                f"{scale} {lost} collapsed",
                "broken_layer",
            )
    for std in (1.0, 5.0):
        yield fault(
            f"LeNet, N(0, {std:g}²)",
            "normal weights",
            lenet(0, nn.ReLU, std),
            lenet(0),
            "exploding ill_scaled",
            "init first_loss",
        )
    yield fault(
        "MLP of 8, N(0, 1)",
        "normal weights",
        lambda: Case(drawn(mlp(8), nn.init.normal_), classes()),
        deep(8),
        "exploding ill_scaled",
        "init first_loss",
    )
    yield fault(
        "MLP of 20, N(0, 0.01²)",
        "small weights",
        lambda: Case(drawn(mlp(20), lambda weight: nn.init.normal_(weight, std=0.01)), classes()),
        deep(20),
        "vanishing no_gradient collapsed",
        "init",
    )
    yield fault(
        "tanh, N(0, 1)",
        "saturated tanh",
        lambda: Case(drawn(mlp(5, nn.Tanh), nn.init.normal_), classes()),
        deep(5, nn.Tanh),
        "saturated exploding",
        "init",
    )
    yield fault(
        "circles, eleven sigmoid layers",
        "sigmoid depth",
        circles(11, nn.Sigmoid),
        circles(2, nn.ReLU),
        "vanishing collapsed",
        "activation depth",
    )
    yield fault(
        "twenty sigmoid layers",
        "sigmoid depth",
        deep(20, nn.Sigmoid),
        deep(20),
        "vanishing collapsed",
        "activation depth",
    )
    yield fault(
        "LeNet, ten more layers, sigmoid",
        "more layers",
        lenet(10, nn.Sigmoid),
        lenet(0),
        "vanishing collapsed",
        "activation depth",
    )
    yield fault(
        "LeNet, ten more layers, torch's weights",
        "more layers",
        lenet(10),
        lenet(0),
        "vanishing collapsed",
        "init depth",
    )
    yield fault(
        "exponential activation",
        "exponential",
        deep(3, Exponential),
        deep(3),
        "exploding diverged ill_scaled",
        "activation first_loss",
    )
    rnn = lambda: nn.RNN(8, 32, nonlinearity="relu", batch_first=True)  # noqa: E731
    lstm = lambda: nn.LSTM(8, 32, batch_first=True)  # noqa: E731
    for steps in (50, 100):
        yield fault(
            f"ReLU RNN, 2 times orthogonal, T={steps}",
            "recurrent growth",
            recurrent(rnn, orthogonal(2.0), steps),
            recurrent(rnn, orthogonal(1.0), steps),
            "exploding diverged ill_scaled",
            "recurrence first_loss",
        )
        yield fault(
            f"ReLU RNN, 0.2 times orthogonal, T={steps}",
            "recurrent loss",
            recurrent(rnn, orthogonal(0.2), steps),
            recurrent(rnn, orthogonal(1.0), steps),
            "vanishing",
            "recurrence",
        )
        yield fault(
            f"LSTM, forget bias -5, T={steps}",
            "gates",
            recurrent(lstm, forget(-5.0), steps),
            recurrent(lstm, forget(3.0), steps),
            "vanishing saturated",
            "gates recurrence",
        )
    for depth in (2, 4):
        yield fault(
            f"attention logits times 30, {depth} blocks",
            "saturated attention",
            transformer(depth, 30.0, std=0.2),
            transformer(depth, 32**-0.5, std=0.05),
            "saturated",
            "attention",
        )
        yield fault(
            f"attention unscaled, {depth} blocks",
            "unscaled attention",
            transformer(depth, 1.0, std=0.18),
            transformer(depth, 32**-0.5, std=0.05),
            "saturated",
            "attention",
        )
    for depth in (4, 12):
        yield fault(
            f"pre-norm GPT of {depth}, N(0, 1)",
            "transformer N(0, 1)",
            transformer(depth, 32**-0.5, std=1.0),
            transformer(depth, 32**-0.5),
            "saturated exploding ill_scaled",
            "init attention first_loss",
        )
    yield fault(
        "post-norm of 200 layers",
        "post-norm",
        transformer(100, 16**-0.5, "post", 0.25, 16),
        transformer(6, 16**-0.5, "pre", 0.05, 16),
        "vanishing exploding collapsed",
        "depth normalised_growth rank",
    )
    yield fault("bottleneck of one", "rank", lambda: narrow(1), lambda: narrow(32), "collapsed vanishing", "rank")
    for times in (100, 1000):
        yield fault(f"averaged {times} times", "oversmoothing", averaging(times), averaging(1), "collapsed", "rank")
    for depth in (30, 60):
        yield fault(
            f"residual stack of {depth}, no norm",
            "growth",
            residual(depth, 1.0),
            residual(depth, depth**-0.5),
            "exploding ill_scaled",
            "growth depth first_loss",
        )
    for factor in (1e-6, 1e-7):
        yield fault(
            f"float16, loss times {factor:g}",
            "underflow",
            half(factor),
            half(1024.0),
            "underflow no_gradient",
            "underflow_half loss_scale",
        )
    yield fault("float16, loss times 2^24", "loss scale", half(2.0**24), half(1024.0), "diverged", "loss_scale")
