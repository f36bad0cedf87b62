"""The learning rate of a plain training, as torch.optim.lr_scheduler changes it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from gradlab.spec.run import RunSpec


class Paced:
    """What torch does to the learning rate of ``mover``: its LinearLR as the warmup, then the run's schedule."""

    def __init__(self, mover: torch.optim.Optimizer, run: RunSpec) -> None:
        self.mover, self.run, self.done = mover, run, 0
        self.warmup = 0 if run.optim.schedule in ("one_cycle", "inverse_sqrt") else run.optim.warmup
        rise = torch.optim.lr_scheduler.LinearLR
        self.rise = rise(mover, 1 / self.warmup, total_iters=self.warmup - 1) if self.warmup > 1 else None
        self.then = scheduler(mover, run) if self.warmup == 0 else None

    @property
    def lr(self) -> float:
        return float(self.mover.param_groups[0]["lr"])

    def step(self, loss: float) -> None:
        """After an update, with the loss before it."""
        self.done += 1
        if self.then is not None:
            self.then(loss)
        elif self.done < self.warmup and self.rise is not None:
            self.rise.step()
        else:
            self.mover.param_groups[0].pop("initial_lr", None)
            self.mover.param_groups[0]["lr"] = self.run.optim.lr
            self.then = scheduler(self.mover, self.run)


def scheduler(mover: torch.optim.Optimizer, run: RunSpec) -> Callable[[float], None]:
    """Torch's scheduler of a run behind its warmup, as a function of the loss."""
    given, known, steps = run.optim, torch.optim.lr_scheduler, run.train.steps
    left = max(1, steps - given.warmup)
    match given.schedule:
        case "plateau":
            return known.ReduceLROnPlateau(mover, factor=given.decay, patience=given.decay_every).step
        case "one_cycle":
            share = given.warmup / steps if given.warmup else 0.3
            last = math.inf if given.end_factor == 0 else 1 / 25 / given.end_factor
            cycle = known.OneCycleLR(mover, given.lr, steps, None, None, share, "cos", False, final_div_factor=last)
            # Its cycle ends at the last update, and the last row is without one.
            return lambda _: cycle.step() if cycle.last_epoch < steps - 1 else None
    first = max(1, given.warmup)
    one: torch.optim.lr_scheduler.LRScheduler
    match given.schedule:
        case "constant":
            one = known.ConstantLR(mover, factor=1.0)
        case "linear":
            one = known.LinearLR(mover, 1.0, given.end_factor, left)
        case "cosine":
            one = known.CosineAnnealingLR(mover, left, given.end_factor * given.lr)
        case "step":
            one = known.StepLR(mover, given.decay_every, given.decay)
        case "exponential":
            one = known.ExponentialLR(mover, given.decay ** (1 / given.decay_every))
        case "inverse_sqrt":
            one = known.LambdaLR(mover, lambda t: min((t + 1) / first, math.sqrt(first / (t + 1))))
        case other:
            raise AssertionError(other)
    return lambda _: one.step()
