"""Who has diverged, and where: at the first step at which the loss, a gradient or a parameter is not finite.

Shapes: M members, S steps, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradlab.store.record import Bools, Floats


def notice(ended: NDArray[np.int64], steps: Sequence[int], *, loss: Floats, broken: Floats) -> None:
    """Enters into ``ended`` (M,), which is -1 for members that go on, the step at which each has diverged.

    ``loss`` (S, M); ``broken`` (S, M) is zero where the parameters and their gradient are finite.
    """
    for t, sound in zip(steps, np.isfinite(loss) & (broken == 0), strict=True):
        ended[(ended < 0) & ~sound] = t


def layer_of(finite: Bools, gradients: Floats) -> int:
    """The lowest layer whose z_l is not ``finite`` (L,), else the highest whose gradient norm (L,) is not; -1 if none.

    >>> layer_of(np.array([True, True]), np.array([np.nan, 1.0]))
    1
    """
    if len(broken := np.flatnonzero(~finite)):
        return int(broken[0]) + 1
    return int(broken[-1]) + 1 if len(broken := np.flatnonzero(~np.isfinite(gradients))) else -1
