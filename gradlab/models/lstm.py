"""K stacked layers of long short-term memory, as torch.nn.LSTM, unrolled in time, and a read-out as in `rnn`.

z = W h_below + U h_{t-1} + b of the gates i, f, g, o; c_t = f c_{t-1} + i g, h_t = o tanh c_t, both from zeros. One
bias stands where torch has two that are added, and cannot be told apart.
"""

from __future__ import annotations

from gradlab.models import unrolled
from gradlab.nn import gates
from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec

BLOCKS, KEEPS, ADMITS = 4, 1, 0
"""Gates in the order of torch: i, f, g, o."""


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """K layers of two matrices (4D, in) and (4D, D) and one bias, then the read-out."""
    return unrolled.layout(
        model,
        facts,
        "lstm",
        lambda layer, inputs: unrolled.gate_slots(layer, inputs, model.width, BLOCKS, KEEPS, ADMITS),
    )


def forward(through: Pass, x: Node) -> Node:
    """``x`` (M, B, T, *F), or tokens (M, B, T) -> output (M, B, K); (M, B, P, K) where P places have answers."""
    return unrolled.forward(through, x, gates.lstm)
