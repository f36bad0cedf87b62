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
    """``layout`` places the parameters; ``forward`` maps inputs (M, B, *shape) to outputs and tells what to see.

    ``columns`` of the per-layer table stand beside those that every network has; where layers differ in size, they are
    those of `UNEQUAL`.
    """

    layout: Callable[[ModelSpec, Facts], Layout]
    forward: Callable[[Pass, Node], Node]
    columns: tuple[str, ...] = ()


UNEQUAL = ("signal_grad_rms", "grad_rms")
"""What compares layers of different sizes: root mean squares of the entries."""


MODELS: dict[str, Architecture] = {
    "mlp": Architecture(mlp.layout, mlp.forward),
    "residual_mlp": Architecture(residual_mlp.layout, residual_mlp.forward),
    "linear_chain": Architecture(linear_chain.layout, linear_chain.forward),
    "rnn": Architecture(rnn.layout, rnn.forward),
    "cnn": Architecture(cnn.layout, cnn.forward, UNEQUAL),
    "resnet": Architecture(resnet.layout, resnet.forward, UNEQUAL),
    "capsule": Architecture(capsule.layout, capsule.forward, UNEQUAL),
    "lstm": Architecture(lstm.layout, lstm.forward),
    "gru": Architecture(gru.layout, gru.forward),
    "seq2seq": Architecture(seq2seq.layout, seq2seq.forward, (*UNEQUAL, "attention_entropy")),
    "transformer": Architecture(
        transformer.layout, transformer.forward, (*UNEQUAL, "attention_entropy", "attention_logit_max")
    ),
    "module": Architecture(module.layout, module.forward),
}
