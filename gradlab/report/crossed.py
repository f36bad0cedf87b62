"""Effects where the same seeds stand at every setting: seeds are a block that is crossed with the settings.

One draw of the weights is good or bad at all settings alike. What differs between settings is then told from chance by
how it differs from seed to seed, not by how far seeds lie apart; and whether it could be chance, by permutation: where
a key does nothing, its levels could change places within a seed (Anderson & ter Braak 2003, Journal of Statistical
Computation and Simulation 73, on permutations within blocks).

Legend for shapes: S seeds, K keys of n_1 .. n_K levels, C = n_1 ... n_K settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gradlab.report.tables import Floats, Ints

PERMUTATIONS = 999
"""Drawn at random, beside the one that was measured: the least p is 0.001."""

LEAST_P = 0.05
"""Where no smaller p is possible none is given."""

ENTRIES = 1_000_000
"""Numbers that are permuted at a time, so that memory does not grow with the grid."""

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """What one key, or two beyond what each does, contribute: ``kind`` is main, interaction or higher.

    ``square`` is the mean square of the part over the settings, ``chance`` what the spread between seeds alone would
    give it, ``p`` how often permuted levels give as much (None where so few seeds cannot give a p below `LEAST_P`).
    """

    kind: str
    axes: Axes
    square: float
    chance: float
    freedom: int
    p: float | None


@dataclass(frozen=True)
class Blocks:
    """The parts; ``totals`` of each key with all that it takes part in, less chance; variances of one run.

    ``between``: of seeds, the same at every setting; ``within``: of a seed from setting to setting.
    """

    parts: tuple[Part, ...]
    totals: tuple[float, ...]
    between: float
    within: float


def complete(cell: Ints, seed: Ints, size: int) -> Ints:
    """The seeds (of codes ``seed`` (N,)) that stand at each of ``size`` settings (codes ``cell`` (N,)) exactly once."""
    counts = np.zeros((int(seed.max()) + 1, size), dtype=np.int64)
    np.add.at(counts, (seed, cell), 1)
    found: Ints = np.flatnonzero((counts == 1).all(axis=1))
    return found


def decompose(values: Floats) -> Blocks:
    """The parts of ``values`` (S, n_1, ..., n_K), one run for each seed and setting, S at least 2."""
    seeds, shape = len(values), values.shape[1:]
    size = math.prod(shape)
    parts = []
    left, freedom = values - values.mean(axis=tuple(range(1, values.ndim)), keepdims=True), size - 1
    for axes, own in _parts(values):
        left, freedom = left - own, freedom - math.prod(shape[axis] - 1 for axis in axes)
        parts.append(_part("main" if len(axes) == 1 else "interaction", axes, own, shape))
    if freedom > 0:
        square, chance = _told(left)
        parts.append(Part("higher", (), square, chance, freedom, None))
    means = values.reshape(seeds, -1).mean(axis=1)
    apart = values - values.mean(axis=0) - (means - means.mean()).reshape(-1, *[1] * len(shape))
    within = float((apart**2).sum()) / max(1, (size - 1) * (seeds - 1))
    between = max(0.0, float(means.var(ddof=1)) - within / size)
    totals = [np.subtract(*_told(values - values.mean(axis=1 + axis, keepdims=True))) for axis in range(len(shape))]
    return Blocks(tuple(parts), tuple(max(0.0, float(total)) for total in totals), between, within)


def _parts(values: Floats) -> Iterator[tuple[Axes, Floats]]:
    """The main effects and the interactions of two keys, each seed's own: (S, ...), of length 1 along other axes."""
    number = values.ndim - 1
    grand = values.mean(axis=tuple(range(1, values.ndim)), keepdims=True)
    found: dict[Axes, Floats] = {}
    for axes in (*combinations(range(number), 1), *combinations(range(number), 2)):
        part = values.mean(axis=tuple(1 + axis for axis in range(number) if axis not in axes), keepdims=True) - grand
        for axis in axes if len(axes) == 2 else ():
            part = part - found[(axis,)]
        found[axes] = part
        yield axes, part


def _part(kind: str, axes: Axes, own: Floats, shape: tuple[int, ...]) -> Part:
    square, chance = _told(own)
    sizes = tuple(shape[axis] for axis in axes)
    return Part(kind, axes, square, chance, math.prod(n - 1 for n in sizes), _p(own.reshape(len(own), *sizes)))


def _told(own: Floats) -> tuple[float, float]:
    """The mean square of the seeds' mean of a part, and what their spread about it gives that by chance."""
    mean = own.mean(axis=0)
    return float((mean**2).mean()), float(((own - mean) ** 2).mean()) / (len(own) - 1)


def _p(own: Floats) -> float | None:
    """How probable a mean as large is where each seed's levels of ``own`` (S, n[, m]) could change places.

    Levels that change places in all seeds alike change nothing, so that the least p is one over the number of orders to
    the power S - 1: two levels ask for six seeds, three for three. None where it is above `LEAST_P`.
    """
    # Two levels by two: to swap either pair is to turn the sign, so that the second pair adds no order.
    orders = math.prod(map(math.factorial, own.shape[1:])) if own.shape[1:] != (2, 2) else 2
    if orders ** (1 - len(own)) > LEAST_P:
        return None
    draw = np.random.default_rng(0)
    seen = float((own.mean(axis=0) ** 2).sum())
    rows = own.reshape(len(own), own.shape[1], -1)
    as_large, ahead = 0, PERMUTATIONS
    while ahead > 0:
        many = max(1, min(ahead, ENTRIES // rows.size))
        # (P, S, n, m): the levels of each axis in an order of each permutation's and each seed's own.
        order = np.argsort(draw.random((many, *rows.shape[:2])), axis=2)[..., None]
        moved = np.take_along_axis(rows[None], order, axis=2)
        if own.ndim > 2:
            order = np.argsort(draw.random((many, len(rows), rows.shape[2])), axis=2)[:, :, None, :]
            moved = np.take_along_axis(moved, order, axis=3)
        as_large += int(((moved.mean(axis=1) ** 2).sum(axis=(1, 2)) >= seen * (1 - 1e-9)).sum())
        ahead -= many
    return (1 + as_large) / (1 + PERMUTATIONS)
