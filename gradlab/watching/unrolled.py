"""A fused recurrent module, step by step: the derivative of the loss by the state of each time step of its top layer.

`nn.RNN`, `nn.LSTM` and `nn.GRU` hide their steps. What came back to what they put out is known, so the top layer is run
once more, cell by cell, on what it was given, and pulled back from there; the layers below are run to feed it, no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional as F

from gradlab.watching.calls import Signal, noted


@dataclass
class Sequence:
    """One call of a fused recurrent module: what it was given, and the signals that it put out.

    ``given`` (T, B, D) and ``state`` as it was called, ``random`` the generator then, where it draws; ``output`` and
    ``final`` (h, and c of an LSTM) are its results, ``came`` what came back to each, by its place in autograd's graph.
    """

    module: nn.RNNBase
    given: Tensor
    state: tuple[Tensor, ...]
    random: Tensor | None
    output: Signal
    final: tuple[Signal, ...]
    came: dict[tuple[Node, int], Tensor] = field(default_factory=dict)

    @property
    def nodes(self) -> list[tuple[Node, int]]:
        """The places of what it put out."""
        return [(one.node, one.slot) for one in (self.output, *self.final) if one.node is not None]

    def back_to(self, signal: Signal) -> Tensor | None:
        """What came back to one of them."""
        return None if signal.node is None else self.came.get((signal.node, signal.slot))


def draws(module: nn.RNNBase) -> bool:
    """Whether it draws random numbers between its layers."""
    return module.dropout > 0 and module.num_layers > 1 and module.training


def sequence(module: nn.RNNBase, given: tuple[Any, ...], output: Any, random: Tensor | None) -> Sequence | None:
    """The call, from the arguments of the hook; None of a packed sequence, whose steps differ in their samples."""
    first = given[0] if given else None
    if not isinstance(first, Tensor) or first.dim() not in (2, 3) or not isinstance(output[0], Tensor):
        return None
    state = given[1] if len(given) > 1 and given[1] is not None else ()
    state = state if isinstance(state, tuple | list) else (state,)
    final = output[1] if isinstance(output[1], tuple) else (output[1],)
    steps = first.detach().unsqueeze(1) if first.dim() == 2 else first.detach()
    return Sequence(
        module,
        steps.transpose(0, 1) if module.batch_first and first.dim() == 3 else steps,
        tuple(one.detach() for one in state),
        random,
        noted(output[0]),
        tuple(noted(one) for one in final),
    )


def deltas(call: Sequence) -> tuple[list[float], list[float], int]:
    """The sums of squares of dloss/dh_t (T,) in the top layer, those of what the loss itself reads, and the entries.

    Of a module that runs through both directions of time it is the forward one.
    """
    top = call.module.num_layers - 1
    with torch.enable_grad():
        states, last = _top(call)
        read = _read(call, len(states))
        pulled = [(state * came).sum() for state, came in zip(states, read, strict=True)]
        # Of all layers and ways the final states stand in a row: h is the last state once more, c beside it.
        ends = [states[-1]] if len(call.final) == 1 else [states[-1], last]
        for signal, end in zip(call.final, ends, strict=True):
            came = call.back_to(signal)
            if came is not None:
                came = came if came.dim() == 3 else came.unsqueeze(1)
                pulled.append((end * came[top * len(_ways(call.module))]).sum())
        found = torch.autograd.grad(torch.stack(pulled).sum(), states)
    whole = [float(one.double().square().sum()) for one in found]
    return whole, [float(one.double().square().sum()) for one in read], states[0].numel()


def _top(call: Sequence) -> tuple[list[Tensor], Tensor]:
    """The states of the top layer and its last c, as functions of what the layers below give it."""
    module, top = call.module, call.module.num_layers - 1
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        if call.random is not None:
            torch.set_rng_state(call.random)
        below = call.given
        for layer in range(top):
            below = torch.cat([_layer(call, layer, below, way)[0] for way in _ways(module)], -1)
            below = F.dropout(below, module.dropout, module.training)
    return _run(call, top, below.detach().requires_grad_(), 0)


def _read(call: Sequence, steps: int) -> list[Tensor]:
    """What came back to the output sequence itself (T,) of (B, H)."""
    came = call.back_to(call.output)
    module = call.module
    width = module.proj_size or module.hidden_size
    if came is None:
        return [call.given.new_zeros(call.given.shape[1], width)] * steps
    if came.dim() == 2:
        came = came.unsqueeze(1)
    elif module.batch_first:
        came = came.transpose(0, 1)
    return list(came[..., :width].unbind(0))


def _ways(module: nn.RNNBase) -> range:
    return range(2 if module.bidirectional else 1)


def _layer(call: Sequence, layer: int, given: Tensor, way: int) -> tuple[Tensor, Tensor]:
    """A layer's output sequence (T, B, H) along one direction of time, and its last c."""
    states, last = _run(call, layer, given.flip(0) if way else given, way)
    output = torch.stack(states)
    return output.flip(0) if way else output, last


def _run(call: Sequence, layer: int, given: Tensor, way: int) -> tuple[list[Tensor], Tensor]:
    """The states h_1..h_T of a layer along one direction, and the last c, by the equations of torch's documentation."""
    module = call.module
    ending = f"l{layer}{'_reverse' if way else ''}"
    weights = {
        name: getattr(module, f"{name}_{ending}", None)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    }
    held: dict[str, Any] = {name: None if one is None else one.detach() for name, one in weights.items()}
    width = module.proj_size or module.hidden_size
    place = layer * len(_ways(module)) + way
    start = [one if one.dim() == 3 else one.unsqueeze(1) for one in call.state]
    h = start[0][place] if start else given.new_zeros(given.shape[1], width)
    c = start[1][place] if len(start) > 1 else given.new_zeros(given.shape[1], module.hidden_size)
    states = []
    for enters in F.linear(given, held["weight_ih"], held["bias_ih"]).unbind(0):
        back = F.linear(h, held["weight_hh"], held["bias_hh"])
        match module.mode:
            case "LSTM":
                i, f, g, o = (enters + back).chunk(4, -1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                h = h if held["weight_hr"] is None else F.linear(h, held["weight_hr"])
            case "GRU":
                (r, z, n), (r_back, z_back, n_back) = enters.chunk(3, -1), back.chunk(3, -1)
                z = torch.sigmoid(z + z_back)
                h = (1 - z) * torch.tanh(n + torch.sigmoid(r + r_back) * n_back) + z * h
            case "RNN_RELU":
                h = torch.relu(enters + back)
            case _:
                h = torch.tanh(enters + back)
        states.append(h)
    return states, c
