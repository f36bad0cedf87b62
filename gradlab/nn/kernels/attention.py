"""The kernels of attention and of places, as functions of tensors; who calls them asks `native.serves` first.

Shapes: M members, B batch, T places, D width. Queries and keys lie at one distance from row to row, values at another.
"""

from __future__ import annotations

from torch import Tensor

from gradlab.nn.kernels.calls import Shared, call, new, scratch
from gradlab.nn.kernels.native import whole

Three = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values (M, B, T, D), or the derivatives by them."""

_LANES = 64
"""Bytes of the widest vector."""


def attend(seen: Three, heads: int, scale: float, *, causal: bool, keep: bool) -> tuple[Tensor, Tensor | None]:
    """softmax(scale q k') v by heads (M, B, T, D), and the weights (M, B, H, T, T) where they are kept."""
    q, k, v = seen
    members, samples, places, width = q.shape
    out = new(q, members, samples, places, width)
    weights = new(q, members, samples, heads, places, places) if keep else None
    sizes = (samples, places, heads, width // heads, causal, q.stride(2), v.stride(2))
    call("attend", q, members, sizes, (q, k, v, weights, out, _room(q, heads)), (scale,))
    return out, weights


def attend_back(grad: Tensor, seen: Three, weights: Tensor, heads: int, scale: float, into: Three) -> None:
    """From the derivative (M, B, T, D) of what `attend` gave that by each of ``seen``, written ``into`` theirs."""
    (q, k, v), (dq, dk, dv), grad = seen, into, whole(grad)
    members, samples, places, width = q.shape
    rows = (q.stride(2), v.stride(2), dq.stride(2), dv.stride(2))
    places_of = (grad, q, k, v, weights, dq, dk, dv, _room(q, heads))
    call("attend_back", q, members, (samples, places, heads, width // heads, *rows), places_of, (scale,))


def spread(q: Tensor, k: Tensor, heads: int, scale: float, entropy: Tensor, largest: Tensor, *, causal: bool) -> None:
    """Into (M,) float64: the mean entropy of the weights over what it can be, and the largest size of a logit seen."""
    members, samples, places, width = q.shape
    sizes = (samples, places, heads, width // heads, causal, q.stride(2))
    sums = scratch(q, 2 * places * 8 // q.element_size())
    call("attention_spread", q, members, sizes, (q, k, entropy, largest, sums, _room(q, heads)), (scale,))


def _room(q: Tensor, heads: int) -> Shared:
    """For what is looked at of one head, and what products take beside: see source/attention.h and products.h."""
    places, size, lanes = q.shape[2], q.shape[3] // heads, _LANES // q.element_size()
    longer = max(places, size)
    return scratch(q, places * (places + 3) + longer * (2 * longer + 2 * lanes))


def add_to_each(x: Tensor, row: Tensor) -> Tensor:
    """(M, B, ...) plus a row (M, ...) that all samples share."""
    x, row = whole(x), whole(row)
    out = new(x, *x.shape)
    call("add_to_each", x, len(x), (x.shape[1], x[0, 0].numel()), (x, row, out))
    return out


def mean_of_places(x: Tensor) -> Tensor:
    """(M, B, T, D) -> (M, B, D)."""
    members, *sizes, width = x.shape
    x, out = whole(x), new(x, members, sizes[0], width)
    call("mean_of_places", x, members, (*sizes, width), (x, out))
    return out


def mean_of_places_back(grad: Tensor, places: int) -> Tensor:
    """(M, B, D) -> (M, B, T, D): its share to each place."""
    members, samples, width = grad.shape
    grad, out = whole(grad), new(grad, members, samples, places, width)
    call("mean_of_places_back", grad, members, (samples, places, width), (grad, out))
    return out
