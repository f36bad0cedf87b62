"""What gated recurrent networks share: layers of gates one upon the other, all time steps at once, and a read-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gradlab.nn.gates import Unrolled, by_sample, in_time, observe
from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Role, Slot, Start, linear_slots
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec


def gate_slots(
    layer: int, inputs: int, width: int, blocks: int, keeps: int, admits: int | None = None
) -> tuple[Slot, ...]:
    """The matrices and the bias of so many gates, one upon the other; torch bounds its draws by the width alone."""

    def slot(role: Role, shape: tuple[int, ...], fan_in: int) -> Slot:
        return Slot(layer, role, (blocks * width, *shape), Start.DRAWN, fan_in, width, width, blocks=blocks)

    bias = replace(slot(Role.BIAS, (), inputs), keeps=keeps, admits=admits)
    return (slot(Role.WEIGHT, (inputs,), inputs), slot(Role.RECURRENT, (width,), width), bias)


def layout(model: ModelSpec, facts: Facts, name: str, slots: Callable[[int, int], Sequence[Slot]]) -> Layout:
    """K layers of ``slots(layer, inputs)``, called after ``name``, then the read-out."""
    found: list[Slot] = []
    for layer in range(1, model.depth + 1):
        found += slots(layer, facts.features if layer == 1 else model.width)
    found += linear_slots(model.depth + 1, model.width, facts.outputs)
    names = (*(f"{name}_{layer}" for layer in range(1, model.depth + 1)), "read_out")
    return Layout(tuple(replace(slot, in_time=True) for slot in found), names)


def forward(through: Pass, x: Node, recurrence: Callable[[Pass, int, Node, int], Unrolled]) -> Node:
    """Layer upon layer; the steps of the top one are the rows along time."""
    facts, depth = through.network.facts, through.network.model.depth
    if x.value.is_floating_point():
        driven = through.linear(1, in_time(through, x))
    else:
        driven = through.look_up(1, Node(x.value.transpose(1, 2), None))
    for layer in range(1, depth + 1):
        top = layer == depth
        found = recurrence(through, layer, driven, (facts.positions or 1) if top else facts.steps)
        observe(through, [found], along_time=top)
        if not top:
            driven = through.linear(layer + 1, through.drop(layer, found.seen))
    output = through.linear(depth + 1, found.seen)
    members, _, batch, outputs = output.value.shape
    output = by_sample(through, output) if facts.positions else through.view(output, members, batch, outputs)
    through.observe([output], None, [output])
    return output
