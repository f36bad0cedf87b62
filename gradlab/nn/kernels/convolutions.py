"""The kernels of convolutions as functions of tensors, as `native` has the others.

Shapes: M members, B batch, H height, W width, C channels, of which ``to`` come out. Images are (M, B, H, W, C).
"""

from __future__ import annotations

from torch import Tensor

from gradlab.nn.kernels.calls import call, new, scratch
from gradlab.nn.kernels.native import VECTOR_BYTES, whole


def convolve(x: Tensor, filters: Tensor, bias: Tensor | None, *, turned: bool = False) -> Tensor:
    """Images and filters (M, to, 9 C), bias (M, to) -> (M, B, H, W, to).

    ``turned``: the way back to what entered: from the derivative (M, B, H, W, to) and the same filters to (..., C).
    """
    members, batch, height, width, channels = x.shape
    to = filters.shape[2] // 9 if turned else filters.shape[1]
    y, lanes = new(x, members, batch, height, width, to), VECTOR_BYTES // x.element_size()
    room = (9 * channels + 1) * (to + lanes) + (height + 2) * (width + 2) * channels + height * width * lanes
    places = (whole(x), filters, bias, y, scratch(x, room))
    call("convolve", x, members, (batch, height, width, channels, to, turned), places)
    return y


def convolve_filters(out: Tensor, dz: Tensor, x: Tensor, *, more: bool) -> None:
    """From dz (M, B, H, W, to) and x: the gradient (M, to, 9 C) into ``out``, added to what is there if ``more``."""
    members, batch, height, width, channels = x.shape
    to, lanes = dz.shape[-1], VECTOR_BYTES // x.element_size()
    room = 3 * to * (3 * channels + lanes) + (height + 2) * (width + 2) * channels + 4 * lanes
    places = (whole(dz), whole(x), out, scratch(x, room))
    call("convolve_filters", x, members, (batch, height, width, channels, to, more), places)


def block_mean(x: Tensor, rows: int, columns: int) -> Tensor:
    """The means of blocks of so many pixels, (M, B, H // rows, W // columns, C)."""
    members, batch, height, width, channels = x.shape
    y = new(x, members, batch, height // rows, width // columns, channels)
    call("block_mean", x, members, (batch, height, width, channels, rows, columns), (whole(x), y))
    return y


def block_mean_back(dy: Tensor, height: int, width: int, rows: int, columns: int) -> Tensor:
    """The way back to (M, B, H, W, C)."""
    members, batch, *_, channels = dy.shape
    dx = new(dy, members, batch, height, width, channels)
    call("block_mean_back", dy, members, (batch, height, width, channels, rows, columns), (whole(dy), dx))
    return dx


def affine(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """Gives scale x + shift, (M, 1) each, of which one may be missing: (M, ...)."""
    x, y = whole(x), new(x, *x.shape)
    call("affine", x, len(x), (x[0].numel(),), (scale, shift, x, y))
    return y


def affine_back(
    dy: Tensor, x: Tensor, scale: Tensor | None, *, shifted: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The derivatives by x, and by scale and shift where they are there."""
    dy, x, dx = whole(dy), whole(x), new(dy, *dy.shape)
    dscale = None if scale is None else new(dy, len(dy), 1)
    dshift = new(dy, len(dy), 1) if shifted else None
    call("affine_back", dy, len(dy), (dy[0].numel(),), (scale, dy, x, dscale, dshift, dx))
    return dx, dscale, dshift
