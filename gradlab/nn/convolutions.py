"""What networks of images are made of: 3x3 convolutions, means of pixels, and a learned number for a whole signal.

Shapes: M members, B batch, H height, W width, C channels. Images are (M, B, H, W, C), filters (M, to, 9 C), their nine
taps row by row and the channels adjacent. By our kernels where they serve and by torch elsewhere.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from gradlab.nn.kernels import convolutions as kernels
from gradlab.nn.kernels import native
from gradlab.nn.network import Pass, give, rows
from gradlab.nn.products import batch_sum, product_into
from gradlab.nn.slots import Role, Slot, Start
from gradlab.nn.tape import Node

TAPS = 9


def convolution_slots(layer: int, channels: int, to: int, *, bias: bool = True, fixup: float = 0.0) -> tuple[Slot, ...]:
    """Filters (to, 9 channels), with the fans that torch.nn.Conv2d's weight has, and a bias a channel."""
    fans = (TAPS * channels, TAPS * to, TAPS * channels)
    filters = Slot(layer, Role.WEIGHT, (to, TAPS * channels), Start.DRAWN, *fans, taps=TAPS, fixup=fixup)
    return (filters, Slot(layer, Role.BIAS, (to,), Start.DRAWN, *fans)) if bias else (filters,)


def convolve(through: Pass, layer: int, x: Node, *, bias: bool = True) -> Node:
    """(M, B, H, W, C) -> (M, B, H, W, to): the layer's filters, a border of zeros around the image, and its bias."""
    weight, added = (layer, Role.WEIGHT), (layer, Role.BIAS)
    shift = through.network.parameters[added] if bias else None
    filters, pull = through.acting(weight)
    filters = through.ready(weight, filters, lambda: _convolved(x.value, filters, None))

    def back(dz: Tensor) -> None:
        if bias:
            through.deposit(added, batch_sum(rows(dz)))
        if pull is None:
            _to_filters(through.network.gradients[weight], dz, x.value, more=weight in through.written)
            through.written.add(weight)
        else:
            of_filters = native.new(filters, *filters.shape)
            _to_filters(of_filters, dz, x.value, more=False)
            pull(of_filters)
        if x.cell is not None:
            x.cell.receive(_convolved_back(dz, filters))

    return through.remember(Node(_convolved(x.value, filters, shift)), back)


def halve(through: Pass, x: Node) -> Node:
    """(M, B, H, W, C) -> (M, B, H // 2, W // 2, C): the mean of each 2x2, as torch.nn.AvgPool2d(2)."""
    return _means(through, x, 2, 2)


def mean_of_pixels(through: Pass, x: Node) -> Node:
    """(M, B, H, W, C) -> (M, B, C)."""
    members, batch, height, width, channels = x.value.shape
    return through.view(_means(through, x, height, width), members, batch, channels)


def _means(through: Pass, x: Node, high: int, wide: int) -> Node:
    cell, (_, _, height, width, _) = x.cell, x.value.shape
    return through.remember(
        Node(_block_mean(x.value, high, wide)), lambda dy: give(cell, _spread(dy, height, width, high, wide))
    )


def affine(through: Pass, layer: int, x: Node, scale: Role | None, shift: Role | None) -> Node:
    """(M, ...) -> the same: scale x + shift, a learned number each, of which one may be missing."""
    parameters, cell = through.network.parameters, x.cell
    by = None if scale is None else parameters[layer, scale]
    level = None if shift is None else parameters[layer, shift]

    def back(dy: Tensor) -> None:
        dx, dscale, dshift = _affine_back(dy, x.value, by, shifted=shift is not None)
        for role, part in ((scale, dscale), (shift, dshift)):
            if role is not None and part is not None:
                through.deposit((layer, role), part)
        give(cell, dx)

    return through.remember(Node(_affine(x.value, by, level)), back)


def _convolved(x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    if native.serves(x):
        return kernels.convolve(x, filters, bias)
    columns, by = _columns(x), filters.transpose(1, 2)
    z = torch.bmm(columns, by) if bias is None else torch.baddbmm(bias.unsqueeze(1), columns, by)
    return z.view(*x.shape[:-1], filters.shape[1])


def _convolved_back(dz: Tensor, filters: Tensor) -> Tensor:
    """Each pixel hands its derivative to the nine that it came from: a convolution with the filters turned round."""
    if native.serves(dz):
        return kernels.convolve(dz, filters, None, turned=True)
    turned = filters.unflatten(2, (TAPS, -1)).flip(2).permute(0, 3, 2, 1).flatten(2)
    return _convolved(dz, turned, None)


def _to_filters(out: Tensor, dz: Tensor, x: Tensor, *, more: bool) -> None:
    if native.serves(dz):
        kernels.convolve_filters(out, dz, x, more=more)
    else:
        product_into(out, rows(dz).transpose(1, 2), _columns(x), more=more)


def _columns(x: Tensor) -> Tensor:
    """(M, B, H, W, C) -> (M, B H W, 9 C): of each pixel, itself and its neighbours."""
    height, width = x.shape[2:4]
    framed = F.pad(x, (0, 0, 1, 1, 1, 1))
    taps = [framed[:, :, i : i + height, j : j + width] for i, j in itertools.product(range(3), range(3))]
    return torch.cat(taps, -1).flatten(1, 3)


def _block_mean(x: Tensor, high: int, wide: int) -> Tensor:
    if native.serves(x):
        return kernels.block_mean(x, high, wide)
    height, width = x.shape[2] // high, x.shape[3] // wide
    blocks = x[:, :, : height * high, : width * wide].unflatten(3, (width, wide)).unflatten(2, (height, high))
    mean: Tensor = blocks.mean((3, 5))
    return mean


def _spread(dy: Tensor, height: int, width: int, high: int, wide: int) -> Tensor:
    if native.serves(dy):
        return kernels.block_mean_back(dy, height, width, high, wide)
    spread = (dy / (high * wide)).repeat_interleave(high, 2).repeat_interleave(wide, 3)
    return F.pad(spread, (0, 0, 0, width - spread.shape[3], 0, height - spread.shape[2]))


def _affine(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    if native.serves(x):
        return kernels.affine(x, scale, shift)
    ones = [1] * (x.dim() - 1)
    y = x if scale is None else x * scale.view(-1, *ones)
    return y if shift is None else y + shift.view(-1, *ones)


def _affine_back(
    dy: Tensor, x: Tensor, scale: Tensor | None, *, shifted: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if native.serves(dy):
        return kernels.affine_back(dy, x, scale, shifted=shifted)
    dscale = None if scale is None else (dy * x).flatten(1).sum(1, keepdim=True)
    dshift = dy.flatten(1).sum(1, keepdim=True) if shifted else None
    return dy if scale is None else dy * scale.view(-1, *[1] * (dy.dim() - 1)), dscale, dshift
