"""Faults of depth, of recurrences, attention, residual stacks and of precision, before any training."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from benchmarks.faults.cases import Case, Fault, classes, drawn, fault, mlp
from benchmarks.faults.networks import (
    Exponential,
    averaging,
    circles,
    deep,
    forget,
    half,
    lenet,
    narrow,
    orthogonal,
    recurrent,
    residual,
    transformer,
)


def of_depth() -> Iterator[Fault]:
    """Initializations and activations that do not suit the depth."""
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


def of_structure() -> Iterator[Fault]:
    """Faults of recurrences, attention, residual stacks and precision."""
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
