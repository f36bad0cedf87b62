"""What is measured at every layer of every member, on the device, at a recorded step.

Nothing here synchronises: a measurement is a few small tensors that travel to the host with many others at the next
flush. Shapes: M members, B batch, D width, T time, L layers, R rows of the per-layer table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradlab.choices import ACTIVATIONS as NAMED_ACTIVATIONS
from gradlab.nn.activations import ACTIVATIONS
from gradlab.nn.float64 import count, finite, moments, norm64, norms64, share
from gradlab.nn.network import Network, Pass, Signal
from gradlab.nn.slots import Layout
from gradlab.nn.tape import Node
from gradlab.record import PROBE_COLUMNS, Bools, Row

SATURATED_BELOW = 0.05
"""Of the largest slope: an entry whose slope is smaller counts as saturated."""

LEAST_BATCH_FOR_DEAD = 16
"""With fewer samples a unit that is merely quiet would count as dead."""

Columns = dict[str, Tensor]
"""Some of `PROBE_COLUMNS` of one row, (M,) each; a column that is missing is null."""


@dataclass(frozen=True)
class Measurement:
    """One record of the per-layer table.

    ``rows`` names its rows; ``signals[r]`` are the columns of row r that belong to its signal; ``parameters`` the
    columns (M, L) that belong to the parameters of layers 1..L; ``finite`` (M, L) says whether z_l is finite.
    """

    rows: tuple[Row, ...]
    signals: tuple[Columns, ...]
    parameters: Mapping[str, Tensor]
    finite: Tensor


def _table_rows(layout: Layout, through: Pass) -> tuple[Row, ...]:
    """The rows of the per-layer table: the input, the layers along depth, then the time steps."""
    rows = [Row("depth", 0, "input"), *(Row("depth", layer, name) for layer, name in enumerate(layout.names, start=1))]
    for layer in through.time:
        steps = range(1, len(through.signals[layer - 1].z) + 1)
        rows += [Row("time", t, layout.names[layer - 1]) for t in steps]
    return tuple(rows)


def measure(through: Pass, x: Node, parameters: Tensor) -> Measurement:
    """All columns but those of an update, from a pass that has been gone back through, keeping its derivatives.

    ``x`` is the input; ``parameters`` (M, P) and the network's gradient are those before clipping and updating.
    """
    network, layout, gradient = through.network, through.network.layout, through.network.gradient
    rows: list[Columns] = [{"signal_grad_norm": norm64(_grad(x)), **_moments(x.value)}]
    times: list[Columns] = []
    for layer, signal in enumerate(through.signals, start=1):
        along = torch.stack([norm64(_grad(z)) for z in signal.z], dim=1)
        rows.append({"signal_grad_norm": along.square().sum(1).sqrt(), **_activity(network, layer, signal)})
        if layer in through.time:
            steps = [Signal((z,), (z,), (h,)) for z, h in zip(signal.z, signal.h, strict=True)]
            times = [
                {"signal_grad_norm": along[:, t], **_activity(network, layer, step)} for t, step in enumerate(steps)
            ]
    weights, others = norms64(gradient, layout.matrices), norms64(gradient, layout.rests)
    return Measurement(
        rows=_table_rows(layout, through),
        signals=(*rows, *times),
        parameters={
            "grad_norm": torch.hypot(weights, others),
            "weight_grad_norm": weights,
            "weight_norm": norms64(parameters, layout.matrices),
            "grad_zero": _zero_shares(gradient, layout),
        },
        finite=torch.stack([_all_finite(signal) for signal in through.signals], dim=1),
    )


def with_clipped(measurement: Measurement, layout: Layout, gradient: Tensor) -> Measurement:
    """Adds `grad_norm_clipped`, from the gradient (M, P) after clipping."""
    columns = {"grad_norm_clipped": norms64(gradient, layout.layers)}
    return replace(measurement, parameters={**measurement.parameters, **columns})


def with_update(measurement: Measurement, layout: Layout, change: Tensor) -> Measurement:
    """Adds `update_ratio`, from the change (M, P) of the parameters in one update."""
    columns = {"update_ratio": norms64(change, layout.matrices) / measurement.parameters["weight_norm"]}
    return replace(measurement, parameters={**measurement.parameters, **columns})


def _grad(node: Node) -> Tensor:
    """The derivative by a node; zeros where nothing came back to it."""
    return torch.zeros_like(node.value) if node.grad is None else node.grad


def _moments(h: Tensor) -> Columns:
    mean, std = moments(h)
    return {"act_mean": mean, "act_std": std}


def _activity(network: Network, layer: int, signal: Signal) -> Columns:
    """Mean and spread of what a layer passes on; `saturated` where it can saturate; `dead` of the ReLU family."""
    h = _joined(signal.h)
    columns = _moments(h)
    name = network.model.activation
    if signal.pre is None or name is None:
        return columns
    pre = _joined(signal.pre)
    activation = ACTIVATIONS[name]
    if activation.derivative is not None:
        columns["saturated"] = share(SATURATED_BELOW * activation.steepest - activation.derivative(pre, h).abs())
    if NAMED_ACTIVATIONS[name].relu_family and pre.shape[2] >= LEAST_BATCH_FOR_DEAD:
        # At zero slope on every sample: never above zero, and zero is the slope there.
        flat = torch.as_tensor(network.slope(layer), device=pre.device).reshape(-1, 1) == 0
        columns["dead"] = ((pre.amax(dim=(1, 2)) <= 0) & flat).to(torch.float64).mean(1)
    return columns


def _joined(steps: tuple[Node, ...]) -> Tensor:
    """T nodes (M, B, D) -> (M, T, B, D), without a copy where there is one."""
    return steps[0].value.unsqueeze(1) if len(steps) == 1 else torch.stack([step.value for step in steps], dim=1)


def _zero_shares(gradient: Tensor, layout: Layout) -> Tensor:
    """(M, P) -> (M, L): the share of entries that are exactly zero; nan where one is not a number.

    Clamped to 0..1 and rounded up, a number is 1 unless it is zero.
    """
    parts = [gradient[:, columns].abs().clamp_(max=1).ceil_() for columns in layout.layers]
    return torch.stack([1 - count(part) / part.shape[1] for part in parts], dim=1)


def _all_finite(signal: Signal) -> Tensor:
    return torch.stack([finite(z.value.flatten(1)) for z in signal.z]).all(0)


def validity(measurement: Measurement) -> Bools:
    """(C, R): which columns a row has."""
    layers = next(iter(measurement.parameters.values())).shape[1]
    return np.array(
        [
            [
                column in row or (column in measurement.parameters and 1 <= r <= layers)
                for r, row in enumerate(measurement.signals)
            ]
            for column in PROBE_COLUMNS
        ]
    )


def stacked(measurement: Measurement) -> Tensor:
    """(C, M, R) float64 on the device; what is null is zero."""
    first = measurement.signals[0]["signal_grad_norm"]
    table = first.new_zeros(len(PROBE_COLUMNS), len(measurement.signals), len(first))
    for index, column in enumerate(PROBE_COLUMNS):
        if column in measurement.parameters:
            values = measurement.parameters[column].T
            table[index, 1 : len(values) + 1] = values
        else:
            held = [r for r, row in enumerate(measurement.signals) if column in row]
            if held:
                table[index, held] = torch.stack([measurement.signals[r][column] for r in held])
    return table.transpose(1, 2)
