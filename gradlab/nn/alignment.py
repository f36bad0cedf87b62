"""Attention between a decoder and an encoder, there and back, by kernels where they serve.

Shapes: M members, P queries, B batch, S places of the memory, D width; weights are (M, P, B, S).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.nn.kernels import alignments, native
from gradlab.nn.network import Pass, give
from gradlab.nn.slots import Role
from gradlab.nn.tape import Node


@dataclass(frozen=True)
class Read:
    """``context``: what a query reads, in the query's shape; ``weights`` of the memory's places."""

    context: Node
    weights: Tensor


def dot(through: Pass, query: Node, memory: Node) -> Read:
    """(M, P, B, D), (M, S, B, D) -> softmax(q h') h (Luong et al. 2015, arXiv:1508.04025, section 3.1, dot)."""
    q, h, cells = query.value, memory.value, (query.cell, memory.cell)
    served = native.serves(q)
    weights, context = alignments.dot(q, h) if served else _dot(q, h)

    def back(dcontext: Tensor) -> None:
        found = (alignments.dot_back if served else _dot_back)(dcontext, q, h, weights)
        for cell, part in zip(cells, found, strict=True):
            give(cell, part)

    return Read(through.remember(Node(context), back), weights)


@dataclass(frozen=True)
class Memory:
    """What is attended to again and again, (M, S, B, D) each; ways back add up in the cells of both."""

    keys: Node
    rows: Node


def memory(through: Pass, keys: Node, rows: Node) -> Memory:
    """A memory of ``rows`` that is addressed by ``keys``, with cells of its own, in which uses add up in place."""
    cells = (keys.cell, rows.cell)

    def back(*sums: Tensor | None) -> None:
        for cell, part in zip(cells, sums, strict=True):
            if part is not None:
                give(cell, part)

    return Memory(*through.remember_all((Node(keys.value), Node(rows.value)), back))


def additive(through: Pass, layer: int, query: Node, known: Memory, weights: Tensor) -> Node:
    """(M, B, D) -> softmax(v tanh(q + k)') h, (M, B, D) (Bahdanau et al. 2014, arXiv:1409.0473, section 3.1).

    v is the layer's `Role.SCORE`; ``weights`` (M, B, S) are filled.
    """
    name = (layer, Role.SCORE)
    v, h, cell = through.network.parameters[name], known.rows.value, query.cell
    served = native.serves(h)
    bent, context = (alignments.additive if served else _additive)(query.value, known.keys.value, v, h, weights)
    into = (known.keys.cell, known.rows.cell)

    def back(dcontext: Tensor) -> None:
        keys, rows = into
        assert keys is not None, "of a memory"
        assert rows is not None, "of a memory"
        sums = None if keys.grad is None or rows.grad is None else (keys.grad, rows.grad)
        found = (alignments.additive_back if served else _additive_back)(dcontext, v, h, bent, weights, sums)
        dquery, dv, (keys.grad, rows.grad) = found
        through.deposit(name, dv)
        give(cell, dquery)

    return through.remember(Node(context), back)


def entropy(weights: Tensor, out: Tensor) -> None:
    """The mean over all queries of the entropy of (M, P, B, S), over ln S, into ``out`` (M,): 1 of an even spread."""
    if native.serves(weights):
        alignments.entropy(weights, out)
    else:
        told = torch.special.entr(weights.double()).sum(-1).flatten(1).mean(1)
        out.copy_(told / math.log(weights.shape[-1]))


def empty(like: Tensor, *shape: int) -> Tensor:
    """Room for weights (M, ...), which kernels fill."""
    return native.new(like, *shape) if native.serves(like) else like.new_empty(shape)


def _dot(q: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.softmax(torch.einsum("mpbd,msbd->mpbs", q, h), -1)
    return weights, torch.einsum("mpbs,msbd->mpbd", weights, h)


def _scores_back(dweights: Tensor, weights: Tensor) -> Tensor:
    return weights * (dweights - (weights * dweights).sum(-1, keepdim=True))


def _dot_back(dcontext: Tensor, q: Tensor, h: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    slopes = _scores_back(torch.einsum("mpbd,msbd->mpbs", dcontext, h), weights)
    dh = torch.einsum("mpbs,mpbd->msbd", weights, dcontext) + torch.einsum("mpbs,mpbd->msbd", slopes, q)
    return torch.einsum("mpbs,msbd->mpbd", slopes, h), dh


def _additive(q: Tensor, k: Tensor, v: Tensor, h: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    bent = torch.tanh(q.unsqueeze(1) + k)
    found = torch.softmax(torch.einsum("msbd,mod->mbs", bent, v), -1)
    weights.copy_(found.detach())
    return bent, torch.einsum("mbs,msbd->mbd", found, h)


def _additive_back(
    dcontext: Tensor, v: Tensor, h: Tensor, bent: Tensor, weights: Tensor, sums: Sequence[Tensor] | None
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    slopes = _scores_back(torch.einsum("mbd,msbd->mbs", dcontext, h), weights)
    dk = torch.einsum("mbs,mod,msbd->msbd", slopes, v, 1 - bent * bent)
    dh = torch.einsum("mbs,mbd->msbd", weights, dcontext)
    dv = torch.einsum("mbs,msbd->md", slopes, bent).unsqueeze(1)
    return dk.sum(1), dv, (dk, dh) if sums is None else (sums[0] + dk, sums[1] + dh)
