"""Where each stacked parameter lies in the flat storage of a cohort.

All parameters of a cohort are one tensor (M, P), so that a norm, a clip or an optimizer step is one operation on it,
whatever the architecture. A slot names a piece of the P columns; a layer is a run of neighbouring slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from itertools import accumulate


class Role(Enum):
    """What a parameter is to its layer; those of `MATRICES` are its weight matrix.

    ``SECOND`` is what a layer of two matrices in a row (attention, a feed-forward pair) has behind the first, or of two
    side by side, each with a signal of its own; ``PLACES`` are learned vectors, one for each place of a sequence;
    ``SCORE`` is what attention's scores are read by; ``BEFORE`` one number added to what enters the matrix,
    ``MULTIPLIER`` one by which what leaves it is multiplied.
    """

    WEIGHT = "weight"
    RECURRENT = "recurrent"
    SECOND = "second"
    SCORE = "score"
    PLACES = "places"
    BIAS = "bias"
    RECURRENT_BIAS = "recurrent_bias"
    SECOND_BIAS = "second_bias"
    GAIN = "gain"
    SHIFT = "shift"
    SECOND_GAIN = "second_gain"
    SECOND_SHIFT = "second_shift"
    QUERY_GAIN = "query_gain"
    KEY_GAIN = "key_gain"
    SLOPE = "slope"
    BEFORE = "before"
    MULTIPLIER = "multiplier"


MATRICES = frozenset((Role.WEIGHT, Role.RECURRENT, Role.SECOND, Role.PLACES, Role.SCORE))
"""What a layer's weight matrix is made of: neighbours, before all other parameters of the layer."""


BIASES = frozenset((Role.BIAS, Role.RECURRENT_BIAS, Role.SECOND_BIAS))


class Start(Enum):
    """How a parameter begins: drawn from the seed, or fixed."""

    DRAWN = "drawn"
    SCALED_IDENTITY = "gain * identity"
    ONES = "ones"
    ZEROS = "zeros"
    LENGTHS = "of its matrix's rows"
    SLOPE = "model.slope"


@dataclass(frozen=True)
class Slot:
    """One parameter of one layer (1..L): ``shape`` without the member axis; ``fan_in``, ``fan_out`` of its matrix.

    ``torch_fan`` is the number whose inverse root bounds torch's default draw; ``in_time``: of a network that is
    unrolled in time; ``blocks``: so many matrices lie one upon the other in it (gates; queries, keys and values), whose
    fans are each's own; ``scales``: what the draw of each block is multiplied by; ``keeps`` and ``admits``: which of a
    bias's blocks are of the gate that keeps the state, and of the one that lets news in, where there is such a pair;
    ``taps``: of a convolution's filters, so many that their columns are (taps, channels); ``fixup``: what `fixup`
    multiplies he_normal's numbers by; ``name`` is what the user's own network calls it; ``grows``: which of its sizes
    are proportional to the network's width, where somebody has looked.
    """

    layer: int
    role: Role
    shape: tuple[int, ...]
    start: Start
    fan_in: int = 0
    fan_out: int = 0
    torch_fan: int = 0
    in_time: bool = field(default=False, kw_only=True)
    blocks: int = field(default=1, kw_only=True)
    taps: int = field(default=1, kw_only=True)
    fixup: float = field(default=0.0, kw_only=True)
    keeps: int | None = field(default=None, kw_only=True)
    admits: int | None = field(default=None, kw_only=True)
    scales: tuple[float, ...] = field(default=(1.0,), kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    grows: frozenset[str] = field(default=frozenset(), kw_only=True)

    @property
    def label(self) -> str:
        """What it is called where weights are stored."""
        return self.name or f"{self.layer}.{self.role.value}"

    @property
    def size(self) -> int:
        """Entries a member."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The slots of a network in layer order, matrices before the rest, and the columns they take.

    ``names[l - 1]`` is what the tables call layer l; ``matrices[l - 1]`` are the columns of its weight matrix and
    ``layers[l - 1]`` those of all its parameters.
    """

    slots: tuple[Slot, ...]
    names: tuple[str, ...]

    @cached_property
    def size(self) -> int:
        """P: parameters a member."""
        return sum(slot.size for slot in self.slots)

    @cached_property
    def columns(self) -> tuple[slice, ...]:
        """The columns of each slot."""
        ends = tuple(accumulate(slot.size for slot in self.slots))
        return tuple(slice(end - slot.size, end) for slot, end in zip(self.slots, ends, strict=True))

    @cached_property
    def layers(self) -> tuple[slice, ...]:
        """The columns of each layer's parameters."""
        return self._spans(frozenset(Role))

    @cached_property
    def matrices(self) -> tuple[slice, ...]:
        """The columns of each layer's weight matrix (where it has several: all of them)."""
        return self._spans(MATRICES)

    @cached_property
    def is_layers(self) -> bool:
        """Whether its columns are those of the layers, one layer after the other, each of which begins with its matrix.

        That of a layer whose matrix is another's, or frozen, does not.
        """
        starts = [span.start for span in self.layers]
        ends = [span.stop for span in self.layers]
        return [0, *ends] == [*starts, self.size] and starts == [span.start for span in self.matrices]

    def _spans(self, roles: frozenset[Role]) -> tuple[slice, ...]:
        spans = []
        for layer in range(1, len(self.names) + 1):
            own = [
                at
                for slot, at in zip(self.slots, self.columns, strict=True)
                if slot.layer == layer and slot.role in roles
            ]
            # A frozen layer of the user's own has nothing that is trained.
            spans.append(slice(own[0].start, own[-1].stop) if own else slice(0, 0))
        return tuple(spans)


def linear_slots(layer: int, fan_in: int, fan_out: int) -> tuple[Slot, ...]:
    """A weight matrix (fan_out, fan_in), as torch.nn.Linear keeps it, and its bias (fan_out,)."""
    return (
        Slot(layer, Role.WEIGHT, (fan_out, fan_in), Start.DRAWN, fan_in, fan_out, fan_in),
        Slot(layer, Role.BIAS, (fan_out,), Start.DRAWN, fan_in, fan_out, fan_in),
    )


def norm_slots(
    layer: int, norm: str | None, width: int, gain: Role = Role.GAIN, shift: Role = Role.SHIFT
) -> tuple[Slot, ...]:
    """Gain and shift (width,) of a norm: none has neither, rms no shift; of a weight norm the lengths of the rows."""
    if norm in (None, "none"):
        return ()
    if norm == "weight":
        return (Slot(layer, gain, (width,), Start.LENGTHS),)
    ones = Slot(layer, gain, (width,), Start.ONES)
    return (ones,) if norm == "rms" else (ones, Slot(layer, shift, (width,), Start.ZEROS))


def slope_slots(layer: int, activation: str | None) -> tuple[Slot, ...]:
    """PReLU's learned slope, one a layer, as torch.nn.PReLU's default."""
    return (Slot(layer, Role.SLOPE, (1,), Start.SLOPE),) if activation == "prelu" else ()
