"""Residual blocks of two convolutions between a read-in and a linear read-out of the mean over all pixels.

With c1, c2 a block's convolutions, n norms and phi the activation, the stream s becomes, by `model.block`:

preact   s + beta c2(phi(n2(c1(phi(n1(s))))))                  He et al. 2016, arXiv:1603.05027
rezero   the same with alpha beta for beta, alpha learned from 0    Bachlechner et al. 2020, arXiv:2003.04887
postact  phi(s + beta n2(c2(phi(n1(c1(s))))))                  He et al. 2015, arXiv:1512.03385
fixup    phi(s + beta (a c2(phi(c1(s + b1) + b2) + b3) + b4))  Zhang et al. 2019, arXiv:1901.09321

of fixup's a, learned from 1, and b, from 0, each is one number, which take the place of the biases. Dropout is behind
the phi that stands before a block's second convolution (Zagoruyko & Komodakis 2016, arXiv:1605.07146, section 2.4).
Norms are as those of `cnn`. What is seen of a block's first convolution is its own output (its pre-activation, in
postact and fixup), of the second the stream behind the addition (before phi); its weights are those of the layer.
"""

from __future__ import annotations

from gradlab.nn.convolutions import affine, convolution_slots, convolve, mean_of_pixels
from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Role, Slot, Start, linear_slots, norm_slots, slope_slots
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec

PRE = ("preact", "rezero")
"""The blocks whose activations stand before their convolutions, and the last one before the read-out."""


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """The read-in (layer 1), blocks of two layers each (2..L-1), the read-out (L)."""
    blocks = (model.depth - 2) // 2
    # What fixup takes the weights of a branch of two layers by: L^(-1/(2m-2)) with m = 2, and 0 in the second.
    taken = max(1, blocks) ** -0.5
    slots: list[Slot] = []
    names = ["read_in"]
    for layer in range(1, model.depth):
        first = layer % 2 == 0
        channels, bias = facts.channels if layer == 1 else model.width, model.block != "fixup"
        slots += convolution_slots(layer, channels, model.width, bias=bias, fixup=taken if first else 0.0)
        slots += _learned_numbers(layer, model.block)
        if layer > 1 or model.block not in PRE:
            slots += norm_slots(layer, model.norm, model.width) + slope_slots(layer, model.activation)
        if layer > 1:
            names.append(f"block_{layer // 2}.{1 if first else 2}")
    slots += linear_slots(model.depth, model.width, facts.outputs)
    if model.block in PRE:
        slots += norm_slots(model.depth, model.norm, model.width) + slope_slots(model.depth, model.activation)
    return Layout(tuple(slots), (*names, "output"))


def _learned_numbers(layer: int, block: str | None) -> tuple[Slot, ...]:
    second = layer > 1 and layer % 2 == 1
    if block == "rezero":
        return (Slot(layer, Role.MULTIPLIER, (1,), Start.ZEROS),) if second else ()
    if block != "fixup":
        return ()
    behind = Slot(layer, Role.BIAS, (1,), Start.ZEROS)
    if layer == 1:
        return (behind,)
    before = Slot(layer, Role.BEFORE, (1,), Start.ZEROS)
    return (before, behind, Slot(layer, Role.MULTIPLIER, (1,), Start.ONES)) if second else (before, behind)


def forward(through: Pass, x: Node) -> Node:
    """Images ``x`` (M, B, H, W), or (M, B, H, W, C) -> output (M, B, K)."""
    model, facts = through.network.model, through.network.facts
    s = through.view(x, *x.value.shape[:2], *facts.pixels, facts.channels)
    z = convolve(through, 1, s, bias=model.block != "fixup")
    if model.block in PRE:
        through.observe([z], None, [z])
        for layer in range(2, model.depth, 2):
            z = _before(through, layer, z)
        s = through.activate(model.depth, through.norm(model.depth, z))
    else:
        z = affine(through, 1, z, None, Role.BIAS) if model.block == "fixup" else through.norm(1, z)
        s = through.activate(1, z)
        through.observe([z], [z], [s])
        for layer in range(2, model.depth, 2):
            s = _behind(through, layer, s)
    output = through.linear(model.depth, mean_of_pixels(through, s))
    through.observe([output], None, [output])
    return output


def _before(through: Pass, layer: int, s: Node) -> Node:
    """A block whose activations stand before its convolutions, which are ``layer`` and the next."""
    scale, second = through.network.model.branch, layer + 1
    pre = through.norm(layer, s)
    h = through.activate(layer, pre)
    z = convolve(through, layer, h)
    through.observe([z], [pre], [h])
    pre = through.norm(second, z)
    h = through.activate(second, pre)
    branch = convolve(through, second, through.drop(second, h))
    if through.network.model.block == "rezero":
        branch = affine(through, second, branch, Role.MULTIPLIER, None)
    s = through.add(s, branch, scale)
    through.observe([s], [pre], [h])
    return s


def _behind(through: Pass, layer: int, s: Node) -> Node:
    """A block whose activations stand behind its convolutions; of fixup with its numbers, else with norms."""
    model, second = through.network.model, layer + 1
    if model.block == "fixup":
        z = convolve(through, layer, affine(through, layer, s, None, Role.BEFORE), bias=False)
        z = affine(through, layer, z, None, Role.BIAS)
    else:
        z = through.norm(layer, convolve(through, layer, s))
    h = through.activate(layer, z)
    through.observe([z], [z], [h])
    h = through.drop(layer, h)
    if model.block == "fixup":
        branch = convolve(through, second, affine(through, second, h, None, Role.BEFORE), bias=False)
        branch = affine(through, second, branch, Role.MULTIPLIER, Role.BIAS)
    else:
        branch = through.norm(second, convolve(through, second, h))
    z = through.add(s, branch, model.branch)
    s = through.activate(second, z)
    through.observe([z], [z], [s])
    return s
