"""Training of one cohort: M runs in lock-step as one stacked network, every layer measured.

In words. At step t the losses of all members are taken on batch t, and one way back through the stack gives every
member its own gradient, for members share nothing. If the per-layer table is due, it is measured, and before it the
runs' instrument is read. Gradients are clipped, each member by itself, and the optimizer moves the weights, at the
learning rates that the schedules have for this step.
Measurements stay on the device and travel to the host once a window. A member whose loss, gradient or weights are not
finite at step t ends at t; where its per-layer table was not due at t, the window is played again to record it: the
same weights meet the same batches, so the second playing gives the numbers of the first. Between two steps a training
can be kept, all that it is, and taken up again from there (`keeping.py`).

`step.py` says all that happens in a step. Since every step does the same to the same memory, it is rehearsed once and
then played (`playing.py`).

Shapes: M members, B batch, L layers, P parameters a member.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor

from gradlab.data.dataset import Dataset
from gradlab.engine.cohort import Cohort, prepare
from gradlab.engine.instruments import INSTRUMENTS
from gradlab.engine.journal import Journal, Rows
from gradlab.engine.keeper import NOBODY, Keeper
from gradlab.engine.keeping import packed, unpacked
from gradlab.engine.playing import WINDOW, Rehearsed, perform, rehearse, restore
from gradlab.engine.pretraining import Heard
from gradlab.engine.step import advance
from gradlab.grid.cohorts import steps_before
from gradlab.spec.run import RunSpec
from gradlab.store.record import Record

SPAN_SECONDS = 0.2
"""About as long as steps are played in one go, without a word to anybody."""

T = TypeVar("T")

Progress = Callable[[float, int], None]
"""Called at every flush with the share of the work that is done, and how many members have diverged."""


def train(
    runs: Sequence[RunSpec],
    data: Dataset,
    device: torch.device,
    progress: Progress,
    keeper: Keeper = NOBODY,
    *,
    stacked: bool = False,
) -> Record:
    """Trains ``runs``, which share every tensor shape, as one stacked network, and returns what was measured.

    Goes on from what the ``keeper`` has kept, if anything; numbers do not depend on where a training was broken off.
    Networks of the user's own are trained as one between records where that is said (``stacked``), else one by one.
    """
    return to_its_end(training(runs, data, device, progress, keeper, stacked=stacked))


def to_its_end(work: Generator[object, None, T]) -> T:
    """What ``work`` returns, which is alone."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            return cast("T", ended.value)


def training(
    runs: Sequence[RunSpec],
    data: Dataset,
    device: torch.device,
    progress: Progress,
    keeper: Keeper = NOBODY,
    *,
    stacked: bool = False,
) -> Generator[None, None, Record]:
    """As `train`, but comes back in each window: all of it is asked for then, and none of it was looked at.

    On a GPU, whose work is going on, others can be asked for theirs meanwhile; it comes back before all else that keeps
    the host for long, too. Their time is not this training's.
    """
    clock = _Clock(time.perf_counter())
    steps, every = runs[0].train.steps, runs[0].probe.every
    early = sum(map(steps_before, runs))
    whole = early + len(runs) * (steps + 1)
    heard = Heard(keeper, lambda done: progress(done / whole, 0))
    cohort = prepare(runs, data, device, heard, stacked=stacked)
    due = {*range(0, steps, every), steps}
    looked_into = set() if runs[0].probe.instrument == "none" else due
    journal = Journal(len(runs), cohort.way.columns)
    yield from clock.stopped()
    rehearsed = rehearse(cohort)
    read = INSTRUMENTS[runs[0].probe.instrument](cohort, _update)
    start, before_that = unpacked(keeper.load(), cohort, journal)
    clock.began -= before_that
    most = 1
    while start <= steps and journal.diverged < len(runs):
        window = range(start, min(start + WINDOW, steps + 1))
        before = [tensor.clone() for tensor in cohort.moving] if set(window) - due else []
        members = journal.going_on
        rows, wanted, left = list[Rows](), False, window
        while left and not wanted:
            if left.start in due:
                journal.note(left.start, read(left.start))
            span = left[: min([most, *(t - left.start for t in left[1:] if t in looked_into)])]
            asked = time.perf_counter()
            rows += perform(cohort, span, due, rehearsed, members)
            most = max(1, int(SPAN_SECONDS / (time.perf_counter() - asked) * len(span)))
            left, wanted = left[len(span) :], keeper.wanted(span[-1])
        yield from clock.stopped()
        journal.add(rows)
        if unseen := journal.ended_in(window) - due:
            replay(cohort, journal, before, range(window.start, max(unseen) + 1), unseen, rehearsed)
        start = left.start
        progress((early + len(runs) * start) / whole, journal.diverged)
        if wanted:
            keeper.save(packed(cohort, journal, start, clock.seconds))
    if keeper.finish is not None:
        keeper.finish(packed(cohort, journal, start, clock.seconds))
    yield from clock.stopped()
    heldout = None if steps == 0 or journal.diverged == len(runs) else cohort.way.evaluate(cohort.task)
    may_skip = cohort.made is not None
    took, way = clock.seconds, cohort.way
    journal.see(way.seen)
    return journal.close(cohort.runs, heldout, took, may_skip=may_skip, pretrained=way.pretrained)


@dataclass
class _Clock:
    """That of one training among others: ``began`` is put off by the time that it was stopped."""

    began: float

    @property
    def seconds(self) -> float:
        """So far."""
        return time.perf_counter() - self.began

    def stopped(self) -> Generator[None, None, None]:
        """Comes back to whoever has other work, whose time does not count."""
        left = time.perf_counter()
        yield
        self.began += time.perf_counter() - left


def _update(cohort: Cohort, t: int) -> None:
    advance(cohort, t, record=False)


def replay(
    cohort: Cohort, journal: Journal, before: Sequence[Tensor], window: range, unseen: set[int], rehearsed: Rehearsed
) -> None:
    """Plays ``window`` again from the state ``before`` it, records the steps ``unseen``, and puts the present back."""
    present = [tensor.clone() for tensor in cohort.moving]
    restore(cohort, before)
    journal.add_unseen(perform(cohort, window, unseen, rehearsed, journal.ended_at(unseen)))
    restore(cohort, present)
