"""Operations on a GPU that are one launch each, in Triton: as `native`, whose kernels are a processor's.

Off unless ``GRADLAB_KERNELS=triton``: Triton's interpreter holds them to torch, and no card has seen them yet. Who
calls them asks `serves` first, and has the same in torch at hand.

Shapes: M members, B batch, D width, P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor

from gradlab.nn.kernels.compiler import on_a_gpu
from gradlab.nn.kernels.native import Clips, Descent, Normalised

BLOCK = 1024
"""Entries that a program takes at a time."""

LARGEST = 2**18
"""Parameters of a member up to which one program goes through all of them."""

WIDEST = 2**13
"""Units of a row that one program holds."""


def serves(x: Tensor) -> bool:
    """Whether there are kernels for tensors like ``x``: it lies on a GPU, and they are asked for."""
    return x.is_cuda and x.dtype in (torch.float32, torch.float64) and on_a_gpu() == "triton"


def passes(rows: Tensor) -> bool:
    """Whether they serve for the flat storage (M, P), with adjacent columns, of so many parameters."""
    return serves(rows) and rows.shape[1] <= LARGEST and rows.stride(1) == 1


def sound_norm(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(M, P) -> the norm, and `float64.unsound`, (M,) float64 each."""
    norm, broken = rows.new_empty(2, len(rows), dtype=torch.float64)
    _source().sound_norm[(len(rows),)](rows, norm, broken, rows.shape[1], rows.stride(0), BLOCK=BLOCK)
    return norm, broken


def clip(gradient: Tensor, norm: Tensor, clips: Clips) -> tuple[Tensor, Tensor]:
    """(M, P) in place, each member in its own way, but for layer by layer; its norm before (M,) -> as `native.clip`."""
    after, changed = torch.empty_like(norm), torch.empty_like(norm)
    places = (gradient, norm, clips.mode, clips.threshold, after, changed)
    _source().clip[(len(norm),)](*places, gradient.shape[1], gradient.stride(0), BLOCK=BLOCK)
    return after, changed


def descends(how: Descent, parameters: Tensor) -> bool:
    """Whether there is a kernel for an optimizer."""
    return serves(parameters) and how.kernel in ("sgd", "adam")


def descend(
    how: Descent,
    parameters: Tensor,
    gradient: Tensor,
    done: Tensor,
    columns: Mapping[str, Tensor],
    buffers: list[Tensor | None],
) -> None:
    """As `native.descend`; the ``columns`` by name."""
    kernels, count = _source(), parameters.shape[1]
    grid = (len(parameters), -(-count // BLOCK))
    held = [parameters if buffer is None else buffer for buffer in buffers]
    strides = (count, parameters.stride(0), gradient.stride(0), held[0].stride(0) if held else 0)
    ends = tuple(columns[name] for name in ("weight_decay", "l1"))
    if how.kernel == "sgd":
        own = tuple(columns[name] for name in ("lr", "momentum", "nesterov"))
        buffered = buffers[0] is not None
        kernels.sgd[grid](parameters, gradient, held[0], *own, *ends, *strides, BUFFERED=buffered, BLOCK=BLOCK)
    else:
        own = tuple(columns[name] for name in ("lr", "beta1", "beta2", "eps"))
        decoupled = bool(how.sizes[0])
        kernels.adam[grid](parameters, gradient, *held, done, *own, *ends, *strides, DECOUPLED=decoupled, BLOCK=BLOCK)


def layer_norm(
    z: Tensor, gain: Tensor, shift: Tensor | None, eps: float, *, centred: bool
) -> tuple[Tensor, Normalised]:
    """As `native.layer_norm`; there is a shift where it is ``centred``."""
    members, batch, width = z.shape
    z = z.contiguous()
    y, n, inverse = torch.empty_like(z), torch.empty_like(z), z.new_empty(members, batch)
    moved = gain if shift is None else shift
    places, sizes = (z, gain, moved, n, inverse, y), (batch, width, gain.stride(0), moved.stride(0))
    _source().layer_norm[(members * batch,)](*places, *sizes, EPS=eps, CENTRED=centred, BLOCK=_above(width))
    return y, Normalised(n, inverse)


def layer_norm_back(
    dy: Tensor, found: Normalised, gain: Tensor, *, centred: bool, shifted: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `native.layer_norm_back`."""
    kernels, (members, batch, width) = _source(), found.n.shape
    dy = dy.contiguous()
    dz, dgain = torch.empty_like(dy), dy.new_empty(members, width)
    dshift = dy.new_empty(members, width) if shifted else None
    places = (dy, found.n, found.inverse, gain, dz)
    sizes = (batch, width, gain.stride(0))
    kernels.layer_norm_back[(members * batch,)](*places, *sizes, CENTRED=centred, BLOCK=_above(width))
    block = min(128, _above(width))
    grid, sums = (members, -(-width // block)), (dgain, dgain if dshift is None else dshift)
    kernels.affine_back[grid](dy, found.n, *sums, batch, width, SHIFTED=shifted, BLOCK=block)
    return dz, dgain, dshift


def _above(width: int) -> int:
    """The power of two that is at least ``width``: a row of Triton's has no other length."""
    return max(16, 1 << (width - 1).bit_length())


def _source() -> ModuleType:
    from gradlab.nn.kernels import triton_source

    return triton_source
