"""Sums over the entries of large tensors without a copy of the whole: a piece at a time.

Where numpy has a tensor's type it does the counting: a call of it costs a third of one of torch's, and a network has
thousands of small tensors. Sums of float32 are taken in rows that are added up in float64, four times as fast as all in
float64: of draws they are right to eight digits, of entries that round off alike to six. Where squares overflow or come
near the smallest numbers, and of few entries, all is float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

PIECE = 1 << 17
"""Entries that are looked at together: they fit a core's cache, which is ten times faster than a copy."""

FEW = 1 << 12
"""Entries up to which float64 costs no more than rows."""

ROW = 1 << 10
"""Squares that float32 adds up: what it rounds off in one row it gives back in another."""

ONES, WIDE_ONES = np.ones((ROW, 1), dtype=np.float32), np.ones(FEW)

_ADD = np.add.reduce

PLAIN = frozenset({torch.float32, torch.float64})
"""What numpy has, too."""

LEAST_SQUARE = 1e-25
"""The sum of a piece's squares above which those that float32 rounds to zero, below 1e-38 each, do not count."""

MOST_CANCELLED = 0.1
"""The share of the squares that must be left about the mean for six digits to be right."""

Moments = tuple[int, float, float]
"""The count of entries, their mean, and the sum of their squares about it."""

Flat = Any
"""Entries in one dimension: an array, or a tensor where numpy does not have their type or place."""


def real(tensor: Tensor) -> Tensor:
    """The entries as they are stored; of complex ones the real and imaginary parts, of sparse ones the stored."""
    entries = tensor.detach()
    if entries.is_sparse:
        entries = entries.coalesce().values()
    return torch.view_as_real(entries.resolve_conj()) if entries.is_complex() else entries


def flat(tensor: Tensor) -> Flat:
    """The entries in one dimension, in the order in which they lie in memory; complex ones stay what they are."""
    entries = tensor.detach() if tensor.requires_grad else tensor
    if entries.dtype in PLAIN and entries.is_cpu and entries.layout is torch.strided:
        return entries.resolve_neg().numpy().ravel("K")
    return entries.reshape(-1)


def numbers(tensor: Tensor) -> Flat:
    """The same of real numbers: of complex entries both parts, of sparse ones what is stored."""
    return flat(tensor if tensor.dtype in PLAIN and not tensor.is_sparse else real(tensor))


def square(tensor: Tensor) -> float:
    """The sum of the squares of a tensor's entries."""
    return squares(numbers(tensor))


