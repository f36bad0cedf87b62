"""Where an activation is flat, found from the function itself: by its slope on a grid, once for each function.

So any function of one number can be judged, not a list of known ones: a smooth one is saturated where its slope is
below 5 % of the steepest, one of straight pieces where it is at rest, as in the tables of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from gradlab.watching.entries import numbers, within

SATURATED_BELOW = 0.05
"""Of the steepest slope, as in the tables of a run."""

REACH, HALF = 20.0, 4000
"""The grid on which a function is looked at, from -20 to 20 by way of 0, and its points on either side."""

PIECES = 4
"""A function with no more different slopes than this is made of straight pieces; one flat more often is a wave."""

Intervals = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Flats:
    """Where a function of one number has next to no slope.

    ``saturated``: the closed intervals of z that count for the column `saturated`; ``rest``: those of slope zero that
    count for `dead`. None where the column makes no sense of it. ``curved`` is false of a straight line.
    """

    saturated: Intervals | None
    rest: Intervals | None
    curved: bool

    def inside(self, z: Tensor, intervals: Intervals) -> int:
        """How many entries of ``z`` lie in ``intervals``."""
        entries = numbers(z)
        return sum(within(entries, low, high) for low, high in intervals)

    def at_rest(self, z: Tensor, unit: int) -> Tensor:
        """(units,) Which units, along the dimension ``unit``, are at rest on every sample."""
        if self.rest is not None and len(self.rest) == 1 and self.rest[0][0] == -torch.inf:
            return _below(z, unit, self.rest[0][1])
        asleep = torch.zeros(z.shape, dtype=torch.bool, device=z.device)
        for low, high in self.rest or ():
            asleep |= _within(z, low, high)
        return asleep.movedim(unit, 0).flatten(1).all(1)


def _below(z: Tensor, unit: int, limit: float) -> Tensor:
    """(units,) Which units are nowhere above ``limit``; most maps show in their first sample that they are."""
    others = [dim for dim in range(z.dim()) if dim != unit]
    first = z[:1].amax(others) <= limit if z.dim() > 2 and unit > 0 else None
    if first is None or 4 * (left := int(torch.count_nonzero(first))) > len(first):
        return z.amax(others) <= limit
    if left:
        units = torch.nonzero(first).flatten()
        first[units] = z.index_select(unit, units).amax(others) <= limit
    return first


def _within(z: Tensor, low: float, high: float) -> Tensor:
    """Which entries lie in an interval; one comparison where it has one end."""
    if low == -torch.inf:
        return z <= high
    return z >= low if high == torch.inf else (z >= low) & (z <= high)


def flats(function: Callable[[Tensor], Tensor]) -> Flats:
    """Looks at ``function``, which takes and gives tensors of one dimension, entry by entry.

    In a thread of its own: while an operator is dispatched there is no autograd in the one that it runs in.
    """
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(_flats, function).result()


def _flats(function: Callable[[Tensor], Tensor]) -> Flats:
    grid = torch.arange(-HALF, HALF + 1, dtype=torch.float64) * (REACH / HALF)
    slope = _slopes(function, grid)
    steepest = float(slope.max())
    different = len(torch.unique(slope.round(decimals=9)))
    curved = different > 1
    if not torch.isfinite(slope).all() or not curved:
        return Flats(None, None, curved=curved)
    straight = different <= PIECES
    rest = _where(function, grid, slope, 0.0)
    if straight:
        # At rest on one side of zero: the ReLU family. On none, or on both far from it: clamped.
        at_zero = any(low <= 0 <= high for low, high in rest)
        return Flats(None, rest, curved=True) if at_zero or not rest else Flats(rest, None, curved=True)
    # Rounding ends a smooth slope far out; a function that rests does so near zero.
    asleep = tuple((low, high) for low, high in rest if low == -torch.inf and high > -REACH / 2) or None
    # A steepest slope that is met at the ends alone has no end: such a function explodes, and does not saturate.
    if float(slope[grid.abs() <= REACH / 2].max()) < 0.99 * steepest:
        return Flats(None, asleep, curved=True)
    flat = _where(function, grid, slope, SATURATED_BELOW * max(steepest, _peak(function, grid, slope)))
    return Flats(flat if len(flat) <= PIECES else None, asleep, curved=True)


def _slopes(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """|φ'| at each of the points; hooks on saved tensors around the network are none of its business."""
    with torch.enable_grad(), saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        start = at.detach().clone().requires_grad_()
        # Through a copy, which the function may overwrite.
        (slope,) = torch.autograd.grad(function(start * 1).sum(), start)
    return slope.abs()


def _peak(function: Callable[[Tensor], Tensor], grid: Tensor, slope: Tensor) -> float:
    """The steepest slope, looked for between the points of the grid."""
    centre, width = float(grid[slope.argmax()]), REACH / HALF
    fine = torch.linspace(centre - width, centre + width, 4001, dtype=torch.float64)
    return float(_slopes(function, fine).max())


def _where(function: Callable[[Tensor], Tensor], grid: Tensor, slope: Tensor, limit: float) -> Intervals:
    """The intervals in which the slope is below ``limit`` (zero: is zero), their inner ends by bisection."""

    def flat(points: Tensor) -> Tensor:
        found = _slopes(function, points)
        return found < limit if limit > 0 else found == 0

    inside = slope < limit if limit > 0 else slope == 0
    turns = torch.nonzero(inside[1:] != inside[:-1]).flatten()
    low, high = grid[turns], grid[turns + 1]
    opens = inside[turns]
    for _ in range(60):
        middle = (low + high) / 2
        same = flat(middle) == opens if len(turns) else opens
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    # The end inside the interval: the last point that is still flat.
    edges = [float(a if was else b) for a, b, was in zip(low, high, opens.tolist(), strict=True)]
    if len(inside) and bool(inside[0]):
        edges.insert(0, -torch.inf)
    if len(edges) % 2:
        edges.append(torch.inf)
    return tuple(zip(edges[::2], edges[1::2], strict=True))
