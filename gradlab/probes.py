"""What is measured at every layer of every member, on the device, at a recorded step.

Nothing here synchronises: a measurement is a stack of (M,) tensors that travels to the host with many others at the
next flush. Shapes: M members, B batch, D width, L layers, R rows of the per-layer table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradlab.choices import ACTIVATIONS as NAMED_ACTIVATIONS
from gradlab.nn.activations import ACTIVATIONS
from gradlab.nn.network import Network, Signal, Trace
from gradlab.nn.norms64 import norm64, norms64
from gradlab.nn.slots import Layout
from gradlab.record import PROBE_COLUMNS, Bools, Row

SATURATED_BELOW = 0.05
"""Of the largest slope: an entry whose slope is smaller counts as saturated."""

LEAST_BATCH_FOR_DEAD = 16
"""With fewer samples a unit that is merely quiet would count as dead."""

Columns = dict[str, Tensor]
"""Some of `PROBE_COLUMNS` of one row, (M,) each; a column that is missing is null."""


@dataclass(frozen=True)
class Measurement:
    """One record of the per-layer table: ``rows[r][column]`` (M,), and whether z_l is finite (M, L)."""

    rows: tuple[Columns, ...]
    finite: Tensor


@dataclass(frozen=True)
class Deltas:
    """Derivatives of the loss by the input (M, B, *shape) and by each layer's z, step by step, as in `Signal`."""

    input: Tensor
    signals: tuple[tuple[Tensor, ...], ...]


def table_rows(layout: Layout, trace: Trace) -> tuple[Row, ...]:
    """The rows of the per-layer table: the input, the layers along depth, then the time steps."""
    rows = [Row("depth", 0, "input"), *(Row("depth", layer, name) for layer, name in enumerate(layout.names, start=1))]
    if trace.time_layer is not None:
        top = trace.time_layer
        rows += [Row("time", t, layout.names[top - 1]) for t in range(1, len(trace.signals[top - 1].z) + 1)]
    return tuple(rows)


def measure_signals(network: Network, trace: Trace, inputs: Tensor, deltas: Deltas) -> Measurement:
    """The columns that belong to signals: `signal_grad_norm`, `act_mean`, `act_std`, `saturated`, `dead`."""
    rows: list[Columns] = [{"signal_grad_norm": norm64(deltas.input), **_moments(inputs)}]
    time_rows: list[Columns] = []
    for layer, (signal, delta) in enumerate(zip(trace.signals, deltas.signals, strict=True), start=1):
        norms = torch.stack([norm64(piece) for piece in delta], dim=1)
        columns = {"signal_grad_norm": norms.square().sum(1).sqrt(), **_moments(torch.stack(signal.h, dim=1))}
        rows.append(columns | _slopes(network, layer, signal))
        if layer == trace.time_layer:
            for t in range(len(signal.z)):
                step = Signal((signal.z[t],), (signal.z[t],), (signal.h[t],))
                time_rows.append(
                    {"signal_grad_norm": norms[:, t], **_moments(signal.h[t]), **_slopes(network, layer, step)}
                )
    finite = torch.stack(
        [torch.stack([torch.isfinite(z).flatten(1).all(1) for z in signal.z]).all(0) for signal in trace.signals], dim=1
    )
    return Measurement((*rows, *time_rows), finite)


def _moments(h: Tensor) -> Columns:
    """Mean and (population) standard deviation over everything but the members, in float64."""
    var, mean = torch.var_mean(h.detach().flatten(1).to(torch.float64), dim=1, correction=0)
    return {"act_mean": mean, "act_std": var.sqrt()}


def _slopes(network: Network, layer: int, signal: Signal) -> Columns:
    """`saturated` of activations that can saturate, `dead` of the ReLU family in batches large enough to tell."""
    name = network.model.activation
    if signal.pre is None or name is None:
        return {}
    pre = torch.stack(signal.pre, dim=1).detach()
    slope = network.slope(layer)
    derivative = ACTIVATIONS[name].derivative
    columns: Columns = {}
    if not NAMED_ACTIVATIONS[name].piecewise_linear:
        flat = derivative(pre, slope).abs() < SATURATED_BELOW * ACTIVATIONS[name].steepest
        columns["saturated"] = flat.flatten(1).to(torch.float64).mean(1)
    if NAMED_ACTIVATIONS[name].relu_family and pre.shape[2] >= LEAST_BATCH_FOR_DEAD:
        learned = slope.detach().unsqueeze(1) if isinstance(slope, Tensor) else slope
        quiet = ((derivative(pre, learned) == 0) & ~pre.isnan()).all(dim=2).all(dim=1)
        columns["dead"] = quiet.to(torch.float64).mean(1)
    return columns


def measure_gradients(layout: Layout, gradient: Tensor, norms: Tensor) -> list[Columns]:
    """Of the gradient (M, P) before clipping, layers 1..L: `grad_norm` (from ``norms`` (M, L)), `weight_grad_norm`, `grad_zero`."""
    weights = norms64(gradient, layout.matrices)
    zero = gradient == 0
    return [
        {
            "grad_norm": norms[:, layer],
            "weight_grad_norm": weights[:, layer],
            "grad_zero": zero[:, columns].to(torch.float64).mean(1),
        }
        for layer, columns in enumerate(layout.layers)
    ]


def measure_weights(layout: Layout, before: Tensor) -> list[Columns]:
    """Of the weights (M, P) at this step, layers 1..L: `weight_norm`."""
    return [{"weight_norm": norm} for norm in norms64(before, layout.matrices).unbind(1)]


def measure_update(layout: Layout, before: Tensor, after: Tensor, clipped: Tensor) -> list[Columns]:
    """Of one update, layers 1..L: `update_ratio`, and `grad_norm_clipped` from the norms (M, L) after clipping."""
    ratios = norms64(after - before, layout.matrices) / norms64(before, layout.matrices)
    return [
        {"update_ratio": ratios[:, layer], "grad_norm_clipped": clipped[:, layer]} for layer in range(len(layout.names))
    ]


def merge(signals: Measurement, *parameters: Sequence[Columns]) -> Measurement:
    """``signals`` with the parameters' columns added to the rows of layers 1..L."""
    rows = list(signals.rows)
    for columns_of_layers in parameters:
        for layer, columns in enumerate(columns_of_layers, start=1):
            rows[layer] = rows[layer] | columns
    return Measurement(tuple(rows), signals.finite)


def validity(measurement: Measurement) -> Bools:
    """(C, R): which columns a row has."""
    return np.array([[column in row for row in measurement.rows] for column in PROBE_COLUMNS])


def stacked(measurement: Measurement) -> Tensor:
    """(C, M, R) float64 on the device; what is null is zero."""
    blank = torch.zeros_like(measurement.rows[0]["signal_grad_norm"])
    return torch.stack(
        [torch.stack([row.get(column, blank) for row in measurement.rows], dim=1) for column in PROBE_COLUMNS]
    )
