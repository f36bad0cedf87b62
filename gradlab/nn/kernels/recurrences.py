"""Kernels of gated recurrences: all time steps of a member at once.

Shapes: M members, T time, B batch, D width; signals are (M, T, B, ...), what a step needs lies together.
"""

from __future__ import annotations

from torch import Tensor

from gradlab.nn.kernels.calls import Shared, call, new, scratch
from gradlab.nn.kernels.native import VECTOR_BYTES, whole


def lstm(driven: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``driven`` (M, T, B, 4D), which becomes the gates, ``matrix`` (M, 4D, D) -> c, tanh c, h (M, T, B, D)."""
    members, time, batch, gates = driven.shape
    width = gates // 4
    c, squashed, h = (new(driven, members, time, batch, width) for _ in range(3))
    places = (matrix, driven, c, squashed, h, _room(driven, width, gates, batch))
    call("lstm", driven, members, (time, batch, width), places)
    return c, squashed, h


def lstm_back(above: Tensor, matrix: Tensor, gates: Tensor, c: Tensor, squashed: Tensor) -> tuple[Tensor, Tensor]:
    """From the derivative by the last P steps' h (M, P, B, D): by z (M, T, B, 4D) and by every h (M, T, B, D)."""
    members, time, batch, width = c.shape
    dz, dh = new(gates, *gates.shape), new(c, *c.shape)
    places = (whole(above), matrix, gates, c, squashed, dz, dh, scratch(c, batch * width))
    room = _room(c, 4 * width, width, batch)
    call("lstm_back", c, members, (time, batch, width, above.shape[1]), (*places, room))
    return dz, dh


def gru(driven: Tensor, matrix: Tensor, bias: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """``driven`` (M, T, B, 3D), which becomes the gates -> what the reset multiplies, and h, (M, T, B, D) each.

    ``matrix`` (M, 3D, D); ``bias`` (M, D) is inside the reset; ``first`` (M, B, D) the state before, None for zeros.
    """
    members, time, batch, gates = driven.shape
    width = gates // 3
    fresh, h = (new(driven, members, time, batch, width) for _ in range(2))
    room = _room(driven, width, gates, batch, batch * gates)
    places = (matrix, bias, None if first is None else whole(first), driven, fresh, h, room)
    call("gru", driven, members, (time, batch, width), places)
    return fresh, h


def gru_back(
    above: Tensor, matrix: Tensor, first: Tensor | None, gates: Tensor, fresh: Tensor, h: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """From the derivative by the last P steps' h (M, P, B, D): those by all that comes before.

    By the inputs' part and by the recurrent one (M, T, B, 3D), by every h (M, T, B, D), and by the state before.
    """
    members, time, batch, width = h.shape
    driven, again, dh = new(gates, *gates.shape), new(gates, *gates.shape), new(h, *h.shape)
    dfirst = None if first is None else new(h, members, batch, width)
    room = _room(h, 3 * width, width, batch, batch * width)
    places = (whole(above), matrix, None if first is None else whole(first), gates, fresh, h, driven, again, dh, dfirst)
    call("gru_back", h, members, (time, batch, width, above.shape[1]), (*places, room))
    return driven, again, dh, dfirst


def shut(gates: Tensor, kinds: int, chosen: tuple[int, ...], limit: float, out: Tensor) -> None:
    """Of sigmoids (M, ..., kinds D) the share of those ``chosen`` whose slope is below ``limit``, into ``out`` (M,)."""
    gates = whole(gates)
    width = gates.shape[-1] // kinds
    sizes = (gates[0].numel() // gates.shape[-1], kinds, width, sum(1 << kind for kind in chosen))
    call("shut", gates, len(gates), sizes, (gates, out), (limit,))


def _room(like: Tensor, inner: int, columns: int, batch: int, more: int = 0) -> Shared:
    """For a packed matrix (inner, columns), the edge of a product over the batch, and so many numbers more."""
    lanes = VECTOR_BYTES // like.element_size()
    return scratch(like, inner * (columns + lanes) + batch * lanes + more)
