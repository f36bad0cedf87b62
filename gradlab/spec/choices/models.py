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


def _transformer(model: ModelSpec, facts: Facts) -> Matrices:
    width, hidden, places = model.width, (model.feed_forward or 0) * model.width, facts.steps
    block = [(width, 4 * width, places), *([(width, 2 * hidden, places)] if hidden else [])]
    read_in = (facts.features + places, width, places)
    return [read_in, *block * model.depth, (width, facts.outputs, max(1, facts.positions))]


def _attention_weights(model: ModelSpec, facts: Facts) -> int:
    return model.depth * (model.heads or 0) * facts.steps * facts.steps


def _nothing(_: ModelSpec, __: Facts) -> int:
    return 0


def _as_deep(depth: int) -> int:
    return depth


def _and_a_read_out(depth: int) -> int:
    return depth + 1


@dataclass(frozen=True)
class Model(Choice):
    """``keys``: the keys of `model` with their defaults; ``data``: the data it takes unless told otherwise.

    ``takes``: the forms of inputs that it can have, as `Facts.forms` has them; ``by_position``: it can answer at each
    place of a sequence; ``layers`` tells from `model.depth` how many layers the tables number; ``beside``: numbers of a
    sample that a pass holds beside what the ``matrices`` put out. ``free``: it takes arguments of any names, for it is
    the user's own, and nothing is known of its inside.
    """

    keys: Mapping[str, Value] = field(default_factory=dict)
    data: str = "digits"
    norms: tuple[str, ...] = ("none", "batch", "layer", "rms")
    least_depth: int = 1
    takes: tuple[str, ...] = ("vector", "sequence", "image")
    by_position: bool = False
    needs_time: bool = False
    free: bool = False
    layers: Callable[[int], int] = _as_deep
    matrices: Callable[[ModelSpec, Facts], Matrices] = _feed_forward
    beside: Callable[[ModelSpec, Facts], int] = _nothing


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
}


MODELS: dict[str, Model] = table(
    Model("mlp", "L fully connected layers, each linear, norm, activation", "Rumelhart et al. 1986", _NETWORK),
    Model(
        "residual_mlp",
        "pre-activation residual branches between a read-in and a read-out",
        "He et al. 2016, arXiv:1603.05027",
        {**_NETWORK, "branch_scale": 1.0},
        least_depth=2,
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
        {**_NETWORK, "depth": 1},
        norms=("none", "layer", "rms"),
        takes=("sequence", "tokens"),
        by_position=True,
        needs_time=True,
        layers=_and_a_read_out,
        matrices=_recurrent,
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
            "branch_scale": 1.0,
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
        takes=("sequence", "tokens"),
        by_position=True,
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
            "output": "none",
        },
        least_depth=0,
        free=True,
    ),
)
