"""Capsules: convolutions, capsules of their channels, and one for each class (Sabour et al. 2017, arXiv:1710.09829).

Layers 1..L-2 are convolutions as `cnn` has them. Layer L-1 is one of stride 2, whose channels at a pixel are cut into
primary capsules of `model.capsule_width` entries, squashed; z is what is squashed. Layer L has a matrix for each pair
of a primary and a digit capsule, twice as wide, and routes by agreement `model.routing` times; z is the sum of votes
of the last time, h the output: how long each digit capsule is. The paper's decoder is left out.
"""

from __future__ import annotations

from gradlab.nn.capsules import convolve_by_two, lengths, pair_slots, route, squash, vote
from gradlab.nn.convolutions import convolution_slots, convolve
from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Slot, slope_slots
from gradlab.nn.tape import Node
from gradlab.spec.choices.models import DIGIT_OVER_PRIMARY, primary_capsules
from gradlab.spec.run import Facts, ModelSpec


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """Convolutions 1..L-2 of width channels, the one of the primary capsules, and the pairs' matrices."""
    slots: list[Slot] = []
    for layer in range(1, model.depth):
        slots += convolution_slots(layer, facts.channels if layer == 1 else model.width, model.width)
        slots += slope_slots(layer, model.activation) if layer < model.depth - 1 else ()
    size = model.capsule_width or 1
    slots += pair_slots(model.depth, (primary_capsules(model, facts), facts.outputs), (size, DIGIT_OVER_PRIMARY * size))
    convolutions = (f"conv_{layer}" for layer in range(1, model.depth - 1))
    return Layout(tuple(slots), (*convolutions, "primary_capsules", "digit_capsules"))


def forward(through: Pass, x: Node) -> Node:
    """Images ``x`` (M, B, H, W), or (M, B, H, W, C) -> output (M, B, K): the lengths of the digit capsules."""
    model, facts = through.network.model, through.network.facts
    eps, size, batch = model.squash_eps or 0.0, model.capsule_width or 1, x.value.shape[:2]
    h = through.view(x, *batch, *facts.pixels, facts.channels)
    for layer in range(1, model.depth - 1):
        z = convolve(through, layer, h)
        h = through.activate(layer, z)
        through.observe([z], [z], [h])
    z = convolve_by_two(through, model.depth - 1, h)
    z = through.view(z, *batch, primary_capsules(model, facts), size)
    h = squash(through, z, eps)
    through.observe([z], None, [h])
    z = route(through, vote(through, model.depth, h, facts.outputs), model.routing or 1, eps)
    output = lengths(through, squash(through, z, eps), eps)
    through.observe([z], None, [output])
    return output
