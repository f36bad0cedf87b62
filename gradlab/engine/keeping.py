"""A training that is kept while it goes on: all that it is between two steps, as arrays, and back.

Shapes: M members; what is kept of each tensor has the member axis first.
"""

from __future__ import annotations

import torch

from gradlab.engine.cohort import Cohort
from gradlab.engine.journal import Journal
from gradlab.engine.keeper import plain
from gradlab.store.arrays import STATE, Kept
from gradlab.store.columns import KEPT_OF_STEPS


def packed(cohort: Cohort, journal: Journal, step: int, seconds: float) -> Kept:
    """What there is before ``step``, ``seconds`` from the beginning; on a CPU the arrays are the tensors themselves."""
    journal.see(cohort.way.seen)
    facts, arrays = journal.packed()
    slots = [[slot.label, list(slot.shape)] for slot in cohort.layout.slots]
    state = {f"{STATE}{name}": plain(tensor).cpu().numpy() for name, tensor in cohort.remembered.items()}
    before = cohort.way.before or Kept({}, {})
    told = {**before.facts, **facts, "step": step, "seconds": seconds, "slots": slots}
    return Kept(told, {**before.arrays, **state, **arrays})


@torch.no_grad()
def unpacked(kept: Kept | None, cohort: Cohort, journal: Journal) -> tuple[int, float]:
    """Puts a cohort that is at its initial weights, and its empty journal, to where ``kept`` was taken.

    Gives its step and seconds; 0 of each, with nothing touched, where nothing was kept, or of other tensors or columns.
    Of a pre-training, which is at step 0, there are the seconds alone.
    """
    if kept is None:
        return 0, 0.0
    if "step" not in kept.facts:
        return 0, float(kept.facts["seconds"])
    state = {name.removeprefix(STATE): array for name, array in kept.arrays.items() if name.startswith(STATE)}
    found = {name: (array.shape, torch.from_numpy(array[:0].copy()).dtype) for name, array in state.items()}
    here = {name: (tuple(tensor.shape), plain(tensor).dtype) for name, tensor in cohort.remembered.items()}
    if found != here or kept.facts["columns"] != [*KEPT_OF_STEPS, *cohort.way.columns]:
        return 0, 0.0
    for name, tensor in cohort.remembered.items():
        tensor.copy_(torch.from_numpy(state[name].copy()))
    journal.unpack(kept)
    return int(kept.facts["step"]), float(kept.facts["seconds"])
