"""Learning rates of a cohort step by step, equal to torch.optim.lr_scheduler's for every member.

Shapes: M members, S updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.spec.run import OptimSpec, RunSpec

Floats = NDArray[np.float64]

PLATEAU = "plateau"
"""The one schedule that looks at the losses."""

THRESHOLD, LEAST_CHANGE = 1e-4, 1e-8
"""Of torch's ReduceLROnPlateau, by default: a loss is lower where it is by this share, and no rate falls by less."""

CYCLE_START, CYCLE_RISE = 25, 0.3
"""Of torch's OneCycleLR, by default: the cycle begins at lr/25 and rises for 30 % of the steps."""

Shape = Callable[[Floats, int, OptimSpec], Floats]
"""(steps t (S + 1,), S, keys) -> the factors of `optim.lr` (S + 1,); of steps in the warmup any number."""


def _after(t: Floats, optim: OptimSpec) -> Floats:
    """Steps since the warmup."""
    return np.maximum(t - optim.warmup, 0.0)


def _share(t: Floats, steps: int, optim: OptimSpec) -> Floats:
    """How much of the steps behind the warmup is over, 0 to 1."""
    return np.minimum(_after(t, optim) / max(1, steps - optim.warmup), 1.0)


def constant(t: Floats, steps: int, optim: OptimSpec) -> Floats:
    """1; of `plateau` what it begins with."""
    del steps, optim
    return np.ones_like(t)


def linear(t: Floats, steps: int, optim: OptimSpec) -> Floats:
    """LinearLR from 1 to end_factor."""
    return 1 + (optim.end_factor - 1) * _share(t, steps, optim)


def cosine(t: Floats, steps: int, optim: OptimSpec) -> Floats:
    """CosineAnnealingLR to end_factor (Loshchilov & Hutter 2016, equation 5)."""
    return optim.end_factor + (1 - optim.end_factor) * (1 + np.cos(math.pi * _share(t, steps, optim))) / 2


def step(t: Floats, steps: int, optim: OptimSpec) -> Floats:
    """StepLR: decay to the power of how many times decay_every steps are over."""
    del steps
    return optim.decay ** np.floor(_after(t, optim) / optim.decay_every)


def exponential(t: Floats, steps: int, optim: OptimSpec) -> Floats:
    """ExponentialLR of a gamma whose power decay_every is decay."""
    del steps
    return optim.decay ** (_after(t, optim) / optim.decay_every)


def inverse_sqrt(t: Floats, steps: int, optim: OptimSpec) -> Floats:
    """sqrt(warmup/(t + 1)): Vaswani et al. 2017, equation 3, over its largest value; a warmup of 0 counts as 1."""
    del steps
    return np.sqrt(max(1, optim.warmup) / (t + 1))


def one_cycle(t: Floats, steps: int, optim: OptimSpec) -> Floats:
    """OneCycleLR with two phases on cosines and no cycle of momentum: 1 is reached at the last step of the warmup."""
    top = (optim.warmup or CYCLE_RISE * steps) - 1
    rise = np.clip(t / top, 0.0, 1.0) if top > 0 else np.ones_like(t)
    fall = np.clip((t - top) / max(steps - 1 - top, 1.0), 0.0, 1.0)
    up = 1 + (1 / CYCLE_START - 1) * (1 + np.cos(math.pi * rise)) / 2
    down = optim.end_factor + (1 - optim.end_factor) * (1 + np.cos(math.pi * fall)) / 2
    return np.where(t <= top, up, down)


SCHEDULES: dict[str, Shape] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "step": step,
    "exponential": exponential,
    "inverse_sqrt": inverse_sqrt,
    "one_cycle": one_cycle,
    PLATEAU: constant,
}


def factors(optim: OptimSpec, steps: int) -> Floats:
    """What `optim.lr` is multiplied by at steps 0..S (S + 1,), but for what a plateau makes of it.

    A warmup of W steps is LinearLR's from 1/W, and reaches 1 at its last step; every schedule but one_cycle, which is
    one itself, begins after it.
    """
    t = np.arange(steps + 1, dtype=np.float64)
    found = SCHEDULES[optim.schedule](t, steps, optim)
    if optim.warmup and optim.schedule != "one_cycle":
        found = np.where(t < optim.warmup, (t + 1) / optim.warmup, found)
    return found


def row_of(each: Tensor, t: int | Tensor) -> Tensor:
    """The row of step t, or of one whose number lies on the device alone, (1,): nobody waits to learn it."""
    return each[t] if isinstance(t, int) else each.index_select(0, t).squeeze(0)


