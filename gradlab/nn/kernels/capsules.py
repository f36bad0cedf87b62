"""The kernels of capsules as functions of tensors; who calls them asks `native.serves` first.

Shapes: M members, B batch, I capsules that vote for J others, P and D their entries.
"""

from __future__ import annotations

import math

from torch import Tensor

from gradlab.nn.kernels.calls import call, new, scratch
from gradlab.nn.kernels.native import VECTOR_BYTES, whole


def columns_by_two(x: Tensor) -> Tensor:
    """(M, B, H, W, C) -> (M, B, ceil H/2, ceil W/2, 9 C): of every second pixel, itself and its neighbours."""
    members, batch, height, width, channels = x.shape
    columns = new(x, members, batch, -(-height // 2), -(-width // 2), 9 * channels)
    call("columns_by_two", x, members, (batch, height, width, channels, 0), (whole(x), columns))
    return columns


def columns_by_two_back(grad: Tensor, height: int, width: int) -> Tensor:
    """The way back to (M, B, H, W, C)."""
    members, batch, channels = len(grad), grad.shape[1], grad.shape[-1] // 9
    dx = new(grad, members, batch, height, width, channels)
    call("columns_by_two", grad, members, (batch, height, width, channels, 1), (dx, whole(grad)))
    return dx


def squash(x: Tensor, eps: float) -> Tensor:
    """(M, ..., D) -> the same, as long as |x|^2/(1 + |x|^2)."""
    x, y = whole(x), new(x, *x.shape)
    call("squash", x, len(x), (math.prod(x.shape[1:-1]), x.shape[-1]), (x, y), (eps,))
    return y


def squash_back(dy: Tensor, x: Tensor, eps: float) -> Tensor:
    """The way back to x (M, ..., D)."""
    dy, x, dx = whole(dy), whole(x), new(x, *x.shape)
    call("squash_back", x, len(x), (math.prod(x.shape[1:-1]), x.shape[-1]), (dy, x, dx), (eps,))
    return dx


def lengths(x: Tensor, eps: float) -> Tensor:
    """(M, ..., D) -> (M, ...)."""
    x, y = whole(x), new(x, *x.shape[:-1])
    call("lengths", x, len(x), (y[0].numel(), x.shape[-1]), (x, y), (eps,))
    return y


def lengths_back(dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The way back to x (M, ..., D), whose lengths are y."""
    dy, x, dx = whole(dy), whole(x), new(x, *x.shape)
    call("lengths_back", x, len(x), (y[0].numel(), x.shape[-1]), (dy, x, y, dx))
    return dx


def vote(capsules: Tensor, matrices: Tensor, to: int) -> Tensor:
    """(M, B, I, P) by matrices (M, I J D, P) -> (M, B, I, J, D)."""
    members, batch, count, size = capsules.shape
    wide = matrices.shape[1] // count
    votes, lanes = new(capsules, members, batch, count, to, wide // to), _lanes(capsules)
    room = scratch(capsules, size * (wide + lanes) + batch * lanes)
    call("vote", capsules, members, (batch, count, size, wide), (whole(capsules), matrices, votes, room))
    return votes


def vote_back(
    dvotes: Tensor, capsules: Tensor, matrices: Tensor, out: Tensor, *, more: bool, further: bool
) -> Tensor | None:
    """By the matrices into ``out``, added to it if ``more``; by the capsules (M, B, I, P) if it goes ``further``."""
    members, batch, count, size = capsules.shape
    wide, lanes = matrices.shape[1] // count, _lanes(capsules)
    du = new(capsules, *capsules.shape) if further else None
    room = scratch(capsules, max(batch, wide) * (size + 2 * lanes))
    places = (whole(dvotes), whole(capsules), matrices, out, du, room)
    call("vote_back", capsules, members, (batch, count, size, wide, more), places)
    return du


def route(votes: Tensor, times: int, eps: float, *, keep: bool) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """(M, B, I, J, D) -> (M, B, J, D), and what the way back needs of each iteration, where it is kept."""
    members, batch, count, to, size = votes.shape
    out, kept = new(votes, members, batch, to, size), None
    if keep:
        kept = (new(votes, members, batch, times, to, count), new(votes, members, batch, times - 1, to, size))
    seen = kept or (scratch(votes, times * to * count), scratch(votes, times * to * size))
    places = (whole(votes), *seen, out, scratch(votes, to * (count + size) + count))
    call("route", votes, members, (batch, count, to, size, times, keep), places, (eps,))
    return out, kept


def route_back(grad: Tensor, votes: Tensor, kept: tuple[Tensor, Tensor], eps: float) -> Tensor:
    """From the derivative (M, B, J, D) that by the votes."""
    members, batch, count, to, size = votes.shape
    dvotes, room = new(votes, *votes.shape), scratch(votes, to * (2 * count + 3 * size) + count)
    places = (whole(grad), whole(votes), *kept, dvotes, room)
    call("route_back", votes, members, (batch, count, to, size, kept[0].shape[2]), places, (eps,))
    return dvotes


def _lanes(x: Tensor) -> int:
    return VECTOR_BYTES // x.element_size()
