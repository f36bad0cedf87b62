"""A GRU that reads a source, and one that writes what it means, with or without attention to all that was read.

Tokens are the source and, at the last P places, the answers before each place's own; both are embedded. The decoder
begins with the encoder's last state. Without attention (Cho et al. 2014, arXiv:1406.1078; Sutskever et al. 2014) it has
nothing else. ``additive`` (Bahdanau et al. 2014, arXiv:1409.0473): before each step, what its state reads from the
encoder's states joins its input. ``dot`` (Luong et al. 2015, arXiv:1508.04025): what each step's state reads and the
state itself are mixed by tanh(W c + W' h + b), which is read out. Deviations: the encoder reads in one direction, and
the decoder's state begins as it ended.

The encoder's steps are the rows along time.
"""

from __future__ import annotations

from dataclasses import replace

from gradlab.models import gru
from gradlab.nn import alignment
from gradlab.nn.gates import Unrolled, by_sample, last, observe, parts, together
from gradlab.nn.gates import gru as unroll
from gradlab.nn.network import Further, Pass
from gradlab.nn.slots import Layout, Role, Slot, Start, linear_slots
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec

PLACES = {"none": (), "additive": ("attention", "decoder"), "dot": ("decoder", "attention")}


def names(model: ModelSpec) -> tuple[str, ...]:
    """The layers in their order: attention, where there is any, before the decoder or behind it."""
    each = range(1, model.depth + 1)
    inner = {"decoder": [f"decoder_{layer}" for layer in each], "attention": ["attention"]}
    behind = [name for kind in PLACES[str(model.attention)] or ("decoder",) for name in inner[kind]]
    encoder = (f"encoder_{layer}" for layer in each)
    return ("source_embedding", *encoder, "target_embedding", *behind, "read_out")


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """Embeddings (V, D), layers of gates, the matrices of attention, and the read-out."""
    width, found = model.width, []
    for layer, name in enumerate(called := names(model), start=1):
        match name.partition("_")[0]:
            case "source" | "target":
                found += [Slot(layer, Role.WEIGHT, (facts.vocabulary, width), Start.DRAWN, 1, width, 1)]
            case "encoder" | "decoder":
                slots = gru.slots(layer, width, width)
                if name == "decoder_1" and model.attention == "additive":
                    beside = Slot(
                        layer,
                        Role.SECOND,
                        (gru.BLOCKS * width, width),
                        Start.DRAWN,
                        width,
                        width,
                        width,
                        blocks=gru.BLOCKS,
                    )
                    slots = (*slots[:2], beside, *slots[2:])
                found += slots
            case "attention":
                found += _attention(layer, width, additive=model.attention == "additive")
            case _:
                found += linear_slots(layer, width, facts.outputs)
    return Layout(tuple(replace(slot, in_time=True) for slot in found), called)


def _attention(layer: int, width: int, *, additive: bool) -> list[Slot]:
    """Of the memory (of what is read) and of the decoder's state, a matrix each and one bias; and what scores."""
    weight, bias = linear_slots(layer, width, width)
    score = [Slot(layer, Role.SCORE, (1, width), Start.DRAWN, width, 1, width)] if additive else []
    return [weight, replace(weight, role=Role.SECOND), *score, bias]


def forward(through: Pass, x: Node) -> Node:
    """``x`` tokens (M, B, T) -> output (M, B, P, K)."""
    model, facts = through.network.model, through.network.facts
    at = {name: layer for layer, name in enumerate(names(model), start=1)}
    read = facts.steps - facts.positions
    tokens = x.value.transpose(1, 2)
    encoded, ends = _encode(through, at, Node(tokens[:, :read], None))
    embedded = _embed(through, at["target_embedding"], Node(tokens[:, read:], None))
    if model.attention == "additive":
        h = _decode_attending(through, at, embedded, encoded, ends)
    else:
        h = _decode(through, at, embedded, ends)
    if model.attention == "dot":
        h = _mix(through, at["attention"], h, encoded)
    output = by_sample(through, through.linear(at["read_out"], h))
    through.observe([output], None, [output])
    return output


def _embed(through: Pass, layer: int, tokens: Node) -> Node:
    """Tokens (M, T, B) -> (M, T, B, D)."""
    found = through.embed(layer, tokens)
    through.observe([found], None, [found])
    return found


def _encode(through: Pass, at: dict[str, int], tokens: Node) -> tuple[Node, list[Node]]:
    """The top layer's states (M, S, B, D), and the last one (M, B, D) of each layer."""
    depth, h, ends = through.network.model.depth, _embed(through, at["source_embedding"], tokens), []
    for layer in range(1, depth + 1):
        number = at[f"encoder_{layer}"]
        found = unroll(through, number, through.linear(number, h), h.value.shape[1])
        observe(through, [found], along_time=layer == depth)
        h = found.seen
        ends.append(last(through, h))
    return h, ends


def _decode(through: Pass, at: dict[str, int], h: Node, ends: list[Node]) -> Node:
    """All steps of one layer after the other: (M, P, B, D) -> the top layer's states."""
    for layer, end in enumerate(ends, start=1):
        number = at[f"decoder_{layer}"]
        found = unroll(through, number, through.linear(number, h), h.value.shape[1], end)
        observe(through, [found])
        h = found.seen
    return h


def _mix(through: Pass, layer: int, h: Node, encoded: Node) -> Node:
    """What each state (M, P, B, D) reads, mixed with itself."""
    read = alignment.dot(through, h, encoded)
    mixed = through.activate(layer, through.recur(layer, through.linear(layer, read.context), h, Role.SECOND), "tanh")
    spread: Further = {("attention_entropy",): lambda out: alignment.entropy(read.weights, out)}
    through.observe([mixed], None, [mixed], further=spread)
    return mixed


def _decode_attending(through: Pass, at: dict[str, int], embedded: Node, encoded: Node, ends: list[Node]) -> Node:
    """Step by step, for the state says what is read, and that goes into the next state: -> the top layer's states."""
    own, first = at["attention"], at["decoder_1"]
    members, places, batch, width = embedded.value.shape
    known = alignment.memory(through, through.linear(own, encoded), encoded)
    weights = alignment.empty(encoded.value, members, places, batch, encoded.value.shape[1])
    driven, states = parts(through, through.linear(first, embedded)), list(ends)
    found: list[list[Unrolled]] = [[] for _ in ends]
    contexts, tops = [], []
    for place, step in enumerate(driven):
        query = through.multiply(own, states[-1], Role.SECOND)
        context = alignment.additive(through, own, query, known, weights[:, place])
        z = through.recur(first, step, context, Role.SECOND)
        for layer, state in enumerate(states):
            number = at[f"decoder_{layer + 1}"]
            z = z if layer == 0 else through.linear(number, states[layer - 1])
            z = through.view(z, members, 1, batch, z.value.shape[-1])
            one = unroll(through, number, z, 1, state)
            found[layer].append(one)
            states[layer] = through.view(one.seen, members, batch, width)
        contexts.append(context)
        tops.append(states[-1])
    spread: Further = {("attention_entropy",): lambda out: alignment.entropy(weights, out)}
    through.observe(contexts, None, contexts, further=spread)
    for steps in found:
        observe(through, steps)
    return together(through, tops)
