"""K stacked layers of gated recurrent units, as torch.nn.GRU, unrolled in time, and a read-out as in `rnn`.

Gates r, z and the new state n = tanh(W h_below + b + r (U h_{t-1} + b')); h_t = (1 - z) n + z h_{t-1}, from zeros. Of
torch's two biases r and z have one, their sum; n has both, for r stands between them.
"""

from __future__ import annotations

from gradlab.models import unrolled
from gradlab.nn import gates
from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Role, Slot, Start
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec

BLOCKS, KEEPS = 3, 1
"""Gates in the order of torch: r, z, n; z keeps the state."""


def slots(layer: int, inputs: int, width: int) -> tuple[Slot, ...]:
    """Two matrices (3D, in) and (3D, D), the bias of all three, and the second one of n."""
    inside = Slot(layer, Role.RECURRENT_BIAS, (width,), Start.DRAWN, width, width, width)
    return (*unrolled.gate_slots(layer, inputs, width, BLOCKS, KEEPS), inside)


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """K layers, then the read-out."""
    return unrolled.layout(model, facts, "gru", lambda layer, inputs: slots(layer, inputs, model.width))


def forward(through: Pass, x: Node) -> Node:
    """``x`` (M, B, T, *F), or tokens (M, B, T) -> output (M, B, K); (M, B, P, K) where P places have answers."""
    return unrolled.forward(through, x, gates.gru)
