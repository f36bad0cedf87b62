"""A stacked network: the parameters of M members in one flat tensor, and the operations that architectures are made of.

Shapes: M members, B batch, T time, D width, L layers, P parameters a member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradlab.nn.activations import ACTIVATIONS, phi, phi_back
from gradlab.nn.norms import NORMS, Affine, Mode, Running
from gradlab.nn.products import batch_sum, clear, combine, deposit, product, product_into
from gradlab.nn.slots import Layout, Role
from gradlab.nn.tape import Cell, Node, Tape
from gradlab.spec.run import ModelSpec

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

    With ``keep``, ``signals`` are there to be measured, layers 1..L in order, and after `backward` the derivative by
    every node is, the input's too. ``time`` names the layer whose steps are rows along time, if one is.
    """

    network: Network
    mode: Mode
    keep: bool = False
    signals: list[Signal] = field(default_factory=list)
    time: set[int] = field(default_factory=set)
    tape: Tape = field(init=False)
    written: set[Name] = field(default_factory=set)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tape", Tape(self.keep))

    def input(self, x: Tensor) -> Node:
        """(M, B, *shape) as a node."""
        return Node(x, Cell() if self.keep else None)

    def observe(
        self, z: Sequence[Node], pre: Sequence[Node] | None, h: Sequence[Node], *, along_time: bool = False
    ) -> None:
        """Says what can be measured at the next layer, in the words of `Signal`."""
        if self.keep:
            self.signals.append(Signal(tuple(z), None if pre is None else tuple(pre), tuple(h)))
            if along_time:
                self.time.add(len(self.signals))

    def flatten(self, x: Node) -> Node:
        """(M, B, *shape) -> (M, B, D)."""
        flat = Node(x.value.flatten(2), x.cell and Cell())
        shape, cell = x.value.shape, x.cell
        return self._remember(flat, lambda grad: _give(cell, grad.view(shape)))

    def steps(self, x: Node) -> tuple[Node, ...]:
        """(M, B, T, F) -> T nodes (M, B, F)."""
        nodes = tuple(Node(step, x.cell and Cell()) for step in x.value.unbind(2))
        cell, shape = x.cell, x.value.shape
        for t, node in enumerate(nodes):

            def back(grad: Tensor, t: int = t) -> None:
                part = grad.new_zeros(shape)
                part[:, :, t] = grad
                _give(cell, part)

            self._remember(node, back)
        return nodes

    def linear(self, layer: int, h: Node) -> Node:
        """(M, B, in) -> (M, B, out): h W' + b."""
        weight, bias = self.network.parameters[layer, Role.WEIGHT], self.network.parameters[layer, Role.BIAS]

        def back(dz: Tensor) -> None:
            self._deposit((layer, Role.BIAS), batch_sum(dz))
            self._multiplied((layer, Role.WEIGHT), h, dz)

        return self._remember(Node(product(h.value, weight.transpose(1, 2), bias.unsqueeze(1))), back)

    def multiply(self, layer: int, h: Node) -> Node:
        """(M, B, in) -> (M, B, out): h W'."""
        z = Node(product(h.value, self.network.parameters[layer, Role.WEIGHT].transpose(1, 2)))
        return self._remember(z, lambda dz: self._multiplied((layer, Role.WEIGHT), h, dz))

    def recur(self, layer: int, driven: Node, h: Node) -> Node:
        """(M, B, D), (M, B, D) -> (M, B, D): the driven signal plus h U', U the recurrent matrix."""
        matrix, cell = self.network.parameters[layer, Role.RECURRENT], driven.cell

        def back(dz: Tensor) -> None:
            _give(cell, dz)
            self._multiplied((layer, Role.RECURRENT), h, dz)

        return self._remember(Node(product(h.value, matrix.transpose(1, 2), driven.value)), back)

    def norm(self, layer: int, z: Node) -> Node:
        """(M, B, D) -> (M, B, D), normalised by the model's norm with the layer's gain and shift."""
        norm = NORMS[self.network.model.norm or "none"]
        if norm is None:
            return z
        parameters, cell = self.network.parameters, z.cell
        affine = Affine(
            parameters[layer, Role.GAIN], parameters.get((layer, Role.SHIFT)), self.network.running.get(layer)
        )
        value, pull = norm(z.value, affine, self.mode)

        def back(dy: Tensor) -> None:
            dz, dgain, dshift = pull(dy)
            _give(cell, dz)
            self._deposit((layer, Role.GAIN), dgain)
            if dshift is not None:
                self._deposit((layer, Role.SHIFT), dshift)

        return self._remember(Node(value), back)

    def activate(self, layer: int, z: Node) -> Node:
        """(M, B, D) -> (M, B, D): phi(z)."""
        activation, slope = ACTIVATIONS[self.network.model.activation or "linear"], self.network.slope(layer)
        h, cell = Node(phi(activation, z.value, slope)), z.cell
        learned = (layer, Role.SLOPE) in self.network.parameters
        known = h.value if activation.by_value else z.value

        def back(dh: Tensor) -> None:
            dz, dslope = phi_back(activation, dh, known, slope, learned=learned)
            _give(cell, dz)
            if dslope is not None:
                self._deposit((layer, Role.SLOPE), dslope)

        return self._remember(h, back)

    def add(self, z: Node, branch: Node, scale: float = 1.0) -> Node:
        """(M, B, D), (M, B, D) -> z + scale*branch."""
        cell, other = z.cell, branch.cell

        def back(grad: Tensor) -> None:
            _give(cell, grad)
            _give(other, combine(grad, scale))

        return self._remember(Node(combine(branch.value, scale, z.value)), back)

    def apply(self, function: Callable[..., Tensor], *nodes: Node) -> Node:
        """Any differentiable function of tensors (M, ...), members each by itself; autograd finds the way back."""
        with torch.enable_grad():
            inputs = [node.value.detach().requires_grad_() for node in nodes]
            output = function(*inputs)
        cells = [node.cell for node in nodes]

        def back(grad: Tensor) -> None:
            for cell, part in zip(cells, torch.autograd.grad(output, inputs, grad), strict=True):
                _give(cell, part)

        return self._remember(Node(output.detach()), back)

    def backward(self, output: Node, slope: Tensor) -> Tensor:
        """The gradient (M, P) of a loss whose derivative by ``output`` is ``slope``: written in place, and returned."""
        _give(output.cell, slope)
        self.tape.rewind()
        for name, gradient in self.network.gradients.items():
            if name not in self.written:
                clear(gradient)
        return self.network.gradient

    def _remember(self, node: Node, back: Callable[[Tensor], None]) -> Node:
        if self.mode is not Mode.EVALUATE and node.cell is not None:
            self.tape.remember(node.cell, back)
        return node

    def _multiplied(self, name: Name, h: Node, dz: Tensor) -> None:
        """The way back through z = h W': to the matrix, and to h where it is wanted."""
        product_into(self.network.gradients[name], dz.transpose(1, 2), h.value, more=name in self.written)
        self.written.add(name)
        if h.cell is not None:
            h.cell.receive(product(dz, self.network.parameters[name]))

    def _deposit(self, name: Name, part: Tensor) -> None:
        deposit(self.network.gradients[name], part, more=name in self.written)
        self.written.add(name)


def _give(cell: Cell | None, part: Tensor) -> None:
    if cell is not None:
        cell.receive(part)
