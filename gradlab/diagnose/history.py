"""One run as the rules of diagnosis see it: numpy arrays cut out of the tables, NaN where a table has null."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EMPTY: Floats = np.empty(0)


@dataclass(frozen=True)
class Profile:
    """The `layers` table of one run along one axis.

    ``step`` (K,) are the recorded steps, ``layer`` (R,) the layers 1..L or time steps 1..T (the input, layer 0, is left
    out), ``columns`` the probes, (K, R) each. ``modules`` has the layers' names in a network that is not gradlab's.
    ``independent``: whether the layers are known to be independent draws that share nothing, as those of an `mlp` are
    without a norm and without orthogonal matrices; what a rate's error rests on.
    """

    axis: str
    step: Ints
    layer: Ints
    columns: Mapping[str, Floats]
    modules: Mapping[int, str] = field(default_factory=dict)
    independent: bool = False

    @property
    def noun(self) -> str:
        """What a row is."""
        return "layer" if self.axis == "depth" else "time step"

    def place(self, layer: int) -> str:
        """A row in words."""
        return f"{self.noun} {layer}" + (f" ({self.modules[layer]})" if layer in self.modules else "")

    @property
    def deltas(self) -> Floats:
        """‖∂loss/∂z‖ (R,) at the first recorded step."""
        first: Floats = self.columns["signal_grad_norm"][0]
        return first

    @property
    def way(self) -> tuple[Ints, Floats]:
        """The layers on the gradient's way back at the first recorded step, and their `deltas`.

        Off it are layers that have none (frozen, with nothing to learn before them: NaN), and side branches, whose δ is
        zero although one nearer the input is not: on one way, what is zero once stays so.
        """
        deltas = self.deltas
        known = ~np.isnan(deltas) & ~((deltas == 0) & np.logical_or.accumulate(deltas > 0))
        return self.layer[known], deltas[known]


@dataclass(frozen=True)
class History:
    """What the tables say of one run.

    ``loss``, ``grad_norm``, ``grad_norm_clipped`` and ``clipped`` (0 or 1) are (S,), row t at step t; empty where only
    a network at its present weights was measured. ``along`` holds the profile along depth and, of a recurrent network,
    along time. ``guess``: the loss of one answer to every input, None where it is not known.
    """

    along: tuple[Profile, ...]
    state: str = "finished"
    precision: str = "float32"
    clip_mode: str = "none"
    guess: float | None = None
    diverged_at: int | None = None
    diverged_layer: int | None = None
    loss: Floats = field(default_factory=lambda: EMPTY)
    grad_norm: Floats = field(default_factory=lambda: EMPTY)
    grad_norm_clipped: Floats = field(default_factory=lambda: EMPTY)
    clipped: Floats = field(default_factory=lambda: EMPTY)

    def sound(self, profile: Profile) -> list[int]:
        """Which recorded steps to judge a state by: the first and the last, but not that at which the run diverged."""
        kept = np.flatnonzero(profile.step != self.diverged_at) if self.diverged_at is not None else None
        places = range(len(profile.step)) if kept is None else kept.tolist()
        return sorted({places[0], places[-1]}) if len(places) else []
