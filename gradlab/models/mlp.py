"""Fully connected layers: z_l = norm(W_l h_{l-1} + b_l), h_l = phi(z_l); the last layer is linear."""

from __future__ import annotations

from torch import Tensor

from gradlab.nn.network import Network, Signal, Trace
from gradlab.nn.norms import Mode
from gradlab.nn.slots import Layout, Slot, linear_slots, norm_slots, slope_slots
from gradlab.spec import Facts, ModelSpec


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """L layers: inputs -> width -> ... -> width -> outputs."""
    widths = (facts.inputs, *[model.width] * (model.depth - 1), facts.outputs)
    slots: list[Slot] = []
    for layer in range(1, model.depth + 1):
        slots += linear_slots(layer, widths[layer - 1], widths[layer])
        if layer < model.depth:
            slots += norm_slots(layer, model.norm, model.width) + slope_slots(layer, model.activation)
    return Layout(tuple(slots), (*(f"hidden_{layer}" for layer in range(1, model.depth)), "output"))


def forward(network: Network, x: Tensor, mode: Mode) -> Trace:
    """``x`` (M, B, *shape) -> output (M, B, K) and the signals of every layer."""
    h = x.flatten(2)
    signals = []
    for layer in range(1, network.model.depth):
        z = network.norm(layer, network.linear(layer, h), mode)
        h = network.activate(layer, z)
        signals.append(Signal((z,), (z,), (h,)))
    output = network.linear(network.model.depth, h)
    return Trace(output, (*signals, Signal((output,), None, (output,))))
