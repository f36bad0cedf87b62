"""Faults that are there before any training."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.faults.cases import Case, Fault, classes, drawn, fault, images, mlp, regression
from benchmarks.faults.deep import of_depth, of_structure
from benchmarks.faults.networks import (
    binary,
    branches,
    deep,
    detached,
    ending,
    experts,
    frozen,
    healthy,
    healthy_regression,
    lenet,
    multiplied,
    normed,
    on_inputs,
    on_targets,
    one_layer,
    shifted,
    with_biases,
    with_nan,
    xor,
)


def at_start() -> Iterator[Fault]:
    """Every fault that shows before any training."""
    for some in (of_data_and_loss, of_every_layer, of_one_part, of_depth, of_structure):
        yield from some()


def of_data_and_loss() -> Iterator[Fault]:
    """Faults of the inputs, the targets and the loss."""
    scale = "ill_scaled vanishing exploding"
    for name, factor in (("1e-4", 1e-4), ("1e4", 1e4), ("255", 255.0)):
        yield fault(f"inputs times {name}", "input scale", multiplied(factor), healthy, scale, "input_scale")
    for shift in (100.0, 1000.0):
        yield fault(
            f"inputs plus {shift:g}",
            "input offset",
            shifted(shift),
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


def of_every_layer() -> Iterator[Fault]:
    """Faults that all layers share: no activation, equal weights."""
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


def of_one_part() -> Iterator[Fault]:
    """Faults of one part: frozen, cut, idle, dead, out of scale."""
    scale = "ill_scaled vanishing exploding"
    lost = "vanishing no_gradient ill_scaled"
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
            partial(detached, after),
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
        experts(lambda _: torch.stack((torch.ones(64), torch.zeros(64)), 1)),
        experts(lambda logits: logits.softmax(1)),
        "no_gradient vanishing dead",
        "idle cut",
    )
    for bias in (-5.0, -50.0):
        yield fault(
            f"biases {bias:g}",
            "dead units",
            with_biases(bias),
            healthy,
            "dead no_gradient collapsed",
            "dead_units",
        )
    yield fault(
        "relu(-50 - output)",
        "flat loss",
        lambda: Case(mlp(), classes(), lambda out, _: F.relu(-50 - out).mean()),
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
