"""A training that is kept while it goes on: all that it is between two steps, as arrays, and back.

Shapes: M members; what is kept of each tensor has the member axis first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.journal import Journal
from gradlab.store.arrays import STATE, Kept
from gradlab.store.record import KEPT_OF_STEPS


@dataclass(frozen=True)
class Keeper:
    """Who keeps a training; by default nobody does.

    ``load`` gives what was kept, if anything was; ``wanted(t)`` is asked after step t whether to ``save`` what there is
    then; ``finish`` is given what there is at the end, unless it is None.
    """

    load: Callable[[], Kept | None] = lambda: None
    wanted: Callable[[int], bool] = lambda _t: False
    save: Callable[[Kept], None] = lambda _kept: None
    finish: Callable[[Kept], None] | None = None


NOBODY = Keeper()


def packed(cohort: Cohort, journal: Journal, step: int, seconds: float) -> Kept:
    """What there is before ``step``, ``seconds`` from the beginning; on a CPU the arrays are the tensors themselves."""
    journal.see(cohort.way.seen)
    facts, arrays = journal.packed()
    slots = [[slot.label, list(slot.shape)] for slot in cohort.layout.slots]
    state = {f"{STATE}{name}": _plain(tensor).cpu().numpy() for name, tensor in cohort.remembered.items()}
    return Kept({**facts, "step": step, "seconds": seconds, "slots": slots}, {**state, **arrays})


def _plain(tensor: Tensor) -> Tensor:
    """As numpy can hold it, which has no bfloat16: what is rounded to that is a single number, too."""
    return tensor.float() if tensor.dtype is torch.bfloat16 else tensor


@torch.no_grad()
def unpacked(kept: Kept | None, cohort: Cohort, journal: Journal) -> tuple[int, float]:
    """Puts a cohort that is at its initial weights, and its empty journal, to where ``kept`` was taken.

    Gives its step and seconds; 0 of each, with nothing touched, where nothing was kept, or of other tensors or columns.
    """
    if kept is None:
        return 0, 0.0
    state = {name.removeprefix(STATE): array for name, array in kept.arrays.items() if name.startswith(STATE)}
    found = {name: (array.shape, torch.from_numpy(array[:0].copy()).dtype) for name, array in state.items()}
    here = {name: (tuple(tensor.shape), _plain(tensor).dtype) for name, tensor in cohort.remembered.items()}
    if found != here or kept.facts["columns"] != [*KEPT_OF_STEPS, *cohort.way.columns]:
        return 0, 0.0
    for name, tensor in cohort.remembered.items():
        tensor.copy_(torch.from_numpy(state[name].copy()))
    journal.unpack(kept)
    return int(kept.facts["step"]), float(kept.facts["seconds"])
