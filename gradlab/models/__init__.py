"""Architectures, one a file: which parameters there are, and how a signal passes through them.

The loop, the probes, the clippers and the optimizers know none of them. May import what a run is, and `nn`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gradlab.models import (
    capsule,
    cnn,
    gru,
    linear_chain,
    lstm,
    mlp,
    module,
    residual_mlp,
    resnet,
    rnn,
    seq2seq,
    transformer,
)
from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec


@dataclass(frozen=True)
class Architecture:
    """``layout`` places the parameters; ``forward`` maps inputs (M, B, *shape) to outputs and tells what to see."""

    layout: Callable[[ModelSpec, Facts], Layout]
    forward: Callable[[Pass, Node], Node]


MODELS: dict[str, Architecture] = {
    "mlp": Architecture(mlp.layout, mlp.forward),
    "residual_mlp": Architecture(residual_mlp.layout, residual_mlp.forward),
    "linear_chain": Architecture(linear_chain.layout, linear_chain.forward),
    "rnn": Architecture(rnn.layout, rnn.forward),
    "cnn": Architecture(cnn.layout, cnn.forward),
    "resnet": Architecture(resnet.layout, resnet.forward),
    "capsule": Architecture(capsule.layout, capsule.forward),
    "lstm": Architecture(lstm.layout, lstm.forward),
    "gru": Architecture(gru.layout, gru.forward),
    "seq2seq": Architecture(seq2seq.layout, seq2seq.forward),
    "transformer": Architecture(transformer.layout, transformer.forward),
    "module": Architecture(module.layout, module.forward),
}
