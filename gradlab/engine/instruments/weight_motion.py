"""Which weights training has not moved: where an update is less than half a step of the number format, it is lost."""

from __future__ import annotations

import torch

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Read


def weight_motion(cohort: Cohort, _: Advance) -> Read:
    """Gives ``unmoved`` by layer l = 1..L: the share of its matrix's entries that have the value they began with.

    At step 0 it is 1; a layer whose matrix is not trained has none. Of numbers of 8 digits an update below 2^-9 of a
    weight leaves it where it is (Zamirai et al. 2020, arXiv:2010.06192, section 3).
    """
    first = cohort.parameters.clone()
    matrices = {layer: columns for layer, columns in enumerate(cohort.layout.matrices, 1) if columns != slice(0, 0)}

    def read(_t: int) -> tuple[Curve, ...]:
        same = cohort.parameters == first
        shares = [same[:, columns].mean(1, dtype=torch.float64) for columns in matrices.values()]
        return (Curve("unmoved", tuple(matrices), torch.stack(shares, 1)),)

    return read
