"""What is measured at every layer of every member, on the device, at a recorded step.

Nothing here synchronises: a measurement is one table that travels to the host with many others at the next flush.
Shapes: M members, B batch, D width, T time, L layers, R rows of the per-layer table, C of its columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from gradlab.nn.activations import ACTIVATIONS, dead_share, saturated_share
from gradlab.nn.float64 import distances64, layer_gradients, norm64, norms64, spread, unsound
from gradlab.nn.kernels import native
from gradlab.nn.network import Further, Network, Pass
from gradlab.nn.products import stacked as in_one
from gradlab.nn.slots import Layout
from gradlab.nn.tape import Node
from gradlab.spec.choices import ACTIVATIONS as NAMED_ACTIVATIONS
from gradlab.store.columns import PROBE_COLUMNS
from gradlab.store.record import Bools, Floats, Row

SATURATED_BELOW = 0.05
"""Of the largest slope: an entry whose slope is smaller counts as saturated."""

LEAST_BATCH_FOR_DEAD = 16
"""With fewer samples a unit that is merely quiet would count as dead."""

AT_ONCE = 2**19
"""Entries of signals at most that are copied to one place, to be measured as one."""

CLIPPED, UPDATED = "grad_norm_clipped", "update_ratio"
"""Columns of what clipping and the update did: the last row has neither."""


@dataclass(frozen=True)
class Measurement:
    """One record of the per-layer table.

    ``rows`` names its rows; ``values`` (M, C, R) float64 are its ``columns``, of which ``held`` (C, R) says where a row
    has them; ``unsound`` (M, L) is zero where z_l is finite. Until it travels, `update_ratio` is the update's norm
    alone, and what is per entry has norms alone: ``entries`` are how many each row's signal, and its parameters, have.
    ``first`` is the row of layer 1; ``trained`` (L,) says which layers are, where not all are. ``gradients`` (M, L) are
    the norms of their gradients, where that is what the table holds.
    """

    rows: tuple[Row, ...]
    values: Tensor
    held: Bools
    unsound: Tensor
    columns: tuple[str, ...] = PROBE_COLUMNS
    first: int = 1
    trained: Bools | None = None
    entries: Mapping[str, Floats] = field(default_factory=dict)
    gradients: Tensor | None = None

    def column(self, name: str, row: int) -> Tensor:
        """(M,): where a column of a row is written; it is held from now on."""
        place = self.columns.index(name)
        self.held[place, row] = True
        return self.values.select(1, place).select(1, row)

    def part(self, name: str, rows: slice) -> Tensor:
        """(M, rows): as `column`, of several rows."""
        place = self.columns.index(name)
        self.held[place, rows] = True
        return self.values[:, place, rows]

    def of_layers(self, name: str, layers: int) -> Tensor:
        """(M, L): as `column`, of the layers 1..L."""
        place, rows = self.columns.index(name), slice(self.first, self.first + layers)
        self.held[place, rows] = True if self.trained is None else self.trained
        return self.values[:, place, rows]

    def without_update(self) -> Measurement:
        """A copy without what `measure_clipped` and `measure_update` add."""
        places = [self.columns.index(name) for name in (CLIPPED, UPDATED)]
        held, values = self.held.copy(), self.values.clone()
        held[places] = False
        values[:, places] = 0
        return replace(self, values=values, held=held)


def _table_rows(layout: Layout, through: Pass, *, continuous: bool) -> tuple[Row, ...]:
    """The rows of the per-layer table: the input, if ``continuous``, the layers along depth, then the time steps."""
    rows = [Row("depth", layer, name) for layer, name in enumerate(layout.names, start=1)]
    if continuous:
        rows.insert(0, Row("depth", 0, "input"))
    for layer in through.time:
        steps = range(1, len(through.signals[layer - 1].z) + 1)
        rows += [Row("time", t, layout.names[layer - 1]) for t in steps]
    return tuple(rows)


def measure(
    through: Pass,
    x: Node,
    parameters: Tensor,
    gradient: Tensor,
    scale: Tensor | None = None,
) -> Measurement:
    """All columns but those of an update, from a pass that has been gone back through, keeping its derivatives.

    ``x`` is the input; ``parameters`` and ``gradient`` (M, P) are those before clipping and updating. Derivatives by
    signals are divided by the ``scale`` (M,) of the loss.
    """
    network, layout = through.network, through.network.layout
    first, layers = int(x.value.is_floating_point()), len(layout.names)
    rows = _table_rows(layout, through, continuous=first == 1)
    values = parameters.new_zeros(len(parameters), len(PROBE_COLUMNS), len(rows), dtype=torch.float64)
    sound = parameters.new_zeros(len(parameters), layers, dtype=torch.float64)
    held = np.zeros((len(PROBE_COLUMNS), len(rows)), dtype=np.bool_)
    table = Measurement(rows, values, held, sound, PROBE_COLUMNS, first, entries=_entries(through, x, rows))

    if first:
        norm64(x.derivative, table.column("signal_grad_norm", 0))
        _spread(x.value, 1, x.value.shape[1], partial(table.column, row=0))
    for alike in _alike(through):
        if len(alike) > 1:
            _measure_alike(table, alike, through)
            continue
        (layer,) = alike
        row, signal = first + layer - 1, through.signals[layer - 1]
        write = partial(table.column, row=row)
        steps, samples = len(signal.z), signal.z[0].value.shape[1]
        times = slice(first + layers, first + layers + steps) if layer in through.time else None
        z = in_one([node.value for node in signal.z])
        pre = z if signal.pre == signal.z else None
        if signal.pre is not None and pre is None:
            pre = in_one([node.value for node in signal.pre])
        h = in_one([step.value for step in signal.h])
        _spread(h, steps, samples, write, None if times is None else partial(table.part, rows=times))
        _slopes(network, network.slope(layer), pre, h, samples, write)
        _further(table, row, signal.further)
        unsound(z, sound[:, layer - 1])
        grads = in_one([node.derivative for node in signal.z]).flatten(1)
        norm64(grads, table.column("signal_grad_norm", row))
        if times is not None:
            size = grads.shape[1] // steps
            spans = [slice(t * size, (t + 1) * size) for t in range(steps)]
            norms64(grads, spans, table.part("signal_grad_norm", times))
            for t, step in enumerate(signal.h):
                entered = None if signal.pre is None else signal.pre[t].value
                own = partial(table.column, row=times.start + t)
                _slopes(network, network.slope(layer), entered, step.value, samples, own)
                _further(table, times.start + t, signal.further_at[t] if signal.further_at else {})
    found = [table.of_layers(name, layers) for name in ("grad_norm", "weight_grad_norm", "grad_zero")]
    layer_gradients(gradient, layout.matrices, layout.layers, *found)
    norms64(parameters, layout.matrices, table.of_layers("weight_norm", layers))
    if scale is not None:
        values[:, PROBE_COLUMNS.index("signal_grad_norm")] /= scale.unsqueeze(1)
    return replace(table, gradients=found[0])


PER_ENTRY = {"signal_grad_rms": "signal_grad_norm", "grad_rms": "grad_norm"}
"""Root mean squares, which compare layers of different sizes, and the norms that they are made of."""


def _entries(through: Pass, x: Node, rows: Sequence[Row]) -> dict[str, Floats]:
    """(R,) of each column of `PER_ENTRY`: how many entries its norm is over; nan without one."""
    layout = through.network.layout
    depth = [sum(native.entries(z.value) for z in signal.z) for signal in through.signals]
    if x.value.is_floating_point():
        depth.insert(0, native.entries(x.value))
    time = [native.entries(z.value) for layer in through.time for z in through.signals[layer - 1].z]
    parameters = [math.nan] * (len(depth) - len(layout.names)) + [span.stop - span.start for span in layout.layers]
    blank = [math.nan] * (len(rows) - len(depth))
    return {"signal_grad_rms": np.array([*depth, *time], float), "grad_rms": np.array([*parameters, *blank], float)}


def measure_clipped(table: Measurement, layout: Layout, gradient: Tensor, changed: Tensor) -> None:
    """Adds `grad_norm_clipped`, from the gradient (M, P) after clipping, which has ``changed`` (M,) unless zero."""
    unless = () if table.gradients is None else (changed, table.gradients)
    norms64(gradient, layout.layers, table.of_layers(CLIPPED, len(layout.names)), unless)


def measure_update(
    table: Measurement, layout: Layout, before: Tensor, after: Tensor, layers: slice = slice(None)
) -> None:
    """Adds the norm of the update, from the parameters (M, P) before and after it, or from those of some ``layers``."""
    spans, start = layout.matrices[layers], 0 if layers == slice(None) else layout.layers[layers][0].start
    inside = [slice(span.start - start, span.stop - start) for span in spans]
    distances64(after, before, inside, table.of_layers(UPDATED, len(layout.names))[:, layers])


Write = Callable[[str], Tensor]
"""Where a column is written: (M,), or (M, T) of time steps."""


def _slopes(network: Network, slope: float | Tensor, pre: Tensor | None, h: Tensor, samples: int, write: Write) -> None:
    """`saturated` where the activation, which makes h of ``pre``, can saturate; `dead` of the ReLU family."""
    name = network.model.activation
    if pre is None or name is None:
        return
    if ACTIVATIONS[name].derivative is not None:
        saturated_share(name, pre, h, SATURATED_BELOW, write("saturated"))
    if NAMED_ACTIVATIONS[name].relu_family and samples >= LEAST_BATCH_FOR_DEAD:
        dead_share(pre, slope, write("dead"))


def _further(table: Measurement, row: int, further: Further) -> None:
    for names, write in further.items():
        write(*(table.column(name, row) for name in names))


def _spread(h: Tensor, steps: int, batch: int, write: Write, each: Write | None = None) -> None:
    """Mean and spread of what is passed on, (M, ..., B, D) of so many steps, and how alike it is for two samples.

    The same of ``each`` step where there are rows for them.
    """
    names = ("act_mean", "act_std", "act_correlation")[: 3 if batch > 1 else 2]
    mean, deviation, *cosine = map(write, names)
    of_steps = () if each is None else [each(name) for name in names]
    spread(h.reshape(len(h), steps, batch, -1), mean, deviation, cosine[0] if cosine else None, of_steps)


def _alike(through: Pass) -> Iterator[Sequence[int]]:
    """The layers, by their numbers: by torch alone neighbours that are alike together, by our kernels one by one.

    Alike: signals of one shape and one step, which are small enough to be copied to one place.
    """
    for _, group in groupby(range(1, len(through.signals) + 1), partial(_form, through)):
        layers = list(group)
        most = max(1, AT_ONCE // through.signals[layers[0] - 1].z[0].value.numel())
        yield from (layers[start : start + most] for start in range(0, len(layers), most))


def _form(through: Pass, layer: int) -> object:
    """Equal for layers that can be measured together."""
    signal, learned = through.signals[layer - 1], isinstance(through.network.slope(layer), Tensor)
    z = signal.z[0].value
    if layer in through.time or len(signal.z) > 1 or native.serves(z):
        return layer
    pre = None if signal.pre is None else (signal.pre == signal.z, signal.pre[0].value.shape)
    return z.shape, signal.h[0].value.shape, pre, learned


def _measure_alike(table: Measurement, layers: Sequence[int], through: Pass) -> None:
    """Layers that are alike, K of them measured as if each were a member: in as many operations as one."""
    signals, network = [through.signals[layer - 1] for layer in layers], through.network
    rows = slice(table.first + layers[0] - 1, table.first + layers[-1])
    found: dict[str, Tensor] = {}

    def joined(parts: Iterable[Tensor]) -> Tensor:
        return torch.stack(list(parts), dim=1).flatten(0, 1)

    def write(name: str) -> Tensor:
        return found.setdefault(name, table.values.new_empty(len(table.values) * len(layers)))

    z, h = joined(signal.z[0].value for signal in signals), joined(signal.h[0].value for signal in signals)
    entered = [signal.pre[0].value for signal in signals if signal.pre is not None]
    pre = z if signals[0].pre == signals[0].z else joined(entered) if entered else None
    slopes = [network.slope(layer) for layer in layers]
    learned = [slope for slope in slopes if isinstance(slope, Tensor)]
    samples = z.shape[1]
    _spread(h, 1, samples, write)
    _slopes(network, joined(learned) if learned else slopes[0], pre, h, samples, write)
    norm64(joined(signal.z[0].derivative for signal in signals), write("signal_grad_norm"))
    for name, column in found.items():
        table.part(name, rows).copy_(column.view(-1, len(layers)))
    table.unsound[:, layers[0] - 1 : layers[-1]].copy_(unsound(z).view(-1, len(layers)))
    for row, signal in enumerate(signals, start=rows.start):
        _further(table, row, signal.further)


def stacked(measurements: list[Measurement]) -> Floats:
    """K measurements -> (K, C, M, R) in one transfer, ratios and roots of means taken; what is null is zero."""
    values: Floats = torch.stack([table.values for table in measurements]).cpu().numpy()
    columns = measurements[0].columns
    update, weight = columns.index(UPDATED), columns.index("weight_norm")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for number, table in enumerate(measurements):
            ratio = values[number, :, update] / values[number, :, weight]
            values[number, :, update] = np.where(table.held[update], ratio, 0.0)
            for column, entries in table.entries.items():
                place, norm = columns.index(column), columns.index(PER_ENTRY[column])
                table.held[place] = table.held[norm] & ~np.isnan(entries)
                values[number, :, place] = values[number, :, norm] * np.nan_to_num(entries**-0.5)
    return values.swapaxes(1, 2)
