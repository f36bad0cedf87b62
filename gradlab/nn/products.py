"""Products and sums of stacked tensors, by our kernels where they serve and by torch elsewhere.

Shapes: M members, B batch, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """Samples (N, *shape), which of them (B,), and each member's scale (M,) -> (M, B, *shape).

    Whole numbers are tokens, the same for all members and of no scale.
    """
    if not samples.is_floating_point():
        if native.serves(scale):
            return native.gather_tokens(samples, chosen, scale)
        return samples[chosen].expand(len(scale), -1, *samples.shape[1:])
    if native.serves(samples):
        return native.gather(samples, chosen, scale)
    return samples[chosen] * scale.view(-1, *[1] * samples.dim())


def split(x: Tensor) -> list[Tensor]:
    """(M, B, T, D) -> T of (M, B, D)."""
    return [copied(part) for part in x.unbind(2)]


def join(steps: Sequence[Tensor]) -> Tensor:
    """T of (M, B, D) -> (M, B, T, D)."""
    if not native.serves(steps[0]):
        return torch.stack(list(steps), dim=2)
    members, batch, width = steps[0].shape
    whole = native.new(steps[0], members, batch, len(steps), width)
    for part, step in zip(whole.unbind(2), steps, strict=True):
        native.copied(step, part)
    return whole


def stacked(steps: Sequence[Tensor]) -> Tensor:
    """T of (M, B, ..., D) -> (M, T, B, ..., D); one of them stays as it is, parts of such a tensor are not copied."""
    first, count = steps[0], len(steps)
    if count == 1:
        return first
    if not native.serves(first):
        return torch.stack(list(steps), dim=1)
    size = first[0].numel()
    apart = [(step.data_ptr() - first.data_ptr()) // first.element_size() for step in steps]
    one = {(step.untyped_storage().data_ptr(), step.stride()) for step in steps}
    if apart == [t * size for t in range(count)] and len(one) == 1 and first[0].is_contiguous():
        return first.as_strided((len(first), count, *first.shape[1:]), (first.stride(0), size, *first.stride()[1:]))
    whole = native.new(first, len(first), count, *first.shape[1:])
    for part, step in zip(whole.unbind(1), steps, strict=True):
        native.add(step, None, out=part)
    return whole


def looked_up(table: Tensor, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
    """Rows of ``table`` (M, V, D), any strides, by tokens (M, B, T), and ``bias`` (M, D) -> (M, B, T, D)."""
    if native.serves(table):
        return native.look_up(table, tokens, bias)
    found = table.gather(1, _row_numbers(tokens, table)).view(*tokens.shape, -1)
    return found if bias is None else found + bias.view(len(bias), 1, 1, -1)


def looked_up_back(out: Tensor, tokens: Tensor, grad: Tensor, *, more: bool) -> None:
    """Adds up ``grad`` (M, B, T, D) by tokens into ``out`` (M, V, D), any strides; over what is there if ``more``."""
    if native.serves(grad):
        native.look_up_back(out, tokens, grad, more=more)
        return
    if not more:
        out.zero_()
    if grad.is_cuda:
        # There sums of scattered numbers are taken in any order, and end in other digits each time.
        rows = torch.arange(out.shape[1], device=out.device).view(1, -1, 1)
        chosen = (tokens.flatten(1).unsqueeze(1) == rows).to(grad.dtype)
        out.baddbmm_(chosen, grad.flatten(1, 2))
    else:
        out.scatter_add_(1, _row_numbers(tokens, out), grad.flatten(1, 2))


def _row_numbers(tokens: Tensor, table: Tensor) -> Tensor:
    return tokens.flatten(1).unsqueeze(-1).expand(-1, -1, table.shape[2])


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


def copied(x: Tensor, out: Tensor | None = None) -> Tensor:
    """(M, n, D), whose rows may lie apart, into ``out``, whose rows may too, or a new one."""
    if native.serves(x):
        return native.copied(x, out)
    return x.contiguous() if out is None else out.copy_(x)
