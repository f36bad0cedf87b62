"""One run as the rules of diagnosis see it: numpy arrays cut out of the tables, NaN where a table has null."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EMPTY: Floats = np.empty(0)

ADAPTIVE = frozenset(
    {"adam", "adamw", "nadam", "radam", "adamax", "rmsprop", "adagrad", "adadelta", "lion", "lamb", "muon"}
)
"""Optimizers that divide by the gradient's size: what its scale is does not decide how far they go."""

UNTOLD = 5
"""Steps that rectified Adam begins with as momentum, as in torch, until so many squares tell a scale (beta2 >= 0.9)."""

GATED = frozenset({"lstm", "gru", "seq2seq"})
"""Architectures whose gates decide what is kept from one time step to the next."""


@dataclass(frozen=True)
class Profile:
    """The `layers` table of one run along one axis.

    ``step`` (K,) are the recorded steps, ``layer`` (R,) the layers 1..L or time steps 1..T (the input, layer 0, is left
    out), ``columns`` the probes, (K, R) each. ``modules`` has the layers' names in a network that is not gradlab's.
    ``independent``: whether the layers are known to be independent draws that share nothing, as those of an `mlp` are
    without a norm and without orthogonal matrices; what a rate's error rests on. ``trunk`` holds the layers that every
    path from the loss to the first one passes, where others do not: δ is judged on it; ``by_block``: so they are, of
    residual blocks, and a rate is that of a block. ``reads``: whether the loss
    reads every time step, so that δ of the last is but one step's.
    """

    axis: str
    step: Ints
    layer: Ints
    columns: Mapping[str, Floats]
    modules: Mapping[int, str] = field(default_factory=dict)
    independent: bool = False
    trunk: Profile | None = None
    reads: bool = False
    by_block: bool = False

    @property
    def noun(self) -> str:
        """What a row is."""
        return "layer" if self.axis == "depth" else "time step"

    @property
    def pace(self) -> str:
        """From one row to the next."""
        return "block" if self.by_block else self.noun

    def place(self, layer: int) -> str:
        """A row in words."""
        return f"{self.noun} {layer}" + (f" ({self.modules[layer]})" if layer in self.modules else "")

    def column(self, name: str, row: int) -> Floats:
        """A probe (R,) at a recorded step; NaN where there is none of it."""
        if name not in self.columns:
            return np.full(len(self.layer), np.nan)
        found: Floats = self.columns[name][row]
        return found

    @property
    def deltas(self) -> Floats:
        """‖∂loss/∂z‖ (R,) at the first recorded step."""
        return self.column("signal_grad_norm", 0)

    def way(self, row: int = 0) -> tuple[Ints, Floats, Floats]:
        """The layers on the gradient's way back at a recorded step, their `deltas`, and the same as Frobenius norms.

        Off it are layers that have none (frozen, with nothing to learn before them: NaN), and side branches, whose δ is
        zero although one nearer the input is not: on one way, what is zero once stays so.
        """
        deltas = self.column("signal_grad_norm", row)
        known = ~np.isnan(deltas) & ~((deltas == 0) & np.logical_or.accumulate(deltas > 0))
        plain = self.column("frobenius", row) if "frobenius" in self.columns else deltas
        return self.layer[known], deltas[known], plain[known]


@dataclass(frozen=True)
class Answers:
    """What a trained run answered to ``samples`` that it has not seen, each of one of ``classes`` that are as frequent.

    ``loss`` is the mean, ``right`` the share that is.
    """

    loss: float
    right: float
    samples: int
    classes: int


@dataclass(frozen=True)
class History:
    """What the tables say of one run.

    ``loss``, ``lr``, ``grad_norm``, ``grad_norm_clipped``, ``clipped`` (0 or 1) and ``loss_scale`` are (S,), row t at
    step t;
    empty where only a network at its present weights was measured. ``along`` holds the profile along depth and, of a
    recurrent network, along time. ``guess``: the loss of one answer to every input, None where it is not known;
    ``open_ended``: the input does not tell the answer, so that no loss comes near zero. ``spec`` has what is known of
    how it was made and trained, by the names of the keys; ``facts`` what was seen of a batch, an output and a loss that
    are not gradlab's, ``activations`` the (positions, of which judged) of each kind there. ``measured``: whether it is
    the pass through a network of somebody else's. ``answers`` are those to samples held out, where classes are equally
    frequent. ``remembered`` is what several rules ask for, worked out once.
    """

    along: tuple[Profile, ...]
    state: str = "finished"
    precision: str = "float32"
    clip_mode: str = "none"
    guess: float | None = None
    open_ended: bool = False
    diverged_at: int | None = None
    diverged_layer: int | None = None
    loss: Floats = field(default_factory=lambda: EMPTY)
    lr: Floats = field(default_factory=lambda: EMPTY)
    grad_norm: Floats = field(default_factory=lambda: EMPTY)
    grad_norm_clipped: Floats = field(default_factory=lambda: EMPTY)
    clipped: Floats = field(default_factory=lambda: EMPTY)
    loss_scale: Floats = field(default_factory=lambda: EMPTY)
    spec: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    answers: Answers | None = None
    activations: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    measured: bool = False
    remembered: dict[Any, Any] = field(init=False, default_factory=dict, repr=False, compare=False)

    def sound(self, profile: Profile) -> list[int]:
        """Which recorded steps to judge a state by: the first and the last, but not that at which the run diverged."""
        kept = np.flatnonzero(profile.step != self.diverged_at) if self.diverged_at is not None else None
        places = range(len(profile.step)) if kept is None else kept.tolist()
        return sorted({places[0], places[-1]}) if len(places) else []

    @property
    def depth(self) -> Profile | None:
        """The profile along depth."""
        return next((one for one in self.along if one.axis == "depth"), None)

    @property
    def from_start(self) -> bool:
        """Whether layers were recorded at the start and again later: of one pass alone it is not known what was."""
        return not self.measured or (self.depth is not None and len(self.depth.step) > 1)

    @property
    def trained(self) -> bool:
        """Whether updates were made, so that there is a course to judge and not a profile alone."""
        return len(self.loss) > 1

    @property
    def adaptive(self) -> bool:
        """Whether the gradient's scale may not matter: an adaptive optimizer, or one that is not known.

        Rectified Adam is momentum until it can tell that scale: a training that ends before is plain descent.
        """
        name = self.spec.get("optim.name")
        if name == "radam" and self.trained:
            return len(self.loss) - 1 > UNTOLD
        return name in ADAPTIVE if name is not None else self.measured

    @property
    def gated(self) -> bool:
        """Whether gates decide what time steps keep."""
        return bool(self.facts.get("gated")) or self.spec.get("model.name") in GATED
