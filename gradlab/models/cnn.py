"""Convolutions: z_l = norm(W_l * h_{l-1} + b_l), h_l = phi(z_l); the mean over all pixels and a linear read-out follow.

A norm's units are the channels: batch norm is over the batch and all pixels, layer and rms norm over the channels of a
pixel, group norm over those of a group and all pixels, instance norm over all pixels of one. By `model.norm_order` it
stands behind the activation.
"""

from __future__ import annotations

from gradlab.nn.convolutions import convolution_slots, convolve, halve, mean_of_pixels
from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Slot, linear_slots, norm_slots, slope_slots
from gradlab.nn.tape import Node
from gradlab.spec.choices.models import halved_before
from gradlab.spec.run import Facts, ModelSpec


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """Convolutions 1..depth of width channels, and the read-out."""
    slots: list[Slot] = []
    for layer in range(1, model.depth + 1):
        slots += convolution_slots(layer, facts.channels if layer == 1 else model.width, model.width)
        slots += norm_slots(layer, model.norm, model.width) + slope_slots(layer, model.activation)
    slots += linear_slots(model.depth + 1, model.width, facts.outputs)
    return Layout(tuple(slots), (*(f"conv_{layer}" for layer in range(1, model.depth + 1)), "output"))


def forward(through: Pass, x: Node) -> Node:
    """Images ``x`` (M, B, H, W), or (M, B, H, W, C) -> output (M, B, K)."""
    model, facts = through.network.model, through.network.facts
    halved = halved_before(model.pool)
    h = through.view(x, *x.value.shape[:2], *facts.pixels, facts.channels)
    for layer in range(1, model.depth + 1):
        h = halve(through, h) if layer in halved else h
        z, h = through.normed(layer, convolve(through, layer, h))
        through.observe([z], [z], [h])
        h = through.drop(layer, h)
    output = through.linear(model.depth + 1, mean_of_pixels(through, h))
    through.observe([output], None, [output])
    return output
