"""How δ changes on its way to the input: the ratio of its ends, and the rate between them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gradlab.diagnose.history import Floats, Ints, Profile
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.slope import Fit, fit, vanishing_ratio
from gradlab.diagnose.thresholds import Limits


@dataclass(frozen=True)
class Passage:
    """δ along one axis.

    ``layers`` (R,) are those on its way, ``ratio`` compares the one nearest to the input with ``far``, ``fit`` is the
    rate (None where a δ is zero, or there are too few). ``zero_up_to``: the last of the layers at the input's end whose
    δ is exactly zero.
    """

    profile: Profile
    layers: Ints
    ratio: float
    far: int
    fit: Fit | None
    zero_up_to: int | None

    def layer(self, place: int) -> int:
        """The layer at a place of the fit, which counts the layers on the way from 1."""
        return int(self.layers[place - 1])

    def beyond(self, name: str, limits: Limits) -> bool:
        """Whether the ratio has crossed the threshold of ``vanishing`` or ``exploding``."""
        limit = limits[f"{name}_ratio"]
        return self.ratio < limit if name == "vanishing" else self.ratio > limit

    def doubtful(self, name: str, limits: Limits) -> bool:
        """Whether the fitted rate is not on its side of 1, below for ``vanishing``, by more than its scatter allows.

        The scatter is of ln rate, which is what was fitted, and the least that draws differ by; with two points there
        is none, and the ratio decides.
        """
        if self.fit is None:
            return False
        distance = math.log(self.fit.rate) * (1 if name == "exploding" else -1)
        doubt = self.fit.scatter / self.fit.rate if math.isfinite(self.fit.scatter) else 0.0
        return distance <= limits["errors"] * doubt

    @property
    def told(self) -> str:
        """The ratio of the ends in words."""
        near, far = self.profile.place(int(self.layers[0])), self.profile.place(self.far)
        words = f"δ of {near} is {figure(self.ratio)} of that of {far}"
        zero = "" if self.zero_up_to is None else f", exactly zero up to {self.profile.place(self.zero_up_to)}"
        return words + zero


def passage(profile: Profile) -> Passage | None:
    """How δ changes along ``profile`` at the first recorded step; None where there are no two ends to compare.

    The ends are layers 1 and L-1, time steps 1 and T, as in `vanishing_ratio`. Where both are zero the output layer is
    the other end: it then alone has a gradient. The rate has an error only where the layers are independent draws.
    """
    layers, deltas = profile.way
    ends = _ends(layers, deltas, profile.axis)
    if ends is None:
        return None
    zeros = int(np.argmax(deltas > 0)) if deltas[0] == 0 else 0
    fitted = fit(deltas, profile.axis)
    return Passage(
        profile=profile,
        layers=layers,
        ratio=ends[0],
        far=ends[1],
        fit=fitted if fitted is None or profile.independent else replace(fitted, error=math.nan),
        zero_up_to=int(layers[zeros - 1]) if zeros else None,
    )


def _ends(layers: Ints, deltas: Floats, axis: str) -> tuple[float, int] | None:
    """The ratio, and the layer that the first one is compared with."""
    ratio = vanishing_ratio(deltas, axis)
    if ratio is None:
        return None
    if not math.isnan(ratio):
        return ratio, int(layers[-2 if axis == "depth" else -1])
    if len(deltas) > 2 and 0 < deltas[-1] < math.inf:
        return float(deltas[0] / deltas[-1]), int(layers[-1])
    return None


def rate_figure(found: Fit) -> str:
    """A rate with its standard error, where it has one."""
    return figure(found.rate) + (f" ± {figure(found.error, 1)}" if math.isfinite(found.error) else "")
