"""Blocks of attention and feed-forward on a residual stream (Vaswani et al. 2017, arXiv:1706.03762).

Layer 1 embeds tokens, or reads a sequence in, and adds a learned vector to each place; then each block has a layer of
attention and one of feed-forward; the last reads the stream out, at each place that has an answer, or its mean over the
places. `model.norm_place`, with f a sub-layer and x the stream: `pre` x + f(norm(x)), and a norm before the read-out
(Xiong et al. 2020, arXiv:2002.04745); `post` norm(x + f(x)); `sandwich` x + norm(f(norm(x))), and that last norm (Ding
et al. 2021, arXiv:2105.13290); `deepnorm` norm(alpha x + f(x)), alpha = (2N)^(1/4) of N blocks, where values, what ends
attention and both matrices of feed-forward begin (8N)^(-1/4) times as large (Wang et al. 2022, arXiv:2203.00555).
Dropout is behind the activation and behind each f, as in torch.nn.TransformerEncoderLayer, not in attention's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gradlab.nn.attention import Heads, add_places, attend, mean_of_places
from gradlab.nn.network import Further, Pass
from gradlab.nn.slots import Layout, Role, Slot, Start, linear_slots, norm_slots, slope_slots
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """The embedding, two sub-layers a block (one without feed-forward), the read-out."""
    width, hidden, last = model.width, (model.feed_forward or 0) * model.width, _last(model)
    slots, names = list(_read_in(model, facts)), ["embedding" if facts.vocabulary else "read_in"]
    small = (8 * model.depth) ** -0.25 if model.norm_place == "deepnorm" else 1.0
    for block in range(1, model.depth + 1):
        slots += _pair(len(names) + 1, (width, 3 * width), (width, width), blocks=3, scales=(1.0, 1.0, small))
        slots += _branch_norms(len(names) + 1, model)
        if model.qk_norm:
            size = width // (model.heads or 1)
            gains = (Role.QUERY_GAIN, Role.KEY_GAIN)
            slots += [Slot(len(names) + 1, role, (size,), Start.ONES) for role in gains]
        names.append(f"attention_{block}")
        if hidden:
            slots += _pair(len(names) + 1, (width, hidden), (hidden, width), scales=(small,))
            slots += [*_branch_norms(len(names) + 1, model), *slope_slots(len(names) + 1, model.activation)]
            names.append(f"feed_forward_{block}")
    slots += linear_slots(last, width, facts.outputs)
    if model.norm_place in ("pre", "sandwich"):
        slots += norm_slots(last, model.norm, width)
    return Layout(tuple(slots), (*names, "read_out"))


def forward(through: Pass, x: Node) -> Node:
    """Tokens (M, B, T), or ``x`` (M, B, T, *F) -> output (M, B, K); (M, B, P, K) where P places have answers."""
    model, facts, last = through.network.model, through.network.facts, _last(through.network.model)
    if x.value.is_floating_point():
        z = through.linear(1, through.view(x, *x.value.shape[:3], -1) if x.value.dim() != 4 else x)
    else:
        z = through.embed(1, x)
    z = add_places(through, 1, z)
    through.observe([z], None, [z])
    layer = 2
    while layer < last:
        z = _sub_layer(through, layer, z, _attention)
        layer += 1
        if model.feed_forward:
            z = _sub_layer(through, layer, z, _feed_forward)
            layer += 1
    if model.norm_place in ("pre", "sandwich"):
        z = through.norm(last, z)
    if 0 < facts.positions < facts.steps:
        z = through.together(through.steps(z)[-facts.positions :])
    output = through.linear(last, z if facts.positions else mean_of_places(through, z))
    through.observe([output], None, [output])
    return output


def _last(model: ModelSpec) -> int:
    return (2 if model.feed_forward else 1) * model.depth + 2


@dataclass(frozen=True)
class _Branch:
    """What a sub-layer puts out, and what can be seen inside: what enters its activation and leaves it, columns."""

    value: Node
    inside: tuple[Node, Node] | None = None
    further: Further = field(default_factory=dict)


def _sub_layer(through: Pass, layer: int, x: Node, f: Callable[[Pass, int, Node], _Branch]) -> Node:
    """The stream behind a sub-layer, whose signal it is."""
    model = through.network.model
    place, scale = model.norm_place, model.branch
    branch = f(through, layer, through.norm(layer, x) if place in ("pre", "sandwich") else x)
    value = through.drop(layer, branch.value, 1)
    if place == "sandwich":
        value = through.norm(layer, value, Role.SECOND_GAIN, Role.SECOND_SHIFT)
    if model.skip:
        value = through.add(x, value, scale, (2 * model.depth) ** 0.25 if place == "deepnorm" else 1.0)
    if place in ("post", "deepnorm"):
        value = through.norm(layer, value)
    before, behind = branch.inside or (None, value)
    through.observe([value], None if before is None else [before], [behind], further=branch.further)
    return value


def _attention(through: Pass, layer: int, h: Node) -> _Branch:
    model = through.network.model
    count = model.heads or 1
    scale = (model.width / count) ** -0.5 if model.attention_scale is None else model.attention_scale
    heads = Heads(count, scale, bool(model.causal))
    found = attend(through, layer, through.linear(layer, h), heads)
    return _Branch(through.linear(layer, found.mixed, Role.SECOND, Role.SECOND_BIAS), further=found.further)


def _feed_forward(through: Pass, layer: int, h: Node) -> _Branch:
    z = through.linear(layer, h)
    h = through.activate(layer, z)
    second = through.linear(layer, through.drop(layer, h), Role.SECOND, Role.SECOND_BIAS)
    return _Branch(second, inside=(z, h))


def _read_in(model: ModelSpec, facts: Facts) -> tuple[Slot, ...]:
    """The matrix that reads the input, and the places: of a token one row counts, so its fan-in is 1."""
    fan_in = 1 if facts.vocabulary else facts.features
    shape = (facts.vocabulary, model.width) if facts.vocabulary else (model.width, facts.features)
    weight = Slot(1, Role.WEIGHT, shape, Start.DRAWN, fan_in, model.width, fan_in)
    places = Slot(1, Role.PLACES, (facts.steps, model.width), Start.DRAWN, 1, model.width, 1)
    bias = Slot(1, Role.BIAS, (model.width,), Start.DRAWN, fan_in, model.width, fan_in)
    return (weight, places) if facts.vocabulary else (weight, places, bias)


def _pair(
    layer: int, first: tuple[int, int], second: tuple[int, int], scales: tuple[float, ...], blocks: int = 1
) -> list[Slot]:
    """Two matrices in a row, each (fan-in, fan-out), and their biases; the first may be ``blocks`` upon each other."""
    fans = (first[0], first[1] // blocks, first[0])
    last = (second[0], second[1], second[0])
    return [
        Slot(layer, Role.WEIGHT, first[::-1], Start.DRAWN, *fans, blocks=blocks, scales=scales),
        Slot(layer, Role.SECOND, second[::-1], Start.DRAWN, *last, scales=scales[-1:]),
        Slot(layer, Role.BIAS, (first[1],), Start.DRAWN, *fans),
        Slot(layer, Role.SECOND_BIAS, (second[1],), Start.DRAWN, *last),
    ]


def _branch_norms(layer: int, model: ModelSpec) -> list[Slot]:
    """Of a sub-layer, those of both sides of the branch where there are two."""
    slots = list(norm_slots(layer, model.norm, model.width))
    if model.norm_place == "sandwich":
        slots += norm_slots(layer, model.norm, model.width, Role.SECOND_GAIN, Role.SECOND_SHIFT)
    return slots
