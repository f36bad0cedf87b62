"""Where numbers stop being finite: which quantity, and in which layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradlab.diagnose.history import Profile

Places = NDArray[np.bool_]


def broken(profile: Profile, row: int) -> dict[str, Places]:
    """At the recorded step ``row``: which layers' weights, signals and gradients (R,) are not finite, in this order.

    A NaN counts only where there must be a number: `grad_zero` is a share of the entries of a gradient, so it is known
    where a layer has one, whatever that holds.
    """
    columns = {name: column[row] for name, column in profile.columns.items()}
    learns = ~np.isnan(columns["grad_zero"])
    weights, gradient = columns["weight_norm"], columns["weight_grad_norm"]
    return {
        "weights": np.isinf(weights) | (np.isnan(weights) & learns),
        "signal": ~np.isfinite(columns["act_std"]),
        "gradient": np.isinf(gradient) | (np.isnan(gradient) & learns),
    }


def first_break(profile: Profile) -> tuple[int, int] | None:
    """The first recorded step that is broken; the lowest layer whose signal is, else the highest that is."""
    for row, step in enumerate(profile.step.tolist()):
        found = broken(profile, row)
        if any(places.any() for places in found.values()):
            place = np.argmax(found["signal"]) if found["signal"].any() else np.flatnonzero(_any(found))[-1]
            return step, int(profile.layer[place])
    return None


def _any(found: dict[str, Places]) -> Places:
    return np.asarray(np.logical_or.reduce(list(found.values())))
