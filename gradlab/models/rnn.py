"""K stacked Elman layers unrolled in time: z_{k,t} = norm(W_k h_{k-1,t} + U_k h_{k,t-1} + b_k), h = phi(z).

The first step meets h_{k,0} = 0. Tokens enter as vectors of one 1. A read-out of the top layer's last step, or of as
many of the last as have answers, follows as layer K+1. The signals of the top layer, step by step, are the rows along
time.
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
        fan_in = facts.features if layer == 1 else model.width
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
    """``x`` (M, B, T, *F), or tokens (M, B, T) -> output (M, B, K); (M, B, P, K) where P places have answers."""
    depth, width = through.network.model.depth, through.network.model.width
    if x.value.is_floating_point():
        driven = [through.linear(1, step) for step in through.steps(x)]
    else:
        driven = list(through.steps(through.look_up(1, x)))
    hs: list[Node] = []
    for layer in range(1, depth + 1):
        h, zs = Node(driven[0].value.new_zeros(*x.value.shape[:2], width), None), []
        if layer > 1:
            kept = [through.drop(layer - 1, below, step) for step, below in enumerate(hs)]
            driven = [through.linear(layer, below) for below in kept]
        hs = []
        for step in driven:
            z = through.norm(layer, through.recur(layer, step, h))
            h = through.activate(layer, z)
            zs.append(z)
            hs.append(h)
        through.observe(zs, zs, hs, along_time=layer == depth)
    places = through.network.facts.positions
    output = through.linear(depth + 1, through.together(hs[-places:]) if places else hs[-1])
    through.observe([output], None, [output])
    return output
