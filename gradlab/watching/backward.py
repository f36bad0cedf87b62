"""What is heard of the gradient on its way back: the sum of its squares at every layer's signal, and along the trunk.

Hooks stand on autograd's nodes, and only during the one way back from the loss: what the network or the loss
differentiates itself (a gradient penalty, the residual of a differential equation) is not heard.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor
from torch.autograd.graph import Node
from torch.nn import Parameter

from gradlab.watching.calls import Call, Signal
from gradlab.watching.entries import numbers, squares
from gradlab.watching.facts import KEPT_BY
from gradlab.watching.graph import Graph, Stage, alone, behind, stages
from gradlab.watching.tape import Tape
from gradlab.watching.unrolled import Sequence

LEAST_CALLS = 4
"""Calls of one layer that are time steps, each made on what the one before made; of fewer no rate can be told."""


JOINING = frozenset({"StackBackward0", "CatBackward0"})
"""Nodes in which many signals come together, of which the loss may read a few."""


DRAWING = {f"NormalBackward{number}": "normal" for number in range(4)} | {
    "BernoulliBackward0": "bernoulli",
    "PoissonBackward0": "poisson",
}
"""Nodes that pass nothing but zeros to what a number was drawn from, by the functions of torch that draw it."""

CHOOSING = frozenset({"IndexBackward0", "GatherBackward0", "IndexSelectBackward0"})
"""Nodes by which a sample takes one of several."""

FEW = 12
"""Nodes behind a signal among which a choice is looked for."""


@dataclass
class Felt:
    """The gradient that came to a signal: the sum of its squares over so many entries."""

    squares: float = 0.0
    entries: int = 0


@dataclass
class Heard:
    """What came back to each layer's ``calls``, by node and output: `felt` is filled while `hear` lasts.

    ``inputs`` are the leaves of the graph that are the batch. ``kept``: where several losses come back to one graph,
    the gradients that came before; they add up. ``weights``: what came back to losses that are known, by operator.
    ``draws`` are the functions whose draws lie on the way.
    """

    graph: Graph
    tape: Tape
    calls: list[list[Call]]
    inputs: Set[Node] = frozenset()
    felt: dict[tuple[Node, int], Felt] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    severed: Set[Node] = frozenset()
    signals: dict[int, Signal] = field(default_factory=dict)
    kept: dict[tuple[Node, int], Tensor] | None = None
    weights: dict[str, list[Tensor]] = field(default_factory=dict)
    draws: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        # Of what is called again and again the last call: the others are time steps.
        kept = [call for calls in self.calls for call in (calls[-1:] if len(calls) >= LEAST_CALLS else calls)]
        nodes = [self.signal(call).node for call in kept]
        known = [node for node in nodes if node is not None and node in self.graph.place]
        self.stages = stages(self.graph, known, self.inputs)
        self.severed = behind(node for node, _ in self.tape.cuts)

    def signal(self, call: Call) -> Signal:
        """A call's z: what a norm made of it, unless something else takes up what the layer itself put out."""
        if id(call) not in self.signals:
            self.signals[id(call)] = self._signal(call)
        return self.signals[id(call)]

    def _signal(self, call: Call) -> Signal:
        if call.normed is None or call.raw.node is None or call.normed.node is None:
            return call.normed or call.raw
        return call.normed if alone(self.graph, call.normed.node, call.raw.node) else call.raw

    def cut_off(self, signal: Signal, parameters: list[Parameter]) -> bool:
        """Whether what a layer put out went on into the network, and nothing of the loss comes back to it.

        It was detached, or made where no gradient is kept although its parameters ask for one.
        """
        if signal.node is None:
            return any(parameter.requires_grad for parameter in parameters)
        return signal.node not in self.graph.place and signal.node in self.severed

    def silent(self, signal: Signal) -> bool:
        """Whether paths lead from the loss to a signal, and nothing comes along them."""
        return signal.node is not None and signal.node in self.graph.place and self.of(signal).squares == 0

    def passed_over(self, signal: Signal) -> bool:
        """Whether a silent signal was among some of which each sample takes one, and no sample took it."""
        seen, stack = set[Node](), [signal.node] if signal.node is not None else []
        while stack and len(seen) < FEW:
            node = stack.pop(0)
            if node.name() in CHOOSING:
                return True
            new = [one for one in self.graph.order if node in self.graph.parts[one] and one not in seen]
            seen.update(new)
            stack += new
        return False

    def of(self, signal: Signal) -> Felt:
        """What came to a signal; nothing where no path from the loss leads there."""
        found = self.felt.get((signal.node, signal.slot)) if signal.node is not None else None
        return found or Felt(0.0, signal.count)


@contextmanager
def hear(heard: Heard) -> Iterator[None]:
    """Listens at every signal, at the trunk's points, and at what fused recurrent modules put out."""
    sequences = [one for calls in heard.tape.sequences.values() for one in calls]
    signals = [heard.signal(call) for calls in heard.calls for call in calls]
    nodes = {signal.node for signal in signals if signal.node is not None}
    nodes |= {stage.point for stage in heard.stages}
    place = heard.graph.place
    hooks = [node.register_prehook(partial(_note, heard, node)) for node in nodes if node in place]
    try:
        for one in sequences:
            for node, slot in one.nodes:
                if node in place:
                    hooks.append(node.register_prehook(partial(_keep, one, node, slot)))
        for node in heard.graph.order:
            name = node.name()
            if name in KEPT_BY:
                hooks.append(node.register_prehook(partial(_weigh, heard.weights.setdefault(KEPT_BY[name], []))))
            elif name in DRAWING:
                heard.draws.add(DRAWING[name])
            elif name in JOINING and len(node.next_functions) >= LEAST_CALLS:
                hooks.append(node.register_hook(partial(_note_silent, heard.graph, node)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _note_silent(graph: Graph, node: Node, given: tuple[Tensor | None, ...], _: object) -> None:
    # Most show in their first sample that something came.
    silent = (
        place for place, one in enumerate(given) if one is not None and not ((one.dim() and one[:1].any()) or one.any())
    )
    graph.silent.update((node, place) for place in silent)


def _weigh(found: list[Tensor], gradients: tuple[Tensor | None, ...]) -> None:
    found += [gradient.detach() for gradient in gradients if gradient is not None]


def _keep(call: Sequence, node: Node, slot: int, gradients: tuple[Tensor | None, ...]) -> None:
    found = gradients[slot]
    if found is not None:
        call.came[node, slot] = found


def _note(heard: Heard, node: Node, gradients: tuple[Tensor | None, ...]) -> None:
    for slot, gradient in enumerate(gradients):
        if gradient is not None:
            if heard.kept is not None:
                before = heard.kept.get((node, slot))
                gradient = gradient.detach() if before is None else before + gradient.detach()
                heard.kept[node, slot] = gradient
            felt = heard.felt.setdefault((node, slot), Felt())
            entries = numbers(gradient)
            felt.squares += squares(entries)
            felt.entries += len(entries)
