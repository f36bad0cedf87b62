"""What capsules are made of: votes by a matrix for each pair, routing by agreement, squashed vectors and their lengths.

Sabour et al. 2017, arXiv:1710.09829. Shapes: M members, B batch, I capsules that vote for J others, P and D their
entries. What is under a root has ``eps`` added: without it a capsule of zeros is 0/0, and the slope of its length is.
In half precision all but the votes' products is computed in single.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from gradlab.nn.network import Pass, single
from gradlab.nn.products import product
from gradlab.nn.slots import Role, Slot, Start
from gradlab.nn.tape import Node


def pair_slots(layer: int, count: tuple[int, int], entries: tuple[int, int]) -> tuple[Slot, ...]:
    """A matrix (D, P) for each pair of capsules, (I J D, P) one upon the other."""
    (votes, to), (size, wide) = count, entries
    shape = (votes * to * wide, size)
    return (Slot(layer, Role.WEIGHT, shape, Start.DRAWN, size, wide, size, blocks=votes * to),)


def convolve_by_two(through: Pass, layer: int, x: Node) -> Node:
    """(M, B, H, W, C) -> (M, B, ceil H/2, ceil W/2, to): as torch.nn.Conv2d of stride 2 and padding 1."""
    return through.linear(layer, through.apply(columns_by_two, x))


def columns_by_two(x: Tensor) -> Tensor:
    """(M, B, H, W, C) -> (M, B, ceil H/2, ceil W/2, 9 C): of every second pixel, itself and its neighbours."""
    height, width = x.shape[2:4]
    framed = F.pad(x, (0, 0, 1, 1, 1, 1))
    taps = [framed[:, :, i : i + height : 2, j : j + width : 2] for i, j in itertools.product(range(3), range(3))]
    return torch.cat(taps, -1)


def squash(through: Pass, x: Node, eps: float) -> Node:
    """(..., D) -> the same: equation 1, as long as |x|^2/(1 + |x|^2) and in the direction of x."""
    return through.apply(lambda s: _squashed(s.to(single(s.dtype)), eps).to(s.dtype), x)


def lengths(through: Pass, x: Node, eps: float) -> Node:
    """(..., D) -> (...): of each capsule, how sure it is that what it stands for is there."""
    return through.apply(lambda v: (_square(v.to(single(v.dtype))) + eps).sqrt().squeeze(-1).to(v.dtype), x)


def vote(through: Pass, layer: int, capsules: Node, to: int) -> Node:
    """(M, B, I, P) -> (M, I, B, J, D): what each capsule says of each one above, by the matrix of the pair."""
    name, u = (layer, Role.WEIGHT), capsules.value.transpose(1, 2)
    members, count, batch, size = u.shape
    flat = u.reshape(members * count, batch, size)
    matrices = through.network.parameters[name].reshape(members * count, -1, size)

    def back(dv: Tensor) -> None:
        dv = dv.reshape(members * count, batch, -1)
        through.deposit(name, product(dv.transpose(1, 2), flat).view(members, -1, size))
        if capsules.cell is not None:
            du = product(dv, matrices).view(members, count, batch, size)
            capsules.cell.receive(du.transpose(1, 2).contiguous())

    votes = product(flat, matrices.transpose(1, 2))
    return through.remember(Node(votes.view(members, count, batch, to, -1)), back)


def route(through: Pass, votes: Node, times: int, eps: float) -> Node:
    """Votes (M, I, B, J, D) -> inputs (M, B, J, D): procedure 1, whose every iteration has a way back."""

    def routed(given: Tensor) -> Tensor:
        known = given.to(single(given.dtype))
        logits = known.new_zeros(known.shape[:-1])
        for _ in range(times - 1):
            agreed = _squashed(_coupled(logits, known), eps)
            logits = logits + torch.einsum("mibjd,mbjd->mibj", known, agreed)
        return _coupled(logits, known).to(given.dtype)

    return through.apply(routed, votes)


def _coupled(logits: Tensor, votes: Tensor) -> Tensor:
    """The sum of all votes, each capsule's shared out among those above."""
    return torch.einsum("mibj,mibjd->mbjd", logits.softmax(-1), votes)


def _square(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True)


def _squashed(x: Tensor, eps: float) -> Tensor:
    square = _square(x)
    return x * (square / (1 + square) / (square + eps).sqrt())
