"""Products and sums of stacked tensors, by our kernels where they serve and by torch elsewhere.

Shapes: M members, B batch, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.nn.kernels import native


def product(a: Tensor, b: Tensor, start: Tensor | None = None) -> Tensor:
    """For each member start + a b: (M, n, k), (M, k, p), (M, n or 1, p) or nothing -> (M, n, p)."""
    if native.multiplies(a, b):
        return native.product(a, b, start)
    return torch.bmm(a, b) if start is None else torch.baddbmm(start, a, b)


def product_into(out: Tensor, a: Tensor, b: Tensor, *, more: bool) -> None:
    """Writes a b into ``out`` (M, n, p); where there is ``more`` in it already, adds it."""
    if native.multiplies(a, b):
        native.product(a, b, out if more else None, out)
    elif more:
        out.baddbmm_(a, b)
    else:
        torch.bmm(a, b, out=out)


def take(samples: Tensor, chosen: Tensor, scale: Tensor) -> Tensor:
    """Samples (N, *shape), which of them (B,), and each member's scale (M,) -> (M, B, *shape)."""
    if native.serves(samples):
        return native.gather(samples, chosen, scale)
    return samples[chosen] * scale.view(-1, *[1] * samples.dim())


def batch_sum(x: Tensor) -> Tensor:
    """(M, B, D) -> (M, D)."""
    return native.batch_sum(x) if native.serves(x) else x.sum(1)


def combine(x: Tensor, scale: float, y: Tensor | None = None) -> Tensor:
    """Gives scale x, and y added where there is one: (M, ...) each."""
    if native.serves(x):
        return native.add(x, None if y is None else native.whole(y), scale)
    return x * scale if y is None else torch.add(y, x, alpha=scale)


def deposit(out: Tensor, part: Tensor, *, more: bool) -> None:
    """Writes ``part`` into ``out``, (M, ...) each; where there is ``more`` in it already, adds it."""
    if native.serves(part):
        native.add(part, out if more else None, out=out)
    elif more:
        out.add_(part)
    else:
        out.copy_(part)


def clear(out: Tensor) -> None:
    """Makes every entry of ``out`` (M, ...) zero."""
    if native.serves(out):
        native.clear(out)
    else:
        out.zero_()
