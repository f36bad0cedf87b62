"""Attention over the places of a sequence, there and back, and what else its networks are made of.

Shapes: M members, B batch, T places, D width, H heads of d = D/H units each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.nn.kernels import attention as kernels
from gradlab.nn.kernels import native
from gradlab.nn.network import Further, Name, Pass, give, rows
from gradlab.nn.norms import Affine, Mode, rms_norm
from gradlab.nn.products import batch_sum, copied
from gradlab.nn.slots import Role
from gradlab.nn.tape import Node


@dataclass(frozen=True)
class Heads:
    """How an attention looks: with how many heads, at q.k times ``scale``, and, where ``causal``, never ahead."""

    count: int
    scale: float
    causal: bool


@dataclass(frozen=True)
class Attended:
    """What attention puts out (M, B, T, D), and the columns that tell of it, in the words of `network.Signal`."""

    mixed: Node
    further: Further


def attend(through: Pass, layer: int, qkv: Node, heads: Heads) -> Attended:
    """Queries, keys and values side by side (M, B, T, 3D): softmax(scale q k') v of each head (Vaswani et al. 2017).

    Where the layer has gains for them, queries and keys pass an rms norm over each head's units first.
    """
    width, cell = qkv.value.shape[-1] // 3, qkv.cell
    q, k, v = _thirds(qkv.value)
    normed = (layer, Role.QUERY_GAIN) in through.network.parameters
    if normed:
        (q, pull_q), (k, pull_k) = (
            _normed(through, (layer, role), one, width // heads.count)
            for role, one in ((Role.QUERY_GAIN, q), (Role.KEY_GAIN, k))
        )
    mixed, weights = _mix(q, k, v, heads, keep=through.mode is not Mode.EVALUATE)

    def back(grad: Tensor) -> None:
        dqkv = native.new(grad, *qkv.value.shape)
        slots = _thirds(dqkv)
        dq, dk = (native.new(grad, *grad.shape) for _ in range(2)) if normed else slots[:2]
        _mix_back(grad, (q, k, v), weights, heads, (dq, dk, slots[2]))
        if normed:
            for slot, part, pull in ((slots[0], dq, pull_q), (slots[1], dk, pull_k)):
                copied(pull(part), rows(slot))
        give(cell, dqkv)

    columns = ("attention_entropy", "attention_logit_max")
    further: Further = {columns: lambda entropy, largest: _spread(q, k, heads, entropy, largest)}
    return Attended(through.remember(Node(mixed), back), further)


def add_places(through: Pass, layer: int, z: Node) -> Node:
    """(M, B, T, D) plus the layer's learned vectors of the places, (T, D)."""
    name, cell, row = (layer, Role.PLACES), z.cell, through.network.parameters[layer, Role.PLACES]

    def back(grad: Tensor) -> None:
        give(cell, grad)
        through.deposit(name, batch_sum(grad.flatten(2)).view(row.shape))

    value = kernels.add_to_each(z.value, row) if native.serves(z.value) else z.value + row.unsqueeze(1)
    return through.remember(Node(value), back)


def mean_of_places(through: Pass, z: Node) -> Node:
    """(M, B, T, D) -> (M, B, D)."""
    cell, shape, ours = z.cell, z.value.shape, native.serves(z.value)

    def back(grad: Tensor) -> None:
        if ours:
            give(cell, kernels.mean_of_places_back(grad, shape[2]))
        else:
            give(cell, (grad / shape[2]).unsqueeze(2).expand(shape).contiguous())

    return through.remember(Node(kernels.mean_of_places(z.value) if ours else z.value.mean(2)), back)


def _thirds(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(M, B, T, 3D) -> three views (M, B, T, D)."""
    width = x.shape[-1] // 3
    return x[..., :width], x[..., width : 2 * width], x[..., 2 * width :]


def _normed(through: Pass, name: Name, x: Tensor, size: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """(M, B, T, D), rms norm over each ``size`` units, and its way back: (M, B, T, D) -> (M, BT, D)."""
    by_head = (len(x), -1, size)
    affine = Affine(through.network.parameters[name], None, None)
    value, pull = rms_norm(copied(rows(x)).view(by_head), affine, through.mode)

    def back(grad: Tensor) -> Tensor:
        dx, dgain, _ = pull(grad.view(by_head))
        through.deposit(name, dgain)
        return dx.view(rows(x).shape)

    return value.view(x.shape), back


Three = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values (M, B, T, D), whose rows may lie apart."""


def _mix(q: Tensor, k: Tensor, v: Tensor, heads: Heads, *, keep: bool) -> tuple[Tensor, Tensor | None]:
    """What each place gathers (M, B, T, D), and the weights (M, B, H, T, T) where they are kept."""
    if native.serves(q):
        return kernels.attend((q, k, v), heads.count, heads.scale, causal=heads.causal, keep=keep)
    weights = _logits(q, k, heads).softmax(-1)
    return _together(weights @ _apart(v, heads)), weights if keep else None


def _mix_back(grad: Tensor, seen: Three, weights: Tensor | None, heads: Heads, into: Three) -> None:
    """The derivative by queries, keys and values, written ``into`` theirs.

    With P the weights, softmax of the rows of S = scale Q K', and O = P V: dV = P' dO, dP = dO V',
    dS = P (dP - sum(P dP)) by rows, dQ = scale dS K and dK = scale dS' Q.
    """
    assert weights is not None, "a pass that is gone back through has kept its weights"
    if native.serves(grad):
        kernels.attend_back(grad, seen, weights, heads.count, heads.scale, into)
        return
    q, k, v = (_apart(one, heads) for one in seen)
    dmixed = _apart(grad, heads)
    dweights = dmixed @ v.transpose(-1, -2)
    dlogits = (dweights - (dweights * weights).sum(-1, keepdim=True)) * weights * heads.scale
    found = (dlogits @ k, dlogits.transpose(-1, -2) @ q, weights.transpose(-1, -2) @ dmixed)
    for out, part in zip(into, found, strict=True):
        out.copy_(_together(part))


def _apart(x: Tensor, heads: Heads) -> Tensor:
    """(M, B, T, D) -> (M, B, H, T, d)."""
    return x.view(*x.shape[:-1], heads.count, x.shape[-1] // heads.count).transpose(2, 3)


def _together(x: Tensor) -> Tensor:
    """(M, B, H, T, d) -> (M, B, T, D)."""
    return x.transpose(2, 3).flatten(3)


def _logits(q: Tensor, k: Tensor, heads: Heads) -> Tensor:
    """(M, B, H, T, T), masked ones -inf."""
    logits = _apart(q, heads) @ _apart(k, heads).transpose(-1, -2) * heads.scale
    if heads.causal:
        ahead = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(ahead, -math.inf)
    return logits


def _spread(q: Tensor, k: Tensor, heads: Heads, entropy: Tensor, largest: Tensor) -> None:
    """Into (M,) float64: the mean entropy of a place's weights, 0 of a choice and 1 of none, and the largest logit.

    An entropy is over the logarithm of how many places are seen; one that sees itself alone does not count. Of logits
    the size is meant, and those that are seen.
    """
    if native.serves(q):
        kernels.spread(q, k, heads.count, heads.scale, entropy, largest, causal=heads.causal)
        return
    logits = _logits(q, k, heads)
    largest.copy_(torch.where(logits == -math.inf, 0.0, logits.abs()).flatten(1).amax(1))
    weights = logits.softmax(-1).to(torch.float64)
    places = weights.shape[-1]
    seen = torch.arange(1, places + 1, device=weights.device) if heads.causal else weights.new_full((places,), places)
    several = slice(int(heads.causal or places == 1), None)
    told = torch.special.entr(weights).sum(-1)[..., several] / seen[several].to(torch.float64).log()
    entropy.copy_(told.flatten(1).mean(1))
