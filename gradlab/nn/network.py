"""A stacked network: the parameters of M members in one flat tensor, and the operations that architectures are made of.

Shapes: M members, B batch, T time, D width, L layers, P parameters a member.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradlab.nn.activations import ACTIVATIONS, phi, phi_back
from gradlab.nn.dropout import Drops
from gradlab.nn.norms import NORMS, OVER_PIXELS, Affine, Mode, Running, directed
from gradlab.nn.products import (
    batch_sum,
    clear,
    combine,
    deposit,
    join,
    looked_up,
    looked_up_back,
    product,
    product_into,
    split,
)
from gradlab.nn.slots import Layout, Role
from gradlab.nn.tape import Cell, Node, Tape
from gradlab.spec.run import Facts, ModelSpec, RunSpec

Name = tuple[int, Role]
"""A parameter: its layer and its role there."""

Further = Mapping[tuple[str, ...], Callable[..., None]]
"""Columns by their names, and what writes them into an (M,) float64 tensor each."""


@dataclass(frozen=True)
class Signal:
    """What can be measured at one layer; each a tuple of nodes (M, B, ..., D), one a time step (one without time).

    ``z`` is where the signal gradient is taken, ``pre`` what enters the activation (None where there is none), ``h``
    what the layer passes on. ``further``: columns that other layers lack; ``further_at``: the same of each time step,
    where they are rows along time.
    """

    z: tuple[Node, ...]
    pre: tuple[Node, ...] | None
    h: tuple[Node, ...]
    further: Further = field(default_factory=dict)
    further_at: Sequence[Further] = ()


@dataclass(frozen=True)
class Network:
    """M networks of one architecture.

    ``parameters`` are views of one flat (M, P) tensor, ``gradients`` views of ``gradient``, which is another. What
    members may not differ in comes from ``model`` and ``facts``; all else is in the numbers. Without ``drops`` no entry
    of a signal is dropped.
    """

    model: ModelSpec
    facts: Facts
    layout: Layout
    parameters: Mapping[Name, Tensor]
    gradient: Tensor
    gradients: Mapping[Name, Tensor]
    running: Mapping[int, Running]
    drops: Drops | None = None

    def slope(self, layer: int) -> float | Tensor:
        """Below zero, of the leaky family: PReLU's (M, 1, 1), leaky_relu's number; zero for any other activation."""
        learned = self.parameters.get((layer, Role.SLOPE))
        if learned is not None:
            return learned.unsqueeze(1)
        return (self.model.slope or 0.0) if self.model.activation == "leaky_relu" else 0.0


def assemble(run: RunSpec, layout: Layout, flat: Tensor) -> Network:
    """The network of a cohort that ``run`` is of; its parameters are views of ``flat`` (M, P).

    Running statistics begin at mean 0, variance 1.
    """
    members = flat.shape[0]

    def views(of: Tensor) -> dict[Name, Tensor]:
        places = zip(layout.slots, layout.columns, strict=True)
        return {(slot.layer, slot.role): of[:, columns].view(members, *slot.shape) for slot, columns in places}

    gradient = torch.zeros_like(flat)
    statistics = flat.new_empty(0, dtype=single(flat.dtype))
    running = {
        slot.layer: Running(statistics.new_zeros(members, *slot.shape), statistics.new_ones(members, *slot.shape))
        for slot in layout.slots
        if slot.role is Role.GAIN and run.model.norm == "batch"
    }
    return Network(run.model, run.facts, layout, views(flat), gradient, views(gradient), running)


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
        """(M, B, *shape) as a node; of tokens, (M, B, T) whole numbers, there is no derivative."""
        return Node(x, Cell() if self.keep and x.is_floating_point() else None)

    def observe(
        self,
        z: Sequence[Node],
        pre: Sequence[Node] | None,
        h: Sequence[Node],
        *,
        along_time: bool = False,
        further: Further | None = None,
        further_at: Sequence[Further] = (),
    ) -> None:
        """Says what can be measured at the next layer, in the words of `Signal`."""
        if self.keep:
            entered = None if pre is None else tuple(pre)
            self.signals.append(Signal(tuple(z), entered, tuple(h), further or {}, further_at))
            if along_time:
                self.time.add(len(self.signals))

    def flatten(self, x: Node) -> Node:
        """(M, B, *shape) -> (M, B, D)."""
        return self.view(x, *x.value.shape[:2], math.prod(x.value.shape[2:]))

    def view(self, x: Node, *shape: int) -> Node:
        """The same entries in another shape, (M, ...)."""
        own, cell = x.value.shape, x.cell
        return self.remember(Node(x.value.reshape(shape), cell and Cell()), lambda grad: give(cell, grad.reshape(own)))

    def steps(self, x: Node) -> tuple[Node, ...]:
        """(M, B, T, *F) -> T nodes (M, B, F)."""
        parts = split(x.value.flatten(3))
        nodes = tuple(Node(part, x.cell and Cell()) for part in parts)
        cell, shape = x.cell, x.value.shape

        def back(*grads: Tensor | None) -> None:
            found = [torch.zeros_like(part) if grad is None else grad for grad, part in zip(grads, parts, strict=True)]
            give(cell, join(found).view(shape))

        return self.remember_all(nodes, back)

    def together(self, steps: Sequence[Node]) -> Node:
        """T nodes (M, B, D) -> (M, B, T, D)."""
        cells = [step.cell for step in steps]

        def back(grad: Tensor) -> None:
            for cell, part in zip(cells, split(grad), strict=True):
                give(cell, part)

        return self.remember(Node(join([step.value for step in steps])), back)

    def look_up(self, layer: int, tokens: Node) -> Node:
        """Tokens (M, B, T) -> (M, B, T, out): h W' + b of what is 1 at the token's place and 0 elsewhere."""
        weight, bias = (layer, Role.WEIGHT), (layer, Role.BIAS)
        parameters, gradients = self.network.parameters, self.network.gradients

        def back(dz: Tensor) -> None:
            self.deposit(bias, batch_sum(rows(dz)))
            looked_up_back(gradients[weight].transpose(1, 2), tokens.value, dz, more=weight in self.written)
            self.written.add(weight)

        return self.remember(Node(looked_up(parameters[weight].transpose(1, 2), tokens.value, parameters[bias])), back)

    def embed(self, layer: int, tokens: Node) -> Node:
        """Tokens (M, B, T) -> their rows (M, B, T, D) of the layer's matrix (V, D)."""
        name = (layer, Role.WEIGHT)

        def back(dz: Tensor) -> None:
            looked_up_back(self.network.gradients[name], tokens.value, dz, more=name in self.written)
            self.written.add(name)

        return self.remember(Node(looked_up(self.network.parameters[name], tokens.value)), back)

    def linear(self, layer: int, h: Node, weight: Role = Role.WEIGHT, bias: Role = Role.BIAS) -> Node:
        """(M, ..., in) -> (M, ..., out): h W' + b."""
        shift = self.network.parameters[layer, bias]
        matrix, pull = self.acting((layer, weight))
        matrix = self.ready((layer, weight), matrix, lambda: product(rows(h.value), matrix.transpose(1, 2)))

        def back(dz: Tensor) -> None:
            self.deposit((layer, bias), batch_sum(rows(dz)))
            if pull is None:
                self._multiplied((layer, weight), h, dz)
                return
            pull(product(rows(dz).transpose(1, 2), rows(h.value)))
            if h.cell is not None:
                h.cell.receive(product(rows(dz), matrix).view(h.value.shape))

        z = product(rows(h.value), matrix.transpose(1, 2), shift.unsqueeze(1))
        return self.remember(Node(z.view(*h.value.shape[:-1], matrix.shape[1])), back)

    def ready(self, name: Name, matrix: Tensor, output: Callable[[], Tensor]) -> Tensor:
        """The ``matrix`` of ``name`` as it is used; ``output`` (M, ...) is what it would put out without its bias."""
        del name, output
        return matrix

    def acting(self, name: Name) -> tuple[Tensor, Callable[[Tensor], None] | None]:
        """The matrix ``name`` as it acts; where a weight norm makes it, what takes the derivative by it further."""
        parameters, length = self.network.parameters, (name[0], Role.GAIN)
        if self.network.model.norm != "weight" or name[1] is not Role.WEIGHT or length not in parameters:
            return parameters[name], None
        matrix, pull = directed(parameters[name], parameters[length])

        def back(dmatrix: Tensor) -> None:
            for one, part in zip((name, length), pull(dmatrix), strict=True):
                self.deposit(one, part)

        return matrix, back

    def multiply(self, layer: int, h: Node, weight: Role = Role.WEIGHT) -> Node:
        """(M, B, in) -> (M, B, out): h W'."""
        z = Node(product(h.value, self.network.parameters[layer, weight].transpose(1, 2)))
        return self.remember(z, lambda dz: self._multiplied((layer, weight), h, dz))

    def recur(self, layer: int, driven: Node, h: Node, weight: Role = Role.RECURRENT) -> Node:
        """(M, ..., out), (M, ..., in) -> (M, ..., out): the driven signal plus h U', U the matrix ``weight``."""
        matrix, cell = self.network.parameters[layer, weight], driven.cell

        def back(dz: Tensor) -> None:
            give(cell, dz)
            self._multiplied((layer, weight), h, dz)

        z = product(rows(h.value), matrix.transpose(1, 2), rows(driven.value))
        return self.remember(Node(z.view(driven.value.shape)), back)

    def norm(self, layer: int, z: Node, gain: Role = Role.GAIN, shift: Role = Role.SHIFT) -> Node:
        """(M, B, ..., D) -> the same, normalised by the model's norm with the layer's gain and shift.

        Batch norm is over all that stands before D, layer and rms norm over D, group and instance norm over what stands
        between B and D, too.
        """
        name, shape = self.network.model.norm or "none", z.value.shape
        norm, whole = NORMS[name], name in OVER_PIXELS
        if norm is None:
            return z
        parameters, cell = self.network.parameters, z.cell
        dtype = z.value.dtype
        moved = parameters.get((layer, shift))
        moved = None if moved is None else moved.to(single(dtype))
        running, groups = self.network.running.get(layer), self.network.model.groups or 1
        affine = Affine(parameters[layer, gain].to(single(dtype)), moved, running, groups)
        value, pull = norm((z.value if whole else rows(z.value)).to(single(dtype)), affine, self.mode)

        def back(dy: Tensor) -> None:
            dz, dgain, dshift = pull((dy if whole else rows(dy)).to(single(dtype)))
            give(cell, dz.to(dtype).view(shape))
            self.deposit((layer, gain), dgain.to(dtype))
            if dshift is not None:
                self.deposit((layer, shift), dshift.to(dtype))

        return self.remember(Node(value.to(dtype).view(shape)), back)

    def activate(self, layer: int, z: Node, name: str | None = None) -> Node:
        """(M, B, ..., D) -> the same: phi(z), of the model's activation or of the one called ``name``."""
        activation = ACTIVATIONS[name or self.network.model.activation or "linear"]
        slope = self.network.slope(layer)
        h, cell, shape = Node(phi(activation, rows(z.value), slope).view(z.value.shape)), z.cell, z.value.shape
        learned = (layer, Role.SLOPE) in self.network.parameters
        known = h.value if activation.by_value else z.value

        def back(dh: Tensor) -> None:
            dz, dslope = phi_back(activation, rows(dh), rows(known), slope, learned=learned)
            give(cell, dz.view(shape))
            if dslope is not None:
                self.deposit((layer, Role.SLOPE), dslope)

        return self.remember(h, back)

    def normed(self, layer: int, z: Node) -> tuple[Node, Node]:
        """What enters phi, and what is passed on: norm(z), phi(norm(z)), or, by `model.norm_order`, z, norm(phi(z))."""
        if self.network.model.norm_order == "behind":
            return z, self.norm(layer, self.activate(layer, z))
        entering = self.norm(layer, z)
        return entering, self.activate(layer, entering)

    def drop(self, layer: int, h: Node, which: int = 0) -> Node:
        """(M, B, ..., D) -> the same, with dropout, but in evaluation; ``which`` counts the places in a layer."""
        drops, cell, site = self.network.drops, h.cell, layer + (which << 32)
        if drops is None or self.mode is Mode.EVALUATE:
            return h
        return self.remember(Node(drops.drop(h.value, site)), lambda dy: give(cell, drops.drop(dy, site)))

    def add(self, z: Node, branch: Node, scale: float = 1.0, keep: float = 1.0) -> Node:
        """Two of (M, B, ..., D) -> keep*z + scale*branch."""
        cell, other = z.cell, branch.cell

        def back(grad: Tensor) -> None:
            give(cell, grad if keep == 1 else combine(grad, keep))
            give(other, grad if scale == 1 else combine(grad, scale))

        kept = z.value if keep == 1 else combine(z.value, keep)
        return self.remember(Node(combine(branch.value, scale, kept)), back)

    def apply(self, function: Callable[..., Tensor], *nodes: Node) -> Node:
        """Any differentiable function of tensors (M, ...), members each by itself; autograd finds the way back.

        Where autograd follows the whole pass, the function is a part of what it follows.
        """
        if torch.is_grad_enabled() and any(node.value.requires_grad for node in nodes):
            return Node(function(*(node.value for node in nodes)))
        with torch.enable_grad():
            inputs = [node.value.detach().requires_grad_() for node in nodes]
            output = function(*inputs)
        cells = [node.cell for node in nodes]

        def back(grad: Tensor) -> None:
            for cell, part in zip(cells, torch.autograd.grad(output, inputs, grad), strict=True):
                give(cell, part)

        return self.remember(Node(output.detach()), back)

    def backward(self, output: Node, slope: Tensor) -> Tensor:
        """The gradient (M, P) of a loss whose derivative by ``output`` is ``slope``: written in place, and returned."""
        give(output.cell, slope)
        self.tape.rewind()
        for name, gradient in self.network.gradients.items():
            if name not in self.written:
                clear(gradient)
        return self.network.gradient

    def remember(self, node: Node, back: Callable[[Tensor], None]) -> Node:
        """``node``, from which ``back`` takes the derivative on, to the cells and parameters that it came from."""
        self.remember_all((node,), back)
        return node

    def remember_all(self, nodes: tuple[Node, ...], back: Callable[..., None]) -> tuple[Node, ...]:
        """As `remember`, of several: ``back`` takes a derivative of each, None where none came."""
        cells = tuple(node.cell for node in nodes if node.cell is not None)
        if self.mode is not Mode.EVALUATE and cells:
            self.tape.remember(cells, back)
        return nodes

    def _multiplied(self, name: Name, h: Node, dz: Tensor) -> None:
        """The way back through z = h W': to the matrix, and to h where it is wanted."""
        flat = rows(dz)
        product_into(self.network.gradients[name], flat.transpose(1, 2), rows(h.value), more=name in self.written)
        self.written.add(name)
        if h.cell is not None:
            h.cell.receive(product(flat, self.network.parameters[name]).view(h.value.shape))

    def deposit(self, name: Name, part: Tensor) -> None:
        """Adds ``part`` (M, ...) to the gradient of a parameter."""
        deposit(self.network.gradients[name], part, more=name in self.written)
        self.written.add(name)


def single(dtype: torch.dtype) -> torch.dtype:
    """What is computed in where half precision would not do: single for half, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def rows(x: Tensor) -> Tensor:
    """(M, ..., D) -> (M, N, D): all that stands before D counts as samples."""
    return x if x.dim() == 3 else x.flatten(1, -2)


def give(cell: Cell | None, part: Tensor) -> None:
    """Hands a derivative to a cell, if somebody asks for it."""
    if cell is not None:
        cell.receive(part)
