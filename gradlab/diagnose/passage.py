"""How δ changes on its way to the input: the ratio of its ends, the rate between them, and where it breaks."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradlab.diagnose.history import Floats, History, Ints, Profile
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.slope import Fit, fit, vanishing_ratio
from gradlab.diagnose.thresholds import Limits

SIDES = {"vanishing": -1, "exploding": 1}
"""The sign of ln(ratio) in each verdict."""

MAD_TO_DEVIATION = 1.4826
"""The standard deviation of a normal distribution over the median of the absolute deviations from its median."""


@dataclass(frozen=True)
class Break:
    """An increment far outside the others: between ``layer`` and the one before it δ changes by ``factor`` at once."""

    layer: int
    factor: float


@dataclass(frozen=True)
class Passage:
    """δ along one axis.

    ``layers`` (R,) are those on its way, ``ratio`` compares the one nearest to the input with ``far``, ``fit`` is the
    rate (None where a δ is zero, or there are too few). ``zero_up_to``: the last of the layers at the input's end whose
    δ is exactly zero. ``plain_ratio`` is the ratio of Frobenius norms where ``ratio`` is one of root mean squares: over
    layers of different size neither is fair to both, and a verdict asks both. ``walk`` is the standard deviation of
    ln(ratio) of a walk without drift whose increments scatter as these do, but for the break. ``grown`` is the ratio
    without what is lost where learned gains start small on purpose; nan where none does.
    """

    profile: Profile
    layers: Ints
    ratio: float
    plain_ratio: float
    far: int
    fit: Fit | None
    zero_up_to: int | None
    walk: float
    broken: Break | None
    grown: float = math.nan

    def layer(self, place: int) -> int:
        """The layer at a place of the fit, which counts the layers on the way from 1."""
        return int(self.layers[place - 1])

    def beyond(self, name: str, limit: float) -> bool:
        """Whether the ratio has crossed the limit of ``vanishing`` or ``exploding``."""
        ratios = (self.ratio, self.plain_ratio)
        return max(ratios) < limit if name == "vanishing" else min(ratios) > limit

    def doubtful(self, name: str, limits: Limits) -> bool:
        """Whether the scatter of one draw could have brought the ratio about.

        It could where the rate is not certainly on its side of 1, and a walk of that spread reaches as far. Nothing is
        doubtful about an exact zero on the way, nor about a break; with two points there is no scatter, and the ratio
        decides.
        """
        if self.fit is None or self.broken is not None or not 0 < self.ratio < math.inf:
            return False
        side, doubt = SIDES[name], self.fit.scatter / self.fit.rate if math.isfinite(self.fit.scatter) else 0.0
        reached = abs(math.log(self.ratio)) <= limits["errors"] * self.walk
        return side * math.log(self.fit.rate) <= limits["errors"] * doubt and reached

    @property
    def told(self) -> str:
        """The ratio of the ends in words."""
        near, far = self.profile.place(int(self.layers[0])), self.profile.place(self.far)
        words = f"δ of {near} is {figure(self.ratio)} of that of {far}"
        if self.zero_up_to is not None:
            words += f", exactly zero up to {self.profile.place(self.zero_up_to)}"
        if self.broken is not None:
            place = self.profile.place(self.broken.layer)
            words += f", with a break at {place}: {figure(self.broken.factor)} times at once on the way through it"
        return words


def passage_of(history: History, profile: Profile, limits: Limits, row: int = 0) -> Passage | None:
    """`passage` of one of a run's profiles; most rules and what is told of a run ask for the same one."""
    key = (profile.axis, row, limits["break_factor"], limits["break_errors"])
    if key not in history.remembered:
        history.remembered[key] = passage(profile, limits, row)
    found: Passage | None = history.remembered[key]
    return found


