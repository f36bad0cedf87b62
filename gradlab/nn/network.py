"""A stacked network: the parameters of M members in one flat tensor, and the blocks that architectures are made of.

Shapes: M members, B batch, T time, D width, L layers, P parameters a member.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from gradlab.nn.activations import ACTIVATIONS
from gradlab.nn.linear import linear
from gradlab.nn.norms import NORMS, Mode, Running
from gradlab.nn.slots import Layout, Role
from gradlab.spec import ModelSpec


@dataclass(frozen=True)
class Signal:
    """What can be measured at one layer; each a tuple of tensors (M, B, D), one a time step (one in all without time).

    ``z`` is where the signal gradient is taken, ``pre`` what enters the activation (None where there is none), ``h``
    what the layer passes on.
    """

    z: tuple[Tensor, ...]
    pre: tuple[Tensor, ...] | None
    h: tuple[Tensor, ...]


@dataclass(frozen=True)
class Trace:
    """One forward pass: output (M, B, K), signals of layers 1..L, and the layer whose steps are time, if any."""

    output: Tensor
    signals: tuple[Signal, ...]
    time_layer: int | None = None


@dataclass(frozen=True)
class Network:
    """M networks of one architecture. ``parameters`` are views of one flat (M, P) tensor, leaves of autograd.

    What members may not differ in comes from ``model``; all else is in the numbers.
    """

    model: ModelSpec
    layout: Layout
    parameters: Mapping[tuple[int, Role], Tensor]
    running: Mapping[int, Running]

    @cached_property
    def leaves(self) -> tuple[Tensor, ...]:
        """The parameters, each (M, *shape), in the order of the layout's columns."""
        return tuple(self.parameters.values())

    def linear(self, layer: int, h: Tensor) -> Tensor:
        """(M, B, in) -> (M, B, out): h W' + b."""
        weight, bias = self.parameters[layer, Role.WEIGHT], self.parameters[layer, Role.BIAS]
        return linear(h, weight, bias.unsqueeze(1))

    def recur(self, layer: int, driven: Tensor, h: Tensor) -> Tensor:
        """(M, B, D), (M, B, D) -> (M, B, D): the driven signal plus h U', U the recurrent matrix."""
        return linear(h, self.parameters[layer, Role.RECURRENT], driven)

    def norm(self, layer: int, z: Tensor, mode: Mode) -> Tensor:
        """(M, B, D) -> (M, B, D), normalised by the model's norm with the layer's gain and shift."""
        norm = NORMS[self.model.norm or "none"]
        if norm is None:
            return z
        gain, shift = self.parameters[layer, Role.GAIN], self.parameters.get((layer, Role.SHIFT))
        return norm(z, gain, shift, self.running.get(layer), mode)

    def activate(self, layer: int, z: Tensor) -> Tensor:
        """(M, B, D) -> (M, B, D): phi(z)."""
        return ACTIVATIONS[self.model.activation or "linear"].value(z, self.slope(layer))

    def slope(self, layer: int) -> float | Tensor:
        """The activation's slope below zero: PReLU's (M, 1, 1), leaky_relu's number, and 0 of all others."""
        learned = self.parameters.get((layer, Role.SLOPE))
        if learned is not None:
            return learned.unsqueeze(1)
        return self.model.slope or 0.0 if self.model.activation == "leaky_relu" else 0.0


def assemble(model: ModelSpec, layout: Layout, flat: Tensor) -> Network:
    """The network whose parameters are views of ``flat`` (M, P); running statistics begin at mean 0, variance 1."""
    members = flat.shape[0]
    parameters = {
        (slot.layer, slot.role): flat[:, columns].view(members, *slot.shape).detach().requires_grad_()
        for slot, columns in zip(layout.slots, layout.columns, strict=True)
    }
    running = {
        slot.layer: Running(flat.new_zeros(members, *slot.shape), flat.new_ones(members, *slot.shape))
        for slot in layout.slots
        if slot.role is Role.GAIN and model.norm == "batch"
    }
    return Network(model, layout, parameters, running)
