"""K stacked Elman layers unrolled in time: z_{k,t} = norm(W_k h_{k-1,t} + U_k h_{k,t-1} + b_k), h = phi(z).

The first step meets h_{k,0} = 0. A read-out of the top layer's last step follows, as layer K+1. The signals of the top
layer, step by step, are the rows along time.
"""

from __future__ import annotations

from dataclasses import replace

from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Role, Slot, Start, linear_slots, norm_slots, slope_slots
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """K layers of two matrices, one bias, and the norm's gain and shift (shared by all steps), then the read-out."""
    slots: list[Slot] = []
    for layer in range(1, model.depth + 1):
        fan_in = facts.shape[1] if layer == 1 else model.width
        # torch.nn.RNN bounds its default draw by the hidden width, whatever the matrix.
        drawn = (Start.DRAWN, fan_in, model.width, model.width)
        slots += [
            Slot(layer, Role.WEIGHT, (model.width, fan_in), *drawn),
            Slot(layer, Role.RECURRENT, (model.width, model.width), Start.DRAWN, model.width, model.width, model.width),
            Slot(layer, Role.BIAS, (model.width,), *drawn),
        ]
        slots += norm_slots(layer, model.norm, model.width) + slope_slots(layer, model.activation)
    slots += linear_slots(model.depth + 1, model.width, facts.outputs)
    slots = [replace(slot, in_time=True) for slot in slots]
    return Layout(tuple(slots), (*(f"recurrent_{layer}" for layer in range(1, model.depth + 1)), "read_out"))


def forward(through: Pass, x: Node) -> Node:
    """``x`` (M, B, T, F) -> output (M, B, K)."""
    members, batch = x.value.shape[:2]
    inputs = through.steps(x)
    for layer in range(1, through.network.model.depth + 1):
        h = Node(x.value.new_zeros(members, batch, through.network.model.width), None)
        zs, hs = [], []
        for step in inputs:
            z = through.norm(layer, through.recur(layer, through.linear(layer, step), h))
            h = through.activate(layer, z)
            zs.append(z)
            hs.append(h)
        inputs = tuple(hs)
        through.observe(zs, zs, hs, along_time=layer == through.network.model.depth)
    output = through.linear(through.network.model.depth + 1, inputs[-1])
    through.observe([output], None, [output])
    return output
