"""Training of one cohort: M runs in lock-step as one stacked network, every layer measured.

In words. At step t the losses of all members are taken on batch t, and one way back through the stack gives every
member its own gradient, for members share nothing. If the per-layer table is due, it is measured, and before it the
runs' instrument is read. Gradients are clipped, each member by itself, and the optimizer moves the weights, at the
learning rates that the schedules have for this step.
Measurements stay on the device and travel to the host once a window. A member whose loss, gradient or weights are not
finite at step t ends at t; where its per-layer table was not due at t, the window is played again to record it: the
same weights meet the same batches, so the second playing gives the numbers of the first. Between two steps a training
can be kept, all that it is, and taken up again from there (`keeping.py`).

`step` says all that happens in a step. Since every step does the same to the same memory, it is rehearsed once and then
performed from what was written down, or captured on a GPU; where that cannot be, it is done as it stands.

Shapes: M members, B batch, L layers, P parameters a member.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from gradlab.data.dataset import Dataset
from gradlab.engine.cohort import Cohort, prepare
from gradlab.engine.instruments import INSTRUMENTS
from gradlab.engine.journal import Journal, StepRow
from gradlab.engine.keeper import NOBODY, Keeper
from gradlab.engine.keeping import packed, unpacked
from gradlab.engine.optim.clippers import clip
from gradlab.engine.precision import chances, is_by_chance, moved, rounded
from gradlab.engine.pretraining import Heard
from gradlab.engine.probes import measure_clipped, measure_update
from gradlab.grid.cohorts import steps_before
from gradlab.nn.float64 import sound_norm64, unsound
from gradlab.nn.kernels.graphs import Graph, capture
from gradlab.nn.kernels.program import Members, Program, write_down
from gradlab.nn.products import combine
from gradlab.spec.run import RunSpec
from gradlab.store.record import Record

WINDOW = 50
"""Steps between two transfers to the host."""

LEAST_STEPS = 10
"""Of a training that is worth a rehearsal."""

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
    began = time.perf_counter()
    steps, every = runs[0].train.steps, runs[0].probe.every
    early = sum(map(steps_before, runs))
    whole = early + len(runs) * (steps + 1)
    heard = Heard(keeper, lambda done: progress(done / whole, 0))
    cohort = prepare(runs, data, device, heard, stacked=stacked)
    due = {*range(0, steps, every), steps}
    journal = Journal(len(runs), cohort.way.columns)
    rehearsed = rehearse(cohort)
    read = INSTRUMENTS[runs[0].probe.instrument](cohort, _update)
    start, before_that = unpacked(keeper.load(), cohort, journal)
    began -= before_that
    while start <= steps and journal.diverged < len(runs):
        window = range(start, min(start + WINDOW, steps + 1))
        before = [tensor.clone() for tensor in cohort.moving] if set(window) - due else []
        members = journal.going_on
        rows, wanted = [], False
        for t in window:
            if t in due:
                journal.note(t, read(t))
            rows.append(perform(cohort, t, record=t in due, rehearsed=rehearsed, members=members))
            if wanted := keeper.wanted(t):
                break
        journal.add(rows)
        if unseen := journal.ended_in(window) - due:
            replay(cohort, journal, before, range(window.start, max(unseen) + 1), unseen)
        start += len(rows)
        progress((early + len(runs) * start) / whole, journal.diverged)
        if wanted:
            keeper.save(packed(cohort, journal, start, time.perf_counter() - began))
    if keeper.finish is not None:
        keeper.finish(packed(cohort, journal, start, time.perf_counter() - began))
    heldout = None if steps == 0 or journal.diverged == len(runs) else cohort.way.evaluate(cohort.task)
    may_skip = cohort.made is not None
    took, way = time.perf_counter() - began, cohort.way
    journal.see(way.seen)
    return journal.close(cohort.runs, heldout, took, may_skip=may_skip, pretrained=way.pretrained)


@torch.no_grad()
def advance(cohort: Cohort, t: int, *, record: bool) -> StepRow:
    """Step t: measure at the weights after t updates, on batch t; then, but for the last row, update once."""
    cohort.task.turn_to(t)
    lr = cohort.pace.turn_to(t)
    row = step(cohort, t, lr, record=record)
    cohort.pace.heed(t, row.loss, lr)
    return row


def _update(cohort: Cohort, t: int) -> None:
    advance(cohort, t, record=False)


def step(cohort: Cohort, t: int, lr: Tensor, *, record: bool) -> StepRow:
    """Step t on the batch and at the learning rates (M,) at hand; see `advance`."""
    last = t == cohort.runs[0].train.steps
    parameters, gradient, half = cohort.parameters, cohort.way.gradient, cohort.way.half
    losses, table = cohort.way.there_and_back(cohort.task, t, record=record, last=last)
    norm, unsound_gradient = sound_norm64(gradient)
    overflown = None if half is None or last else half.overflown(norm)
    scale = None if half is None else half.scale.clone()
    # What a dynamic loss scale made too large is no divergence: it is left out, and the scale is halved.
    broken = (unsound(parameters), torch.zeros_like(norm) if overflown is not None else unsound_gradient)
    clipped = None
    if not last:
        clipped = clip(gradient, norm, cohort.clipping, cohort.layout)
        if half is not None and overflown is not None:
            half.heed(overflown)
            clipped = replace(clipped, skipped=overflown if clipped.skipped is None else clipped.skipped | overflown)
        if table is None:
            _optimize(cohort, clipped.skipped)
        else:
            measure_clipped(table, cohort.layout, gradient)
            before = combine(parameters, 1.0)
            _optimize(cohort, clipped.skipped)
            measure_update(table, cohort.layout, before, parameters)
    return StepRow(t, losses, lr, norm, clipped, broken, table, scale)


def _optimize(cohort: Cohort, skipped: Tensor | None) -> None:
    """One update, but of those members that have ``skipped`` (M,) it: all of theirs stays as it was.

    Where weights are rounded by chance, single copies of them are updated, and rounded by the chances of this step.
    """
    parameters, made = cohort.parameters, cohort.made
    moving = moved(cohort.runs, parameters)
    counted = cohort.task.done if skipped is None or made is None else made
    before = [] if skipped is None else [tensor.clone() for tensor in (parameters, *cohort.state.values())]
    cohort.optimize(moving, cohort.way.gradient.to(moving.dtype), cohort.state, cohort.rates, counted)
    if moving is not parameters:
        parameters.copy_(rounded(moving, parameters.dtype, chances(cohort.runs, int(cohort.task.done), moving)))
    if skipped is None or made is None:
        return
    stays = skipped.unsqueeze(1)
    for tensor, was in zip((parameters, *cohort.state.values()), before, strict=True):
        tensor.copy_(torch.where(stays, was, tensor))
    made += ~stays


Rehearsed = Mapping[bool, Program[StepRow] | Graph[StepRow] | None]
"""A step but the last, with and without record, written down or captured; None where it must be done as it stands."""


@torch.no_grad()
def rehearse(cohort: Cohort) -> Rehearsed:
    """What every step but the last does, as kernel calls or as a CUDA graph, where that can be; nothing is done yet."""
    if cohort.runs[0].train.steps < LEAST_STEPS or not cohort.way.rehearsable or is_by_chance(cohort.runs):
        return {True: None, False: None}
    cohort.task.turn_to(0)
    first = partial(step, cohort, 0, cohort.pace.turn_to(0))
    if cohort.parameters.is_cuda:
        return capture({record: partial(first, record=record) for record in (True, False)}, cohort.moving)
    threads = min(torch.get_num_threads(), len(cohort.runs))
    # A gradient is clipped and gone at the end of a member's step: one place for all of them stays in the cache.
    passing = [cohort.way.gradient]
    return {record: write_down(partial(first, record=record), threads, passing) for record in (True, False)}


@torch.no_grad()
def perform(cohort: Cohort, t: int, *, record: bool, rehearsed: Rehearsed, members: Members) -> StepRow:
    """`advance`, for ``members`` alone where the step has been rehearsed."""
    program = rehearsed[record]
    if program is None or t == cohort.runs[0].train.steps:
        return advance(cohort, t, record=record)
    cohort.task.turn_to(t)
    lr = cohort.pace.turn_to(t)
    row = program.play(members).taken(t, lr)
    cohort.pace.heed(t, row.loss, lr)
    return row


def replay(cohort: Cohort, journal: Journal, before: Sequence[Tensor], window: range, unseen: set[int]) -> None:
    """Plays ``window`` again from the state ``before`` it, records the steps ``unseen``, and puts the present back."""
    present = [tensor.clone() for tensor in cohort.moving]
    _restore(cohort, before)
    journal.add_unseen([advance(cohort, t, record=t in unseen) for t in window])
    _restore(cohort, present)


def _restore(cohort: Cohort, saved: Sequence[Tensor]) -> None:
    for tensor, value in zip(cohort.moving, saved, strict=True):
        tensor.copy_(value)
