"""Fully connected layers: z_l = norm(W_l h_{l-1} + b_l), h_l = phi(z_l), with dropout; the last layer is linear.

With `model.norm_order` = behind z_l = W_l h_{l-1} + b_l and h_l = norm(phi(z_l)).
"""

from __future__ import annotations

from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Slot, linear_slots, norm_slots, slope_slots
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """L layers: inputs -> width -> ... -> width -> outputs."""
    widths = (facts.inputs, *[model.width] * (model.depth - 1), facts.outputs)
    slots: list[Slot] = []
    for layer in range(1, model.depth + 1):
        slots += linear_slots(layer, widths[layer - 1], widths[layer])
        if layer < model.depth:
            slots += norm_slots(layer, model.norm, model.width) + slope_slots(layer, model.activation)
    return Layout(tuple(slots), (*(f"hidden_{layer}" for layer in range(1, model.depth)), "output"))


def forward(through: Pass, x: Node) -> Node:
    """``x`` (M, B, *shape) -> output (M, B, K) and the signals of every layer."""
    h = through.flatten(x)
    for layer in range(1, through.network.model.depth):
        z, h = through.normed(layer, through.linear(layer, h))
        through.observe([z], [z], [h])
        h = through.drop(layer, h)
    output = through.linear(through.network.model.depth, h)
    through.observe([output], None, [output])
    return output
