"""What theory expects of the runs of a result: the dashed lines beside the measured ones."""

from __future__ import annotations

import math

import numpy as np

from gradlab.choices import DATA
from gradlab.report.tables import Floats, Result
from gradlab.spec import OUTSIDE_DIGEST, build
from gradlab.theory.predict import Profile, profile

WORDS = (
    "Dashed: what mean-field theory expects of wide networks at their initial weights, from the measured {} on (no "
    "line where theory has none). "
)
BAND_WORDS = "The faint band is one standard deviation of a single sample's gradient between draws of the weights. "
_ANCHORS = {"depth": "layer L-1", "time": "last time step"}


def words(axis: str) -> str:
    """The sentence of a caption about the dashed lines along ``axis``."""
    return WORDS.format(_ANCHORS[axis])


def expected(result: Result, run: int, axis: str) -> Profile | None:
    """The profile of one run along ``axis``; None where theory has none."""
    values = {
        key: result.columns[key][run]
        for key in result.keys
        if key not in OUTSIDE_DIGEST and result.columns[key][run] is not None
    }
    # Without its folder of images a data set has its usual number of samples, and a larger batch would be refused.
    values["data.batch_size"] = min(int(str(values["data.batch_size"])), DATA[str(values["data.name"])].train)
    found = profile(build(values))
    return found if found is not None and found.axis == axis else None


def foretold(result: Result, start: Floats, axis: str) -> Floats:
    """Expected log10 of delta, as ``start`` (R, X) the measured one at step 0, equal to it at the last hidden place.

    NaN where theory has nothing, and where that place was not measured or is not finite.
    """
    out = np.full_like(start, np.nan)
    for run in range(result.size):
        if (found := expected(result, run, axis)) is None:
            continue
        place = np.array(found.place)
        if np.isfinite(at := start[run, place[found.anchor]]):
            drawn = place[~np.isnan(start[run, place])]
            out[run, drawn] = at + found.log[drawn - place[0]] / math.log(10)
    return out


def band(result: Result, theory: Floats, axis: str) -> tuple[Floats, Floats] | tuple[()]:
    """The edges (X,) of the band around the line ``theory`` (X,) of a single run; nothing where no width is known."""
    found = expected(result, 0, axis)
    if found is None or found.deviation is None or not found.deviation.any():
        return ()
    half = np.full_like(theory, np.nan)
    half[list(found.place)] = found.deviation / math.log(10)
    return theory - half, theory + half
