"""Statistics accumulated in float64, and the test for finite entries, each member by itself.

A float32 norm underflows where the gradient does not: a layer whose largest entry is 1.3e-33 has squares of 1e-66,
which only float64 holds. Float64 networks are right from 1e-150 to 1e150.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def norms64(rows: Tensor, spans: Sequence[slice]) -> Tensor:
    """(M, P), L spans of columns -> (M, L) float64."""
    return torch.stack([norm64(rows[:, span]) for span in spans], dim=1)


def norm64(rows: Tensor) -> Tensor:
    """(M, ...) -> (M,) float64: the norm over everything but the members."""
    norm: Tensor = torch.linalg.vector_norm(rows.flatten(1), dim=1, dtype=torch.float64)
    return norm


def unsound(rows: Tensor, zeros: Tensor) -> Tensor:
    """(M, P), (P,) zeros -> (M,): zero where every entry of the member is finite, else not a number.

    Zero times a finite number is zero and zero times anything else is not, so one product with a vector of zeros
    tells, at a sixth of the price of looking at each entry.
    """
    return rows.mv(zeros)


def finite(rows: Tensor) -> Tensor:
    """(M, P) -> (M,) bool: every entry of the member is finite."""
    return unsound(rows, rows.new_zeros(rows.shape[1])) == 0


def share(indicator: Tensor) -> Tensor:
    """(M, ...) of numbers -> (M,) float64: the share of entries above zero, nan where any entry is not a number.

    Clamped to 0..1 and rounded up, an entry above zero counts 1 and any other 0: arithmetic runs ten times as fast on
    a CPU as comparisons do.
    """
    flat = indicator.flatten(1)
    return count(flat.clamp(0, 1).ceil_()) / flat.shape[1]


def count(ones: Tensor) -> Tensor:
    """(M, P) of zeros and ones -> (M,) float64: how many ones. Single precision adds them exactly up to 2^24."""
    return ones.sum(1, dtype=torch.float64 if ones.shape[1] >= 2**24 else ones.dtype).to(torch.float64)


def moments(h: Tensor) -> tuple[Tensor, Tensor]:
    """(M, ...) -> mean and (population) standard deviation, (M,) float64 each, over everything but the members."""
    wide = h.flatten(1).to(torch.float64)
    mean = wide.mean(1)
    return mean, torch.linalg.vector_norm(wide - mean.unsqueeze(1), dim=1) / wide.shape[1] ** 0.5
