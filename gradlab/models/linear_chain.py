"""L square matrices gain*I in a row and nothing else: the gradient's norm is multiplied by gain at every layer."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.nn.network import Network, Signal, Trace
from gradlab.nn.norms import Mode
from gradlab.nn.slots import Layout, Role, Slot, Start
from gradlab.spec import Facts, ModelSpec


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """L matrices (width, width), no biases."""
    shape = (facts.outputs, facts.inputs)
    layers = range(1, model.depth + 1)
    slots = tuple(Slot(layer, Role.WEIGHT, shape, Start.SCALED_IDENTITY, *reversed(shape)) for layer in layers)
    return Layout(slots, tuple(f"link_{layer}" for layer in layers))


def forward(network: Network, x: Tensor, mode: Mode) -> Trace:
    """``x`` (M, B, D) -> output (M, B, D)."""
    del mode
    signals = []
    z = x
    for layer in range(1, network.model.depth + 1):
        z = torch.bmm(z, network.parameters[layer, Role.WEIGHT].transpose(1, 2))
        signals.append(Signal((z,), None, (z,)))
    return Trace(z, tuple(signals))
