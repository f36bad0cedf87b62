"""The final loss of a run: one definition for tables, rankings, figures, cures and verdicts."""

from __future__ import annotations

import math

from gradlab.diagnose.history import Floats

SHARE = 10
"""The final loss is the mean over the last tenth of the steps: that of a single batch is too noisy to compare."""

LEAST = 5
"""And over so many steps at the least, where there are so many."""

WORDS = "the final loss is the mean over the last tenth of the steps, at least 5"
"""What it is, for a reader."""


def final_loss(loss: Floats) -> float:
    """The mean of the losses (S,) over the last tenth of the steps, row t at step t; nan where no step was made.

    Row 0 is the loss at the initial weights, which no training has brought about: it is never among them.

    >>> import numpy as np
    >>> final_loss(np.arange(101.0)), final_loss(np.array([9.0, 3.0, 1.0])), final_loss(np.array([9.0]))
    (95.5, 2.0, nan)
    """
    steps = len(loss) - 1
    return float(loss[1:][-max(LEAST, steps // SHARE) :].mean()) if steps > 0 else math.nan
