"""What theory expects of the runs of a result: the dashed lines beside the measured ones."""

from __future__ import annotations

import math

import numpy as np

from gradlab.data.facts import described
from gradlab.report.groups import LATER, describe, swept, varying
from gradlab.report.tables import Bools, Floats, Result
from gradlab.spec.choices import DATA
from gradlab.spec.named import SpecError
from gradlab.spec.plugins import are_known
from gradlab.spec.run import OUTSIDE_DIGEST, RunSpec, build
from gradlab.theory.predict import Prediction, Profile, nothing, predict, profile

WORDS = (
    "Dashed: what mean-field theory expects of wide networks at their initial weights, from the measured {} on (no "
    "line where theory has none). "
)
BAND_WORDS = "The faint band is one standard deviation of a single sample's gradient between draws of the weights. "
UNKNOWN = nothing("a plugin's choice is not asked again, and no course of δ is drawn; the runs table has its rate")
"""Of a run with choices that are not gradlab's own: a report runs no code of others."""

_ANCHORS = {"depth": "layer L-1", "time": "last time step"}


def words(result: Result, axis: str) -> str:
    """The sentences of a caption about the dashed lines along ``axis``, and where they stand for no single rate."""
    return WORDS.format(_ANCHORS[axis]) + _bent_words(result)


def sentences(result: Result) -> list[str]:
    """What theory says of a single run; of a sweep how far the measured rates are from its own."""
    if result.size == 1 and _spec(result, 0) is not None:
        return [f"Theory: {_predicted(result, 0).note}."]
    rate, told = result.number("rate"), result.theory("rate_theory")
    known = np.flatnonzero(np.isfinite(rate) & (told > 0))
    lines = []
    if known.size:
        off = np.abs(rate[known] / told[known] - 1)
        keys = [key for key in swept(result) or varying(result) if not key.startswith(LATER)]
        farthest = int(known[off.argmax()])
        lines.append(
            f"Half of the {known.size} runs for which theory has a rate measure one within {np.median(off):.1%} of it; "
            f"the farthest is {off.max():.1%} off ({describe(result, farthest, keys)}: {rate[farthest]:.3g} beside "
            f"{told[farthest]:.3g})."
        )
    measured = np.flatnonzero(np.isfinite(rate) & np.isnan(result.theory("chi1")) & result.own)
    silent = [one.note for run in measured.tolist() if (one := _predicted(result, run)).rate is None]
    if silent:
        lines.append(f"Theory gives no rate of {len(silent)} of {result.size} runs; of the first: {silent[0]}.")
    bent = _bent_words(result).strip()
    return [*lines, bent] if bent else lines


def _bent(result: Result) -> Bools:
    """The runs (R,) that theory knows, but no single rate of."""
    return np.isfinite(result.theory("chi1")) & np.isnan(result.theory("rate_theory"))


def _bent_words(result: Result) -> str:
    count = int(_bent(result).sum())
    which = "this run" if result.size == 1 else f"{count} of {result.size} runs"
    return f"By theory no single rate describes the layers of {which}. " if count else ""


def expected(result: Result, run: int, axis: str) -> Profile | None:
    """The profile of one run along ``axis``; None where theory has none, or knows nothing of a watched network."""
    spec = _spec(result, run)
    found = None if spec is None else profile(spec)
    return found if found is not None and found.axis == axis else None


def _predicted(result: Result, run: int) -> Prediction:
    spec = _spec(result, run)
    return UNKNOWN if spec is None else predict(spec)


def _spec(result: Result, run: int) -> RunSpec | None:
    """What theory is asked about; None of a run with choices, or data, of the user's own that are not there now.

    Of such a run the tables have what theory said when it ran.
    """
    if not result.own[run] or not are_known({key: result.columns[key][run] for key in result.keys}):
        return None
    own = DATA[str(result.columns["data.name"][run])].own
    left_out = () if own else OUTSIDE_DIGEST
    values = {
        key: result.columns[key][run]
        for key in result.keys
        if key not in left_out and result.columns[key][run] is not None
    }
    if own:
        try:
            return described(values)
        except SpecError:
            return None
    # Without its folder of images a data set has its usual number of samples, and a larger batch would be refused.
    values["data.batch_size"] = min(int(str(values["data.batch_size"])), DATA[str(values["data.name"])].train)
    return build(values)


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
            drawn = ~np.isnan(start[run, place])
            out[run, place[drawn]] = at + found.log[drawn] / math.log(10)
    return out


def band(result: Result, theory: Floats, axis: str) -> tuple[Floats, Floats] | tuple[()]:
    """The edges (X,) of the band around the line ``theory`` (X,) of a single run; nothing where no width is known."""
    found = expected(result, 0, axis)
    if found is None or found.deviation is None or not found.deviation.any():
        return ()
    half = np.full_like(theory, np.nan)
    half[list(found.place)] = found.deviation / math.log(10)
    return theory - half, theory + half