def squares(entries: Flat) -> float:
    """The sum of the squares of real entries."""
    if isinstance(entries, np.ndarray) and entries.dtype == np.float32 and entries.size > FEW:
        with np.errstate(all="ignore"):
            found = _in_rows(entries)
        if LEAST_SQUARE * (1 + entries.size // PIECE) < found < math.inf:
            return found
    return sum(map(_wide_square, _pieces(entries)))


def squares_of(tensors: Sequence[Tensor]) -> list[float]:
    """The sum of the squares of each tensor; of small ones for many at a time."""
    return [total for total, _ in _sums(tensors, zeros=False)]


def squares_and_zeros(tensors: Sequence[Tensor]) -> list[tuple[float, int]]:
    """The sum of the squares of each tensor, and how many of its entries are zero; of a sparse one all not stored."""
    return _sums(tensors, zeros=True)


def _sums(tensors: Sequence[Tensor], *, zeros: bool) -> list[tuple[float, int]]:
    found: list[tuple[float, int]] = []
    row: list[Any] = []
    waiting = 0
    for tensor in tensors:
        entries = numbers(tensor)
        small = isinstance(entries, np.ndarray) and 0 < entries.size == tensor.numel() <= FEW
        if row and (not small or waiting > PIECE):
            found += _small(row, zeros=zeros)
            row, waiting = [], 0
        if small:
            row.append(entries)
            waiting += len(entries)
            continue
        total, zero = squares(entries), tensor.numel() - len(entries)
        zero += within(entries, 0.0, 0.0) if zeros else 0
        if tensor.is_complex():
            zero = tensor.numel() - int(torch.count_nonzero(tensor.detach()))
        found.append((total, zero))
    return found + (_small(row, zeros=zeros) if row else [])


def _small(row: Sequence[Any], *, zeros: bool) -> list[tuple[float, int]]:
    """The same of arrays that lie in a row, with three calls of numpy for all of them."""
    whole = np.concatenate(row, dtype=np.float64)
    starts = np.cumsum([0, *(len(one) for one in row[:-1])])
    with np.errstate(all="ignore"):
        squares = np.add.reduceat(whole * whole, starts).tolist()
    some = zeros and not whole.all()
    return [(total, _within(one, 0.0, 0.0) if some else 0) for total, one in zip(squares, row, strict=True)]


def _wide_square(piece: Flat) -> float:
    if isinstance(piece, Tensor):
        wide: Any = piece.double()
        return float(wide @ wide)
    return _wide(piece.astype(np.float64, copy=False))


def _in_rows(entries: Any, other: Any = None) -> float:
    """The sum of the squares of float32 entries, or of their products with ``other`` (ROW, 1), the same for each row.

    In rows, for a longer product would set all of the machine's cores to work.
    """
    end = entries.size - entries.size % ROW
    rows = (entries if end == entries.size else entries[:end]).reshape(-1, 1, ROW)
    found = float(_ADD(np.matmul(rows, rows.reshape(-1, ROW, 1) if other is None else other), None, np.float64))
    if end < entries.size:
        rest = entries[end:].astype(np.float64)
        found += float(rest.dot(rest) if other is None else rest.dot(other[: len(rest), 0]))
    return found


def _wide(entries: Any) -> float:
    """The sum of the squares of float64 entries."""
    # Neither warns of what is not finite.
    return float(np.vdot(entries, entries) if entries.size <= FEW else np.einsum("i,i->", entries, entries))


def moments(tensor: Tensor) -> Moments:
    """Count, mean and squares about the mean of all entries."""
    return moments_of(numbers(tensor))


def moments_of(entries: Flat) -> Moments:
    """The same of real entries."""
    pieces = _pieces(entries)
    return _moments(pieces[0]) if len(pieces) == 1 else together([_moments(piece) for piece in pieces])


def _moments(piece: Flat) -> Moments:
    count = len(piece)
    if not count:
        return 0, math.nan, math.nan
    if isinstance(piece, Tensor):
        piece = piece.double()
        middle = piece.mean()
        piece = piece - middle
        return count, float(middle), float(piece @ piece)
    if piece.dtype == np.float32 and count > FEW:
        with np.errstate(all="ignore"):
            mean, squares = _in_rows(piece, ONES) / count, _in_rows(piece)
        about = squares - count * mean * mean
        if LEAST_SQUARE < about < math.inf and about > MOST_CANCELLED * squares:
            return count, mean, about
    piece = piece.astype(np.float64, copy=False)
    if count <= FEW:
        middle = float(np.vdot(piece, WIDE_ONES[:count])) / count
    else:
        with np.errstate(all="ignore"):
            middle = float(piece.sum()) / count
    return count, middle, _wide(piece - middle) if math.isfinite(middle) else math.nan


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


def within(entries: Flat, low: float, high: float) -> int:
    """How many entries lie in a closed interval."""
    return sum(_within(piece, low, high) for piece in _pieces(entries))


def _within(piece: Flat, low: float, high: float) -> int:
    if low == high:
        inside = piece == low
    elif low == -math.inf:
        inside = piece <= high
    else:
        inside = piece >= low if high == math.inf else (piece >= low) & (piece <= high)
    return int(np.count_nonzero(inside) if isinstance(inside, np.ndarray) else torch.count_nonzero(inside))


def alike(entries: Flat) -> bool:
    """Whether all entries are one number; most tensors show in their first two that they are not."""
    first = entries[0]
    return len(entries) < 2 or (bool(entries[1] == first) and bool((entries == first).all()))


def _pieces(entries: Flat) -> Sequence[Flat]:
    if len(entries) <= PIECE:
        return (entries,)
    return [entries[start : start + PIECE] for start in range(0, len(entries), PIECE)]