def passage(profile: Profile, limits: Limits | None = None, row: int = 0) -> Passage | None:
    """How δ changes along ``profile`` at a recorded step, the first; None where there are no two ends to compare.

    The ends are layers 1 and L-1, time steps 1 and T, as in `vanishing_ratio`. Where both are zero the output layer is
    the other end: it then alone has a gradient. The rate has an error only where the layers are independent draws.
    """
    profile = profile.trunk or profile
    layers, deltas, plain = profile.way(row)
    ends = _ends(layers, deltas, plain, profile.axis)
    if ends is None:
        return None
    ratio, plain_ratio, far = ends
    zeros = int(np.argmax(deltas > 0)) if deltas[0] == 0 else 0
    fitted = fit(deltas, profile.axis)
    small = np.isfinite(profile.column("gain", row)[np.isin(profile.layer, layers)][:-1])
    walk, broken = _increments(layers, deltas, plain, limits, small)
    return Passage(
        profile=profile,
        layers=layers,
        ratio=ratio,
        plain_ratio=plain_ratio,
        far=far,
        fit=fitted if fitted is None or profile.independent else replace(fitted, error=math.nan),
        zero_up_to=int(layers[zeros - 1]) if zeros else None,
        walk=walk,
        broken=broken,
        grown=_grown(deltas, ratio, small),
    )


def _grown(deltas: Floats, ratio: float, small: NDArray[np.bool_]) -> float:
    """The ratio as it is when the ``small`` steps (R - 1,) of δ lose nothing any more."""
    if not small.any() or not np.all(np.isfinite(deltas) & (deltas > 0)):
        return math.nan
    lost = np.minimum(-np.diff(np.log(deltas)), 0.0)
    return ratio * math.exp(-float(lost[:-1][small[:-1]].sum()))


def _increments(
    layers: Ints, deltas: Floats, plain: Floats, limits: Limits | None, small: NDArray[np.bool_]
) -> tuple[float, Break | None]:
    """How far a walk of these increments of ln δ gets, and the largest of them where it is none of theirs.

    The spread of the others is estimated by medians, which one break does not move; and a factor that two branches may
    differ by is none, however alike the others are. Nor is one that only the number of entries makes: a mean over a map
    spreads the same gradient over many.
    """
    if len(deltas) < 3 or not np.all(np.isfinite(deltas) & (deltas > 0)):
        return 0.0, None
    steps, others = -np.diff(np.log(deltas)), -np.diff(np.log(plain))
    away, elsewhere = np.abs(steps - _middle(steps)), np.abs(others - _middle(others))
    spread = MAD_TO_DEVIATION * _middle(away)
    far = np.where((steps * others > 0) & ~(small & (steps < 0)), np.minimum(away, elsewhere), 0.0)
    worst = int(far.argmax())
    kept, found = steps, None
    if limits is not None and far[worst] > max(
        limits["break_errors"] * spread, math.log(max(1.0, limits["break_factor"]))
    ):
        # From layer k+1 back to layer k the gradient passes the weights of layer k+1.
        found = Break(int(layers[worst + 1]), math.exp(steps[worst]))
        kept = np.delete(steps, worst)
    return math.sqrt(float(kept @ kept)), found


def _middle(values: Floats) -> float:
    """The median; of so few numbers many times faster than numpy's."""
    return float(statistics.median(values.tolist()))


def _ends(layers: Ints, deltas: Floats, plain: Floats, axis: str) -> tuple[float, float, int] | None:
    """The ratio, that of the plain norms, and the layer that the first one is compared with."""
    ratio, other = vanishing_ratio(deltas, axis), vanishing_ratio(plain, axis)
    if ratio is None or other is None:
        return None
    if not math.isnan(ratio):
        return ratio, other, int(layers[-2 if axis == "depth" else -1])
    if len(deltas) > 2 and 0 < deltas[-1] < math.inf:
        return float(deltas[0] / deltas[-1]), float(plain[0] / plain[-1]), int(layers[-1])
    return None


def rate_figure(found: Fit) -> str:
    """A rate with its standard error, where it has one: both to the same digit, or the first one of a smaller error."""
    if not (math.isfinite(found.error) and 0 < found.rate < math.inf):
        return figure(found.rate)
    last = math.floor(math.log10(found.rate)) - 2
    return f"{figure(found.rate)} ± {figure(found.error, max(1, math.floor(math.log10(found.error or 1)) - last + 1))}"
