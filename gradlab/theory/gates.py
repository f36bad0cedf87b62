"""Gated recurrences: how long the state lasts along its own path, and why that is not yet the rate of its gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradlab.spec.run import ModelSpec

SOURCE = "Gers et al. 2000; Tallec & Ollivier 2018, arXiv:1804.11188"

STEPS = 100
"""After which it is said what is left."""


@dataclass(frozen=True)
class Gate:
    """The gate that keeps the state, at its initial bias: of ``model``, and under ``chrono`` with one bias a unit."""

    model: str
    bias: float
    chrono: bool


def gate(model: ModelSpec) -> Gate | None:
    """The gate of an architecture that has one and no more; its inputs are taken to have mean 0."""
    if model.name not in WORDS:
        return None
    return Gate(model.name, 0.0 if model.chrono else model.forget_bias or 0.0, bool(model.chrono))


def kept(bias: float) -> float:
    """What is left of the state after a step along its own path: dc_t/dc_(t-1) = f_t, about sigma(b_f).

    >>> [round(kept(bias), 3) for bias in (0, 1, 2, 5)]
    [0.5, 0.731, 0.881, 0.993]
    """
    return 1 / (1 + math.exp(-bias)) if bias > -700 else 0.0


def time_scale(bias: float) -> float:
    """Steps after which 1/e is left along it: -1/ln sigma(b_f).

    >>> [round(time_scale(bias), 2) for bias in (0, 1, 2)], round(time_scale(5))
    ([1.44, 3.19, 7.88], 149)
    """
    # ln sigma(b) = -ln(1 + e^-b), which for large b is -e^-b, and for very negative ones b.
    return 1 / (math.log1p(math.exp(-bias)) if bias > -700 else -bias)


WORDS = {"lstm": ("c", "σ(b_f)"), "gru": ("h", "σ(b_z)")}
"""What is kept, and the gate that keeps it."""


def note(seen: Gate, steps: int) -> str:
    """In one sentence, what is known at the start of sequences of so many steps, and what is not."""
    state, how = WORDS[seen.model]
    if seen.chrono:
        scales = f"{state} is kept for {time_scale(0):.2f} to about {max(2, steps - 1)} steps, by units evenly"
    else:
        share = kept(seen.bias)
        scales = (
            f"along {state} alone, {how} = {share:.3g} is kept a step, 1/e after {time_scale(seen.bias):.3g}; "
            f"{STEPS} steps leave {share**STEPS:.2g}"
        )
    return f"{seen.model}: {scales}. Paths through the gates add to it: for the gradient's rate, theory here has none"
