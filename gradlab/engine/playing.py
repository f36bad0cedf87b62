"""Many steps in a row: since every step does the same to the same memory, it is rehearsed once and then played.

On a processor it is played from what was written down, many steps of one member and then of the next; on a GPU as it
was captured, or, where that is asked for, as on a processor, all members at once. Where none of that can be, it is done
as it stands. Shapes: M members.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.journal import Rows, StepRow, of_step, of_steps, without_update
from gradlab.engine.launches import Captured, captured, launch
from gradlab.engine.precision import FORMATS, is_by_chance
from gradlab.engine.step import advance, step
from gradlab.nn.kernels import blocks
from gradlab.nn.kernels.calls import Members
from gradlab.nn.kernels.program import Program, Turning, play_steps, write_down

WINDOW = 50
"""Steps between two transfers to the host."""

LEAST_STEPS = 10
"""Of a training that is worth a rehearsal."""

Rehearsed = Mapping[bool, Program[StepRow] | Captured | None]
"""A step but the last, with and without record, written down or captured; None where it must be done as it stands."""


@torch.no_grad()
def rehearse(cohort: Cohort) -> Rehearsed:
    """What every step but the last does, as kernel calls or as a CUDA graph, where that can be; nothing is done yet."""
    how = cohort.runs[0].train
    if how.steps < LEAST_STEPS or not cohort.way.rehearsable or is_by_chance(cohort.runs):
        return {True: None, False: None}
    player, places = None if FORMATS[how.precision].rounds else blocks.player(cohort.parameters), min(WINDOW, how.steps)
    if cohort.parameters.is_cuda and player is None:
        return captured(cohort, places)
    cohort.task.turn_to(0)
    first = partial(step, cohort, 0, cohort.pace.turn_to(0))
    threads = min(torch.get_num_threads(), len(cohort.runs)) if player is None else 1
    # A gradient is clipped and gone at the end of a member's step: one place for all of them stays in the cache.
    passing, turning = [cohort.way.gradient], [Turning(*pair) for pair in (*cohort.task.turning, *cohort.pace.turning)]
    figures = attrgetter("figures")
    written = {
        record: write_down(partial(first, record=record), threads, passing, turning, figures, places, player)
        for record in (True, False)
    }
    return written if player is None or None not in written.values() else captured(cohort, places)


@torch.no_grad()
def perform(cohort: Cohort, span: range, due: Container[int], rehearsed: Rehearsed, members: Members) -> list[Rows]:
    """`advance` for each step of a ``span``, `WINDOW` at most, for ``members`` alone where steps were rehearsed."""
    rows, last = list[Rows](), cohort.runs[0].train.steps

    def how(t: int) -> Callable[[Cohort, list[int], Container[int], Rehearsed, Members], Rows]:
        found = rehearsed[t in due]
        if isinstance(found, Program):
            return _play_last if t == last else _play
        return _perform if found is None or t == last else _launch

    for way, steps in groupby(span, how):
        # A plateau looks at the loss of a step before the next: what is captured does so itself.
        several = way is _launch or (way is _play and cohort.pace.plateau is None)
        for part in [list(steps)] if several else [[t] for t in steps]:
            rows.append(way(cohort, part, due, rehearsed, members))
    return rows


def _play(cohort: Cohort, steps: list[int], due: Container[int], rehearsed: Rehearsed, members: Members) -> Rows:
    """Neighbouring ``steps`` that are written down, all of them for one member after the other."""
    lr = cohort.pace.turn_through(range(steps[0], steps[-1] + 1))
    written = {record: found for record, found in rehearsed.items() if isinstance(found, Program)}
    recorded = np.array([t in due for t in steps])
    either = next(iter(written.values()))
    play_steps((written.get(False, either), written.get(True, either)), recorded, steps[0], members)
    cohort.task.turn_to(steps[-1])
    figures = {record: (found.result, found.slots) for record, found in written.items()}
    rows = of_steps(range(steps[0], steps[-1] + 1), lr, recorded, figures)
    cohort.pace.heed(steps[-1], rows.values[0, -1], lr[-1])
    return rows


def _play_last(cohort: Cohort, steps: list[int], due: Container[int], rehearsed: Rehearsed, members: Members) -> Rows:
    """The last step as one that was written down, whose update is taken back: to write it down would take longer."""
    present = [tensor.clone() for tensor in cohort.moving]
    rows = _play(cohort, steps, due, rehearsed, members)
    restore(cohort, present)
    return without_update(rows)


def _launch(cohort: Cohort, steps: list[int], due: Container[int], rehearsed: Rehearsed, members: Members) -> Rows:
    """Neighbouring ``steps`` that are captured, for all members: a GPU gains nothing from leaving some out."""
    del cohort, members
    return launch(steps, due, {record: found for record, found in rehearsed.items() if isinstance(found, Captured)})


def _perform(cohort: Cohort, steps: list[int], due: Container[int], rehearsed: Rehearsed, members: Members) -> Rows:
    """One of ``steps`` as it stands, for all members."""
    del rehearsed, members
    (t,) = steps
    return of_step(advance(cohort, t, record=t in due))


def restore(cohort: Cohort, saved: Sequence[Tensor]) -> None:
    """Puts all that a step changes back to what was ``saved`` of it."""
    for tensor, value in zip(cohort.moving, saved, strict=True):
        tensor.copy_(value)
