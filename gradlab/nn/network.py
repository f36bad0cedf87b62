"""A stacked network: the parameters of M members in one flat tensor, and the operations that architectures are made of.

Shapes: M members, B batch, T time, D width, L layers, P parameters a member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradlab.nn.activations import ACTIVATIONS
from gradlab.nn.norms import NORMS, Affine, Mode, Running
from gradlab.nn.slots import Layout, Role
from gradlab.nn.tape import Node, Tape
from gradlab.spec import ModelSpec

Name = tuple[int, Role]
"""A parameter: its layer and its role there."""


@dataclass(frozen=True)
class Signal:
    """What can be measured at one layer; each a tuple of nodes (M, B, D), one a time step (one in all without time).

    ``z`` is where the signal gradient is taken, ``pre`` what enters the activation (None where there is none), ``h``
    what the layer passes on.
    """

    z: tuple[Node, ...]
    pre: tuple[Node, ...] | None
    h: tuple[Node, ...]


@dataclass(frozen=True)
class Trace:
    """One forward pass: output (M, B, K), signals of layers 1..L, and the layer whose steps are time, if any."""

    output: Node
    signals: tuple[Signal, ...]
    time_layer: int | None = None


@dataclass(frozen=True)
class Network:
    """M networks of one architecture.

    ``parameters`` are views of one flat (M, P) tensor, ``gradients`` views of ``gradient``, which is another. What
    members may not differ in comes from ``model``; all else is in the numbers.
    """

    model: ModelSpec
    layout: Layout
    parameters: Mapping[Name, Tensor]
    gradient: Tensor
    gradients: Mapping[Name, Tensor]
    running: Mapping[int, Running]

    def slope(self, layer: int) -> float | Tensor:
        """Below zero, of the leaky family: PReLU's (M, 1, 1), leaky_relu's number; zero for any other activation."""
        learned = self.parameters.get((layer, Role.SLOPE))
        if learned is not None:
            return learned.unsqueeze(1)
        return (self.model.slope or 0.0) if self.model.activation == "leaky_relu" else 0.0


def assemble(model: ModelSpec, layout: Layout, flat: Tensor) -> Network:
    """The network whose parameters are views of ``flat`` (M, P); running statistics begin at mean 0, variance 1."""
    members = flat.shape[0]

    def views(of: Tensor) -> dict[Name, Tensor]:
        places = zip(layout.slots, layout.columns, strict=True)
        return {(slot.layer, slot.role): of[:, columns].view(members, *slot.shape) for slot, columns in places}

    gradient = torch.zeros_like(flat)
    running = {
        slot.layer: Running(flat.new_zeros(members, *slot.shape), flat.new_ones(members, *slot.shape))
        for slot in layout.slots
        if slot.role is Role.GAIN and model.norm == "batch"
    }
    return Network(model, layout, views(flat), gradient, views(gradient), running)


@dataclass(frozen=True)
class Pass:
    """One way through a network: every operation computes, and remembers its way back unless ``mode`` is EVALUATE.

    With ``keep``, the derivative by every node is there after `backward`, the input's too.
    """

    network: Network
    mode: Mode
    keep: bool = False
    tape: Tape = field(init=False)
    written: set[Name] = field(default_factory=set)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tape", Tape(self.keep))

    def input(self, x: Tensor) -> Node:
        """(M, B, *shape) as a node."""
        return Node(x, wanted=self.keep)

    def flatten(self, x: Node) -> Node:
        """(M, B, *shape) -> (M, B, D)."""
        flat = Node(x.value.flatten(2), x.wanted)
        return self._remember(flat, lambda grad: x.receive(grad.view_as(x.value)))

    def steps(self, x: Node) -> tuple[Node, ...]:
        """(M, B, T, F) -> T nodes (M, B, F)."""
        nodes = tuple(Node(step, x.wanted) for step in x.value.unbind(2))
        for t, node in enumerate(nodes):

            def back(grad: Tensor, t: int = t) -> None:
                whole = torch.zeros_like(x.value) if x.grad is None else x.grad
                whole[:, :, t] = grad
                x.grad = whole

            self._remember(node, back)
        return nodes

    def linear(self, layer: int, h: Node) -> Node:
        """(M, B, in) -> (M, B, out): h W' + b."""
        weight, bias = self.network.parameters[layer, Role.WEIGHT], self.network.parameters[layer, Role.BIAS]
        z = Node(torch.baddbmm(bias.unsqueeze(1), h.value, weight.transpose(1, 2)))

        def back(dz: Tensor) -> None:
            self._deposit((layer, Role.BIAS), dz.sum(1))
            self._multiplied((layer, Role.WEIGHT), h, dz)

        return self._remember(z, back)

    def multiply(self, layer: int, h: Node) -> Node:
        """(M, B, in) -> (M, B, out): h W'."""
        z = Node(torch.bmm(h.value, self.network.parameters[layer, Role.WEIGHT].transpose(1, 2)))
        return self._remember(z, lambda dz: self._multiplied((layer, Role.WEIGHT), h, dz))

    def recur(self, layer: int, driven: Node, h: Node) -> Node:
        """(M, B, D), (M, B, D) -> (M, B, D): the driven signal plus h U', U the recurrent matrix."""
        matrix = self.network.parameters[layer, Role.RECURRENT]
        z = Node(torch.baddbmm(driven.value, h.value, matrix.transpose(1, 2)))

        def back(dz: Tensor) -> None:
            driven.receive(dz)
            self._multiplied((layer, Role.RECURRENT), h, dz)

        return self._remember(z, back)

    def norm(self, layer: int, z: Node) -> Node:
        """(M, B, D) -> (M, B, D), normalised by the model's norm with the layer's gain and shift."""
        norm = NORMS[self.network.model.norm or "none"]
        if norm is None:
            return z
        parameters = self.network.parameters
        affine = Affine(
            parameters[layer, Role.GAIN], parameters.get((layer, Role.SHIFT)), self.network.running.get(layer)
        )
        value, pull = norm(z.value, affine, self.mode)

        def back(dy: Tensor) -> None:
            dz, dgain, dshift = pull(dy)
            z.receive(dz)
            self._deposit((layer, Role.GAIN), dgain)
            if dshift is not None:
                self._deposit((layer, Role.SHIFT), dshift)

        return self._remember(Node(value), back)

    def activate(self, layer: int, z: Node) -> Node:
        """(M, B, D) -> (M, B, D): phi(z)."""
        activation, slope = ACTIVATIONS[self.network.model.activation or "linear"], self.network.slope(layer)
        h = Node(activation.value(z.value, slope))

        def back(dh: Tensor) -> None:
            z.receive(activation.pull(dh, z.value, h.value, slope))
            if (layer, Role.SLOPE) in self.network.parameters:
                self._deposit((layer, Role.SLOPE), (dh * z.value.clamp(max=0)).sum((1, 2)).unsqueeze(1))

        return self._remember(h, back)

    def add(self, z: Node, branch: Node, scale: float = 1.0) -> Node:
        """(M, B, D), (M, B, D) -> z + scale*branch."""

        def back(grad: Tensor) -> None:
            z.receive(grad)
            branch.receive(grad * scale)

        return self._remember(Node(torch.add(z.value, branch.value, alpha=scale)), back)

    def apply(self, function: Callable[..., Tensor], *nodes: Node) -> Node:
        """Any differentiable function of tensors (M, ...), members each by itself; autograd finds the way back."""
        with torch.enable_grad():
            inputs = [node.value.detach().requires_grad_() for node in nodes]
            output = function(*inputs)

        def back(grad: Tensor) -> None:
            for node, part in zip(nodes, torch.autograd.grad(output, inputs, grad), strict=True):
                node.receive(part)

        return self._remember(Node(output.detach()), back)

    def backward(self, output: Node, slope: Tensor) -> Tensor:
        """The gradient (M, P) of a loss whose derivative by ``output`` is ``slope``: written in place, and returned."""
        output.receive(slope)
        self.tape.rewind()
        for name, gradient in self.network.gradients.items():
            if name not in self.written:
                gradient.zero_()
        return self.network.gradient

    def _remember(self, node: Node, back: Callable[[Tensor], None]) -> Node:
        return node if self.mode is Mode.EVALUATE or not node.wanted else self.tape.remember(node, back)

    def _multiplied(self, name: Name, h: Node, dz: Tensor) -> None:
        """The way back through z = h W': to the matrix, and to h where it is wanted."""
        gradient = self.network.gradients[name]
        if name in self.written:
            gradient.baddbmm_(dz.transpose(1, 2), h.value)
        else:
            torch.bmm(dz.transpose(1, 2), h.value, out=gradient)
            self.written.add(name)
        if h.wanted:
            h.receive(torch.bmm(dz, self.network.parameters[name]))

    def _deposit(self, name: Name, part: Tensor) -> None:
        gradient = self.network.gradients[name]
        if name in self.written:
            gradient.add_(part)
        else:
            gradient.copy_(part)
            self.written.add(name)
