"""L square matrices gain*I in a row and nothing else: the gradient's norm is multiplied by gain at every layer."""

from __future__ import annotations

from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Role, Slot, Start
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """L matrices (width, width), no biases."""
    shape = (facts.outputs, facts.inputs)
    layers = range(1, model.depth + 1)
    slots = tuple(
        Slot(layer, Role.WEIGHT, shape, Start.SCALED_IDENTITY, facts.inputs, facts.outputs) for layer in layers
    )
    return Layout(slots, tuple(f"link_{layer}" for layer in layers))


def forward(through: Pass, x: Node) -> Node:
    """``x`` (M, B, D) -> output (M, B, D)."""
    z = x
    for layer in range(1, through.network.model.depth + 1):
        z = through.multiply(layer, z)
        through.observe([z], None, [z])
    return z