@dataclass(frozen=True)
class Plateau:
    """ReduceLROnPlateau of each member, by the loss of every batch; all (M,) float64.

    ``factor``: what the rate has come to; ``best`` loss; ``waited``: steps since then. Those three change in place.
    ``decay``, ``patience`` and ``begins``, the first step that counts, are the members' own; it is infinite elsewhere.
    """

    factor: Tensor
    best: Tensor
    waited: Tensor
    decay: Tensor
    patience: Tensor
    begins: Tensor

    def heed(self, t: int | Tensor, loss: Tensor, lr: Tensor) -> None:
        """Takes notice of the loss (M,) of step t, which was taken at the rates ``lr`` (M,)."""
        counts = self.begins <= t
        better = counts & (loss < self.best * (1 - THRESHOLD))
        self.best.copy_(torch.where(better, loss, self.best))
        waited = torch.where(better, 0.0, self.waited + 1)
        late = counts & (waited > self.patience)
        self.waited.copy_(torch.where(counts & ~late, waited, 0.0))
        falls = late & (lr * (1 - self.decay) > LEAST_CHANGE)
        self.factor.copy_(torch.where(falls, self.factor * self.decay, self.factor))


@dataclass(frozen=True)
class Pace:
    """The learning rates of a cohort: ``lr`` (M,) float64 as given, and ``column`` (M, 1), which the optimizer reads.

    ``planned`` (S + 1, M) float64 is None where nobody's rate ever changes, and ``plateau`` where nobody has one.
    """

    lr: Tensor
    column: Tensor
    planned: Tensor | None
    plateau: Plateau | None

    @property
    def moving(self) -> dict[str, Tensor]:
        """What a step changes, by name."""
        one = self.plateau
        return {} if one is None else {f"plateau.{name}": getattr(one, name) for name in ("factor", "best", "waited")}

    @property
    def turning(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """What `turn_to` sets, and what it sets it to at each step, where that is known beforehand."""
        if self.planned is None or self.plateau is not None:
            return ()
        return ((self.column, self.planned.to(self.column.dtype).unsqueeze(2)),)

    def turn_to(self, t: int | Tensor) -> Tensor:
        """Sets the column to the rates of step t, as in `row_of`, and gives them, (M,) float64."""
        if self.planned is None:
            return self.lr
        planned = row_of(self.planned, t)
        lr = planned if self.plateau is None else planned * self.plateau.factor
        self.column.copy_(lr.unsqueeze(1))
        return lr

    def turn_through(self, steps: range) -> Tensor:
        """`turn_to` each of neighbouring ``steps``: their rates (steps, M)."""
        if self.planned is None or self.plateau is not None:
            return torch.stack([self.turn_to(t) for t in steps])
        self.turn_to(steps[-1])
        return self.planned[steps.start : steps.stop]

    def heed(self, t: int | Tensor, loss: Tensor, lr: Tensor) -> None:
        """Takes notice of the loss (M,) of step t at the rates ``lr`` (M,), but for the last, which has no update."""
        if self.plateau is None or self.planned is None:
            return
        if isinstance(t, Tensor) or t + 1 < len(self.planned):
            self.plateau.heed(t, loss.to(torch.float64), lr)

    def afresh(self) -> Pace:
        """The same at the first step."""
        if self.plateau is None:
            return self
        begun = replace(
            self.plateau,
            factor=torch.ones_like(self.lr),
            best=torch.full_like(self.lr, torch.inf),
            waited=torch.zeros_like(self.lr),
        )
        return replace(self, plateau=begun)


def pace(runs: Sequence[RunSpec], column: Tensor) -> Pace:
    """Of ``runs``, whose rates the optimizer reads from ``column`` (M, 1)."""

    def numbers(values: Sequence[float] | Floats) -> Tensor:
        return torch.as_tensor(np.array(values, dtype=np.float64), device=column.device)

    given, steps = [run.optim for run in runs], runs[0].train.steps
    lr = numbers([one.lr for one in given])
    if all(one.schedule == "constant" and one.warmup == 0 for one in given):
        return Pace(lr, column, None, None)
    planned = numbers(np.stack([one.lr * factors(one, steps) for one in given], axis=1))
    if all(one.schedule != PLATEAU for one in given):
        return Pace(lr, column, planned, None)
    own = Plateau(
        *(torch.empty_like(lr),) * 3,
        decay=numbers([one.decay for one in given]),
        patience=numbers([one.decay_every for one in given]),
        begins=numbers([one.warmup if one.schedule == PLATEAU else math.inf for one in given]),
    )
    return Pace(lr, column, planned, own).afresh()
