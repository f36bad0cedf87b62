"""What was seen of a network beside its layers, in plain numbers and words: what names a cause."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node

from gradlab.watching import facts
from gradlab.watching.backward import Heard
from gradlab.watching.graph import Graph, behind, linear
from gradlab.watching.rows import Layer, coarsest, frozen_as_drawn, narrow
from gradlab.watching.tape import signal_of

GATED = (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell)
"""Recurrent modules that have gates."""


def told(
    names_of: Mapping[nn.Parameter, str],
    layers: Sequence[Layer],
    heard: Heard,
    gradients: Mapping[nn.Parameter, Tensor | None],
    losses: facts.Losses,
) -> dict[str, Any]:
    """Of one way there and back: the activations that were met, and facts about network, loss and parameters."""
    tape, apart = heard.tape, set(parameters_among(heard.severed))
    for operator, came in heard.weights.items():
        losses.weigh(operator, came)
    return {
        "activations": {name: (seen.positions, seen.judged) for name, seen in tape.activations.items()},
        "facts": {
            "losses": dict(losses.seen),
            "composed": tape.composed.told(),
            "linear": not tape.activations and linear(heard.graph, tape.upto),
            "least_normed": tape.least_normed,
            "branches": any(not stage.own for stage in heard.stages),
            "gated": any(isinstance(layer.module, GATED) for layer in layers),
            "severed": [name for one, name in names_of.items() if one in apart and gradients.get(one) is None],
            "unreached": [names_of[one] for one, gradient in gradients.items() if gradient is None and one in names_of],
            "all_masked": tape.all_masked,
            "certain": max((share for opened, share in tape.certain if opened < tape.opened), default=0.0),
            "dropped": tape.dropped,
            "draws": sorted(heard.draws),
            "unbounded": sorted(set(tape.unbounded)),
            "narrow": narrow(layers, heard, tape.samples),
            "frozen_as_drawn": frozen_as_drawn(layers, heard),
            "trainable": sum(one.numel() for one in names_of if one.requires_grad),
            "reached": any(gradient is not None for gradient in gradients.values()),
            "weights": coarsest(one.dtype for one in names_of),
            "frozen": [name for parameter, name in names_of.items() if not parameter.requires_grad],
        },
    }


def parameters_among(nodes: Iterable[Node]) -> list[nn.Parameter]:
    """The parameters that are leaves among some nodes."""
    leaves = (getattr(node, "variable", None) for node in nodes)
    return [one for one in leaves if isinstance(one, nn.Parameter)]


def strangers(own: Container[nn.Parameter], ways: Graph, output: Any, given: Iterable[Node] = ()) -> list[nn.Parameter]:
    """Parameters that the output rests on and that are not the module's ``own``.

    They are those of layers in a plain list, or made anew in each call. What the loss brings along (a judge, a teacher)
    does not count, and neither does what the inputs that are ``given`` come from (another network: `feeders`).
    """
    foreign = _foreign(own, ways)
    signal = output if isinstance(output, Tensor) else signal_of(output)
    if not foreign or signal is None or signal.grad_fn is None:
        return []
    below = behind([signal.grad_fn]) - behind(given)
    return list({one: None for node, one in foreign.items() if node in below})


def feeders(own: Container[nn.Parameter], ways: Graph, given: Iterable[Node]) -> list[nn.Parameter]:
    """Parameters of other modules that the inputs which are ``given`` come from, and to which the loss goes back."""
    below = behind(given)
    return list({one: None for node, one in _foreign(own, ways).items() if node in below})


def _foreign(own: Container[nn.Parameter], ways: Graph) -> dict[Node, nn.Parameter]:
    leaves = {node: getattr(node, "variable", None) for node in ways.order if not ways.parts[node]}
    return {node: one for node, one in leaves.items() if isinstance(one, nn.Parameter) and one not in own}


def counted(numbers: Sequence[int], name: str = "strangers") -> facts.Facts:
    """What is said of `strangers` or `feeders`: how many parameters, and of how many ``numbers`` each."""
    return {name: {"count": len(numbers), "numbers": sum(numbers)}} if numbers else {}


def of_batch(parts: Sequence[Any], output: Any, loss: Node) -> facts.Facts:
    """What the batch and the network's output look like."""
    first = output if isinstance(output, Tensor) else signal_of(output)
    return {**facts.inputs(parts), **facts.output(first, loss)}
