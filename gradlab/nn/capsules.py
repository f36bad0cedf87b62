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

from gradlab.nn.kernels import capsules as kernels
from gradlab.nn.kernels import native
from gradlab.nn.network import Pass, give, single
from gradlab.nn.norms import Mode
from gradlab.nn.products import deposit
from gradlab.nn.slots import Role, Slot, Start
from gradlab.nn.tape import Cell, Node


def pair_slots(layer: int, count: tuple[int, int], entries: tuple[int, int]) -> tuple[Slot, ...]:
    """A matrix (D, P) for each pair of capsules, (I J D, P) one upon the other."""
    (votes, to), (size, wide) = count, entries
    shape = (votes * to * wide, size)
    return (Slot(layer, Role.WEIGHT, shape, Start.DRAWN, size, wide, size, blocks=votes * to),)


def convolve_by_two(through: Pass, layer: int, x: Node) -> Node:
    """(M, B, H, W, C) -> (M, B, ceil H/2, ceil W/2, to): as torch.nn.Conv2d of stride 2 and padding 1."""
    if not native.serves(x.value):
        return through.linear(layer, through.apply(columns_by_two, x))
    cell, (height, width) = x.cell, x.value.shape[2:4]
    columns = Node(kernels.columns_by_two(x.value), cell and Cell())
    through.remember(columns, lambda grad: give(cell, kernels.columns_by_two_back(grad, height, width)))
    return through.linear(layer, columns)


def columns_by_two(x: Tensor) -> Tensor:
    """(M, B, H, W, C) -> (M, B, ceil H/2, ceil W/2, 9 C): of every second pixel, itself and its neighbours."""
    height, width = x.shape[2:4]
    framed = F.pad(x, (0, 0, 1, 1, 1, 1))
    taps = [framed[:, :, i : i + height : 2, j : j + width : 2] for i, j in itertools.product(range(3), range(3))]
    return torch.cat(taps, -1)


def squash(through: Pass, x: Node, eps: float) -> Node:
    """(..., D) -> the same: equation 1, as long as |x|^2/(1 + |x|^2) and in the direction of x."""
    value, cell = x.value, x.cell
    if not native.serves(value):
        return through.apply(lambda s: _squashed(s.to(single(s.dtype)), eps).to(s.dtype), x)
    squashed = Node(kernels.squash(value, eps))
    return through.remember(squashed, lambda grad: give(cell, kernels.squash_back(grad, value, eps)))


def lengths(through: Pass, x: Node, eps: float) -> Node:
    """(..., D) -> (...): of each capsule, how sure it is that what it stands for is there."""
    value, cell = x.value, x.cell
    if not native.serves(value):
        return through.apply(lambda v: (_square(v.to(single(v.dtype))) + eps).sqrt().squeeze(-1).to(v.dtype), x)
    long = Node(kernels.lengths(value, eps))
    return through.remember(long, lambda grad: give(cell, kernels.lengths_back(grad, value, long.value)))


def vote(through: Pass, layer: int, capsules: Node, to: int) -> Node:
    """(M, B, I, P) -> (M, B, I, J, D): what each capsule says of each one above, by the matrix of the pair."""
    name, u, cell = (layer, Role.WEIGHT), capsules.value, capsules.cell
    matrices, gradient = through.network.parameters[name], through.network.gradients[name]

    def back(dv: Tensor) -> None:
        more = name in through.written
        du = _vote_back(dv, u, matrices, gradient, more=more, further=cell is not None)
        through.written.add(name)
        if du is not None:
            give(cell, du)

    value = kernels.vote(u, matrices, to) if native.serves(u) else _vote(u, matrices, to)
    return through.remember(Node(value), back)


def _vote(u: Tensor, matrices: Tensor, to: int) -> Tensor:
    members, batch, count, size = u.shape
    by_pair = matrices.view(members, count, -1, size).transpose(2, 3)
    return (u.transpose(1, 2) @ by_pair).view(members, count, batch, to, -1).transpose(1, 2)


def _vote_back(dv: Tensor, u: Tensor, matrices: Tensor, out: Tensor, *, more: bool, further: bool) -> Tensor | None:
    if native.serves(dv):
        return kernels.vote_back(dv, u, matrices, out, more=more, further=further)
    by_capsule = dv.transpose(1, 2).flatten(3)
    found = (by_capsule.transpose(2, 3) @ u.transpose(1, 2)).view(out.shape)
    deposit(out, found, more=more)
    by_pair = matrices.view(*by_capsule.shape[:2], -1, u.shape[3])
    return (by_capsule @ by_pair).transpose(1, 2).contiguous() if further else None


def route(through: Pass, votes: Node, times: int, eps: float) -> Node:
    """Votes (M, B, I, J, D) -> inputs (M, B, J, D): procedure 1, whose every iteration has a way back."""
    value, cell = votes.value, votes.cell
    if native.serves(value):
        found, kept = kernels.route(value, times, eps, keep=through.mode is not Mode.EVALUATE)

        def back(grad: Tensor) -> None:
            assert kept is not None, "a pass that is gone back through has kept its shares"
            give(cell, kernels.route_back(grad, value, kept, eps))

        return through.remember(Node(found), back)

    def routed(given: Tensor) -> Tensor:
        known = given.to(single(given.dtype))
        logits = known.new_zeros(known.shape[:-1])
        for _ in range(times - 1):
            agreed = _squashed(_coupled(logits, known), eps)
            logits = logits + torch.einsum("mbijd,mbjd->mbij", known, agreed)
        return _coupled(logits, known).to(given.dtype)

    return through.apply(routed, votes)


def _coupled(logits: Tensor, votes: Tensor) -> Tensor:
    """The sum of all votes, each capsule's shared out among those above."""
    return torch.einsum("mbij,mbijd->mbjd", logits.softmax(-1), votes)


def _square(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True)


def _squashed(x: Tensor, eps: float) -> Tensor:
    square = _square(x)
    return x * (square / (1 + square) / (square + eps).sqrt())
