"""Pre-activation residual branches (He et al. 2016): z_l = z_{l-1} + beta (W_l phi(norm_l(z_{l-1})) + b_l)."""

from __future__ import annotations

from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Slot, linear_slots, norm_slots, slope_slots
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """A linear read-in (layer 1), branches (2..L-1), a linear read-out (L)."""
    widths = (facts.inputs, *[model.width] * (model.depth - 1), facts.outputs)
    slots: list[Slot] = []
    for layer in range(1, model.depth + 1):
        slots += linear_slots(layer, widths[layer - 1], widths[layer])
        if 1 < layer < model.depth:
            slots += norm_slots(layer, model.norm, model.width) + slope_slots(layer, model.activation)
    names = ("read_in", *(f"branch_{layer}" for layer in range(2, model.depth)), "output")
    return Layout(tuple(slots), names)


def forward(through: Pass, x: Node) -> Node:
    """``x`` (M, B, *shape) -> output (M, B, K); the signal of a branch is the stream z_l that it adds to."""
    depth, scale = through.network.model.depth, through.network.model.branch
    z = through.linear(1, through.flatten(x))
    through.observe([z], None, [z])
    for layer in range(2, depth):
        pre, h = through.normed(layer, z)
        z = through.add(z, through.linear(layer, through.drop(layer, h)), scale)
        through.observe([z], [pre], [h])
    output = through.linear(depth, z)
    through.observe([output], None, [output])
    return output
