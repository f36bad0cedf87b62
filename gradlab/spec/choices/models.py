"""The architectures: the keys that each has, and the sizes of its matrices, by which work is planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from gradlab.spec.named import Choice, Value, table

if TYPE_CHECKING:
    from gradlab.spec.run import Facts, ModelSpec

Matrices = list[tuple[int, int, int]]
"""Of each layer: fan-in and fan-out of its matrices as one, and how often a pass goes through it for one sample."""


def _feed_forward(model: ModelSpec, facts: Facts) -> Matrices:
    widths = [facts.inputs, *[model.width] * (model.depth - 1), facts.outputs]
    return [(fan_in, fan_out, 1) for fan_in, fan_out in pairwise(widths)]


def _recurrent(model: ModelSpec, facts: Facts) -> Matrices:
    inputs = [facts.features, *[model.width] * (model.depth - 1)]
    read_out = (model.width, facts.outputs, max(1, facts.positions))
    return [*((fan_in + model.width, model.width, facts.steps) for fan_in in inputs), read_out]


def halved_before(pool: str | None) -> frozenset[int]:
    """The layers of `model.pool`.

    >>> sorted(halved_before("3+5")), sorted(halved_before("none"))
    ([3, 5], [])
    """
    return frozenset() if pool in (None, "none") else frozenset(map(int, str(pool).split("+")))


def _convolutions(model: ModelSpec, facts: Facts) -> Matrices:
    (height, width), halved = facts.pixels, halved_before(model.pool)
    layers = []
    for layer in range(1, model.depth + (1 if model.block is None else 0)):
        if layer in halved:
            height, width = height // 2, width // 2
        layers.append((9 * (facts.channels if layer == 1 else model.width), model.width, height * width))
    return [*layers, (model.width, facts.outputs, 1)]


DIGIT_OVER_PRIMARY = 2
"""Entries of a digit capsule over those of a primary one: 16 and 8 in Sabour et al. 2017."""


def primary_capsules(model: ModelSpec, facts: Facts) -> int:
    """Capsules cut from the channels of all pixels, of which half are left in height and in width."""
    height, width = facts.pixels
    return -(-height // 2) * -(-width // 2) * model.width // (model.capsule_width or 1)


def _capsules(model: ModelSpec, facts: Facts) -> Matrices:
    (height, width), size = facts.pixels, model.capsule_width or 1
    channels = [facts.channels, *[model.width] * (model.depth - 2)]
    layers = [(9 * fan_in, model.width, height * width) for fan_in in channels]
    layers[-1] = (9 * channels[-1], model.width, -(-height // 2) * -(-width // 2))
    votes = size * primary_capsules(model, facts), DIGIT_OVER_PRIMARY * size * facts.outputs
    return [*layers, (*votes, 1)]


def _votes(model: ModelSpec, facts: Facts) -> int:
    """Each in two orders, and of each pair a logit and its share at every iteration."""
    pairs = primary_capsules(model, facts) * facts.outputs
    return pairs * (2 * DIGIT_OVER_PRIMARY * (model.capsule_width or 1) + 2 * (model.routing or 1))


def _stream(depth: int) -> list[int]:
    return [1, *range(3, depth, 2), depth]


def _gated(blocks: int) -> Callable[[ModelSpec, Facts], Matrices]:
    def matrices(model: ModelSpec, facts: Facts) -> Matrices:
        *layers, read_out = _recurrent(model, facts)
        return [*((fan_in, blocks * fan_out, uses) for fan_in, fan_out, uses in layers), read_out]

    return matrices


def _translating(model: ModelSpec, facts: Facts) -> Matrices:
    width, read, written = model.width, facts.steps - facts.positions, facts.positions
    encoder, decoder = ([(2 * width, 3 * width, places)] * model.depth for places in (read, written))
    if model.attention == "additive":
        decoder = [(3 * width, 3 * width, written), *decoder[1:]]
    embedding = (facts.vocabulary, width)
    found = [(*embedding, read), *encoder, (*embedding, written)]
    if model.attention == "additive":
        found += [(2 * width + 1, width, read), *decoder]
    else:
        found += [*decoder, *([(2 * width, width, written)] if model.attention == "dot" else [])]
    return [*found, (width, facts.outputs, written)]


def _transformer(model: ModelSpec, facts: Facts) -> Matrices:
    width, hidden, places = model.width, (model.feed_forward or 0) * model.width, facts.steps
    block = [(width, 4 * width, places), *([(width, 2 * hidden, places)] if hidden else [])]
    read_in = (facts.features + places, width, places)
    return [read_in, *block * model.depth, (width, facts.outputs, max(1, facts.positions))]


def _attention_weights(model: ModelSpec, facts: Facts) -> int:
    return model.depth * (model.heads or 0) * facts.steps * facts.steps


def _nothing(_: ModelSpec, __: Facts) -> int:
    return 0


@dataclass(frozen=True)
class Model(Choice):
    """``keys``: the keys of `model` with their defaults; ``data``: the data it takes unless told otherwise.

    ``takes``: the forms of inputs that it can have, as `Facts.forms` has them; ``by_position``: it can answer at each
    place of a sequence; ``matrices`` are those of each layer that the tables number; ``beside``: numbers of a sample
    that a pass holds beside what these put out. ``free``: it takes arguments of any names, for it is the user's own,
    and nothing is known of its inside. ``trunk`` tells the layers that every path to the input passes, where others do
    not: rates are along them. ``unequal``: its layers differ in size, and rates are of root mean squares. ``branches``:
    how many a depth has on its residual stream. ``loss``: what it is trained by where `train.loss` is auto, if not by
    what the data ask for.
    """

    keys: Mapping[str, Value] = field(default_factory=dict)
    data: str = "digits"
    norms: tuple[str, ...] = ("none", "batch", "layer", "rms")
    least_depth: int = 1
    takes: tuple[str, ...] = ("vector", "sequence", "image")
    branches: Callable[[int], int] = lambda _: 0
    by_position: bool = False
    needs_time: bool = False
    free: bool = False
    trunk: Callable[[int], list[int]] | None = None
    unequal: bool = False
    loss: str | None = None
    matrices: Callable[[ModelSpec, Facts], Matrices] = _feed_forward
    beside: Callable[[ModelSpec, Facts], int] = _nothing


_SCALED: dict[str, Value] = {"parametrization": "standard", "base_width": None, "dropout": 0.0}

_BRANCHED: dict[str, Value] = {"branch_scale": 1.0, "base_depth": None}

_NORMED: dict[str, Value] = {"groups": 4, "norm_order": "before"}

_SIGNALS = ("none", "batch", "layer", "rms", "group")
"""Norms of any signal."""

_NETWORK: dict[str, Value] = {
    "depth": 10,
    "width": 64,
    "activation": "relu",
    "slope": None,
    "init": "he_normal",
    "gain": 1.0,
    "weight_var": None,
    "bias_var": 0.0,
    "norm": "none",
    "output": "none",
    **_SCALED,
}

_GATED: dict[str, Value] = {
    "depth": 1,
    "width": 64,
    "init": "torch_default",
    "gain": 1.0,
    "weight_var": None,
    "bias_var": 0.0,
    "chrono": False,
    "output": "none",
}


MODELS: dict[str, Model] = table(
    Model(
        "mlp",
        "L fully connected layers, each linear, norm, activation",
        "Rumelhart et al. 1986",
        {**_NETWORK, **_NORMED},
        norms=(*_SIGNALS, "weight"),
    ),
    Model(
        "residual_mlp",
        "pre-activation residual branches between a read-in and a read-out",
        "He et al. 2016, arXiv:1603.05027",
        {**_NETWORK, **_NORMED, **_BRANCHED},
        norms=(*_SIGNALS, "weight"),
        least_depth=2,
        branches=lambda depth: depth - 2,
    ),
    Model(
        "linear_chain",
        "L square matrices gain*I and nothing else: gradients are powers of gain",
        "Saxe et al. 2013, arXiv:1312.6120",
        {"depth": 10, "width": 64, "gain": 1.0},
        data="linear_teacher",
    ),
    Model(
        "rnn",
        "K stacked Elman layers unrolled in time, and a read-out of the last step",
        "Elman 1990; Pascanu et al. 2013, arXiv:1211.5063",
        {**_NETWORK, "groups": 4, "depth": 1},
        norms=("none", "layer", "rms", "group"),
        takes=("sequence", "tokens"),
        by_position=True,
        needs_time=True,
        matrices=_recurrent,
    ),
    Model(
        "cnn",
        "convolutions 3x3, norm, activation; the mean over all pixels, and a read-out",
        "LeCun et al. 1998; Xiao et al. 2018, arXiv:1806.05393",
        {**_NETWORK, **_NORMED, "depth": 6, "width": 16, "pool": "none"},
        norms=(*_SIGNALS, "instance", "weight"),
        takes=("image",),
        unequal=True,
        matrices=_convolutions,
    ),
    Model(
        "resnet",
        "residual blocks of two convolutions 3x3 between a read-in and a read-out",
        "He et al. 2015, arXiv:1512.03385; 2016, arXiv:1603.05027",
        {**_NETWORK, "depth": 20, "width": 16, "groups": 4, "block": "preact", **_BRANCHED},
        norms=(*_SIGNALS, "instance", "weight"),
        least_depth=2,
        takes=("image",),
        trunk=_stream,
        unequal=True,
        branches=lambda depth: depth // 2 - 1,
        matrices=_convolutions,
    ),
    Model(
        "capsule",
        "convolutions, capsules of their channels, and by routing one a class: its length is the output",
        "Sabour et al. 2017, arXiv:1710.09829",
        {
            **{key: value for key, value in _NETWORK.items() if key not in ("norm", "output", *_SCALED)},
            "depth": 3,
            "width": 16,
            "init": "xavier_normal",
            "capsule_width": 8,
            "routing": 3,
            "squash_eps": 1e-8,
        },
        least_depth=3,
        takes=("image",),
        unequal=True,
        loss="margin",
        matrices=_capsules,
        beside=_votes,
    ),
    Model(
        "lstm",
        "K stacked layers of long short-term memory, as torch.nn.LSTM, and a read-out of the last step",
        "Hochreiter & Schmidhuber 1997; Gers et al. 2000",
        {**_GATED, **_SCALED, "forget_bias": 0.0},
        takes=("sequence", "tokens"),
        by_position=True,
        needs_time=True,
        matrices=_gated(4),
    ),
    Model(
        "gru",
        "K stacked layers of gated recurrent units, as torch.nn.GRU, and a read-out of the last step",
        "Cho et al. 2014, arXiv:1406.1078",
        {**_GATED, **_SCALED},
        takes=("sequence", "tokens"),
        by_position=True,
        needs_time=True,
        matrices=_gated(3),
    ),
    Model(
        "seq2seq",
        "a GRU that reads a source and one that writes an answer, with or without attention between them",
        "Cho et al. 2014, arXiv:1406.1078; Bahdanau et al. 2014, arXiv:1409.0473; Luong et al. 2015",
        {**_GATED, "attention": "additive"},
        data="dates",
        takes=("tokens",),
        by_position=True,
        needs_time=True,
        unequal=True,
        matrices=_translating,
    ),
    Model(
        "transformer",
        "blocks of attention and feed-forward between an embedding and a read-out",
        "Vaswani et al. 2017, arXiv:1706.03762; Xiong et al. 2020, arXiv:2002.04745",
        {
            **_NETWORK,
            "depth": 4,
            "activation": "gelu",
            "init": "xavier_normal",
            "norm": "layer",
            **_BRANCHED,
            "heads": 4,
            "norm_place": "pre",
            "skip": True,
            "feed_forward": 4,
            "causal": None,
            "qk_norm": False,
            "attention_scale": None,
        },
        data="characters",
        norms=("none", "layer", "rms"),
        branches=lambda depth: depth,
        takes=("sequence", "tokens"),
        by_position=True,
        unequal=True,
        matrices=_transformer,
        beside=_attention_weights,
    ),
    Model(
        "module",
        "a torch.nn.Module of your own, model.target=nets.py:Net, with arguments model.args.NAME",
        "-",
        {
            "target": None,
            "source": None,
            "init": "own",
            "gain": 1.0,
            "activation": "own",
            "norm": "none",
            "groups": 4,
            "output": "none",
        },
        norms=(*_SIGNALS, "instance"),
        least_depth=0,
        free=True,
    ),
)
