"""What is known of one call of a layer: the signals that it put out, and what was seen of its activations."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradlab.watching.attention import Spread
from gradlab.watching.entries import Moments


@dataclass
class Signal:
    """A tensor that passed: its place in autograd's graph (None where nothing before it learns), size and moments.

    ``moments`` are taken when the next layer has been called, and not where an activation has taken the signal: its
    are wanted then. Where a norm takes it, it is ``kept``, which the norm does anyhow, until they are asked for.
    """

    node: Node | None
    slot: int
    count: int
    dtype: torch.dtype
    moments: Moments | None = None
    kept: Tensor | None = None


@dataclass
class Call:
    """One call of a layer: what it put out, what a norm made of that, and what was seen of its activations.

    ``place``: how many calls of layers were over before it. ``hidden`` are the moments of h where an activation took
    the signal. ``flat`` and ``of`` count entries, ``resting`` (units,) whether a unit is at zero slope on every sample;
    ``unit`` is the dimension of z that counts the units.
    """

    raw: Signal
    unit: int
    place: int = 0
    normed: Signal | None = None
    hidden: Moments | None = None
    flat: int = 0
    of: int = 0
    resting: list[Tensor] = field(default_factory=list)
    attention: list[Spread] = field(default_factory=list)


@dataclass
class Seen:
    """An activation in the network: what it is called, how often it was met, and whether it could be judged."""

    positions: int = 0
    judged: int = 0


def noted(signal: Tensor) -> Signal:
    """A tensor that passes, but for its moments."""
    entries = signal.numel() * (2 if signal.is_complex() else 1)
    return Signal(signal.grad_fn, signal.output_nr, entries, signal.dtype)
