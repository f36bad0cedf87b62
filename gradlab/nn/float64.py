"""Statistics accumulated in float64, and the test for finite entries, each member by itself.

A float32 norm underflows where the gradient does not: a layer whose largest entry is 1.3e-33 has squares of 1e-66,
which only float64 holds. Float64 networks are right from 1e-150 to 1e150. Where a function takes ``out``, that is where
it writes, a column of a table perhaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gradlab.nn.kernels import fused, native


def norms64(rows: Tensor, spans: Sequence[slice], out: Tensor | None = None, unless: Sequence[Tensor] = ()) -> Tensor:
    """(M, P), L spans of columns -> (M, L) float64.

    ``unless`` are what is zero (M,) where they are what they were, and what they were (M, L).
    """
    out = rows.new_empty(len(rows), len(spans), dtype=torch.float64) if out is None else out
    if native.serves(rows):
        native.norms(rows, spans, out, unless)
    else:
        torch.cat([_norm(run) for run in _runs(rows, spans)], dim=1, out=out)
    return out


def _runs(rows: Tensor, spans: Sequence[slice]) -> Iterator[Tensor]:
    """(M, P), L spans of columns -> views (M, K, size), K of all together L: neighbours of one size, equally far apart.

    A GPU is asked once for each.
    """
    first = 0
    while first < len(spans):
        start, size, after = spans[first].start, spans[first].stop - spans[first].start, first + 1
        apart = spans[after].start - start if after < len(spans) else size
        while after < len(spans) and spans[after] == slice(at := start + apart * (after - first), at + size):
            after += 1
        place = rows.storage_offset() + start * rows.stride(1)
        shape, strides = (len(rows), after - first, size), (rows.stride(0), apart * rows.stride(1), rows.stride(1))
        yield rows.as_strided(shape, strides, place)
        first = after


def norm64(rows: Tensor, out: Tensor | None = None) -> Tensor:
    """(M, ...) -> (M,) float64: the norm over everything but the members."""
    flat = rows.flatten(1)
    out = rows.new_empty(len(rows), dtype=torch.float64) if out is None else out
    norms64(flat, (slice(0, flat.shape[1]),), out.unsqueeze(1))
    return out


def _norm(rows: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)
    return norm


def unsound(x: Tensor, out: Tensor | None = None) -> Tensor:
    """(M, ...) -> (M,) float64: zero where every entry of the member is finite, else not a number.

    Zero times a finite number is zero and zero times anything else is not.
    """
    out = x.new_empty(len(x), dtype=torch.float64) if out is None else out
    if native.serves(x):
        native.unsound(x, out)
    else:
        out.copy_((x.flatten(1) * 0).sum(1))
    return out


def sound_norm64(
    rows: Tensor, matrices: Sequence[slice] = (), layers: Sequence[slice] = (), known: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(M, P) -> `norm64` and `unsound` of it.

    Where all columns are ``layers``, which begin with ``matrices``, of their norms, (M, L) as `layer_gradients` finds
    them where those are ``known``.
    """
    if fused.passes(rows):
        return fused.sound_norm(rows)
    if not native.serves(rows):
        return norm64(rows), unsound(rows)
    norm, broken = rows.new_empty(2, len(rows), dtype=torch.float64)
    whole = (slice(0, rows.shape[1]),)
    native.sound_norm(rows, matrices or whole, layers or whole, known, norm, broken)
    return norm, broken


def share(indicator: Tensor) -> Tensor:
    """(M, ...) of numbers -> (M,) float64: the share of entries above zero, nan where any entry is not a number.

    Clamped to 0..1 and rounded up, an entry above zero counts 1 and any other 0: arithmetic runs ten times as fast on
    a CPU as comparisons do.
    """
    return _share(indicator.flatten(1))


def _share(flat: Tensor) -> Tensor:
    return _count(flat.clamp(0, 1).ceil_()) / flat.shape[-1]


def distances64(rows: Tensor, others: Tensor, spans: Sequence[slice], out: Tensor) -> None:
    """Norms of the difference of two (M, P), as `norms64`."""
    if native.serves(rows):
        native.distances(rows, others, spans, out)
    else:
        norms64(rows - others, spans, out)


def layer_gradients(
    rows: Tensor, matrices: Sequence[slice], layers: Sequence[slice], norm: Tensor, weights: Tensor, zero: Tensor
) -> None:
    """The gradient (M, P) of each layer, whose matrix comes first, into columns (M, L).

    ``norm`` is that of all its entries, ``weights`` that of its matrix, ``zero`` the share of entries that are exactly
    zero, nan as in `share`.
    """
    if native.serves(rows):
        native.gradients(rows, matrices, layers, norm, weights, zero)
        return
    norms64(rows, layers, norm)
    norms64(rows, matrices, weights)
    torch.cat([1 - _share(run.abs()) for run in _runs(rows, layers)], dim=1, out=zero)


def _count(ones: Tensor) -> Tensor:
    """(..., P) of zeros and ones -> (...) float64: how many ones. Single precision adds them exactly up to 2^24."""
    return ones.sum(-1, dtype=torch.float64 if ones.shape[-1] >= 2**24 else ones.dtype).to(torch.float64)


def spread(h: Tensor, mean: Tensor, deviation: Tensor, cosine: Tensor | None, each: Sequence[Tensor] = ()) -> None:
    """(M, T, B, D): mean and (population) standard deviation of all entries, and how alike a batch's rows are.

    That is the mean over T and pairs of samples of the cosine of their rows. Into (M,) float64 each; of ``each`` step,
    where it is asked for, into (M, T): the three of them, or the first two.

    The squared norm of a sum of n unit vectors is n and twice their cosines, so that no pair is looked at. A row of
    zeros has no direction, and is left out; nan where fewer than two are left, and where an entry is not finite.
    """
    if native.serves(h):
        native.spread(h, mean, deviation, cosine, each)
        return
    wide = h.to(torch.float64)
    _moments(wide.flatten(1), mean, deviation)
    if each:
        _moments(wide.flatten(2), *each[:2])
    if cosine is None:
        return
    norms = torch.linalg.vector_norm(wide, dim=3, keepdim=True)
    awake = (norms != 0).sum((2, 3)).to(torch.float64)
    together = (wide / torch.where(norms == 0, 1.0, norms)).sum(2).square().sum(2) - awake
    pairs = awake * (awake - 1)
    several = pairs.sum(1)
    cosine.copy_(torch.where(several > 0, together.sum(1) / several, torch.nan))
    if each:
        each[2].copy_(torch.where(pairs > 0, together / pairs, torch.nan))


def _moments(wide: Tensor, mean: Tensor, deviation: Tensor) -> None:
    middle = wide.mean(-1)
    mean.copy_(middle)
    away: Tensor = torch.linalg.vector_norm(wide - middle.unsqueeze(-1), dim=-1)
    deviation.copy_(away / wide.shape[-1] ** 0.5)
