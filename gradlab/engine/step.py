"""One step of a cohort: there and back, the table if it is due, clipping, one update.

Shapes: M members, P parameters a member.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.journal import StepRow
from gradlab.engine.optim.clippers import clip
from gradlab.engine.optim.rates import NOWHERE
from gradlab.engine.precision import chances, moved, rounded
from gradlab.engine.probes import Measurement, measure_clipped, measure_update
from gradlab.nn.float64 import sound_norm64, unsound
from gradlab.nn.products import combine


@torch.no_grad()
def advance(cohort: Cohort, t: int, *, record: bool) -> StepRow:
    """Step t: measure at the weights after t updates, on batch t; then, but for the last row, update once."""
    cohort.task.turn_to(t)
    lr = cohort.pace.turn_to(t)
    row = step(cohort, t, lr, record=record)
    cohort.pace.heed(t, row.loss, lr)
    return row


def step(cohort: Cohort, t: int, lr: Tensor, *, record: bool) -> StepRow:
    """Step t on the batch and at the learning rates (M,) at hand; see `advance`."""
    last = t == cohort.runs[0].train.steps
    parameters, gradient, half = cohort.parameters, cohort.way.gradient, cohort.way.half
    losses, table = cohort.way.there_and_back(cohort.task, t, record=record, last=last)
    layout = cohort.layout if cohort.layout.is_layers else NOWHERE
    known = None if table is None else table.gradients
    norm, unsound_gradient = sound_norm64(gradient, layout.matrices, layout.layers, known)
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
            measure_clipped(table, cohort.layout, gradient, clipped.changed)
            _optimize_heard(cohort, clipped.skipped, table)
    return StepRow(t, losses, lr, norm, clipped, broken, table, scale)


def _optimize_heard(cohort: Cohort, skipped: Tensor | None, table: Measurement) -> None:
    """`_optimize`, whose length is measured: layer by layer where it can be, since a layer stays in the cache."""
    parameters, layout = cohort.parameters, cohort.layout
    if not cohort.by_layers or skipped is not None:
        before = combine(parameters, 1.0)
        _optimize(cohort, skipped)
        measure_update(table, layout, before, parameters)
        return
    for number, span in enumerate(layout.layers):
        own, state = parameters[:, span], {name: buffer[:, span] for name, buffer in cohort.state.items()}
        before = combine(own, 1.0)
        cohort.optimize(own, cohort.way.gradient[:, span], state, cohort.rates, cohort.task.done)
        measure_update(table, layout, before, own, slice(number, number + 1))


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
