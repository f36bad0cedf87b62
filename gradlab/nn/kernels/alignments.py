"""Kernels of attention between a decoder and an encoder.

Shapes: M members, P queries, B batch, S places of the memory, D width; weights are (M, P, B, S).
"""

from __future__ import annotations

from torch import Tensor

from gradlab.nn.kernels.calls import call, new, scratch
from gradlab.nn.kernels.native import whole


def dot(query: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """(M, P, B, D), (M, S, B, D) -> weights, and what they read (M, P, B, D)."""
    query, memory = whole(query), whole(memory)
    members, queries, batch, width = query.shape
    weights, context = new(query, members, queries, batch, memory.shape[1]), new(query, *query.shape)
    sizes = (queries, batch, memory.shape[1], width)
    call("align_dot", query, members, sizes, (query, memory, weights, context))
    return weights, context


def dot_back(dcontext: Tensor, query: Tensor, memory: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """From (M, P, B, D): by the queries, and by the memory."""
    query, memory = whole(query), whole(memory)
    members, queries, batch, width = query.shape
    keys = memory.shape[1]
    dquery, dmemory = new(query, *query.shape), new(memory, *memory.shape)
    places = (whole(dcontext), query, memory, weights, dquery, dmemory, scratch(query, keys))
    call("align_dot_back", query, members, (queries, batch, keys, width), places)
    return dquery, dmemory


def additive(query: Tensor, key: Tensor, v: Tensor, memory: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(M, B, D), two of (M, S, B, D), v (M, 1, D) -> tanh(q + k), and what is read; fills ``weights`` (M, B, S)."""
    query, memory = whole(query), whole(memory)
    members, batch, width = query.shape
    bent, context = new(key, *key.shape), new(query, *query.shape)
    places = (query, key, v, memory, bent, weights, context)
    call("align_additive", query, members, (batch, key.shape[1], width), places)
    return bent, context


def additive_back(
    dcontext: Tensor,
    v: Tensor,
    memory: Tensor,
    bent: Tensor,
    weights: Tensor,
    sums: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """From (M, B, D): by the query, by v, and by keys and memory, added to ``sums`` in place where there are any."""
    memory = whole(memory)
    members, keys, batch, width = bent.shape
    dquery, dv = new(bent, members, batch, width), new(bent, members, 1, width)
    dkey, dmemory = sums or (new(bent, *bent.shape), new(bent, *bent.shape))
    places = (whole(dcontext), v, memory, bent, weights, dquery, dkey, dv, dmemory, scratch(bent, keys))
    call("align_additive_back", bent, members, (batch, keys, width, sums is not None), places)
    return dquery, dv, (dkey, dmemory)


def entropy(weights: Tensor, out: Tensor) -> None:
    """(M, ..., S): the mean entropy over ln S, into ``out`` (M,) float64."""
    weights = whole(weights)
    keys = weights.shape[-1]
    call("entropy", weights, len(weights), (weights[0].numel() // keys, keys), (weights, out))
