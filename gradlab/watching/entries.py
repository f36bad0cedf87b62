"""Sums over the entries of large tensors without a copy of the whole: a piece at a time.

Norms are summed in float64, whatever they are of. Moments of float32 are right to six digits: a piece is summed as it
is, ten times faster, where its squares neither overflow nor come near the smallest numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

PIECE = 1 << 16
"""Entries that are looked at together: in float64 they fit a core's cache, which is ten times faster than a copy."""

PLAIN = frozenset({torch.float32, torch.float64})
"""What numpy has, too."""

LEAST_SQUARE = 1e-25
"""The sum of a piece's squares above which those that float32 rounds to zero, below 1e-38 each, do not count."""

MOST_CANCELLED = 0.01
"""The share of the squares that must be left about the mean for six digits to be right."""

Moments = tuple[int, float, float]
"""The count of entries, their mean, and the sum of their squares about it."""


def real(tensor: Tensor) -> Tensor:
    """The entries as they are stored; of complex ones the real and imaginary parts, of sparse ones the stored."""
    entries = tensor.detach()
    if entries.is_sparse:
        entries = entries.coalesce().values()
    return torch.view_as_real(entries.resolve_conj()) if entries.is_complex() else entries


def square(tensor: Tensor) -> float:
    """The sum of the squares of a tensor's entries, in float64: right for every float32."""
    return sum(_square(piece.double()) for piece in _pieces(tensor))


def _square(piece: Tensor) -> float:
    return float(piece @ piece)


def moments(tensor: Tensor) -> Moments:
    """Count, mean and squares about the mean of all entries."""
    return together([_moments(piece) for piece in _pieces(tensor)])


def _moments(piece: Tensor) -> Moments:
    count = piece.numel()
    if piece.dtype == torch.float32:
        mean, squares = float(piece.mean()), float(piece @ piece)
        about = squares - count * mean * mean
        if LEAST_SQUARE < about < math.inf and about > MOST_CANCELLED * squares:
            return count, mean, about
    piece = piece.double()
    middle = piece.mean()
    piece = piece - middle
    return count, float(middle), float(piece @ piece)


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
    stored = real(tensor)
    return tensor.numel() - stored.numel() + within(stored, 0.0, 0.0)


def within(tensor: Tensor, low: float, high: float) -> int:
    """How many entries lie in a closed interval; numpy counts five times as fast as torch."""
    return sum(_within(piece, low, high) for piece in _pieces(tensor))


def _within(piece: Tensor, low: float, high: float) -> int:
    entries: Any = piece.numpy() if piece.device.type == "cpu" and piece.dtype in PLAIN else piece
    if low == high:
        inside = entries == low
    elif low == -math.inf:
        inside = entries <= high
    else:
        inside = entries >= low if high == math.inf else (entries >= low) & (entries <= high)
    return int(np.count_nonzero(inside) if isinstance(inside, np.ndarray) else torch.count_nonzero(inside))


def _pieces(tensor: Tensor) -> Sequence[Tensor]:
    entries = real(tensor).reshape(-1)
    return (entries,) if entries.numel() <= PIECE else entries.split(PIECE)
